//! A whole-system sampling profiler on eBPF.
//!
//! A sample travels one way, and the modules are listed in the order in which
//! it meets them: [`probe`] takes it out of the kernel, [`process`] says whose
//! it is and which file each address lies in, [`symbolize`] names the
//! addresses, [`profile`] holds the result and [`mod@format`] writes it.
//! [`session`] is the one that runs the journey and [`commands`] are its users.

pub mod cache;
pub mod commands;
pub mod format;
pub mod isolation;
pub mod object;
pub mod offline;
pub mod output;
pub mod probe;
pub mod process;
pub mod profile;
pub mod session;
pub mod symbolize;

/// Becomes a child in which hostile files are parsed, if this process was
/// started as one, and does not return then.
///
/// The children are this program, started again: whatever records or names
/// addresses calls this first thing in its `main`.
pub fn serve_if_child() {
    isolation::serve_if_child(&[symbolize::SERVICE, session::TABLES_SERVICE]);
}
