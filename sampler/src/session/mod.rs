//! One sampling session: from the programs' start to attributed, named samples.

mod attribution;
mod budget;
pub mod command;
mod cost;
mod error;
mod grouping;
pub mod inherited;
mod ledger;
mod options;
mod profiles;
mod recording;
mod running;
mod scope;
mod settings;
mod starting;
mod traces;
mod unwinding;
mod verification;
mod waiting;

pub use attribution::{SampledProcess, WantedFrames};
pub use budget::{DEFAULT_MEMORY_BYTES, Needs, Shares, TooSmall};
pub use cost::{BPF_NS_METHOD, Cost};
pub use error::SessionError;
pub use grouping::{Group, Grouping, UnknownGrouping};
pub use ledger::{Class, Completeness, CpuLedger, Delivery, Ledger};
pub use options::{DEFAULT_LIMITS, Options, Scope, UnknownUnwindBy, UnwindBy};
pub use profiles::{FrameCounts, GroupProfile, ProfileBuilder};
pub use recording::{Lifecycle, Recording};
pub use running::{Ended, Progress, Running};
pub use scope::{TargetError, check_targets};
pub use starting::check_memory;
pub use unwinding::TableCounts;
pub use verification::{Disagreement, Verified, VisitedFrame};
