//! Where an address lies.

use std::sync::Arc;

use super::jit::JitSource;
use crate::object::{FileId, PinnedFile};

/// The thing an address is an offset into.
#[derive(Debug, Clone)]
pub enum Place {
    /// An ELF file; addresses are file offsets.
    File(Arc<PinnedFile>),
    /// The separate debug file of an ELF file that is not at hand; addresses are
    /// virtual, as the symbol tables of both count them.
    DebugFile(Arc<PinnedFile>),
    /// The kernel and its modules; addresses are absolute.
    Kernel,
    /// The vDSO of this machine's own word size; addresses are offsets into
    /// its image. (A 32-bit process on a 64-bit kernel has another one.)
    Vdso,
    /// Code that a process made at run time; addresses are its own.
    Jit(Arc<JitSource>),
}

/// The identity of a [`Place`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PlaceKey {
    /// The file with this device and inode. Unambiguous as long as the file is
    /// pinned, and the worker keeps its pin until it ends.
    File(FileId),
    /// The same, asked by virtual address.
    DebugFile(FileId),
    /// The kernel and its modules.
    Kernel,
    /// The vDSO.
    Vdso,
    /// The source with this number.
    Jit(u64),
}

impl Place {
    /// The identity by which [`super::Names`] is asked.
    pub fn key(&self) -> PlaceKey {
        match self {
            Self::File(file) => PlaceKey::File(file.id),
            Self::DebugFile(file) => PlaceKey::DebugFile(file.id),
            Self::Kernel => PlaceKey::Kernel,
            Self::Vdso => PlaceKey::Vdso,
            Self::Jit(source) => PlaceKey::Jit(source.id),
        }
    }
}

/// One address to be named.
///
/// It is looked up as it is: whoever asks for a caller's frame has already
/// subtracted one from the return address.
#[derive(Debug, Clone)]
pub struct Query {
    /// What the address is an offset into.
    pub place: Place,
    /// File offset, virtual address, kernel address, offset into the vDSO image,
    /// or an address of the process.
    pub address: u64,
}
