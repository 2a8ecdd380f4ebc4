//! From inside: everything that a confined child could try.

use std::ffi::CStr;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::ptr;
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use sampler::isolation::{Child, Limits, Parent, Service};
use serde::{Deserialize, Serialize};

use crate::tool::{Outcome, fail, trial};

pub fn trials() -> Vec<Trial> {
    vec![
        trial("a_confined_child_is_refused_everything", everything),
        trial("a_confined_child_reads_what_it_was_handed", handed_over),
        trial("a_confined_child_has_no_rights_left", no_rights),
    ]
}

pub const LIMITS: Limits = Limits {
    data_bytes: 256 << 20,
    stack_bytes: 8 << 20,
};

pub fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

/// Does as it is told by the worst of parents.
pub const SERVICE: Service = Service {
    name: "attempts",
    run: |parent| while serve(&parent).is_some() {},
};

#[derive(Serialize, Deserialize)]
enum Order {
    /// Try all that is forbidden, against this process among others.
    Attempt { victim: i32 },
    /// Read the file that comes with this, by its path and mapped.
    Read,
}

/// What was tried, and the result: an error number, negative, if it failed.
type Tried = Vec<(String, i64)>;

fn serve(parent: &Parent) -> Option<()> {
    let (order, file) = parent.receive().ok()?;
    match (order, file) {
        (Order::Attempt { victim }, _) => parent.send(&attempt_all(victim)).ok(),
        (Order::Read, Some(file)) => {
            let mut texts = Vec::new();
            let mut text = String::new();
            let path = format!("/proc/self/fd/{}", file.as_raw_fd());
            // Twice: each time from the start.
            for _ in 0..2 {
                text.clear();
                File::open(&path).ok()?.read_to_string(&mut text).ok()?;
                texts.push(text.clone());
            }
            let length = fs::metadata(&path).ok()?.len() as usize;
            // SAFETY: a new mapping, which nothing else uses.
            let address = unsafe {
                let fd = file.as_raw_fd();
                libc::mmap(
                    ptr::null_mut(),
                    length,
                    libc::PROT_READ,
                    libc::MAP_SHARED,
                    fd,
                    0,
                )
            };
            if address == libc::MAP_FAILED {
                return None;
            }
            // SAFETY: as long as the file, which nobody changes, and never unmapped.
            let mapped = unsafe { std::slice::from_raw_parts(address.cast::<u8>(), length) };
            texts.push(String::from_utf8_lossy(mapped).into_owned());
            parent.send(&texts).ok()
        }
        (Order::Read, None) => None,
    }
}

fn attempt_all(victim: i32) -> Tried {
    let mut tried = Tried::new();
    for path in [
        c"/etc/shadow",
        c"/etc/passwd",
        c"/",
        c"",
        c".",
        c"/proc/self/mem",
        c"/proc/self/exe",
        c"/proc/self/fd/3",
        c"/proc/self/fd/0",
        c"/proc/self/fd/77",
        c"/proc/self/fd/-1",
        c"/proc/thread-self/fd/0",
        c"/dev/null",
    ] {
        tried.extend(attempt_path(path));
    }
    tried.extend(attempt_calls(victim));
    tried
}

fn called(what: &str, result: libc::c_long) -> (String, i64) {
    let error = std::io::Error::last_os_error().raw_os_error().unwrap_or(0);
    let result = if result < 0 {
        -i64::from(error)
    } else {
        result
    };
    (what.to_owned(), result)
}

fn attempt_path(path: &CStr) -> Tried {
    let at = libc::AT_FDCWD;
    let p = path.as_ptr();
    let mut stat = [0_u8; 256];
    let mut buffer = [0_u8; 256];
    let how = [0_u64; 3];
    let name = |call: &str| format!("{call} {}", path.to_string_lossy());
    // SAFETY: the paths are strings, the buffers have room, and none of it is done.
    unsafe {
        vec![
            called(&name("open"), libc::syscall(libc::SYS_open, p, 0)),
            called(
                &name("open to write"),
                libc::syscall(libc::SYS_open, p, libc::O_WRONLY | libc::O_CREAT, 0o600),
            ),
            called(&name("openat"), libc::syscall(libc::SYS_openat, at, p, 0)),
            called(
                &name("openat2"),
                libc::syscall(libc::SYS_openat2, at, p, how.as_ptr(), 24),
            ),
            called(&name("creat"), libc::syscall(libc::SYS_creat, p, 0o600)),
            called(
                &name("stat"),
                libc::syscall(libc::SYS_stat, p, stat.as_mut_ptr()),
            ),
            called(
                &name("newfstatat"),
                libc::syscall(libc::SYS_newfstatat, at, p, stat.as_mut_ptr(), 0),
            ),
            called(&name("access"), libc::syscall(libc::SYS_access, p, 0)),
            called(
                &name("readlink"),
                libc::syscall(libc::SYS_readlink, p, buffer.as_mut_ptr(), 256),
            ),
            called(&name("unlink"), libc::syscall(libc::SYS_unlink, p)),
            called(&name("chmod"), libc::syscall(libc::SYS_chmod, p, 0o777)),
            called(&name("execve"), libc::syscall(libc::SYS_execve, p, 0, 0)),
        ]
    }
}

fn attempt_calls(victim: i32) -> Tried {
    let null = ptr::null::<u8>();
    let page = 4096_usize;
    let mut word = [0_u64; 64];
    let w = word.as_mut_ptr();
    let read_write = libc::PROT_READ | libc::PROT_WRITE;
    let code = libc::PROT_READ | libc::PROT_EXEC;
    let private = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    let shared = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
    let own = attempt_all as fn(i32) -> Tried as usize & !(page - 1);
    macro_rules! calls {
        ($($name:literal: $number:ident($($argument:expr),*);)*) => {
            // SAFETY: the pointers are valid or null, and none of it is done.
            vec![$(called($name, unsafe { libc::syscall(libc::$number, $($argument),*) })),*]
        };
    }
    calls! {
        "a socket": SYS_socket(libc::AF_INET, libc::SOCK_STREAM, 0);
        "a unix socket": SYS_socket(libc::AF_UNIX, libc::SOCK_STREAM, 0);
        "a netlink socket": SYS_socket(libc::AF_NETLINK, libc::SOCK_RAW, 0);
        "a pair of sockets": SYS_socketpair(libc::AF_UNIX, libc::SOCK_STREAM, 0, w);
        "a pipe": SYS_pipe2(w, 0);
        "fork": SYS_fork();
        "vfork": SYS_vfork();
        "clone": SYS_clone(libc::SIGCHLD, 0, 0, 0, 0);
        "clone3": SYS_clone3(w, 88);
        "a thread": SYS_clone(libc::CLONE_VM | libc::CLONE_THREAD | libc::CLONE_SIGHAND, 0, 0, 0, 0);
        "execve of itself": SYS_execve(c"/proc/self/exe".as_ptr(), null, null);
        "execveat": SYS_execveat(3, c"".as_ptr(), null, null, libc::AT_EMPTY_PATH);
        "ptrace of the parent": SYS_ptrace(libc::PTRACE_ATTACH, victim, 0, 0);
        "to be traced": SYS_ptrace(libc::PTRACE_TRACEME, 0, 0, 0);
        "kill the parent": SYS_kill(victim, libc::SIGCONT);
        "kill everybody": SYS_kill(-1, 0);
        "kill a thread of the parent": SYS_tgkill(victim, victim, libc::SIGCONT);
        "a pidfd of the parent": SYS_pidfd_open(victim, 0);
        "the parent's descriptors": SYS_pidfd_getfd(3, 0, 0);
        "the parent's memory": SYS_process_vm_readv(victim, w, 1, w, 1, 0);
        "the parent's limits": SYS_prlimit64(victim, libc::RLIMIT_NOFILE, w, 0);
        "its own limits": SYS_setrlimit(libc::RLIMIT_DATA, w);
        "memory with code": SYS_mmap(0, page, code, private, -1, 0);
        "writable memory with code": SYS_mmap(0, page, read_write | libc::PROT_EXEC, private, -1, 0);
        "shared memory": SYS_mmap(0, page, read_write, shared, -1, 0);
        "memory made code": SYS_mprotect(own, page, code | libc::PROT_WRITE);
        "a file in memory": SYS_memfd_create(c"x".as_ptr(), 0);
        "shared memory of System V": SYS_shmget(0, page, 0o600);
        "write to a stream": SYS_write(1, c"x".as_ptr(), 1);
        "an old descriptor as a new one": SYS_dup2(3, 9);
        "flags of the socket": SYS_fcntl(3, libc::F_SETFL, libc::O_NONBLOCK);
        "an ioctl": SYS_ioctl(3, libc::FIONBIO, w);
        "change what is opened": SYS_ftruncate(4, 0);
        "change a mode": SYS_fchmod(4, 0o777);
        "another user": SYS_setuid(1);
        "a namespace": SYS_unshare(libc::CLONE_NEWUSER);
        "a mount": SYS_mount(c"x".as_ptr(), c"/tmp".as_ptr(), c"tmpfs".as_ptr(), 0, 0);
        "another root": SYS_chroot(c"/".as_ptr());
        "capabilities": SYS_capset(w, w);
        "to be dumpable": SYS_prctl(libc::PR_SET_DUMPABLE, 1, 0, 0, 0);
        "to survive the parent": SYS_prctl(libc::PR_SET_PDEATHSIG, 0, 0, 0, 0);
        "another filter": SYS_seccomp(1, 0, w);
        "a handler of its own": SYS_rt_sigaction(libc::SIGSYS, w, 0, 8);
        "to block signals": SYS_rt_sigprocmask(libc::SIG_BLOCK, w, 0, 8);
        "a BPF program": SYS_bpf(0, w, 128);
        "a perf event": SYS_perf_event_open(w, 0, -1, -1, 0);
        "an io_uring": SYS_io_uring_setup(1, w);
        "a userfaultfd": SYS_userfaultfd(1);
        "keys": SYS_keyctl(0, 0, 0, 0, 0);
        "the clock": SYS_clock_settime(libc::CLOCK_REALTIME, w);
        "a CPU": SYS_sched_setaffinity(0, 8, w);
        "a priority": SYS_setpriority(0, 0, -20);
        "other processes": SYS_getdents64(3, w, 512);
        "a directory": SYS_chdir(c"/".as_ptr());
        "a handle": SYS_open_by_handle_at(3, w, 0);
        "its parent's number": SYS_getppid();
        "a call that does not exist": SYS_tuxcall();
    }
}

fn start() -> Result<Child, std::io::Error> {
    Child::start(SERVICE.name, LIMITS)
}

fn everything() -> Outcome {
    let child = start()?;
    let victim = std::process::id() as i32;
    child.send(&Order::Attempt { victim }, None, soon())?;
    let tried: Tried = child.receive(1 << 20, soon())?;
    if tried.len() < 200 {
        return fail(format!("only {} attempts", tried.len()));
    }
    let refusals = [libc::EPERM, libc::ENOENT].map(|error| -i64::from(error));
    let allowed: Vec<_> = tried
        .iter()
        .filter(|(_, result)| !refusals.contains(result))
        .collect();
    if !allowed.is_empty() {
        return fail(format!("not refused: {allowed:?}"));
    }
    // It is none the worse for it.
    child.send(&Order::Attempt { victim }, None, soon())?;
    let again: Tried = child.receive(1 << 20, soon())?;
    if again == tried {
        Ok(())
    } else {
        fail("another answer at the second time")
    }
}

fn handed_over() -> Outcome {
    let child = start()?;
    let mut file = tempfile::NamedTempFile::new()?;
    file.write_all(b"what was handed over")?;
    let opened = File::open(file.path())?;
    child.send(&Order::Read, Some(opened.as_fd()), soon())?;
    let texts: Vec<String> = child.receive(4096, soon())?;
    if texts == ["what was handed over"; 3] {
        Ok(())
    } else {
        fail(format!("{texts:?}"))
    }
}

fn no_rights() -> Outcome {
    let child = start()?;
    let of = |file: &str| fs::read_to_string(format!("/proc/{}/{file}", child.pid()));
    let status = of("status")?;
    let value = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.split_whitespace().nth(1).map(str::to_owned))
    };
    for (name, expected) in [
        ("CapInh:", "0000000000000000"),
        ("CapPrm:", "0000000000000000"),
        ("CapEff:", "0000000000000000"),
        ("CapAmb:", "0000000000000000"),
        ("NoNewPrivs:", "1"),
        ("Seccomp:", "2"),
        ("Threads:", "1"),
    ] {
        if value(name).as_deref() != Some(expected) {
            return fail(format!("{name} {:?}", value(name)));
        }
    }
    let may_lower = fs::read_to_string("/proc/self/status")?
        .lines()
        .filter_map(|line| line.strip_prefix("CapEff:"))
        .filter_map(|bits| u64::from_str_radix(bits.trim(), 16).ok())
        .any(|bits| bits & 1 << 8 != 0);
    if may_lower && value("CapBnd:").as_deref() != Some("0000000000000000") {
        return fail(format!("CapBnd: {:?}", value("CapBnd:")));
    }
    let mut open = Vec::new();
    for entry in fs::read_dir(format!("/proc/{}/fd", child.pid()))? {
        let target = fs::read_link(entry?.path())?;
        open.push(target.to_string_lossy().into_owned());
    }
    open.sort();
    let is_right = open.len() == 4
        && open[..3].iter().all(|target| target == "/dev/null")
        && open[3].starts_with("socket:");
    if !is_right {
        return fail(format!("{open:?}"));
    }
    if !of("environ")?.is_empty() {
        return fail("it has an environment");
    }
    Ok(())
}
