//! Addresses to frames, each distinct address once, off the drain path.
//!
//! A [`Symbolizer`] is a handle on one thread, or, where there are CPUs, a few, each
//! with files of its own. Drains hand it [`Query`]s and go on; at the end
//! [`Symbolizer::finish`] returns the [`Names`].
//!
//! An address is asked for by where it lies ([`Place`]): in a pinned file by
//! file offset, in the kernel by address, in the vDSO by offset into its image.
//! Processes are never asked, so it does not matter whether they still exist.
//! Code that a process made at run time is named by files that it wrote, which
//! whoever asks has opened ([`JitSource`]).
//!
//! An ELF file is hostile. It is parsed in a child without rights (`service`),
//! which its thread asks (`remote`) and hands the open files. In it, `inspect`
//! looks at the headers first and decides what of the file the parser may see;
//! what is parsed, inflated and kept in memory has bounds for each file and for
//! the run. A file over which a child ends, or that takes too long, is tried once
//! more without its debug information and given up then; it loses its own names
//! and nothing else. [`Symbolizer::finish`] waits so long and no longer.

mod debug_file;
mod debug_files;
mod debuginfod;
mod decompressed;
mod demangle;
pub mod elf_image;
mod frames;
pub mod golang;
mod headers;
mod inflation;
mod inspect;
pub mod jit;
mod kallsyms;
mod kept;
mod kept_kernel;
mod kernel;
mod names;
mod native;
mod options;
mod parsers;
mod place;
mod protocol;
mod remote;
mod sealed;
mod service;
mod symbol_rows;
mod symbolizer;
mod text;
mod vdso;
mod waiting;
mod worker;

pub use debuginfod::DebugServers;
pub(crate) use debuginfod::Debuginfod;
pub use jit::{JitSource, JitStats};
pub use names::{FrameName, Named, Names, Stats};
pub use options::Options;
pub use place::{Place, PlaceKey, Query};
pub use service::SERVICE;
pub use symbolizer::Symbolizer;
pub use vdso::{build_id as vdso_build_id, pin as pin_vdso};
pub use waiting::Waiting;
