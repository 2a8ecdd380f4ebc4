//! What this kernel and this caller can do.
//!
//! Each file reads one thing, with a pure parser and a thin reader.

pub mod bpf_features;
pub mod btf;
pub mod cgroup;
pub mod cpus;
pub mod events;
pub mod kallsyms;
pub mod kernel;
pub mod lockdown;
pub mod pid_namespace;
pub mod privilege;
mod small_file;
pub mod sysctl;
pub mod task_layout;
