//! One file for each subcommand; [`cli`] holds the arguments.

pub mod cli;
pub mod doctor;
mod failure;
pub mod log;
pub mod record;

pub use failure::Failure;
