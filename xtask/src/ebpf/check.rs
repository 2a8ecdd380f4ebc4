//! `cargo xtask ebpf --check`: the committed object belongs to the sources.

use super::record::{Record, sha256_hex};
use super::sources::Sources;
use super::toolchain::Toolchain;
use super::{Committed, audit, build};
use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::Path;

/// Fails unless the committed object is what the sources say.
///
/// `elsewhere` also builds a copy of the sources in another folder: the place
/// must not show in the object.
pub fn run(root: &Path, committed: &Committed, elsewhere: bool) -> Result<()> {
    let (object, record) = committed
        .read()
        .context("no committed object; `cargo xtask ebpf` makes it")?;
    compare_hashes(&object, &record, &Sources::list(root)?.sha256()?)?;

    let toolchain = Toolchain::find(Some(&record.toolchain))?;
    audit::audit(&object, &build::machine_paths(root, &toolchain))
        .context("the committed object")?;
    println!(
        "the committed object belongs to the sources by its record; building with {}",
        toolchain.identity()
    );
    let rebuilt = build::build(root, &toolchain, build::Lock::Fixed)?;
    if toolchain.identity() == record.toolchain && toolchain.linker_version() == record.bpf_linker {
        ensure!(
            rebuilt == object,
            "the sources build to other bytes than the committed object (SHA-256 {} instead of {}); run `cargo xtask ebpf`",
            sha256_hex(&rebuilt),
            record.object_sha256
        );
        println!(
            "rebuilt with the recorded toolchain: the same {} bytes",
            object.len()
        );
    } else {
        audit::audit(&rebuilt, &build::machine_paths(root, &toolchain))
            .context("the rebuilt object")?;
        println!(
            "rebuilt with another toolchain than the recorded one ({}, {}): not compared byte by byte",
            record.toolchain, record.bpf_linker
        );
    }
    if elsewhere {
        let folder = tempfile::Builder::new()
            .prefix("sampler-ebpf-elsewhere-")
            .tempdir()?;
        ensure!(
            build_copy(root, folder.path(), &toolchain)? == rebuilt,
            "a copy of the sources in another folder builds to other bytes"
        );
        println!("built in another folder: the same bytes");
    }
    Ok(())
}

/// The part of the check that needs no toolchain.
fn compare_hashes(object: &[u8], record: &Record, source_sha256: &str) -> Result<()> {
    ensure!(
        sha256_hex(object) == record.object_sha256,
        "the committed object is not the recorded one; run `cargo xtask ebpf`"
    );
    ensure!(
        source_sha256 == record.source_sha256,
        "the sources changed after the committed object was built; run `cargo xtask ebpf`"
    );
    Ok(())
}

/// Builds the sources copied to `folder`, which is empty.
fn build_copy(root: &Path, folder: &Path, toolchain: &Toolchain) -> Result<Vec<u8>> {
    Sources::list(root)?.copy_to(folder)?;
    // `sampler-common` takes its version and lints from the workspace.
    fs::copy(root.join("Cargo.toml"), folder.join("Cargo.toml"))?;
    build::build(folder, toolchain, build::Lock::Fixed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record_of(object: &[u8]) -> Record {
        Record {
            toolchain: "rustc 1.96.0".into(),
            bpf_linker: "bpf-linker 0.13.0".into(),
            source_sha256: "5ca1".into(),
            object_sha256: sha256_hex(object),
        }
    }

    #[test]
    fn an_object_that_belongs_to_its_sources_passes() {
        assert!(compare_hashes(b"object", &record_of(b"object"), "5ca1").is_ok());
    }

    #[test]
    fn an_edited_object_and_edited_sources_are_noticed() {
        assert!(compare_hashes(b"objekt", &record_of(b"object"), "5ca1").is_err());
        assert!(compare_hashes(b"object", &record_of(b"object"), "5ca2").is_err());
    }
}
