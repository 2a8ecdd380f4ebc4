//! One build of the eBPF crate, whose bytes do not depend on the machine.

use super::rustc_wrapper;
use super::toolchain::Toolchain;
use crate::project;
use anyhow::{Context, Result};
use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

const TARGET: &str = "bpfel-unknown-none";

/// May this build change the eBPF crate's `Cargo.lock`?
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Lock {
    /// Yes: a developer builds.
    MayChange,
    /// No: a check builds, and would not notice.
    Fixed,
}

/// Builds `sampler-ebpf` of the checkout at `root` and returns the object.
pub fn build(root: &Path, toolchain: &Toolchain, lock: Lock) -> Result<Vec<u8>> {
    let package = root.join("sampler-ebpf");
    // Crates are downloaded first: where they land is part of the flags.
    let mut fetch = toolchain.cargo();
    fetch.arg("fetch").current_dir(&package);
    let target_folder = root.join("target/ebpf");
    let mut cargo = toolchain.cargo();
    cargo
        .args([
            "build",
            "--release",
            "--target",
            TARGET,
            "-Z",
            "build-std=core",
        ])
        .arg("--target-dir")
        .arg(&target_folder)
        .current_dir(&package);
    for command in [&mut fetch, &mut cargo] {
        if lock == Lock::Fixed {
            command.arg("--locked");
        }
    }
    project::run(&mut fetch)?;
    cargo.env("CARGO_ENCODED_RUSTFLAGS", rustflags(root, toolchain)?);
    rustc_wrapper::install(&mut cargo, &env::current_exe()?);
    project::run(&mut cargo)?;

    let object = target_folder.join(TARGET).join("release/sampler-ebpf");
    fs::read(&object).with_context(|| object.display().to_string())
}

/// Folders of this machine that may not be named in the object.
pub fn machine_paths(root: &Path, toolchain: &Toolchain) -> Vec<PathBuf> {
    let mut paths = vec![root.to_path_buf(), env::temp_dir()];
    paths.extend(project::cargo_home());
    paths.extend(env::home_dir());
    paths.extend(toolchain.rust_src_names().unwrap_or_default());
    paths
}

/// The flags, in cargo's encoding (0x1f between them), since paths may hold spaces.
fn rustflags(root: &Path, toolchain: &Toolchain) -> Result<OsString> {
    let mut linker = OsString::from("linker=");
    linker.push(toolchain.linker());
    let mut flags: Vec<OsString> = Vec::new();
    for option in [
        linker,
        "link-arg=--btf".into(),
        "debuginfo=2".into(),
        // The first version of the instruction set with atomics that return
        // the old value; rustc passes it on to the linker.
        "target-cpu=v3".into(),
    ] {
        flags.push("-C".into());
        flags.push(option);
    }
    for (from, to) in renamed_folders(root, toolchain)? {
        let mut flag = OsString::from("--remap-path-prefix=");
        flag.push(&from);
        flag.push("=");
        flag.push(to);
        flags.push(flag);
    }
    Ok(flags.join(std::ffi::OsStr::new("\u{1f}")))
}

/// What debug sections call each folder instead of its name on this machine.
/// rustc takes the last entry that fits, so the inner folders come last.
fn renamed_folders(root: &Path, toolchain: &Toolchain) -> Result<Vec<(PathBuf, &'static str)>> {
    let mut renamed = vec![(root.to_path_buf(), ".")];
    for name in toolchain.rust_src_names()? {
        renamed.push((name, "rust"));
    }
    if let Some(home) = project::cargo_home() {
        let registries = home.join("registry/src");
        renamed.push((home, "cargo"));
        // Below it a folder for each registry, named after its address: a
        // mirror must not change the object.
        for entry in fs::read_dir(&registries).into_iter().flatten() {
            renamed.push((entry?.path(), "registry"));
        }
    }
    Ok(renamed)
}
