//! Getting samples out of the kernel: load, attach, drain.

mod bpf_abi;
mod drain;
mod event;
pub mod host;
mod mapped;
mod pairing;
pub mod perf_abi;
mod programs;
mod sideband;
mod sizes;
mod tables;
mod ticks;

pub use drain::{CpuCounters, Drain, RuleCounters};
pub use event::{Event, UnknownEvent};
pub use programs::{LoadError, Programs, own_pid_namespace};
pub use sideband::{Sideband, lost};
pub use sizes::{MapSizes, TABLE_CHUNK_BYTES};
pub use tables::{LoadedTable, NoRoom, Part, Tables, WalkedBy};
pub use ticks::Timers;
