//! What the judge asks an ELF file: where it begins to run, and which function
//! holds an address.

use anyhow::{Context as _, Result};
use gimli::{BaseAddresses, CieOrFde, EhFrame, EndianSlice, LittleEndian, UnwindContext};
use gimli::{RegisterRule, UnwindSection as _, X86_64};
use object::{Object as _, ObjectSection as _, ObjectSegment as _, ObjectSymbol as _};
use object::{ObjectKind, SymbolKind};
use std::fs;
use std::ops::Range;
use std::path::Path;

/// An ELF file, or rather what is needed of it.
pub struct Image {
    entry: Option<Range<u64>>,
    segments: Vec<Segment>,
    symbols: Vec<Symbol>,
    described: Vec<Described>,
    eh_frame: Vec<u8>,
    bases: BaseAddresses,
}

/// What of the file is mapped to where.
struct Segment {
    file: Range<u64>,
    address: u64,
    executable: bool,
}

struct Symbol {
    addresses: Range<u64>,
    name: String,
}

/// What a frame description entry covers.
struct Described {
    addresses: Range<u64>,
    offset: usize,
}

type Section<'a> = EhFrame<EndianSlice<'a, LittleEndian>>;

impl Image {
    /// Reads the file.
    pub fn open(path: &Path) -> Result<Self> {
        let bytes = fs::read(path).with_context(|| path.display().to_string())?;
        let file = object::File::parse(&*bytes).with_context(|| path.display().to_string())?;
        let address = |name| file.section_by_name(name).map(|section| section.address());
        let mut bases = BaseAddresses::default();
        if let Some(text) = address(".text") {
            bases = bases.set_text(text);
        }
        if let Some(got) = address(".got") {
            bases = bases.set_got(got);
        }
        let mut eh_frame = Vec::new();
        if let Some(section) = file.section_by_name(".eh_frame") {
            bases = bases.set_eh_frame(section.address());
            eh_frame = section.data()?.to_vec();
        }
        let mut image = Self {
            entry: None,
            segments: segments(&file),
            symbols: symbols(&file),
            described: described(&eh_frame, &bases)?,
            eh_frame,
            bases,
        };
        if file.entry() != 0 && begins_programs(&file) {
            image.entry = image.function(file.entry());
        }
        Ok(image)
    }

    /// Whether the function where the file begins to run holds the address.
    pub fn is_entry(&self, address: u64) -> bool {
        self.entry
            .as_ref()
            .is_some_and(|entry| entry.contains(&address))
    }

    /// The address at which the linker placed what stands at `offset` in the file.
    pub fn address_of(&self, offset: u64) -> Option<u64> {
        // Where two segments share a page, code is what was sampled.
        self.segments
            .iter()
            .filter(|segment| segment.file.contains(&offset))
            .max_by_key(|segment| segment.executable)
            .map(|segment| segment.address + (offset - segment.file.start))
    }

    /// The name that the symbol tables give the function at `address`.
    pub fn name(&self, address: u64) -> Option<&str> {
        let after = self
            .symbols
            .partition_point(|symbol| symbol.addresses.start <= address);
        self.symbols[..after]
            .iter()
            .rev()
            .take(8)
            .find(|symbol| symbol.addresses.contains(&address))
            .map(|symbol| symbol.name.as_str())
    }

    /// The function that holds `address`: what one description covers, else one
    /// symbol, else what lies between those that are known.
    pub fn function(&self, address: u64) -> Option<Range<u64>> {
        if let Some(described) = self.description(address) {
            return Some(described.addresses.clone());
        }
        if let Some(symbol) = self
            .symbols
            .iter()
            .find(|symbol| symbol.addresses.contains(&address))
        {
            return Some(symbol.addresses.clone());
        }
        let segment = self.segments.iter().find(|segment| {
            let length = segment.file.end - segment.file.start;
            segment.executable && (segment.address..segment.address + length).contains(&address)
        })?;
        let known = || {
            let described = self.described.iter().map(|one| &one.addresses);
            described.chain(self.symbols.iter().map(|one| &one.addresses))
        };
        let start = known()
            .map(|range| range.end.max(range.start))
            .filter(|end| *end <= address)
            .fold(segment.address, u64::max);
        let end = known()
            .map(|range| range.start)
            .filter(|start| *start > address)
            .fold(
                segment.address + (segment.file.end - segment.file.start),
                u64::min,
            );
        Some(start..end)
    }

    /// Whether the file itself says of `address` that nobody called its function.
    pub fn is_outermost(&self, address: u64) -> bool {
        let Some(described) = self.description(address) else {
            return false;
        };
        let section: Section<'_> = EhFrame::new(&self.eh_frame, LittleEndian);
        let offset = described.offset.into();
        let Ok(entry) = section.fde_from_offset(&self.bases, offset, EhFrame::cie_from_offset)
        else {
            return false;
        };
        let mut context = UnwindContext::new();
        entry
            .unwind_info_for_address(&section, &self.bases, &mut context, address)
            .is_ok_and(|row| matches!(row.register(X86_64::RA), Some(RegisterRule::Undefined)))
    }

    fn description(&self, address: u64) -> Option<&Described> {
        let after = self
            .described
            .partition_point(|described| described.addresses.start <= address);
        self.described[..after]
            .last()
            .filter(|described| described.addresses.contains(&address))
    }
}

/// Whether the entry that the header names is one: linkers put the start of the
/// code there in libraries that nothing ever runs.
fn begins_programs(file: &object::File<'_>) -> bool {
    let is_loader = file
        .dynamic_symbols()
        .any(|symbol| symbol.name() == Ok("_r_debug"));
    let has_interpreter = file.section_by_name(".interp").is_some();
    let is_static = file.dynamic_symbols().all(|symbol| symbol.is_undefined());
    file.kind() == ObjectKind::Executable || has_interpreter || is_loader || is_static
}

fn segments(file: &object::File<'_>) -> Vec<Segment> {
    file.segments()
        .map(|segment| {
            let (start, length) = segment.file_range();
            Segment {
                file: start..start + length,
                address: segment.address(),
                executable: segment.permissions().executable(),
            }
        })
        .collect()
}

fn symbols(file: &object::File<'_>) -> Vec<Symbol> {
    let mut symbols: Vec<Symbol> = file
        .symbols()
        .chain(file.dynamic_symbols())
        .filter(|symbol| symbol.is_definition() || symbol.kind() == SymbolKind::Text)
        .filter(|symbol| symbol.kind() == SymbolKind::Text && symbol.address() != 0)
        .map(|symbol| Symbol {
            addresses: symbol.address()..symbol.address() + symbol.size(),
            name: symbol.name().unwrap_or_default().to_owned(),
        })
        .collect();
    symbols.sort_by_key(|symbol| symbol.addresses.start);
    symbols
}

fn described(eh_frame: &[u8], bases: &BaseAddresses) -> Result<Vec<Described>> {
    let section: Section<'_> = EhFrame::new(eh_frame, LittleEndian);
    let mut all = Vec::new();
    let mut entries = section.entries(bases);
    while let Some(entry) = entries.next()? {
        if let CieOrFde::Fde(partial) = entry {
            let entry = partial.parse(EhFrame::cie_from_offset)?;
            all.push(Described {
                addresses: entry.initial_address()..entry.end_address(),
                offset: entry.offset(),
            });
        }
    }
    all.sort_by_key(|described| described.addresses.start);
    Ok(all)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail")]
    use super::*;

    fn own() -> (Image, Vec<u8>) {
        let path = Path::new("/proc/self/exe");
        (Image::open(path).unwrap(), fs::read(path).unwrap())
    }

    #[test]
    fn a_program_begins_in_the_function_that_its_header_names() {
        let (image, bytes) = own();

        let entry = object::File::parse(&*bytes).unwrap().entry();
        let start = image.function(entry).unwrap();
        assert!(start.contains(&entry));
        assert!(image.is_entry(start.end - 1) && !image.is_entry(start.end));
        assert_eq!(image.name(entry), Some("_start"));
        // glibc's start code says so itself.
        assert!(image.is_outermost(start.end - 1));
    }

    #[test]
    fn main_is_called_and_no_entry() {
        let (image, bytes) = own();
        let file = object::File::parse(&*bytes).unwrap();
        let main = file.symbol_by_name("main").unwrap().address();
        assert_eq!(image.name(main + 1), Some("main"));
        assert!(!image.is_entry(main) && !image.is_outermost(main + 1));
        let function = image.function(main).unwrap();
        assert_eq!(function.start, main);
    }

    #[test]
    fn an_offset_in_the_file_becomes_the_linkers_address() {
        let (image, bytes) = own();
        let file = object::File::parse(&*bytes).unwrap();
        let text = file.section_by_name(".text").unwrap();
        let (offset, _) = text.file_range().unwrap();
        assert_eq!(image.address_of(offset + 5), Some(text.address() + 5));
        assert_eq!(image.address_of(u64::MAX), None);
    }

    #[test]
    fn what_is_between_the_known_functions_is_one() {
        let known = |start, end| Described {
            addresses: start..end,
            offset: 0,
        };
        let image = Image {
            entry: None,
            segments: vec![Segment {
                file: 0x1000..0x2000,
                address: 0x5000,
                executable: true,
            }],
            symbols: vec![Symbol {
                addresses: 0x5400..0x5400,
                name: "asm".into(),
            }],
            described: vec![known(0x5100, 0x5200), known(0x5300, 0x5380)],
            eh_frame: Vec::new(),
            bases: BaseAddresses::default(),
        };
        assert_eq!(image.function(0x5150), Some(0x5100..0x5200));
        assert_eq!(image.function(0x5250), Some(0x5200..0x5300));
        assert_eq!(image.function(0x5390), Some(0x5380..0x5400));
        assert_eq!(image.function(0x5fff), Some(0x5400..0x6000));
        assert_eq!(image.function(0x6000), None);
    }
}
