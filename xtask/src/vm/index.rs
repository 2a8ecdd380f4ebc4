//! The part of `index.json` that is checked.

use super::sections::Section;
use anyhow::{Context as _, Result};
use serde::Deserialize;
use std::collections::BTreeMap;

/// A whole recording.
#[derive(Debug, Deserialize)]
pub struct Index {
    pub host: Host,
    pub ledger: Ledger,
    pub stacks: Stacks,
    pub files: Vec<Profile>,
}

#[derive(Debug, Deserialize)]
pub struct Host {
    pub kernel: String,
}

#[derive(Debug, Deserialize)]
pub struct Ledger {
    pub ticks: u64,
    pub expected_ticks: Option<u64>,
    pub counted: u64,
    pub idle: u64,
    pub out_of_scope: u64,
    pub lost: BTreeMap<String, u64>,
}

/// Stacks by completeness.
#[derive(Debug, Deserialize)]
pub struct Stacks {
    pub complete: u64,
    pub truncated: BTreeMap<String, u64>,
    pub kernel_only: u64,
}

/// One file.
#[derive(Debug, Deserialize)]
pub struct Profile {
    pub file: String,
    pub pid: Option<u32>,
    pub comm: Option<String>,
    pub samples: u64,
    pub stacks: Stacks,
}

impl Index {
    /// Reads what the guest printed as section `name`.
    pub fn parse(name: &str, section: &Section) -> Result<Self> {
        serde_json::from_str(&section.text).with_context(|| {
            let start: String = section.text.chars().take(300).collect();
            format!("{name} is no index: {start}")
        })
    }

    /// The pprof files: each profile is there once a format, and one of them
    /// stands for all.
    pub fn profiles(&self) -> impl Iterator<Item = &Profile> {
        self.files
            .iter()
            .filter(|file| file.file.ends_with(".pb.gz"))
    }
}

impl Stacks {
    /// All that were cut.
    pub fn cut(&self) -> u64 {
        self.truncated.values().sum()
    }
}
