//! Where the programs are built, and with what.

use crate::measure::Unmeasured;
use anyhow::{Context as _, anyhow};
use std::env;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// A folder of its own, removed in the end.
pub struct Workshop {
    folder: TempDir,
}

impl Workshop {
    /// A new folder.
    pub fn new() -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("sampler-corpus-")
            .tempdir()?;
        Ok(Self { folder })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// A place in the folder.
    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Builds `sources` to `name` with a compiler that takes `-o`.
    pub fn compile(
        &self,
        compiler: &Path,
        flags: &[&str],
        sources: &[&str],
        name: &str,
    ) -> Result<PathBuf, Unmeasured> {
        let program = self.join(name);
        let mut command = Command::new(compiler);
        command.args(flags).arg("-o").arg(&program);
        for word in sources {
            // Libraries to link stand among the sources.
            if word.starts_with('-') {
                command.arg(word);
            } else {
                command.arg(source(word));
            }
        }
        self.run(&mut command)?;
        Ok(program)
    }

    /// Runs `command` in the folder, to its end.
    pub fn run(&self, command: &mut Command) -> Result<Vec<u8>, Unmeasured> {
        let name = command.get_program().display().to_string();
        let output = command
            .current_dir(self.path())
            .envs(ENVIRONMENT.iter().copied())
            .output()
            .with_context(|| name.clone())?;
        if output.status.success() {
            return Ok(output.stdout);
        }
        let said = String::from_utf8_lossy(&output.stderr);
        Err(anyhow!("{name}: {}\n{}", output.status, said.trim_end()).into())
    }

    /// Writes a file into the folder.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> Result<PathBuf, Unmeasured> {
        let path = self.join(name);
        fs::write(&path, content).with_context(|| path.display().to_string())?;
        Ok(path)
    }
}

/// What nobody's own settings may change.
pub const ENVIRONMENT: &[(&str, &str)] = &[
    ("LC_ALL", "C"),
    ("GIT_CONFIG_GLOBAL", "/dev/null"),
    ("GIT_CONFIG_NOSYSTEM", "1"),
];

/// A source of the corpus.
pub fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("programs")
        .join(name)
}

/// An installed program: the distribution's, else the first one on PATH.
pub fn tool(name: &str) -> Result<PathBuf, Unmeasured> {
    let path = env::var_os("PATH").unwrap_or_default();
    find(
        name,
        [PathBuf::from("/usr/bin")]
            .into_iter()
            .chain(env::split_paths(&path)),
    )
}

/// The compiler that `rustc` on PATH stands for.
pub fn rustc(workshop: &Workshop) -> Result<PathBuf, Unmeasured> {
    let path = env::var_os("PATH").unwrap_or_default();
    let rustc = find("rustc", env::split_paths(&path))?;
    let printed = workshop.run(Command::new(rustc).args(["--print", "sysroot"]))?;
    let sysroot = String::from_utf8(printed).context("rustc --print sysroot")?;
    Ok(Path::new(sysroot.trim_end()).join("bin/rustc"))
}

fn find(
    name: impl AsRef<OsStr>,
    folders: impl Iterator<Item = PathBuf>,
) -> Result<PathBuf, Unmeasured> {
    let name = Path::new(name.as_ref());
    folders
        .map(|folder| folder.join(name))
        .find(|candidate| candidate.is_file())
        .ok_or_else(|| Unmeasured::Missing(format!("`{}` is not installed", name.display())))
}
