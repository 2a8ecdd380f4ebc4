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
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is the failure report")]

    use std::fs;
    use std::path::PathBuf;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    /// What gimli makes of an entry; `None` if it cannot be read.
    fn by_gimli<'s, S>(reader: &mut Reader<'s, S>, entry: &Entry) -> Option<(Rows, Tally)>
    where
        S: UnwindSection<Slice<'s>>,
    {
        let mut rows = Rows::starting_with(unsupported(Machine::X86_64));
        let mut tally = Tally::default();
        let mut context = gimli::UnwindContext::new();
        let machine = Machine::X86_64;
        reader.rows(entry, machine, &mut context, &mut rows, &mut tally)?;
        Some((rows, tally))
    }

    /// Whether an entry is read at a glance; it is the same then as by gimli.
    fn agrees<'s, S>(plain: &mut Plain<'_>, reader: &mut Reader<'s, S>, entry: &Entry) -> bool
    where
        S: UnwindSection<Slice<'s>>,
    {
        let Some(found) = entry.plain_rows(plain) else {
            return false;
        };
        let mut rows = Rows::starting_with(unsupported(Machine::X86_64));
        for (at, rule) in found {
            rows.push(entry.start + *at as u32, *rule);
        }
        let (expected, tally) = by_gimli(reader, entry).unwrap();
        assert_eq!(rows.as_slice(), expected.as_slice(), "{entry:?}");
        assert_eq!(tally.unsupported.total(), 0, "{entry:?}");
        true
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn plain_entries_of_real_files_are_nearly_all_and_read_as_gimli_reads_them() {
        let libraries = fs::read_to_string("/proc/self/maps").unwrap();
        let libraries = libraries.lines().filter_map(|line| {
            let path = line.split_once('/')?.1;
            Some(PathBuf::from(format!("/{path}")))
        });
        let mut files: Vec<PathBuf> = libraries.collect();
        files.sort();
        files.dedup();
        assert!(files.len() > 2, "{files:?}");
        let (mut plain_entries, mut all) = (0, 0);
        for file in files {
            let bytes = fs::read(&file).unwrap();
            let bytes = &bytes[..];
            let room = Room::of(u64::MAX);
            let image = Image::parse(&bytes, &room).unwrap();
            let sections = Sections::of(&image);
            let lowest = image.executable[0].address;
            let entries = sections.entries(&image, &room, lowest, &mut Tally::default());
            let (Some(mut plain), Some(mut reader)) = (sections.plain(), sections.eh_frame())
            else {
                continue;
            };
            for entry in &entries {
                if entry.origin == Origin::EhFrame {
                    plain_entries += u64::from(agrees(&mut plain, &mut reader, entry));
                    all += 1;
                }
            }
        }
        assert!(all > 10_000);
        assert!(plain_entries * 100 >= all * 98, "{plain_entries} of {all}");
    }

    /// A CIE as gcc writes it, with these instructions at its end, and an entry
    /// for 200 bytes of code, with those.
    fn section(of_cie: &[u8], of_entry: &[u8]) -> (Vec<u8>, Entry) {
        let record = |content: Vec<u8>| {
            let length = (content.len() as u32).to_le_bytes().to_vec();
            [length, content].concat()
        };
        let mut cie = vec![0, 0, 0, 0, 1, b'z', b'R', 0, 1, 0x78, 16, 1, 0x1b];
        cie.extend([0x0c, 7, 8, 0x90, 1]);
        cie.extend(of_cie);
        let mut section = record(cie);
        let offset = section.len() as u32;
        let mut entry = (offset + 4).to_le_bytes().to_vec();
        entry.extend([0; 4]);
        entry.extend(200_u32.to_le_bytes());
        entry.push(0);
        entry.extend(of_entry);
        section.extend(record(entry));
        section.extend([0; 4]);
        let entry = Entry {
            start: 1000,
            end: 1200,
            origin: Origin::EhFrame,
            offset,
        };
        (section, entry)
    }

    fn plain_agrees(of_cie: &[u8], of_entry: &[u8]) -> bool {
        let (section, entry) = section(of_cie, of_entry);
        let mut eh_frame = EhFrame::new(&section, LittleEndian);
        eh_frame.set_address_size(8);
        let bases = BaseAddresses::default().set_eh_frame(0x1000);
        let mut reader = Reader::new(eh_frame, &bases);
        agrees(&mut Plain::new(&section), &mut reader, &entry)
    }

    #[test]
    fn what_compilers_write_is_plain() {
        // push rbp; mov rbp, rsp; …; leave in one path, a call of 16 bytes in another.
        let framed = [
            0x41, 0x0e, 16, 0x86, 2, 0x43, 0x0d, 6, 0x02, 100, 0x0a, 0x0c, 7, 8, 0x41,
        ];
        assert!(plain_agrees(&[], &framed));
        assert!(plain_agrees(
            &[],
            &[&framed[..], &[0x0b, 0x45, 0x2e, 16, 0xc6, 0x41]].concat()
        ));
        assert!(plain_agrees(&[0x86, 2], &[0x44, 0xc6, 0x08, 6]));
        // More code than the entry is for.
        assert!(plain_agrees(&[], &[0x02, 199, 0x0e, 24, 0x41, 0x0e, 32]));
    }

    #[test]
    fn what_is_not_plain_is_left() {
        for of_entry in [
            // The CFA by an expression, and from another register.
            &[0x41, 0x0f, 2, 0x77, 8][..],
            &[0x41, 0x0c, 10, 0],
            // Nothing to return to; the return address in a register, and elsewhere.
            &[0x07, 16],
            &[0x09, 16, 3],
            &[0x90, 2],
            // Another stack pointer, or one by an expression.
            &[0x87, 2],
            &[0x16, 7, 2, 0x77, 8],
            // Nothing is remembered; more than one row is; cut off.
            &[0x0b],
            &[0x0a, 0x0a, 0x0b, 0x0b],
            &[0x41, 0x0e],
        ] {
            assert!(!plain_agrees(&[], of_entry), "{of_entry:x?}");
        }
        assert!(!plain_agrees(&[0x00; 128], &[0x41]));
    }

    fn instruction() -> impl Strategy<Value = Vec<u8>> {
        let register = prop_oneof![Just(6_u8), Just(3), Just(16), Just(7), 0_u8..64];
        let number = prop_oneof![0_u8..40, Just(8), Just(16)];
        prop_oneof![
            8 => (0x40_u8..0x60).prop_map(|advance| vec![advance]),
            1 => (2_u8..4, any::<[u8; 2]>()).prop_map(|(code, by)| [&[code], &by[..code as usize - 1]].concat()),
            4 => (register.clone(), number.clone()).prop_map(|(of, at)| vec![0x80 | of, at]),
            2 => register.clone().prop_map(|of| vec![0xc0 | of]),
            4 => number.clone().prop_map(|to| vec![0x0e, to]),
            2 => register.clone().prop_map(|of| vec![0x0d, of]),
            2 => (register.clone(), number).prop_map(|(of, to)| vec![0x0c, of, to]),
            2 => Just(vec![0x0a]),
            2 => Just(vec![0x0b]),
            1 => register.prop_map(|of| vec![0x08, of]),
            1 => any::<u8>().prop_map(|code| vec![code]),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]

        #[test]
        fn whatever_is_read_at_a_glance_is_read_as_gimli_reads_it(
            of_cie in vec(instruction(), 0..2),
            of_entry in vec(instruction(), 0..12),
        ) {
            plain_agrees(&of_cie.concat(), &of_entry.concat());
        }
    }
}
