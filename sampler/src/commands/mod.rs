//! One file for each subcommand; [`cli`] holds the arguments.

pub mod cli;
pub mod doctor;
mod failure;
pub mod log;
pub mod record;
mod size;

pub use failure::Failure;
