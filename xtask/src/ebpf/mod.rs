//! `cargo xtask ebpf`: the object that `sampler` embeds is built here, and
//! committed, so that nobody else needs a toolchain for the BPF target.

mod atomics;
mod audit;
mod build;
mod check;
mod record;
pub mod rustc_wrapper;
mod sources;
mod toolchain;

use crate::project;
use anyhow::{Context, Result};
use record::Record;
use std::fs;
use std::path::{Path, PathBuf};
use toolchain::Toolchain;

/// What `cargo xtask ebpf` is asked to do.
#[derive(clap::Args)]
pub struct Args {
    /// Write nothing; fail when the committed object does not belong to the sources
    #[arg(long)]
    check: bool,
    /// With --check: also build a copy of the sources in another folder and compare the bytes
    #[arg(long, requires = "check")]
    elsewhere: bool,
}

/// Builds and records the object, or checks the committed one.
pub fn run(args: &Args) -> Result<()> {
    let root = project::root();
    let committed = Committed::in_checkout(&root);
    if args.check {
        return check::run(&root, &committed, args.elsewhere);
    }
    let toolchain = Toolchain::find(None)?;
    println!("toolchain: {}", toolchain.identity());
    let object = build::build(&root, &toolchain, build::Lock::MayChange)?;
    audit::audit(&object, &build::machine_paths(&root, &toolchain))?;
    let record = Record {
        toolchain: toolchain.identity().to_string(),
        bpf_linker: toolchain.linker_version().to_string(),
        source_sha256: sources::Sources::list(&root)?.sha256()?,
        object_sha256: record::sha256_hex(&object),
    };
    committed.write(&object, &record)?;
    println!(
        "wrote {} ({} bytes)",
        committed.object.display(),
        object.len()
    );
    Ok(())
}

/// The two committed files.
struct Committed {
    object: PathBuf,
    record: PathBuf,
}

impl Committed {
    fn in_checkout(root: &Path) -> Self {
        let folder = root.join("sampler/ebpf");
        Self {
            object: folder.join("sampler.bpf.o"),
            record: folder.join("sampler.bpf.json"),
        }
    }

    fn read(&self) -> Result<(Vec<u8>, Record)> {
        let object = fs::read(&self.object).with_context(|| self.object.display().to_string())?;
        let record = fs::read(&self.record).with_context(|| self.record.display().to_string())?;
        let record = serde_json::from_slice(&record)
            .with_context(|| format!("{} is damaged", self.record.display()))?;
        Ok((object, record))
    }

    fn write(&self, object: &[u8], record: &Record) -> Result<()> {
        if let Some(folder) = self.object.parent() {
            fs::create_dir_all(folder)?;
        }
        let mut json = serde_json::to_string_pretty(record)?;
        json.push('\n');
        fs::write(&self.object, object).with_context(|| self.object.display().to_string())?;
        fs::write(&self.record, json).with_context(|| self.record.display().to_string())
    }
}
