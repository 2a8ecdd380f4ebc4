//! One file for each subcommand; [`cli`] holds the arguments.

pub mod cli;
mod debug_servers;
pub mod doctor;
mod failure;
pub mod log;
mod naming_line;
mod open_files;
pub mod record;
mod size;
pub mod symbolize;

pub use failure::Failure;
