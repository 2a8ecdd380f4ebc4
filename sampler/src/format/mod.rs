//! A profile becomes a file.
//!
//! Each format is one file with a writer from [`Profile`](crate::profile::Profile)
//! to bytes. Names come from the profiled programs, so each writer passes them
//! through [`safe`] before they reach anything that a person looks at.

pub mod folded;
pub mod pprof;
pub mod safe;
pub mod svg;

#[cfg(test)]
mod example;
