//! From sections to entries: which code is described, and where.

use std::collections::HashMap;

use gimli::{
    BaseAddresses, CieOrFde, CommonInformationEntry, DebugFrame, EhFrame, EndianSlice,
    LittleEndian, UnwindOffset, UnwindSection,
};
use sampler_common::unwind::{PackedRule, aarch64, x86_64};

use super::convert::Converter;
use super::image::{Image, Section};
use super::plain::Plain;
use super::room::Room;
use super::rows::Rows;
use super::{Machine, Tally};

/// Entries read of one section, and kept of one file. A compiler has 160,000.
const MAX_ENTRIES: usize = 2 << 20;
/// Bytes of a CIE, whose instructions are run again for each of its entries.
/// Compilers write 24 to 40, and the cost of an instruction grows with what came
/// before it.
pub(super) const MAX_CIE_BYTES: usize = 128;
/// CIEs kept at a time. Those of hostile entries are all different, and a CIE
/// takes more room than an entry that names it.
const MAX_KEPT_CIES: usize = 4 << 10;

/// Rows of one entry looked through for where its prologue saves a register.
const MAX_PROLOGUE_ROWS: usize = 32;

type Slice<'a> = EndianSlice<'a, LittleEndian>;
type Cie<'a> = CommonInformationEntry<Slice<'a>>;

/// Which section describes an entry; `.eh_frame` outranks the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Origin {
    EhFrame,
    DebugFrame,
}

/// Code that a section describes: addresses count from the table's lowest.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    pub start: u32,
    pub end: u32,
    origin: Origin,
    /// Of the entry in its section.
    offset: u32,
}

impl Entry {
    /// Its rows, each by how far behind its start it begins; `None` if it is not one
    /// that is read at a glance.
    fn plain_rows<'p>(&self, plain: &'p mut Plain<'_>) -> Option<&'p [(u64, PackedRule)]> {
        plain.rows(self.offset as usize, u64::from(self.end - self.start))
    }
}

/// The sections of a file that describe its code.
pub(super) struct Sections<'a> {
    eh_frame: Option<Section<'a>>,
    debug_frame: Option<Section<'a>>,
    bases: BaseAddresses,
    machine: Machine,
}

/// A section with what its entries share.
struct Reader<'s, S> {
    section: S,
    bases: &'s BaseAddresses,
    cies: HashMap<usize, Option<Cie<'s>>>,
}

impl<'a> Sections<'a> {
    pub fn of(image: &Image<'a>) -> Self {
        let eh_frame = image.eh_frame();
        let mut bases = BaseAddresses::default();
        if let Some(section) = &eh_frame {
            bases = bases.set_eh_frame(section.address);
        }
        if let Some(address) = image.section_address(b".text") {
            bases = bases.set_text(address);
        }
        if let Some(address) = image.section_address(b".got") {
            bases = bases.set_got(address);
        }
        Self {
            eh_frame,
            debug_frame: image.debug_frame(),
            bases,
            machine: image.machine,
        }
    }

    fn eh_frame(&self) -> Option<Reader<'_, EhFrame<Slice<'_>>>> {
        let section = self.eh_frame.as_ref()?;
        let mut section = EhFrame::new(&section.bytes, LittleEndian);
        section.set_address_size(8);
        Some(Reader::new(section, &self.bases))
    }

    /// Reads what it can of `.eh_frame`, faster.
    fn plain(&self) -> Option<Plain<'_>> {
        let section = self.eh_frame.as_ref()?;
        (self.machine == Machine::X86_64).then(|| Plain::new(&section.bytes))
    }

    fn debug_frame(&self) -> Option<Reader<'_, DebugFrame<Slice<'_>>>> {
        let section = self.debug_frame.as_ref()?;
        let mut section = DebugFrame::new(&section.bytes, LittleEndian);
        section.set_address_size(8);
        Some(Reader::new(section, &self.bases))
    }

    /// The entries for the file's code, in order, without overlaps: where two
    /// describe the same code, the one that starts last has it.
    pub fn entries(
        &self,
        image: &Image<'_>,
        room: &Room,
        lowest: u64,
        tally: &mut Tally,
    ) -> Vec<Entry> {
        let mut entries = Vec::new();
        let max_entries = room.items(size_of::<Entry>(), MAX_ENTRIES);
        let mut found = |origin, offset: usize, start: u64, end: u64| {
            let Some(segment) = image.segment_of(start) else {
                return true;
            };
            let end = end.min(segment.address + segment.size);
            if let (Ok(start), Ok(end), Ok(offset)) = (
                u32::try_from(start - lowest),
                u32::try_from(end.saturating_sub(lowest)),
                u32::try_from(offset),
            ) && start < end
            {
                entries.push(Entry {
                    start,
                    end,
                    origin,
                    offset,
                });
            }
            entries.len() < max_entries
        };
        let mut broken = 0;
        if let Some(mut reader) = self.eh_frame() {
            broken += u64::from(
                !reader.each(|offset, start, end| found(Origin::EhFrame, offset, start, end)),
            );
        }
        if let Some(mut reader) = self.debug_frame() {
            broken += u64::from(
                !reader.each(|offset, start, end| found(Origin::DebugFrame, offset, start, end)),
            );
        }
        tally.broken_sections = broken;
        room.take(size_of_val(&*entries) as u64);
        if max_entries < MAX_ENTRIES && entries.len() >= max_entries {
            room.exceed();
        }
        order(&mut entries);
        tally.entries = entries.len() as u64;
        entries
    }

    /// Gives `rows` those of the entries, which the visitor is shown first:
    /// it is where what lies between them is filled in.
    pub fn rows(
        &self,
        entries: &[Entry],
        rows: &mut Rows,
        tally: &mut Tally,
        mut before: impl FnMut(&Entry, &mut Rows, &mut Tally),
    ) {
        let mut plain = self.plain();
        let mut eh_frame = self.eh_frame();
        let mut debug_frame = self.debug_frame();
        let mut context = gimli::UnwindContext::new();
        for entry in entries {
            before(entry, rows, tally);
            let plain = plain.as_mut().filter(|_| entry.origin == Origin::EhFrame);
            if let Some(found) = plain.and_then(|plain| entry.plain_rows(plain)) {
                for (at, rule) in found {
                    rows.push(entry.start + *at as u32, *rule);
                }
                continue;
            }
            let read = match entry.origin {
                Origin::EhFrame => eh_frame
                    .as_mut()
                    .and_then(|reader| reader.rows(entry, self.machine, &mut context, rows, tally)),
                Origin::DebugFrame => debug_frame
                    .as_mut()
                    .and_then(|reader| reader.rows(entry, self.machine, &mut context, rows, tally)),
            };
            if read.is_none() {
                tally.unsupported.malformed += 1;
                rows.push(rows.last_at().max(entry.start), unsupported(self.machine));
            }
        }
    }

    /// Where the function at `start` keeps a callee-saved register once it has
    /// saved it: the distance from its CFA, in bytes, downwards negative.
    pub fn saved_at(
        &self,
        entries: &[Entry],
        start: u32,
        register: gimli::Register,
    ) -> Option<i64> {
        let found = entries.binary_search_by_key(&start, |entry| entry.start);
        let entry = entries.get(found.ok()?)?;
        let mut context = gimli::UnwindContext::new();
        match entry.origin {
            Origin::EhFrame => self.eh_frame()?.saved_at(entry, register, &mut context),
            Origin::DebugFrame => self.debug_frame()?.saved_at(entry, register, &mut context),
        }
    }
}

impl<'s, S> Reader<'s, S>
where
    S: UnwindSection<Slice<'s>>,
{
    fn new(section: S, bases: &'s BaseAddresses) -> Self {
        Self {
            section,
            bases,
            cies: HashMap::new(),
        }
    }

    /// Shows each entry's offset and addresses until told to stop. Whether the
    /// section could be read to its end.
    fn each(&mut self, mut found: impl FnMut(usize, u64, u64) -> bool) -> bool {
        let mut entries = self.section.entries(self.bases);
        let mut whole = true;
        for _ in 0..MAX_ENTRIES {
            match entries.next() {
                Ok(None) => return whole,
                Err(_) => return false,
                Ok(Some(CieOrFde::Cie(_))) => {}
                Ok(Some(CieOrFde::Fde(partial))) => {
                    let cies = &mut self.cies;
                    let parsed = partial
                        .parse(|section, bases, offset| cached_cie(cies, section, bases, offset));
                    match parsed {
                        Ok(fde) => {
                            let end = fde.initial_address().saturating_add(fde.len());
                            if !found(fde.offset(), fde.initial_address(), end) {
                                return false;
                            }
                        }
                        Err(_) => whole = false,
                    }
                }
            }
        }
        false
    }

    fn entry(&mut self, entry: &Entry) -> gimli::Result<gimli::FrameDescriptionEntry<Slice<'s>>> {
        let cies = &mut self.cies;
        self.section.fde_from_offset(
            self.bases,
            S::Offset::from(entry.offset as usize),
            |section, bases, offset| cached_cie(cies, section, bases, offset),
        )
    }

    fn rows(
        &mut self,
        entry: &Entry,
        machine: Machine,
        context: &mut gimli::UnwindContext<usize>,
        rows: &mut Rows,
        tally: &mut Tally,
    ) -> Option<()> {
        let fde = self.entry(entry).ok()?;
        let converter = Converter {
            section: &self.section,
            machine,
            encoding: fde.cie().encoding(),
            signal: fde.is_signal_trampoline(),
        };
        let mut table = fde.rows(&self.section, self.bases, context).ok()?;
        loop {
            let Some(row) = table.next_row().ok()? else {
                return Some(());
            };
            let at = row.start_address().wrapping_sub(fde.initial_address());
            let at = u64::from(entry.start).saturating_add(at);
            if at >= u64::from(entry.end) {
                return Some(());
            }
            let rule = converter.rule(row).unwrap_or_else(|cause| {
                tally.unsupported.count(cause);
                unsupported(machine)
            });
            rows.push(at as u32, rule);
        }
    }

    fn saved_at(
        &mut self,
        entry: &Entry,
        register: gimli::Register,
        context: &mut gimli::UnwindContext<usize>,
    ) -> Option<i64> {
        let fde = self.entry(entry).ok()?;
        let mut table = fde.rows(&self.section, self.bases, context).ok()?;
        for _ in 0..MAX_PROLOGUE_ROWS {
            let row = table.next_row().ok()??;
            if let Some(gimli::RegisterRule::Offset(offset)) = row.register(register) {
                return Some(offset);
            }
        }
        None
    }
}

/// A CIE, parsed once; one with too many instructions is as bad as none.
fn cached_cie<'s, S>(
    cies: &mut HashMap<usize, Option<Cie<'s>>>,
    section: &S,
    bases: &BaseAddresses,
    offset: S::Offset,
) -> gimli::Result<Cie<'s>>
where
    S: UnwindSection<Slice<'s>>,
{
    if cies.len() >= MAX_KEPT_CIES {
        cies.clear();
    }
    cies.entry(UnwindOffset::into(offset))
        .or_insert_with(|| {
            let cie = section.cie_from_offset(bases, offset).ok()?;
            (cie.entry_len() <= MAX_CIE_BYTES).then_some(cie)
        })
        .clone()
        .ok_or(gimli::Error::NoUnwindInfoForAddress)
}

/// Orders entries by address and takes overlaps from the earlier one.
fn order(entries: &mut Vec<Entry>) {
    entries.sort_unstable_by_key(|entry| (entry.start, entry.origin, entry.offset));
    entries.dedup_by_key(|entry| entry.start);
    for at in 1..entries.len() {
        let next = entries[at].start;
        let earlier = &mut entries[at - 1];
        earlier.end = earlier.end.min(next);
    }
}

/// The rule for code that its file describes in a way that cannot be read.
pub(super) fn unsupported(machine: Machine) -> PackedRule {
    match machine {
        Machine::X86_64 => x86_64::Rule::UNSUPPORTED,
        Machine::Aarch64 => aarch64::Rule::UNSUPPORTED,
    }
}

#[cfg(test)]
mod tests;
