//! Addresses to frames, each distinct address once, off the drain path.
//!
//! A [`Symbolizer`] is a handle on one thread that owns all parsers. Drains
//! hand it [`Query`]s and go on; at the end [`Symbolizer::finish`] returns the
//! [`Names`].
//!
//! An address is asked for by where it lies ([`Place`]): in a pinned file by
//! file offset, in the kernel by address, in the vDSO by offset into its image.
//! Processes are never asked, so it does not matter whether they still exist,
//! and nothing that a process can write beside its ELF files (a perf map) is
//! ever opened.
//!
//! An ELF file is hostile. `inspect` looks at its headers first and decides
//! what of it the parser may see; a file that fails or panics the parser loses
//! its own names and nothing else. So does one that would take too much: what is
//! parsed, inflated and kept in memory has bounds for each file and for the run,
//! and [`Symbolizer::finish`] waits so long and no longer. What a parser inside this process cannot
//! survive is a file truncated under its mapping (`SIGBUS`) and DWARF nested
//! deeper than the thread's stack.

mod debug_files;
mod debuginfod;
mod demangle;
mod frames;
mod headers;
mod inflation;
mod inspect;
mod kernel;
mod names;
mod native;
mod parsers;
mod place;
mod vdso;

pub use vdso::pin as pin_vdso;
mod worker;

pub use debuginfod::DebugServers;
pub use names::{FrameName, Named, Names, Stats};
pub use place::{Place, PlaceKey, Query};
pub use worker::{Options, Symbolizer};
