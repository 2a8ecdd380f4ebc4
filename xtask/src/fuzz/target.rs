//! What there is to break. A new target is a program in `fuzz/`, a variant here
//! and a module of [`seeds`].

use anyhow::Result;
use clap::ValueEnum;
use std::path::Path;

use super::seeds::{self, Seed};

#[derive(Clone, Copy, ValueEnum)]
pub enum Target {
    /// Names from hostile perf maps and jitdumps
    Jit,
    /// The unwind tables of hostile files, and walks by them
    Tables,
    /// Profiles that get names
    Pprof,
    /// The names in hostile Go programs
    Golang,
    /// The build IDs among hostile notes
    Notes,
    /// What is made of hostile ELF files before any parser sees them
    Image,
}

impl Target {
    /// The name of its program.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Jit => "jit",
            Self::Tables => "tables",
            Self::Pprof => "pprof",
            Self::Golang => "golang",
            Self::Notes => "notes",
            Self::Image => "image",
        }
    }

    /// Its first inputs.
    pub fn seeds(self, root: &Path) -> Result<Vec<Seed>> {
        match self {
            Self::Jit => Ok(seeds::jit::seeds()),
            Self::Tables => seeds::tables::seeds(root),
            Self::Pprof => Ok(seeds::pprof::seeds()),
            Self::Golang => Ok(seeds::golang::seeds()),
            Self::Notes => Ok(seeds::notes::seeds()),
            Self::Image => Ok(seeds::image::seeds()),
        }
    }
}
