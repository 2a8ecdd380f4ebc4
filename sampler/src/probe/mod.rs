//! Getting samples out of the kernel.

pub mod host;
pub mod perf_abi;
