//! Programs that see other files than we do, or are no longer where they were.

use std::fs;
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use libtest_mimic::Trial;
use sampler::object::PinnedFile;
use sampler::process::{Backing, FileStore, Procfs, Sought};

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

/// Pins the file of this name that a process runs code of, as it does for a
/// recording.
fn pin_of(process: &Running, program: &Path) -> Result<Arc<PinnedFile>, Stop> {
    let pid = process.0.id();
    let maps = Procfs::new("/proc").snapshot(pid)?.maps;
    let name = program.as_os_str().as_bytes();
    let Some(map) = maps.iter().find(|map| *map.name == *name) else {
        return fail(format!("{} is not mapped: {maps:?}", program.display()));
    };
    let sought = Sought {
        map,
        pid,
        parent_pid: 0,
    };
    match FileStore::new("/proc", 16).resolve(sought).backing {
        Backing::File(pin) => Ok(pin),
        other => fail(format!("{other:?}")),
    }
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
