//! The first inputs of each target.

pub mod golang;
pub mod image;
pub mod jit;
pub mod notes;
pub mod pprof;
pub mod tables;

#[path = "../../../../tests/unwind/elf.rs"]
mod elf;

use anyhow::{Context, Result};
use std::fs;
use std::path::Path;

/// One input.
pub struct Seed {
    /// Another one for each seed of a target.
    pub name: String,
    /// The input.
    pub bytes: Vec<u8>,
}

/// Writes seeds into a corpus.
pub fn write(seeds: &[Seed], corpus: &Path) -> Result<()> {
    for seed in seeds {
        let place = corpus.join(format!("seed-{}", seed.name));
        fs::write(&place, &seed.bytes).with_context(|| place.display().to_string())?;
    }
    Ok(())
}
