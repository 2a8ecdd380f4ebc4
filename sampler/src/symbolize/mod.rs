//! Addresses to frames, each distinct address once, off the drain path.
//!
//! A [`Symbolizer`] is a handle on one thread that owns all parsers. Drains
//! hand it [`Query`]s and go on; at the end [`Symbolizer::finish`] returns the
//! [`Names`].
//!
//! An address is asked for by where it lies ([`Place`]): in a pinned file by
//! file offset, in the kernel by address, in the vDSO by offset into its image.
//! Processes are never asked, so it does not matter whether they still exist.
//! Code that a process made at run time is named by files that it wrote, which
//! whoever asks has opened ([`JitSource`]).
//!
//! An ELF file is hostile. `inspect` looks at its headers first and decides
//! what of it the parser may see; a file that fails or panics the parser loses
//! its own names and nothing else. So does one that would take too much: what is
//! parsed, inflated and kept in memory has bounds for each file and for the run,
//! and [`Symbolizer::finish`] waits so long and no longer. What a parser inside this process cannot
//! survive is a file truncated under its mapping (`SIGBUS`) and DWARF nested
//! deeper than the thread's stack.

mod debug_file;
mod demangle;
mod frames;
pub mod golang;
mod headers;
mod inflation;
mod inspect;
pub mod jit;
mod kernel;
mod names;
mod native;
mod parsers;
mod place;
mod vdso;

mod worker;

pub use jit::{JitSource, JitStats};
pub use names::{FrameName, Named, Names, Stats};
pub use place::{Place, PlaceKey, Query};
pub use vdso::{build_id as vdso_build_id, pin as pin_vdso};
pub use worker::{Options, Symbolizer};
