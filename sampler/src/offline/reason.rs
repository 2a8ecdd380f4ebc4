//! What was named, and why the rest was not.

use std::fmt;

/// What became of the locations of a profile.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Named {
    /// All of them.
    pub locations: usize,
    /// Those that had a name before.
    pub before: usize,
    /// Those that have one now.
    pub after: usize,
    /// The others.
    pub unnamed: Vec<Unnamed>,
}

/// Locations of one mapping that have no name for one reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unnamed {
    /// What the profile calls the mapped file. Not made safe for a terminal.
    pub module: String,
    /// Its build ID, as the profile has it.
    pub build_id: Option<String>,
    /// How many.
    pub locations: usize,
    /// Why.
    pub reason: Reason,
}

/// Why a location has no name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// It lies in no mapping, or in one of no file.
    NoFile,
    /// Nothing says which file it was.
    NoBuildId,
    /// No file with the build ID was found.
    NotFound,
    /// The file at the mapping's path is another one.
    OtherAtPath,
    /// There is no usable file at the mapping's path.
    NothingAtPath,
    /// The address lies outside of its mapping, or the mapping has no end.
    OutsideOfMapping,
    /// The address lies outside of the file's code.
    OutsideOfCode,
    /// Only the debug file is there, and the mapping is not one of its segments.
    LayoutUnknown,
    /// The file has no symbol there.
    NoSymbol,
    /// The profile does not say of which boot of which kernel it is.
    UnknownBoot,
    /// It is of another boot than this one.
    OtherBoot,
    /// This kernel hides its addresses from us.
    KernelHidden,
    /// A module's or a BPF program's: another may lie there by now.
    KernelModule,
}

impl Reason {
    /// Its name for programs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NoFile => "no_file",
            Self::NoBuildId => "no_build_id",
            Self::NotFound => "not_found",
            Self::OtherAtPath => "other_at_path",
            Self::NothingAtPath => "nothing_at_path",
            Self::OutsideOfMapping => "outside_of_mapping",
            Self::OutsideOfCode => "outside_of_code",
            Self::LayoutUnknown => "layout_unknown",
            Self::NoSymbol => "no_symbol",
            Self::UnknownBoot => "unknown_boot",
            Self::OtherBoot => "other_boot",
            Self::KernelHidden => "kernel_hidden",
            Self::KernelModule => "kernel_module",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoFile => "no file lies behind it",
            Self::NoBuildId => {
                "the profile has no build ID of it; `--trust-paths` takes what is at its path"
            }
            Self::NotFound => {
                "no file with this build ID; `--debug-dir` and `--debuginfod` say where else to look"
            }
            Self::OtherAtPath => {
                "what is at its path has another build ID; `--debug-dir` and `--debuginfod` say where else to look"
            }
            Self::NothingAtPath => "no program or library is at its path",
            Self::OutsideOfMapping => "the address is outside of the mapping",
            Self::OutsideOfCode => "the address is outside of the file's code",
            Self::LayoutUnknown => {
                "only its debug file was found, which does not say where this mapping lay"
            }
            Self::NoSymbol => "no symbol there",
            Self::UnknownBoot => {
                "the profile does not say of which boot it is; `--kallsyms` names its kernel"
            }
            Self::OtherBoot => "it is of another boot; `--kallsyms` names its kernel",
            Self::KernelHidden => {
                "this kernel hides its addresses: needs root, and kernel.kptr_restrict below 2"
            }
            Self::KernelModule => {
                "not in the kernel proper, where something else may lie by now; `--kallsyms` names it"
            }
        })
    }
}
