//! Child processes without rights, in which hostile files are parsed.
//!
//! A [`Child`] is this program, started again: [`serve_if_child`], which `main`
//! calls before anything else, finds out that it is one, takes every right from
//! the process, and runs a [`Service`]. What that service parses it gets as open
//! files from its parent, over a socket; it can open nothing, start nothing and
//! talk to nobody else. It may do anything else wrong: crash, hang, or answer
//! lies. [`Child::receive`] bounds what comes back; whether it is true is for
//! the caller to check.

mod census;
mod channel;
mod child;
mod confinement;
mod filter;
mod landlock;
pub mod niceness;
pub mod rights;
mod serve;

pub use census::{cpu_ns, pids, thread_cpu_ns};
pub use child::{Child, Limits, Lost};
pub use serve::{Parent, Service, serve_if_child};
