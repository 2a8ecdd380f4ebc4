//! What this kernel and this caller can do.
//!
//! Each file reads one thing, with a pure parser and a thin reader; `facts`
//! gathers them, `diagnosis` says what they mean and `preflight` whether a
//! recording may start.

pub mod boot;
pub mod bpf_features;
pub mod btf;
pub mod cgroup;
pub mod cpus;
pub mod diagnosis;
pub mod events;
mod facts;
#[cfg(test)]
pub(crate) mod invented;
pub mod kallsyms;
pub mod kernel;
pub mod lockdown;
pub mod memory_layout;
pub mod pid_namespace;
mod preflight;
pub mod privilege;
mod small_file;
pub mod sysctl;
pub mod task_layout;

pub use facts::HostFacts;
pub use preflight::{PreflightError, preflight};
