//! The guest's whole file system: an archive that the kernel unpacks into memory.

use crate::project;
use anyhow::{Context, Result, ensure};
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Where the guest mounts something.
const MOUNT_POINTS: [&str; 4] = ["proc", "sys", "dev", "tmp"];
const INIT: &str = include_str!("init.sh");

/// What goes into the guest beside its init.
pub struct Programs<'a> {
    /// A static busybox.
    pub busybox: &'a Path,
    /// The profiler; the libraries that it needs follow it.
    pub sampler: &'a Path,
    /// What it profiles: static.
    pub fixture: &'a Path,
}

impl Programs<'_> {
    /// Every file of the guest: where it is here, and where it will be there.
    fn files(&self, ldd: &str) -> Vec<(PathBuf, PathBuf)> {
        let programs = [
            (self.busybox, "/bin/busybox"),
            (self.sampler, "/bin/sampler"),
            (self.fixture, "/bin/fixture"),
        ]
        .map(|(here, there)| (here.to_path_buf(), PathBuf::from(there)));
        let libraries = libraries(ldd).map(|path| (PathBuf::from(path), PathBuf::from(path)));
        programs.into_iter().chain(libraries).collect()
    }
}

/// Builds the archive `initrd` by way of the new folder `tree`.
pub fn build(programs: &Programs<'_>, tree: &Path, initrd: &Path) -> Result<()> {
    let ldd = project::output(Command::new("ldd").arg(programs.sampler))?;
    fs::create_dir(tree)?;
    for name in MOUNT_POINTS {
        fs::create_dir(tree.join(name))?;
    }
    for (here, there) in programs.files(&ldd) {
        let inside = tree.join(there.strip_prefix("/")?);
        if let Some(folder) = inside.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::copy(&here, &inside).with_context(|| here.display().to_string())?;
    }
    let init = tree.join("init");
    fs::write(&init, INIT)?;
    fs::set_permissions(&init, fs::Permissions::from_mode(0o755))?;
    archive(tree, initrd)
}

/// The paths in what `ldd` prints: `NAME => PATH (ADDRESS)` or `PATH (ADDRESS)`.
/// The vDSO is a name without a path.
fn libraries(ldd: &str) -> impl Iterator<Item = &str> {
    ldd.lines()
        .flat_map(str::split_whitespace)
        .filter(|word| word.starts_with('/'))
}

/// Every path below `folder`, relative to it, each after the folder it is in.
fn paths(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut open = vec![folder.to_path_buf()];
    while let Some(next) = open.pop() {
        for entry in fs::read_dir(&next)? {
            let entry = entry?;
            found.push(entry.path().strip_prefix(folder)?.to_path_buf());
            if entry.file_type()?.is_dir() {
                open.push(entry.path());
            }
        }
    }
    Ok(found)
}

/// The kernel wants the archive in the "newc" format; it needs no compression.
fn archive(tree: &Path, initrd: &Path) -> Result<()> {
    let mut cpio = Command::new("cpio")
        .args(["--quiet", "-o", "-H", "newc", "--owner", "+0:+0"])
        .current_dir(tree)
        .stdin(Stdio::piped())
        .stdout(fs::File::create(initrd)?)
        .spawn()
        .context("cpio")?;
    // Dropped when all is written, so that cpio ends.
    let mut names = cpio.stdin.take().context("cpio's input")?;
    for path in paths(tree)? {
        writeln!(names, "{}", path.display())?;
    }
    drop(names);
    let status = cpio.wait()?;
    ensure!(status.success(), "cpio failed: {status}");
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail")]
    use super::*;

    const LDD: &str = "\tlinux-vdso.so.1 (0x00007fb7f7ebd000)\n\
        \tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007fb7f761e000)\n\
        \t/lib64/ld-linux-x86-64.so.2 (0x00007fb7f7ebf000)\n";

    #[test]
    fn the_guest_gets_the_programs_and_the_profilers_libraries_where_they_were() {
        let programs = Programs {
            busybox: Path::new("/cache/busybox"),
            sampler: Path::new("/build/sampler"),
            fixture: Path::new("/build/fixture"),
        };
        let expected = [
            ("/cache/busybox", "/bin/busybox"),
            ("/build/sampler", "/bin/sampler"),
            ("/build/fixture", "/bin/fixture"),
            (
                "/lib/x86_64-linux-gnu/libc.so.6",
                "/lib/x86_64-linux-gnu/libc.so.6",
            ),
            ("/lib64/ld-linux-x86-64.so.2", "/lib64/ld-linux-x86-64.so.2"),
        ]
        .map(|(here, there)| (PathBuf::from(here), PathBuf::from(there)));
        assert_eq!(programs.files(LDD), expected);
    }

    #[test]
    fn a_static_program_needs_no_library() {
        assert_eq!(libraries("\tstatically linked\n").count(), 0);
    }

    #[test]
    fn a_folder_comes_before_what_is_in_it() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("a/b")).unwrap();
        fs::write(folder.path().join("a/b/c"), "").unwrap();
        let expected = ["a", "a/b", "a/b/c"].map(PathBuf::from);
        assert_eq!(paths(folder.path()).unwrap(), expected);
    }
}
