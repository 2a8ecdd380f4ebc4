//! The files the object is built from.

use super::record::hex;
use anyhow::{Context, Result};
use sha2::{Digest, Sha256};
use std::fs;
use std::path::{Path, PathBuf};

/// The crates that are ours and end up in the object.
const CRATES: [&str; 2] = ["sampler-common", "sampler-ebpf"];
/// Beside `src`, what decides how a crate is built. Not every crate has all.
const MANIFESTS: [&str; 4] = [".cargo/config.toml", "Cargo.lock", "Cargo.toml", "build.rs"];

/// The source files, by their path from the root of the checkout, in byte order.
pub struct Sources {
    root: PathBuf,
    files: Vec<String>,
}

impl Sources {
    /// Lists what is in the checkout at `root`.
    pub fn list(root: &Path) -> Result<Self> {
        let mut files = Vec::new();
        for name in CRATES {
            for manifest in MANIFESTS {
                let file = format!("{name}/{manifest}");
                if root.join(&file).is_file() {
                    files.push(file);
                }
            }
            list_folder(root, &format!("{name}/src"), &mut files)?;
        }
        files.sort_unstable();
        Ok(Self {
            root: root.to_path_buf(),
            files,
        })
    }

    /// SHA-256 in hexadecimal over each file's name and content.
    ///
    /// Both are preceded by their length (64 bits, little endian), so that no
    /// two sets of files run together to the same bytes.
    pub fn sha256(&self) -> Result<String> {
        let mut hash = Sha256::new();
        for file in &self.files {
            let content = fs::read(self.root.join(file)).with_context(|| file.clone())?;
            for part in [file.as_bytes(), content.as_slice()] {
                hash.update((part.len() as u64).to_le_bytes());
                hash.update(part);
            }
        }
        Ok(hex(&hash.finalize()))
    }

    /// Copies the files to the same places under `target`.
    pub fn copy_to(&self, target: &Path) -> Result<()> {
        for file in &self.files {
            let to = target.join(file);
            if let Some(folder) = to.parent() {
                fs::create_dir_all(folder)?;
            }
            fs::copy(self.root.join(file), to).with_context(|| file.clone())?;
        }
        Ok(())
    }
}

fn list_folder(root: &Path, folder: &str, files: &mut Vec<String>) -> Result<()> {
    for entry in fs::read_dir(root.join(folder)).with_context(|| folder.to_string())? {
        let entry = entry?;
        let path = format!("{folder}/{}", entry.file_name().to_string_lossy());
        if entry.file_type()?.is_dir() {
            list_folder(root, &path, files)?;
        } else {
            files.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail")]
    use super::*;

    fn checkout() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for name in CRATES {
            fs::create_dir_all(root.path().join(name).join("src/deep")).unwrap();
            fs::write(root.path().join(name).join("Cargo.toml"), name).unwrap();
            fs::write(root.path().join(name).join("src/lib.rs"), "ab").unwrap();
            fs::write(root.path().join(name).join("src/deep/x.rs"), "c").unwrap();
        }
        root
    }

    fn hash(root: &Path) -> String {
        Sources::list(root).unwrap().sha256().unwrap()
    }

    #[test]
    fn a_copy_in_another_folder_has_the_same_hash() {
        let one = checkout();
        let other = tempfile::tempdir().unwrap();
        Sources::list(one.path())
            .unwrap()
            .copy_to(other.path())
            .unwrap();
        assert_eq!(hash(one.path()), hash(other.path()));
    }

    #[test]
    fn every_change_changes_the_hash() {
        let root = checkout();
        let before = hash(root.path());
        let file = root.path().join("sampler-common/src/deep/x.rs");

        fs::write(&file, "d").unwrap();
        let edited = hash(root.path());
        fs::rename(&file, file.with_file_name("y.rs")).unwrap();
        let renamed = hash(root.path());
        fs::write(root.path().join("sampler-ebpf/Cargo.lock"), "").unwrap();
        let locked = hash(root.path());

        let mut all = [before, edited, renamed, locked].to_vec();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), 4);
    }

    #[test]
    fn what_is_not_a_source_does_not_count() {
        let root = checkout();
        let before = hash(root.path());
        fs::create_dir(root.path().join("sampler-ebpf/target")).unwrap();
        fs::write(root.path().join("sampler-ebpf/target/object"), "x").unwrap();
        assert_eq!(hash(root.path()), before);
    }
}
