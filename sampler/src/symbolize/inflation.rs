//! What compressed sections inflate to, and how much of that a run may cost.

use std::io::{self, Read, Write};
use std::ops::Range;

use super::headers::{ElfError, Header, ReadAt, Section, word};

/// What the debug sections of a file together may inflate to. The parser keeps
/// them in memory for as long as it is open.
const MAX_DEBUG_BYTES: u64 = 512 << 20;
/// What `MiniDebugInfo` may inflate to: a symbol table and its strings, a few MiB
/// for the largest programs of a distribution.
const MAX_SYMBOLS_BYTES: u64 = 128 << 20;
/// What all files of a run together may cost, compressed and inflated bytes
/// together, whoever inflates them: some tens of seconds of CPU time.
const MAX_RUN_BYTES: u64 = 8 << 30;

const COMPRESSED_ZLIB: u64 = 1;
const COMPRESSED_ZSTD: u64 = 2;

/// How many bytes may still be inflated.
#[derive(Debug)]
pub(super) struct Allowance {
    left_bytes: u64,
}

impl Default for Allowance {
    /// That of a run.
    fn default() -> Self {
        Self::new(MAX_RUN_BYTES)
    }
}

impl Allowance {
    pub(super) fn new(left_bytes: u64) -> Self {
        Self { left_bytes }
    }

    /// How many are left.
    pub(super) fn left_bytes(&self) -> u64 {
        self.left_bytes
    }

    /// Takes so many bytes, if they are left.
    pub(super) fn take(&mut self, bytes: u64) -> bool {
        let left_bytes = self.left_bytes.checked_sub(bytes);
        self.left_bytes = left_bytes.unwrap_or(self.left_bytes);
        left_bytes.is_some()
    }

    /// How many bytes a decoder yields, if at most `max_bytes` and without
    /// error. They go out as they come, and are paid for in any case.
    fn inflate(
        &mut self,
        decoder: impl Read,
        max_bytes: u64,
        out: &mut (impl Write + ?Sized),
    ) -> Option<u64> {
        let max_bytes = max_bytes.min(self.left_bytes);
        let mut decoder = decoder.take(max_bytes + 1);
        let copied = io::copy(&mut decoder, out);
        let size_bytes = max_bytes + 1 - decoder.limit();
        self.left_bytes = self.left_bytes.saturating_sub(size_bytes);
        (copied.is_ok() && size_bytes <= max_bytes).then_some(size_bytes)
    }
}

/// What the compressed sections of one file hold, once inflated.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Inflated {
    /// Those with `SHF_COMPRESSED`: DWARF.
    pub debug_bytes: u64,
    /// `.gnu_debugdata`: symbols.
    pub symbols_bytes: u64,
}

impl Inflated {
    /// Adds a section with `SHF_COMPRESSED`; false if it is broken, not what
    /// its header says, or more than is allowed.
    pub(super) fn add_debug(
        &mut self,
        file: &(impl ReadAt + ?Sized),
        header: &Header,
        section: &Section,
        allowance: &mut Allowance,
    ) -> bool {
        let max_bytes = MAX_DEBUG_BYTES - self.debug_bytes;
        let out = &mut io::sink();
        let size_bytes = inflate_section(file, header, section, max_bytes, allowance, out);
        self.debug_bytes += size_bytes.unwrap_or(0);
        size_bytes.is_some()
    }

    /// Adds a `.gnu_debugdata` section; false if it is broken or more than is
    /// allowed.
    pub(super) fn add_symbols(
        &mut self,
        file: &(impl ReadAt + ?Sized),
        section: &Section,
        allowance: &mut Allowance,
    ) -> bool {
        let max_bytes = MAX_SYMBOLS_BYTES - self.symbols_bytes;
        let size_bytes = section
            .file_range()
            .ok()
            .filter(|range| allowance.take(range.end - range.start))
            .and_then(|range| {
                let content = Window::new(file, range);
                allowance.inflate(
                    xz2::read::XzDecoder::new(content),
                    max_bytes,
                    &mut io::sink(),
                )
            });
        self.symbols_bytes += size_bytes.unwrap_or(0);
        size_bytes.is_some()
    }
}

/// What a section with `SHF_COMPRESSED` says it inflates to, in bytes.
pub(super) fn promised_bytes(
    file: &(impl ReadAt + ?Sized),
    header: &Header,
    section: &Section,
) -> Result<u64, ElfError> {
    Ok(Compression::of(file, header, section)?.promised_bytes)
}

/// What is said before the content of a section with `SHF_COMPRESSED`.
struct Compression {
    kind: u64,
    promised_bytes: u64,
    content: Range<u64>,
}

impl Compression {
    fn of(
        file: &(impl ReadAt + ?Sized),
        header: &Header,
        section: &Section,
    ) -> Result<Self, ElfError> {
        let range = section.file_range()?;
        let mut bytes = [0; 24];
        let bytes = &mut bytes[..if header.wide { 24 } else { 12 }];
        file.fill(bytes, range.start)?;
        Ok(Self {
            kind: word(bytes, 0, 4),
            promised_bytes: if header.wide {
                word(bytes, 8, 8)
            } else {
                word(bytes, 4, 4)
            },
            content: range.start + bytes.len() as u64..range.end,
        })
    }
}

/// Inflates a section; `None` if it is broken, not what its header says, or more than
/// is allowed. What came until then has gone out all the same.
pub(super) fn inflate_section(
    file: &(impl ReadAt + ?Sized),
    header: &Header,
    section: &Section,
    max_bytes: u64,
    allowance: &mut Allowance,
    out: &mut (impl Write + ?Sized),
) -> Option<u64> {
    let compression = Compression::of(file, header, section).ok()?;
    let promised_bytes = compression.promised_bytes;
    // The parser allocates what is promised before it reads anything.
    if promised_bytes > max_bytes || !allowance.take(section.held_bytes()) {
        return None;
    }
    let content = Window::new(file, compression.content);
    let size_bytes = match compression.kind {
        COMPRESSED_ZLIB => {
            allowance.inflate(flate2::read::ZlibDecoder::new(content), max_bytes, out)
        }
        COMPRESSED_ZSTD => {
            let decoder = zstd::stream::read::Decoder::new(content).ok()?;
            allowance.inflate(decoder, max_bytes, out)
        }
        _ => None,
    }?;
    (size_bytes == promised_bytes).then_some(size_bytes)
}

/// A part of a file as a stream, read in steps.
pub(super) struct Window<'a, F: ?Sized> {
    file: &'a F,
    rest: Range<u64>,
}

impl<'a, F: ReadAt + ?Sized> Window<'a, F> {
    pub(super) fn new(file: &'a F, rest: Range<u64>) -> Self {
        Self { file, rest }
    }
}

impl<F: ReadAt + ?Sized> Read for Window<'_, F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left_bytes = self.rest.end.saturating_sub(self.rest.start);
        let step_bytes = left_bytes.min(buffer.len() as u64);
        self.file
            .fill(&mut buffer[..step_bytes as usize], self.rest.start)?;
        self.rest.start += step_bytes;
        Ok(step_bytes as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inflate(allowance: &mut Allowance, decoder: impl Read, max_bytes: u64) -> Option<u64> {
        allowance.inflate(decoder, max_bytes, &mut io::sink())
    }

    #[test]
    fn a_decoder_is_stopped_at_the_bound() {
        let mut allowance = Allowance::new(10_000);
        assert_eq!(inflate(&mut allowance, io::repeat(0), 1000), None);
        assert_eq!(
            inflate(&mut allowance, io::repeat(0).take(1000), 1000),
            Some(1000)
        );
    }

    #[test]
    fn what_was_inflated_in_vain_is_paid_for_too() {
        let mut allowance = Allowance::new(3000);
        assert_eq!(inflate(&mut allowance, io::repeat(0), 1999), None);
        assert!(!allowance.take(1001));
        assert_eq!(
            inflate(&mut allowance, io::repeat(0).take(1001), 5000),
            None
        );
        assert!(!allowance.take(1));
    }

    #[test]
    fn what_is_not_left_is_not_taken() {
        let mut allowance = Allowance::new(10);
        assert!(!allowance.take(11));
        assert!(allowance.take(10));
        assert!(!allowance.take(1));
    }
}
