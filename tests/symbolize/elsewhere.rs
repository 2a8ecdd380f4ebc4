//! Programs that see other files than we do, or are no longer where they were.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::fd::FromRawFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use libtest_mimic::Trial;
use sampler::object::PinnedFile;
use sampler::process::{Backing, FileStore, MapRecord, Procfs, Sought};

use crate::fixture::{Built, build, file_offset, function};
use crate::separate::{build_id, outermost, strip};
use crate::tool::{Outcome, Stop, fail, run, trial};

pub fn trials() -> Vec<Trial> {
    vec![
        trial(
            "a_debug_file_in_another_mount_namespace_is_found_by_build_id",
            || in_namespace("debug/.build-id"),
        ),
        trial(
            "a_debug_file_in_another_mount_namespace_is_found_beside_the_program",
            || in_namespace(".debug"),
        ),
        trial(
            "a_debug_file_under_another_root_is_found_by_build_id",
            changed_root,
        ),
        trial("a_program_in_memory_has_names", in_memory),
        trial("a_program_renamed_while_it_runs_has_names", renamed),
        trial("two_files_at_one_path_are_two_files", one_path),
    ]
}

/// C that says that it runs, and waits. It needs no library.
const WAITING: &str = r#"
#include <unistd.h>
volatile int sink;
__attribute__((noinline)) int outer(int x) {
    sink += x;
    return write(1, "x", 1) + pause();
}
int main(int argc, char **argv) { return outer(argc); }
"#;

/// A process that is killed in the end.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts a shell script of root's and waits until it says that it runs.
fn start(script: &str) -> Result<Running, Stop> {
    // SAFETY: no arguments, no memory.
    if unsafe { libc::geteuid() } != 0 {
        return Err(Stop::Missing("not root".into()));
    }
    let child = Command::new("unshare")
        .args(["-m", "sh", "-ec", script])
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| Stop::Missing(format!("unshare: {error}")))?;
    let mut running = Running(child);
    let mut byte = [0];
    match running.0.stdout.as_mut().map(|out| out.read(&mut byte)) {
        Some(Ok(1)) => Ok(running),
        other => fail(format!("it does not run: {other:?}")),
    }
}

/// The mapping of this name of a process.
fn mapping(process: &Running, name: &[u8]) -> Result<MapRecord, Stop> {
    let maps = Procfs::new("/proc").snapshot(process.0.id())?.maps;
    match maps.iter().find(|map| *map.name == *name) {
        Some(map) => Ok(map.clone()),
        None => fail(format!("not mapped: {maps:?}")),
    }
}

/// Pins the file of a mapping, as it is done for a recording.
fn pin_mapped(
    files: &mut FileStore,
    process: &Running,
    map: &MapRecord,
) -> Result<Arc<PinnedFile>, Stop> {
    let sought = Sought {
        map,
        pid: process.0.id(),
        parent_pid: 0,
    };
    match files.resolve(sought).backing {
        Backing::File(pin) => Ok(pin),
        other => fail(format!("{other:?}")),
    }
}

/// Pins the file of this name that a process runs code of.
fn pin_of(process: &Running, program: &Path) -> Result<Arc<PinnedFile>, Stop> {
    let map = mapping(process, program.as_os_str().as_bytes())?;
    pin_mapped(&mut FileStore::new("/proc", 16), process, &map)
}

/// Whether an address is in `function`, and its line known.
fn is_named(pin: &Arc<PinnedFile>, offset: u64, function: &str) -> Outcome {
    match outermost(pin, offset, Path::new("/nonexistent"))? {
        Some((name, line, _)) if name == function && line > 0 => Ok(()),
        other => fail(format!("{other:?}")),
    }
}

/// A program that is nowhere but in the memory of who started it.
fn in_memory() -> Outcome {
    let built = build("cc", "c", WAITING, &["-g", "-O2"])?;
    let offset = file_offset(&built.program, function(&built.program, "outer")?.start)?;
    // SAFETY: the name is a NUL-terminated string.
    let fd = unsafe { libc::memfd_create(c"program".as_ptr(), 0) };
    if fd < 0 {
        return Err(std::io::Error::last_os_error().into());
    }
    // SAFETY: the call above has opened it, and nobody else owns it.
    let mut file = unsafe { File::from_raw_fd(fd) };
    file.write_all(&fs::read(&built.program)?)?;
    let process = start(&format!("exec /proc/self/fd/{fd}"))?;
    drop(file);
    let map = mapping(&process, b"/memfd:program (deleted)")?;
    let pin = pin_mapped(&mut FileStore::new("/proc", 16), &process, &map)?;
    drop(process);
    is_named(&pin, offset, "outer")
}

/// The kernel told of the mapping before the program was renamed, and another
/// one has its name now.
fn renamed() -> Outcome {
    let built = build("cc", "c", WAITING, &["-g", "-O2"])?;
    let offset = file_offset(&built.program, function(&built.program, "outer")?.start)?;
    let process = start(&format!("exec {}", built.program.display()))?;
    let map = mapping(&process, built.program.as_os_str().as_bytes())?;
    fs::rename(&built.program, built.dir.path().join("renamed"))?;
    let other = build(
        "cc",
        "c",
        &WAITING.replace("outer", "wrong"),
        &["-g", "-O2"],
    )?;
    fs::copy(&other.program, &built.program)?;
    let pin = pin_mapped(&mut FileStore::new("/proc", 16), &process, &map)?;
    drop(process);
    is_named(&pin, offset, "outer")
}

/// A program was replaced while it ran, and both run.
fn one_path() -> Outcome {
    let built = build("cc", "c", WAITING, &["-g", "-O2"])?;
    let source = WAITING.replace("outer", "later");
    let next = build("cc", "c", &source, &["-g", "-O2"])?;
    let offset = file_offset(&built.program, function(&built.program, "outer")?.start)?;
    let offset_next = file_offset(&next.program, function(&next.program, "later")?.start)?;
    let script = format!("exec {}", built.program.display());
    let before = start(&script)?;
    let unfinished = built.dir.path().join("unfinished");
    fs::copy(&next.program, &unfinished)?;
    fs::rename(&unfinished, &built.program)?;
    let after = start(&script)?;
    let path = built.program.as_os_str().as_bytes();
    let map_before = mapping(&before, &[path, b" (deleted)"].concat())?;
    let map_after = mapping(&after, path)?;
    let mut files = FileStore::new("/proc", 16);
    let pin_before = pin_mapped(&mut files, &before, &map_before)?;
    let pin_after = pin_mapped(&mut files, &after, &map_after)?;
    if pin_before.path != pin_after.path || pin_before.id == pin_after.id {
        return fail(format!("{pin_before:?}, {pin_after:?}"));
    }
    is_named(&pin_before, offset, "outer")?;
    is_named(&pin_after, offset_next, "later")
}

/// The stripped program, the offset of `outer` in it, and its debug file, which
/// is where nobody looks.
fn hidden_debug_file(more: &[&str]) -> Result<(Built, u64, String), Stop> {
    let arguments = ["-g", "-O2", "-Wl,--build-id=sha1"];
    let arguments: Vec<&str> = arguments.iter().chain(more).copied().collect();
    let built = build("cc", "c", WAITING, &arguments)?;
    let offset = file_offset(&built.program, function(&built.program, "outer")?.start)?;
    strip(&built.program)?;
    let hidden = built.dir.path().join("hidden");
    fs::rename(built.dir.path().join("program.debug"), &hidden)?;
    Ok((built, offset, hidden.to_string_lossy().into_owned()))
}

/// The debug file lies in a file system that only the program has mounted.
fn in_namespace(below: &str) -> Outcome {
    let (built, offset, hidden) = hidden_debug_file(&[])?;
    let debug_dir = built.dir.path().join("debug");
    let id = build_id(&built.program)?;
    let mounted = built.dir.path().join(below);
    fs::create_dir_all(&mounted)?;
    let target = if below == ".debug" {
        mounted.join("program.debug")
    } else {
        mounted.join(&id[..2]).join(format!("{}.debug", &id[2..]))
    };
    let script = format!(
        "mount -t tmpfs none {mounted}; install -D {hidden} {target}; exec {program}",
        mounted = mounted.display(),
        target = target.display(),
        program = built.program.display(),
    );
    let process = start(&script)?;
    let pin = pin_of(&process, &built.program)?;
    match outermost(&pin, offset, &debug_dir)? {
        Some((name, line, _)) if name == "outer" && line > 0 => {}
        other => return fail(format!("{other:?}")),
    }
    drop(process);
    // The same program, run where the debug file is not.
    let process = start(&format!("exec {}", built.program.display()))?;
    let pin = pin_of(&process, &built.program)?;
    match outermost(&pin, offset, &debug_dir)? {
        None => Ok(()),
        other => fail(format!("found from where nobody sees it: {other:?}")),
    }
}

/// In the changed root the path to the debug file is a link, absolute there. The
/// program and its mount namespace are gone when its names are asked for.
fn changed_root() -> Outcome {
    let (built, offset, hidden) = hidden_debug_file(&["-static"])?;
    let id = build_id(&built.program)?;
    let root = built.dir.path().join("root");
    let dir = root.join("debug/.build-id").join(&id[..2]);
    fs::create_dir_all(&dir)?;
    fs::create_dir_all(root.join("kept"))?;
    fs::rename(hidden, root.join("kept/debug"))?;
    let by_id = dir.join(format!("{}.debug", &id[2..]));
    std::os::unix::fs::symlink("/kept/debug", by_id)?;
    fs::copy(&built.program, root.join("program"))?;
    run("chroot", ["--version"])?;
    let process = start(&format!("exec chroot {} /program", root.display()))?;
    let pin = pin_of(&process, &root.join("program"))?;
    drop(process);
    match outermost(&pin, offset, Path::new("/debug"))? {
        Some((name, line, _)) if name == "outer" && line > 0 => Ok(()),
        other => fail(format!("{other:?}")),
    }
}
