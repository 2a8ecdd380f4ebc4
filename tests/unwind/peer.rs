//! framehop on the same file, over a memory that both sides compute.

use framehop::x86_64::{CacheX86_64, UnwindRegsX86_64, UnwinderX86_64};
use framehop::{ExplicitModuleSectionInfo, FrameAddress, Module, Unwinder as _};
use object::{LittleEndian, Object as _, ObjectSection as _};
use sampler_common::Memory;
use sampler_common::unwind::x86_64::Registers;

use crate::tool::{Stop, fail};

/// Every address holds a value of its own, which lies above it as a pointer
/// into the caller's frame would.
pub struct Computed;

impl Computed {
    pub fn at(address: u64) -> u64 {
        address.wrapping_add(0x10_0008)
    }
}

impl Memory for Computed {
    fn read_word(&mut self, address: u64) -> Option<u64> {
        Some(Self::at(address))
    }

    fn read_pair(&mut self, address: u64) -> Option<[u64; 2]> {
        Some([Self::at(address), Self::at(address.wrapping_add(8))])
    }
}

/// framehop with one file loaded at the addresses it was linked to.
pub struct Peer {
    unwinder: UnwinderX86_64<Vec<u8>>,
    /// The code that `.eh_frame` describes, in order.
    described: Vec<std::ops::Range<u64>>,
}

/// ip, sp and bp of a caller.
pub type Registers3 = [u64; 3];

/// None at the end of the stack.
pub type Caller = Option<Registers3>;

impl Peer {
    pub fn new(file: &[u8]) -> Result<Self, Stop> {
        let Ok(elf) = object::read::elf::ElfFile64::<LittleEndian>::parse(file) else {
            return fail("not an ELF file");
        };
        let section = |name| {
            let section = elf.section_by_name(name)?;
            let range = section.address()..section.address() + section.size();
            Some((range, section.data().ok()?.to_vec()))
        };
        let (eh_frame, hdr) = (section(".eh_frame"), section(".eh_frame_hdr"));
        let described = eh_frame
            .as_ref()
            .map(|(range, data)| described(range.start, data))
            .unwrap_or_default();
        let text = section(".text").map(|(range, _)| range);
        let got = section(".got").map(|(range, _)| range);
        let end = elf
            .sections()
            .map(|section| section.address() + section.size())
            .max();
        let info = ExplicitModuleSectionInfo {
            text_svma: text,
            got_svma: got,
            eh_frame_svma: eh_frame.as_ref().map(|(range, _)| range.clone()),
            eh_frame: eh_frame.map(|(_, data)| data),
            eh_frame_hdr_svma: hdr.as_ref().map(|(range, _)| range.clone()),
            eh_frame_hdr: hdr.map(|(_, data)| data),
            ..Default::default()
        };
        let mut unwinder = UnwinderX86_64::new();
        unwinder.add_module(Module::new("file".into(), 0..end.unwrap_or(0), 0, info));
        Ok(Self {
            unwinder,
            described,
        })
    }

    /// Whether the file describes the code there: framehop guesses elsewhere.
    pub fn describes(&self, address: u64) -> bool {
        let after = self
            .described
            .partition_point(|range| range.start <= address);
        after > 0 && self.described[after - 1].contains(&address)
    }

    /// The caller by framehop; an error where it gives up.
    pub fn caller(&self, frame: &Registers) -> Result<Caller, framehop::Error> {
        let mut registers = UnwindRegsX86_64::new(frame.ip, frame.sp, frame.bp);
        let mut cache = CacheX86_64::<_>::new();
        let address = if frame.origin.is_interrupted() {
            Some(FrameAddress::from_instruction_pointer(frame.ip))
        } else {
            FrameAddress::from_return_address(frame.ip)
        };
        let Some(address) = address else {
            return Ok(None);
        };
        let found =
            self.unwinder
                .unwind_frame(address, &mut registers, &mut cache, &mut |address| {
                    Ok(Computed::at(address))
                })?;
        Ok(found.map(|ip| [ip, registers.sp(), registers.bp()]))
    }

    /// What framehop does where it cannot unwind: it follows the frame pointer,
    /// and says nothing.
    pub fn fallback(frame: &Registers) -> Registers3 {
        let bp = frame.bp;
        [Computed::at(bp + 8), bp + 16, Computed::at(bp)]
    }
}

/// The code that an `.eh_frame` section describes, in order.
pub fn described(address: u64, data: &[u8]) -> Vec<std::ops::Range<u64>> {
    use gimli::UnwindSection as _;
    let section = gimli::EhFrame::new(data, gimli::LittleEndian);
    let bases = gimli::BaseAddresses::default().set_eh_frame(address);
    let mut ranges = Vec::new();
    let mut entries = section.entries(&bases);
    while let Ok(Some(entry)) = entries.next() {
        if let gimli::CieOrFde::Fde(partial) = entry
            && let Ok(fde) = partial.parse(gimli::EhFrame::cie_from_offset)
        {
            ranges.push(fde.initial_address()..fde.initial_address() + fde.len());
        }
    }
    ranges.sort_by_key(|range| range.start);
    ranges
}
