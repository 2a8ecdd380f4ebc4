//! Finding a Rust toolchain that can build for the BPF target: any rustc of a
//! recent LLVM, with the source of `core`, and `bpf-linker`.

use crate::project;
use anyhow::{Context, Result, anyhow};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Older ones do not know the edition; Debian 12's own `rustc` is one of them.
const OLDEST_MINOR: u32 = 88;

const HELP: &str = "no toolchain for the BPF target found. Install one of
  Debian:  apt-get install -y rustc-web cargo-web rust-web-src
  rustup:  rustup toolchain install nightly --component rust-src
(both coexist with the toolchain that builds the rest)";

const LINKER_HELP: &str = "no bpf-linker on PATH or in cargo's bin folder. Install it:
  apt-get install -y llvm-22-dev
  LLVM_PREFIX=/usr/lib/llvm-22 cargo install bpf-linker --version 0.13.0 --no-default-features --features llvm-22";

/// A toolchain that can build the eBPF crate.
pub struct Toolchain {
    rustc: PathBuf,
    cargo: PathBuf,
    /// The folder that holds `library`, as cargo sees it.
    rust_src: PathBuf,
    linker: PathBuf,
    identity: String,
    linker_version: String,
}

impl Toolchain {
    /// The toolchain called `preferred`, else the first one found.
    pub fn find(preferred: Option<&str>) -> Result<Self> {
        let linker = project::find_program("bpf-linker").ok_or_else(|| anyhow!(LINKER_HELP))?;
        let linker_version = project::output(Command::new(&linker).arg("--version"))?;
        let mut found: Vec<Self> = candidates()
            .into_iter()
            .filter_map(|(rustc, cargo)| Self::probe(rustc, cargo, &linker, &linker_version))
            .collect();
        let at = found
            .iter()
            .position(|toolchain| Some(toolchain.identity.as_str()) == preferred)
            .unwrap_or(0);
        if found.is_empty() {
            return Err(anyhow!(HELP));
        }
        Ok(found.swap_remove(at))
    }

    fn probe(rustc: PathBuf, cargo: PathBuf, linker: &Path, linker_version: &str) -> Option<Self> {
        let version =
            project::output(Command::new(&rustc).arg("--version").arg("--verbose")).ok()?;
        if minor_version(&version)? < OLDEST_MINOR || !cargo.is_file() {
            return None;
        }
        let sysroot = project::output(Command::new(&rustc).args(["--print", "sysroot"])).ok()?;
        let rust_src = Path::new(sysroot.trim_end()).join("lib/rustlib/src/rust");
        rust_src
            .join("library/core/Cargo.toml")
            .is_file()
            .then(|| Self {
                rustc,
                cargo,
                rust_src,
                linker: linker.to_path_buf(),
                identity: identity(&version),
                linker_version: linker_version.trim_end().to_string(),
            })
    }

    /// rustc's version and its LLVM's: two toolchains of the same identity
    /// make the same object.
    pub fn identity(&self) -> &str {
        &self.identity
    }

    /// What `bpf-linker --version` prints.
    pub fn linker_version(&self) -> &str {
        &self.linker_version
    }

    /// The linker to name to rustc.
    pub fn linker(&self) -> &Path {
        &self.linker
    }

    /// Every name of the folder with the standard library's source: the one
    /// cargo uses, and where a link of that name leads to.
    pub fn rust_src_names(&self) -> Result<Vec<PathBuf>> {
        let real = fs::canonicalize(&self.rust_src)
            .with_context(|| self.rust_src.display().to_string())?;
        let mut names = vec![self.rust_src.clone()];
        if real != self.rust_src {
            names.push(real);
        }
        Ok(names)
    }

    /// This toolchain's cargo, with an environment that only this toolchain
    /// decides about: this program itself runs under another cargo, whose
    /// variables are inherited.
    pub fn cargo(&self) -> Command {
        let mut cargo = Command::new(&self.cargo);
        for name in [
            "CARGO_BUILD_RUSTFLAGS",
            "CARGO_BUILD_TARGET",
            "CARGO_TARGET_DIR",
            "RUSTC_WORKSPACE_WRAPPER",
            "RUSTFLAGS",
            "RUSTUP_TOOLCHAIN",
        ] {
            cargo.env_remove(name);
        }
        // A released rustc accepts `-Z build-std` and unstable features only so.
        cargo.env("RUSTC_BOOTSTRAP", "1").env("RUSTC", &self.rustc);
        cargo
    }
}

/// Pairs of rustc and cargo that may do: Debian's, then rustup's nightly.
fn candidates() -> Vec<(PathBuf, PathBuf)> {
    let nightly = |program: &str| {
        project::output(Command::new("rustup").args(["which", "--toolchain", "nightly", program]))
            .map(|path| PathBuf::from(path.trim_end()))
    };
    let mut pairs = vec![("/usr/bin/rustc".into(), "/usr/bin/cargo".into())];
    if let (Ok(rustc), Ok(cargo)) = (nightly("rustc"), nightly("cargo")) {
        pairs.push((rustc, cargo));
    }
    pairs
}

/// `"rustc 1.96.0 (…)"` → 96.
fn minor_version(version: &str) -> Option<u32> {
    version
        .strip_prefix("rustc 1.")?
        .split('.')
        .next()?
        .parse()
        .ok()
}

/// The first line of `rustc --version --verbose` and the one about LLVM.
fn identity(version: &str) -> String {
    let first = version.lines().next().unwrap_or_default();
    match version
        .lines()
        .find(|line| line.starts_with("LLVM version"))
    {
        Some(llvm) => format!("{first}, {llvm}"),
        None => first.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEBIAN: &str = "rustc 1.96.0 (ac68faa20 2026-05-25) (built from a source tarball)
binary: rustc
host: x86_64-unknown-linux-gnu
release: 1.96.0
LLVM version: 22.1.8
";

    #[test]
    fn the_identity_names_compiler_and_llvm_but_not_the_host() {
        assert_eq!(
            identity(DEBIAN),
            "rustc 1.96.0 (ac68faa20 2026-05-25) (built from a source tarball), LLVM version: 22.1.8"
        );
    }

    #[test]
    fn the_version_is_read_from_released_and_nightly_compilers() {
        assert_eq!(minor_version(DEBIAN), Some(96));
        assert_eq!(
            minor_version("rustc 1.98.0-nightly (abc 2026-07-01)"),
            Some(98)
        );
        assert_eq!(minor_version("gcc 12.2"), None);
    }
}
