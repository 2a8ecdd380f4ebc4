//! The in-memory profile: stacks, frames, sample types. No I/O.
//!
//! [`Profile`] keeps every distinct mapping, function, location, stack and
//! set of labels once and knows each by a dense number, in order of arrival;
//! equal samples are merged by adding their values. A writer in
//! [`format`](crate::format) walks the tables in that order.

mod intern;
mod labels;
mod model;
mod samples;

pub(crate) use intern::Interner;
pub use labels::Labels;
pub use model::{
    Function, FunctionId, Header, Line, Location, LocationId, Mapping, MappingId, ValueType,
};
pub use samples::{Profile, Sample};
