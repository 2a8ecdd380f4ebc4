//! The corpus: programs that a walk of user stacks must survive, how to run
//! them under `sampler`, and a judge of whether a stack is complete that knows
//! nothing of how `sampler` decides that.
//!
//! `cargo xtask bench completeness` measures them at length, the suite in
//! `main.rs`, beside this library, briefly.

mod crowd;
mod disturbance;
mod generated;
mod image;
mod judge;
mod measure;
mod prepared;
pub mod profile;
mod programs;
mod recording;
mod tally;
mod workshop;

pub use crowd::Crowd;
pub use disturbance::Disturbance;
pub use measure::{Bench, Measurement, Unmeasured};
pub use programs::{PROGRAMS, Program};
pub use tally::{Root, Tally};
