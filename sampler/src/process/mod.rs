//! Who runs: identity, program, mappings and the files behind them.
//!
//! News come as [`Record`]s from the kernel and, for what was there before, from
//! `/proc`. [`ProcessTable`] puts them together and answers which process a
//! sample belongs to and what lies at an address of it at that time.

mod address_space;
mod clock;
mod comm;
mod foreign_root;
mod image;
mod incarnation;
mod jit_folder;
mod mapping;
mod open_regular;
mod pin;
mod proc_text;
mod procfs;
mod record;
mod table;
#[cfg(test)]
mod tests;

pub use address_space::AddressSpace;
pub use clock::{Clocks, boot_unix_ns, monotonic_ns};
pub use comm::Comm;
pub use incarnation::Process;
pub use jit_folder::{JitFolder, Refusal};
pub use mapping::{Backing, Mapping};
pub use pin::{FileStore, Sought};
pub use proc_text::{Stat, parse_stat};
pub use procfs::{Procfs, Snapshot};
pub use record::{Event, MapRecord, Record, RecordError, parse};
pub use table::{Counters, ProcessKey, ProcessTable, Sighting};
