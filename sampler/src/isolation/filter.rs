//! What a confined process may ask of the kernel.
//!
//! An allow list. Whatever else is called is not executed; it comes back as a
//! `SIGSYS`, whose handler answers in the kernel's stead: a library that opens
//! files by path gets a duplicate of one that the parent handed over, if that
//! is what the path says (`/proc/self/fd/N`), and anything else is refused. The
//! kernel, not the handler, is what keeps the process in: a handler that were
//! overwritten could do no more than any other code here.

use std::collections::BTreeMap;
use std::ffi::c_void;
use std::io;
use std::mem;
use std::ptr;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, apply_filter,
};

/// Calls that are allowed whatever their arguments: they compute, or work on
/// what is open or mapped already.
const ALLOWED: &[libc::c_long] = &[
    libc::SYS_read,
    libc::SYS_pread64,
    libc::SYS_lseek,
    libc::SYS_fstat,
    libc::SYS_close,
    libc::SYS_recvmsg,
    libc::SYS_sendmsg,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_brk,
    libc::SYS_futex,
    libc::SYS_clock_gettime,
    libc::SYS_getrandom,
    libc::SYS_rt_sigreturn,
    libc::SYS_restart_syscall,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

/// Ways to ask `fcntl` that are allowed.
const FCNTL: [libc::c_int; 2] = [libc::F_DUPFD_CLOEXEC, libc::F_GETFD];

/// The one form of path that is answered.
const OWN_DESCRIPTORS: &[u8] = b"/proc/self/fd/";
/// Digits of a descriptor, at most.
const MAX_DIGITS: usize = 9;

/// What those are told who look for any other file: libraries try more than one
/// place, and give up at errors other than this.
const NOT_THERE: i64 = -(libc::ENOENT as i64);

/// Installs the handler, then the filter, for ever.
pub(super) fn install() -> io::Result<()> {
    let program = program().map_err(io::Error::other)?;
    // SAFETY: all zeros is a valid action; the handler has the signature that
    // `SA_SIGINFO` asks for and calls nothing but system calls.
    unsafe {
        let mut action: libc::sigaction = mem::zeroed();
        action.sa_sigaction = answer_refused_call as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO;
        if libc::sigaction(libc::SIGSYS, &raw const action, ptr::null_mut()) != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    apply_filter(&program).map_err(io::Error::other)
}

fn program() -> Result<BpfProgram, seccompiler::BackendError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        ALLOWED.iter().map(|call| (*call, Vec::new())).collect();
    let fcntl = FCNTL
        .iter()
        .map(|command| SeccompRule::new(vec![argument(1, SeccompCmpOp::Eq, *command as u64)?]));
    rules.insert(libc::SYS_fcntl, fcntl.collect::<Result<_, _>>()?);
    rules.insert(libc::SYS_mmap, mappings()?);
    SeccompFilter::new(
        rules,
        SeccompAction::Trap,
        SeccompAction::Allow,
        std::env::consts::ARCH.try_into()?,
    )?
    .try_into()
}

/// Memory that is only read, however it is shared, or that is written and
/// nobody else's; never code. Writable memory that is shared would escape the
/// limit on memory.
fn mappings() -> Result<Vec<SeccompRule>, seccompiler::BackendError> {
    let only = |allowed: libc::c_int| SeccompCmpOp::MaskedEq(u64::from(!allowed.cast_unsigned()));
    let read_only = argument(2, only(libc::PROT_READ), 0)?;
    let no_code = argument(2, only(libc::PROT_READ | libc::PROT_WRITE), 0)?;
    let not_shared = argument(3, SeccompCmpOp::MaskedEq(libc::MAP_SHARED as u64), 0)?;
    Ok(vec![
        SeccompRule::new(vec![read_only])?,
        SeccompRule::new(vec![no_code, not_shared])?,
    ])
}

/// A condition on the low 32 bits of an argument.
fn argument(
    index: u8,
    operator: SeccompCmpOp,
    value: u64,
) -> Result<SeccompCondition, seccompiler::BackendError> {
    SeccompCondition::new(index, SeccompCmpArgLen::Dword, operator, value)
}

extern "C" fn answer_refused_call(_: libc::c_int, _: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel hands the handler the context of the interrupted code,
    // which it goes on with as it is left here.
    let context = unsafe { &mut *context.cast::<libc::ucontext_t>() };
    let call = registers::call(context);
    // SAFETY: the library's error number is this thread's own. The code that was
    // interrupted may be about to read it.
    unsafe {
        let errno = libc::__errno_location();
        let kept = *errno;
        let result = answer(call.number, call.arguments);
        *errno = kept;
        registers::set_result(context, result);
    }
}

/// What a call is told: a result, or an error number, negative.
///
/// # Safety
///
/// The arguments are those of a call that this process has just made.
unsafe fn answer(number: libc::c_long, arguments: [u64; 4]) -> i64 {
    let [first, second, third, fourth] = arguments;
    // SAFETY: the caller says that these are the arguments of these calls, so
    // that paths are strings and buffers have room; if they are not, the process
    // ends, as with any other stray pointer.
    unsafe {
        match number {
            libc::SYS_openat => open(second),
            libc::SYS_newfstatat => stat_at(first, second, third, fourth),
            // The libraries have another way to ask.
            libc::SYS_statx => -i64::from(libc::ENOSYS),
            #[cfg(target_arch = "x86_64")]
            libc::SYS_open => open(first),
            #[cfg(target_arch = "x86_64")]
            libc::SYS_stat => stat(first, second),
            _ => -i64::from(libc::EPERM),
        }
    }
}

/// Opens what a path names, if it is a file that was handed over.
///
/// # Safety
///
/// The path is a NUL-terminated string.
unsafe fn open(path: u64) -> i64 {
    // SAFETY: the caller says that the path is a string. The calls take numbers;
    // if one of them fails, the file stays closed.
    unsafe {
        let Some(fd) = handed_over(path) else {
            return NOT_THERE;
        };
        let copy = libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 0);
        if copy < 0 {
            return -i64::from(*libc::__errno_location());
        }
        // One that was opened anew would be read from its start.
        libc::lseek(copy, 0, libc::SEEK_SET);
        i64::from(copy)
    }
}

/// # Safety
///
/// The path is a NUL-terminated string, and the buffer has room for a `stat`.
unsafe fn stat(path: u64, buffer: u64) -> i64 {
    // SAFETY: the caller says so.
    unsafe {
        match handed_over(path) {
            Some(fd) => stat_open(fd, buffer),
            None => NOT_THERE,
        }
    }
}

/// # Safety
///
/// As for [`stat`].
unsafe fn stat_at(directory: u64, path: u64, buffer: u64, flags: u64) -> i64 {
    // SAFETY: the caller says that the path is a string, which has a first byte.
    unsafe {
        let is_empty = *(path as *const u8) == 0;
        if is_empty && flags & libc::AT_EMPTY_PATH as u64 != 0 {
            stat_open(directory as libc::c_int, buffer)
        } else {
            stat(path, buffer)
        }
    }
}

/// # Safety
///
/// The buffer has room for a `stat`.
unsafe fn stat_open(fd: libc::c_int, buffer: u64) -> i64 {
    // SAFETY: the caller says that the kernel may write one there. The library's
    // function would ask in a way that is refused again.
    unsafe {
        match libc::syscall(libc::SYS_fstat, fd, buffer) {
            0 => 0,
            _ => -i64::from(*libc::__errno_location()),
        }
    }
}

/// The descriptor that a path names. Of regular files a confined process has no
/// others than those that it was handed.
///
/// # Safety
///
/// The path is a NUL-terminated string.
unsafe fn handed_over(path: u64) -> Option<libc::c_int> {
    let mut bytes = [0_u8; OWN_DESCRIPTORS.len() + MAX_DIGITS + 1];
    let mut length = 0;
    loop {
        // SAFETY: no further than to the end of the string.
        let byte = unsafe { *(path as *const u8).add(length) };
        if byte == 0 {
            break;
        }
        *bytes.get_mut(length)? = byte;
        length += 1;
    }
    let fd = descriptor_number(bytes.get(..length)?)?;
    // SAFETY: all zeros is a valid `stat`, and the kernel fills it in.
    unsafe {
        let mut found: libc::stat = mem::zeroed();
        let asked = libc::syscall(libc::SYS_fstat, fd, &raw mut found);
        (asked == 0 && found.st_mode & libc::S_IFMT == libc::S_IFREG).then_some(fd)
    }
}

/// The number in `/proc/self/fd/N`, in the one way to write it.
fn descriptor_number(path: &[u8]) -> Option<libc::c_int> {
    let digits = path.strip_prefix(OWN_DESCRIPTORS)?;
    let is_canonical = matches!(digits, [b'0'] | [b'1'..=b'9', ..]) && digits.len() <= MAX_DIGITS;
    if !is_canonical {
        return None;
    }
    digits.iter().try_fold(0, |number: libc::c_int, digit| {
        let digit = digit.is_ascii_digit().then(|| digit - b'0')?;
        number.checked_mul(10)?.checked_add(digit.into())
    })
}

/// A call that was refused.
struct Call {
    number: libc::c_long,
    arguments: [u64; 4],
}

#[cfg(target_arch = "x86_64")]
mod registers {
    use super::Call;

    pub(super) fn call(context: &libc::ucontext_t) -> Call {
        let registers = &context.uc_mcontext.gregs;
        let of = |register: libc::c_int| registers[register as usize];
        Call {
            number: of(libc::REG_RAX),
            arguments: [libc::REG_RDI, libc::REG_RSI, libc::REG_RDX, libc::REG_R10]
                .map(|register| of(register) as u64),
        }
    }

    pub(super) fn set_result(context: &mut libc::ucontext_t, result: i64) {
        context.uc_mcontext.gregs[libc::REG_RAX as usize] = result;
    }
}

#[cfg(target_arch = "aarch64")]
mod registers {
    use super::Call;

    pub(super) fn call(context: &libc::ucontext_t) -> Call {
        let registers = &context.uc_mcontext.regs;
        Call {
            number: registers[8] as libc::c_long,
            arguments: [registers[0], registers[1], registers[2], registers[3]],
        }
    }

    pub(super) fn set_result(context: &mut libc::ucontext_t, result: i64) {
        context.uc_mcontext.regs[0] = result as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_names_a_descriptor_in_one_way_only() {
        assert_eq!(descriptor_number(b"/proc/self/fd/0"), Some(0));
        assert_eq!(descriptor_number(b"/proc/self/fd/17"), Some(17));
        assert_eq!(
            descriptor_number(b"/proc/self/fd/999999999"),
            Some(999_999_999)
        );
        for path in [
            &b"/proc/self/fd/"[..],
            b"/proc/self/fd/01",
            b"/proc/self/fd/+1",
            b"/proc/self/fd/-1",
            b"/proc/self/fd/1/",
            b"/proc/self/fd/1x",
            b"/proc/self/fd/9999999999",
            b"/proc/self/fd/1/../../root/etc/shadow",
            b"/proc/1/fd/1",
            b"proc/self/fd/1",
            b"/etc/shadow",
            b"",
        ] {
            assert_eq!(descriptor_number(path), None, "{path:?}");
        }
    }

    #[test]
    fn the_filter_can_be_compiled() {
        assert!(program().is_ok_and(|program| !program.is_empty()));
    }
}
