//! `cargo xtask licenses`: everything that is linked into what people run may
//! be linked there.

mod graph;
mod policy;

use crate::project;
use anyhow::{Context, Result, bail};
use graph::Metadata;
use policy::Place;
use std::path::Path;
use std::process::Command;

/// Not dependencies that cargo knows of: `-Z build-std` links them into the
/// object. Licences as their manifests in rust-src state them.
const FROM_RUST_SRC: [(&str, &str); 2] = [
    ("core", "MIT OR Apache-2.0"),
    (
        "compiler_builtins",
        "MIT AND Apache-2.0 WITH LLVM-exception AND (MIT OR Apache-2.0)",
    ),
];

/// Checks both dependency graphs; fails with every refusal of both.
pub fn run() -> Result<()> {
    let root = project::root();
    let mut refused = Vec::new();
    check(&root, "Cargo.toml", "sampler", Place::Program, &mut refused)?;
    check(
        &root,
        "sampler-ebpf/Cargo.toml",
        "sampler-ebpf",
        Place::EbpfObject,
        &mut refused,
    )?;
    for (name, licence) in FROM_RUST_SRC {
        refused.extend(policy::judge(name, Some(licence), Place::EbpfObject).err());
    }
    if !refused.is_empty() {
        bail!(
            "{} licence(s) refused:\n  {}",
            refused.len(),
            refused.join("\n  ")
        );
    }
    Ok(())
}

/// Judges the dependencies of the manifest's graph: those linked into `product`
/// by the rules for `linked`, the others by those for tools.
fn check(
    root: &Path,
    manifest: &str,
    product: &str,
    linked: Place,
    refused: &mut Vec<String>,
) -> Result<()> {
    let json = project::output(
        Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
            .args([
                "metadata",
                "--format-version",
                "1",
                "--locked",
                "--manifest-path",
            ])
            .arg(root.join(manifest)),
    )?;
    let metadata: Metadata = serde_json::from_str(&json).context("cargo metadata")?;
    let linked_ids = metadata.linked_into(product)?;
    let mut counts = [0_usize; 2];
    for package in &metadata.packages {
        let (place, count) = if linked_ids.contains(package.id.as_str()) {
            (linked, 0)
        } else {
            (Place::Tool, 1)
        };
        counts[count] += 1;
        let verdict = policy::judge(&package.name, package.license.as_deref(), place);
        refused.extend(verdict.err());
    }
    println!(
        "{product}: {} packages linked, {} more only build or test it",
        counts[0], counts[1]
    );
    Ok(())
}
