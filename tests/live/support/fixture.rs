//! Programs to watch, each built once a run from `tests/fixtures`.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, OnceLock, PoisonError};

use tempfile::TempDir;

use super::need;
use super::verdict::{Verdict, ensure};

/// The folder of this run: fixtures and everything the profiler writes.
static WORKSHOP: OnceLock<TempDir> = OnceLock::new();
static BUILT: Mutex<Option<HashMap<&'static str, PathBuf>>> = Mutex::new(None);

/// What turns a source into a program.
enum Recipe {
    C(&'static [&'static str]),
    Cpp(&'static [&'static str]),
    Rust(&'static [&'static str]),
    Go,
}

const WITH_FRAME_POINTERS: &[&str] = &["-fno-omit-frame-pointer", "-pthread"];

/// The run's own folder, readable by every user, since one trial is not root.
pub fn workshop() -> Verdict<&'static Path> {
    if WORKSHOP.get().is_none() {
        let folder = tempfile::Builder::new().prefix("sampler-live-").tempdir()?;
        std::fs::set_permissions(
            folder.path(),
            std::os::unix::fs::PermissionsExt::from_mode(0o755),
        )?;
        // Trials run one after another, so nobody was faster.
        let _ = WORKSHOP.set(folder);
    }
    let folder = WORKSHOP.get().ok_or("no folder for this run")?;
    Ok(folder.path())
}

/// Removes the run's folder. Statics are never dropped, so `main` asks for it.
pub fn clear() {
    if let Some(folder) = WORKSHOP.get() {
        // The system cleans its temporary folder if this cannot.
        let _ = std::fs::remove_dir_all(folder.path());
    }
}

/// A new, empty folder inside the run's own.
pub fn scratch() -> Verdict<TempDir> {
    Ok(tempfile::Builder::new()
        .prefix("scratch-")
        .tempdir_in(workshop()?)?)
}

/// The built fixture of this name.
pub fn fixture(name: &'static str) -> Verdict<PathBuf> {
    let known = BUILT
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .get_or_insert_default()
        .get(name)
        .cloned();
    if let Some(path) = known {
        return Ok(path);
    }
    let path = build(name)?;
    BUILT
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .get_or_insert_default()
        .insert(name, path.clone());
    Ok(path)
}

fn recipe(name: &str) -> (&'static str, Recipe) {
    match name {
        "cfi" => ("cfi.c", Recipe::C(&["-fomit-frame-pointer"])),
        "altstack" => (
            "../corpus/programs/altstack.c",
            Recipe::C(&["-fomit-frame-pointer"]),
        ),
        "mappings" => ("mappings.c", Recipe::C(&["-fomit-frame-pointer"])),
        "remapper" => (
            "remapper.c",
            Recipe::C(&["-fomit-frame-pointer", "-pthread"]),
        ),
        "crowd" => ("crowd.c", Recipe::C(&["-fomit-frame-pointer"])),
        "nofp" => ("nofp.c", Recipe::C(&["-fomit-frame-pointer"])),
        "compat" => ("compat.c", Recipe::C(&["-m32", "-nostdlib", "-static"])),
        "chain_go" => ("chain.go", Recipe::Go),
        "chain_cpp" => ("chain.cpp", Recipe::Cpp(&["-fomit-frame-pointer"])),
        "chain_rust" => (
            "chain.rs",
            Recipe::Rust(&["-Cforce-frame-pointers=no", "--crate-name=chain"]),
        ),
        "names_cpp" => ("names.cpp", Recipe::Cpp(WITH_FRAME_POINTERS)),
        "names_legacy" => (
            "names.rs",
            Recipe::Rust(&["-Zunstable-options", "-Csymbol-mangling-version=legacy"]),
        ),
        "names_v0" => ("names.rs", Recipe::Rust(&["-Csymbol-mangling-version=v0"])),
        "split" => ("split.c", Recipe::C(WITH_FRAME_POINTERS)),
        "threads" => ("threads.c", Recipe::C(WITH_FRAME_POINTERS)),
        "burn" => ("burn.c", Recipe::C(WITH_FRAME_POINTERS)),
        "badstack" => ("badstack.c", Recipe::C(WITH_FRAME_POINTERS)),
        "deep" => ("deep.c", Recipe::C(WITH_FRAME_POINTERS)),
        "syscalls" => ("syscalls.c", Recipe::C(WITH_FRAME_POINTERS)),
        "forker" => ("forker.c", Recipe::C(WITH_FRAME_POINTERS)),
        "departs" => ("departs.c", Recipe::C(WITH_FRAME_POINTERS)),
        "execer" => ("execer.c", Recipe::C(WITH_FRAME_POINTERS)),
        "comm" => ("comm.c", Recipe::C(WITH_FRAME_POINTERS)),
        "jit" => ("jit.c", Recipe::C(WITH_FRAME_POINTERS)),
        "mapupdate" => ("mapupdate.c", Recipe::C(WITH_FRAME_POINTERS)),
        other => panic!("no recipe for a fixture named {other}"),
    }
}

fn build(name: &'static str) -> Verdict<PathBuf> {
    let (source, recipe) = recipe(name);
    let source = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../tests/fixtures")
        .join(source);
    let program = workshop()?.join(name);
    let mut compiler = match recipe {
        Recipe::C(flags) => {
            let mut compiler = Command::new(need::tool("gcc")?);
            compiler.args(["-g", "-O2", "-Wall"]).args(flags);
            compiler
        }
        Recipe::Cpp(flags) => {
            let mut compiler = Command::new(need::tool("g++")?);
            compiler.args(["-g", "-O2", "-Wall"]).args(flags);
            compiler
        }
        Recipe::Go => {
            let mut compiler = Command::new(need::tool("go")?);
            compiler
                .arg("build")
                .env("GOCACHE", workshop()?.join("go-cache"))
                .env("GOFLAGS", "");
            compiler
        }
        Recipe::Rust(flags) => {
            let rustc =
                std::env::var_os("RUSTC").map_or(need::tool("rustc"), |path| Ok(path.into()))?;
            let mut compiler = Command::new(rustc);
            // The old mangling can no longer be asked for on stable; it is still
            // what most binaries in the field carry.
            compiler
                .env("RUSTC_BOOTSTRAP", "1")
                .args(["--edition", "2024", "-g", "-Copt-level=2"])
                .arg("-Cforce-frame-pointers=yes")
                .args(flags);
            compiler
        }
    };
    let built = compiler.arg("-o").arg(&program).arg(&source).output()?;
    let said = String::from_utf8_lossy(&built.stderr);
    if name == "compat" && !built.status.success() {
        return Err(super::verdict::Stop::Skipped(format!(
            "this compiler builds no 32-bit programs: {}",
            said.lines().next().unwrap_or_default()
        )));
    }
    ensure!(built.status.success(), "{name} does not build:\n{said}");
    Ok(program)
}
