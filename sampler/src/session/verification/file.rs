//! One file as framehop walks it.

use std::collections::HashMap;
use std::sync::Arc;

use framehop::x86_64::{CacheX86_64, UnwindRegsX86_64, UnwinderX86_64};
use framehop::{ExplicitModuleSectionInfo, FrameAddress, Module, Unwinder as _};
use gimli::{BaseAddresses, DebugFrame, EhFrame, EhFrameHdr, LittleEndian, UnwindSection};

use super::row::{Describe, Incapable, Judge, Slice, Visitor, look};
use crate::object::Contents;
use crate::object::unwind::{CallFrames, Machine, Segment};

/// Addresses of which is remembered whether framehop can walk them.
const MAX_REMEMBERED: usize = 1 << 16;
/// Entries that are read of a section without an index.
const MAX_ENTRIES: usize = 2 << 20;

/// Where a file says how its code is left.
#[derive(Debug)]
enum Source {
    /// `.eh_frame` with its index.
    Indexed {
        header: Arc<[u8]>,
        eh_frame: Arc<[u8]>,
    },
    /// `.eh_frame` alone; where its entries begin, and what at.
    EhFrame(Arc<[u8]>, Vec<(u64, usize)>),
    /// `.debug_frame`, as above.
    DebugFrame(Arc<[u8]>, Vec<(u64, usize)>),
    /// Nowhere.
    Nothing,
}

/// One file, at the addresses it was linked to.
pub(super) struct WalkedFile {
    unwinder: UnwinderX86_64<Arc<[u8]>>,
    cache: CacheX86_64,
    segments: Vec<Segment>,
    bases: BaseAddresses,
    source: Source,
    remembered: HashMap<u64, Option<Incapable>>,
    /// What of it is kept.
    pub bytes: usize,
}

impl WalkedFile {
    /// Of an ELF file; none if it is no such program, or if it has more call
    /// frame information than so many bytes.
    pub fn new(file: &dyn Contents, max_bytes: u64) -> Option<Self> {
        let frames = CallFrames::read(file, max_bytes).ok()?;
        if frames.machine != Machine::X86_64 {
            return None;
        }
        let (first, last) = (frames.segments.first()?, frames.segments.last()?);
        let addresses = first.address..last.address + last.size;
        let mut bases = BaseAddresses::default();
        if let Some(address) = frames.text {
            bases = bases.set_text(address);
        }
        if let Some(address) = frames.got {
            bases = bases.set_got(address);
        }
        let range = |address: u64| address..address;
        let mut info = ExplicitModuleSectionInfo {
            // Addresses count from here, and have 32 bits.
            base_svma: addresses.start,
            text_svma: frames.text.map(range),
            got_svma: frames.got.map(range),
            ..Default::default()
        };
        let mut bytes = 0;
        let source = match (frames.eh_frame, frames.eh_frame_hdr, frames.debug_frame) {
            (Some(section), header, _) => {
                bases = bases.set_eh_frame(section.address);
                let eh_frame: Arc<[u8]> = section.bytes.into();
                bytes += eh_frame.len();
                info.eh_frame_svma = Some(range(section.address));
                info.eh_frame = Some(Arc::clone(&eh_frame));
                if let Some(section) = header {
                    bases = bases.set_eh_frame_hdr(section.address);
                    let header: Arc<[u8]> = section.bytes.into();
                    bytes += header.len();
                    info.eh_frame_hdr_svma = Some(range(section.address));
                    info.eh_frame_hdr = Some(Arc::clone(&header));
                    Source::Indexed { header, eh_frame }
                } else {
                    let starts = starts(&EhFrame::new(&eh_frame, LittleEndian), &bases);
                    Source::EhFrame(eh_frame, starts)
                }
            }
            (None, _, Some(section)) => {
                let section: Arc<[u8]> = section.into();
                bytes += section.len();
                info.debug_frame = Some(Arc::clone(&section));
                let mut read = DebugFrame::new(&section, LittleEndian);
                read.set_address_size(8);
                let starts = starts(&read, &bases);
                Source::DebugFrame(section, starts)
            }
            (None, _, None) => Source::Nothing,
        };
        if let Source::EhFrame(_, starts) | Source::DebugFrame(_, starts) = &source {
            bytes += size_of_val(&**starts);
        }
        let mut unwinder = UnwinderX86_64::new();
        let start = addresses.start;
        unwinder.add_module(Module::new(String::new(), addresses, start, info));
        Some(Self {
            unwinder,
            cache: CacheX86_64::new(),
            segments: frames.segments,
            bases,
            source,
            remembered: HashMap::new(),
            bytes,
        })
    }

    /// The virtual address of an offset into the file.
    pub fn address_of(&self, offset: u64) -> Option<u64> {
        self.segments.iter().find_map(|segment| {
            let into = offset.checked_sub(segment.file_offset)?;
            (into < segment.size).then(|| segment.address + into)
        })
    }

    /// One frame outwards from code at `address`, the return address found.
    pub fn step(
        &mut self,
        address: FrameAddress,
        registers: &mut UnwindRegsX86_64,
        mut read: impl FnMut(u64) -> Result<u64, ()>,
    ) -> Result<Option<u64>, framehop::Error> {
        self.unwinder
            .unwind_frame(address, registers, &mut self.cache, &mut read)
    }

    /// Whether framehop cannot walk the code at an address, and why.
    pub fn incapable(&mut self, address: u64) -> Option<Incapable> {
        if let Some(known) = self.remembered.get(&address) {
            return *known;
        }
        if self.remembered.len() >= MAX_REMEMBERED {
            self.remembered.clear();
        }
        let why = self.look(address, &mut Judge).err();
        self.remembered.insert(address, why);
        why
    }

    /// The row for an address, in words.
    pub fn row(&self, address: u64) -> String {
        self.look(address, &mut Describe)
            .unwrap_or_else(|why| why.name().to_owned())
    }

    fn look<V: Visitor>(&self, address: u64, visitor: &mut V) -> Result<V::Output, Incapable> {
        match &self.source {
            Source::Nothing => Err(Incapable::Undescribed),
            Source::Indexed { header, eh_frame } => {
                let find = || {
                    let header = EhFrameHdr::new(header, LittleEndian)
                        .parse(&self.bases, 8)
                        .ok()?;
                    let table = header.table()?;
                    let entry = table.lookup(address, &self.bases).ok()?;
                    table.pointer_to_offset(entry).ok()
                };
                let at = find().ok_or(Incapable::Undescribed)?;
                let section = EhFrame::new(eh_frame, LittleEndian);
                look(&section, &self.bases, at, address, visitor)
            }
            Source::EhFrame(eh_frame, starts) => {
                let at = last_start(starts, address)?;
                let section = EhFrame::new(eh_frame, LittleEndian);
                look(&section, &self.bases, at.into(), address, visitor)
            }
            Source::DebugFrame(bytes, starts) => {
                let at = last_start(starts, address)?;
                let mut section = DebugFrame::new(bytes, LittleEndian);
                section.set_address_size(8);
                look(&section, &self.bases, at.into(), address, visitor)
            }
        }
    }
}

/// Where entries begin, and their offsets, as far as they can be read.
fn starts<'a, S: UnwindSection<Slice<'a>>>(
    section: &S,
    bases: &BaseAddresses,
) -> Vec<(u64, usize)> {
    let mut starts = Vec::new();
    let mut entries = section.entries(bases);
    while let Ok(Some(entry)) = entries.next() {
        if let gimli::CieOrFde::Fde(partial) = entry
            && let Ok(entry) = partial.parse(S::cie_from_offset)
        {
            starts.push((entry.initial_address(), entry.offset()));
        }
        if starts.len() >= MAX_ENTRIES {
            break;
        }
    }
    starts.sort_unstable();
    starts
}

/// The entry that begins last before an address.
fn last_start(starts: &[(u64, usize)], address: u64) -> Result<usize, Incapable> {
    let after = starts.partition_point(|(start, _)| *start <= address);
    after
        .checked_sub(1)
        .map(|before| starts[before].1)
        .ok_or(Incapable::Undescribed)
}
