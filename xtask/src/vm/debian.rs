//! Single files out of Debian's packages, downloaded once and kept.

use crate::project;
use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Depends on the newest kernel of the release, which is in a package of its own.
const KERNEL: &str = "linux-image-cloud-amd64";
/// Holds a busybox that needs no library.
const BUSYBOX: &str = "busybox-static";

/// Debian's cloud kernel.
pub fn kernel(cache: &Path) -> Result<PathBuf> {
    cached(cache, "boot", "vmlinuz-", || {
        let unknown = || format!("apt knows no kernel behind {KERNEL}; apt-get update may help");
        let depends = project::output(Command::new("apt-cache").args(["depends", KERNEL]))
            .with_context(unknown)?;
        dependency(&depends, "linux-image-")
            .map(str::to_string)
            .with_context(unknown)
    })
}

/// A static busybox.
pub fn busybox(cache: &Path) -> Result<PathBuf> {
    cached(cache, "bin", "busybox", || Ok(BUSYBOX.into()))
}

/// The file of `cache` whose name starts with `prefix`; if there is none, it is
/// taken from `folder` of the package that `package` names.
fn cached(
    cache: &Path,
    folder: &str,
    prefix: &str,
    package: impl FnOnce() -> Result<String>,
) -> Result<PathBuf> {
    if let Some(file) = newest(cache, prefix)? {
        return Ok(file);
    }
    let package = package()?;
    let unpacked = tempfile::tempdir_in(cache)?;
    let download = format!("cannot download the package {package}");
    project::output(
        Command::new("apt-get")
            // Without it apt warns that its own user may not write here.
            .args(["-q", "-o", "APT::Sandbox::User=", "download", &package])
            .current_dir(unpacked.path()),
    )
    .context(download)?;
    let archive = newest(unpacked.path(), &package)?
        .with_context(|| format!("apt-get downloaded no {package}"))?;
    project::run(
        Command::new("dpkg-deb")
            .arg("-x")
            .args([&archive, unpacked.path()]),
    )?;
    let file = newest(&unpacked.path().join(folder), prefix)?
        .with_context(|| format!("no {folder}/{prefix}* in the package {package}"))?;
    let kept = cache.join(file.file_name().context("a file has a name")?);
    fs::rename(&file, &kept).with_context(|| kept.display().to_string())?;
    Ok(kept)
}

/// The last file of `folder`, in the order of names, that starts with `prefix`.
fn newest(folder: &Path, prefix: &str) -> Result<Option<PathBuf>> {
    let mut newest = None;
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let entry = entry?;
        let fits = entry.file_name().to_string_lossy().starts_with(prefix);
        if fits && entry.file_type()?.is_file() {
            newest = newest.max(Some(entry.path()));
        }
    }
    Ok(newest)
}

/// The first dependency that starts with `prefix` in what `apt-cache depends` prints.
fn dependency<'a>(depends: &'a str, prefix: &str) -> Option<&'a str> {
    depends.lines().find_map(|line| {
        let name = line.trim().strip_prefix("Depends: ")?;
        name.starts_with(prefix).then_some(name)
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail")]
    use super::*;

    #[test]
    fn the_kernel_is_what_the_meta_package_depends_on() {
        let depends = "linux-image-cloud-amd64\n  Depends: linux-image-6.1.0-56-cloud-amd64\n";
        assert_eq!(
            dependency(depends, "linux-image-"),
            Some("linux-image-6.1.0-56-cloud-amd64")
        );
        assert_eq!(
            dependency("linux-image-cloud-amd64\n", "linux-image-"),
            None
        );
    }

    #[test]
    fn a_file_that_is_cached_is_not_downloaded() {
        let cache = tempfile::tempdir().unwrap();
        fs::write(cache.path().join("vmlinuz-6.1"), "kernel").unwrap();
        let file = cached(cache.path(), "boot", "vmlinuz-", || {
            panic!("asked for the package")
        });
        assert_eq!(file.unwrap(), cache.path().join("vmlinuz-6.1"));
    }

    #[test]
    fn a_folder_is_no_file() {
        let cache = tempfile::tempdir().unwrap();
        fs::create_dir(cache.path().join("busybox")).unwrap();
        assert_eq!(newest(cache.path(), "busybox").unwrap(), None);
    }
}
