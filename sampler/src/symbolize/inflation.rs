//! What compressed sections inflate to, and how much of that a run may cost.

use std::io::{self, Read};
use std::ops::Range;

use super::headers::{Header, ReadAt, Section, word};

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
    /// error. They are thrown away as they come, and paid for in any case.
    fn inflate(&mut self, decoder: impl Read, max_bytes: u64) -> Option<u64> {
        let max_bytes = max_bytes.min(self.left_bytes);
        let mut decoder = decoder.take(max_bytes + 1);
        let copied = io::copy(&mut decoder, &mut io::sink());
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
        let size_bytes = inflate_section(file, header, section, max_bytes, allowance);
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
                allowance.inflate(xz2::read::XzDecoder::new(content), max_bytes)
            });
        self.symbols_bytes += size_bytes.unwrap_or(0);
        size_bytes.is_some()
    }
}

fn inflate_section(
    file: &(impl ReadAt + ?Sized),
    header: &Header,
    section: &Section,
    max_bytes: u64,
    allowance: &mut Allowance,
) -> Option<u64> {
    let range = section.file_range().ok()?;
    let mut compression = [0; 24];
    let compression = &mut compression[..if header.wide { 24 } else { 12 }];
    file.fill(compression, range.start).ok()?;
    let promised_bytes = if header.wide {
        word(compression, 8, 8)
    } else {
        word(compression, 4, 4)
    };
    // The parser allocates what is promised before it reads anything.
    if promised_bytes > max_bytes || !allowance.take(range.end - range.start) {
        return None;
    }
    let content = Window::new(file, range.start + compression.len() as u64..range.end);
    let size_bytes = match word(compression, 0, 4) {
        COMPRESSED_ZLIB => allowance.inflate(flate2::read::ZlibDecoder::new(content), max_bytes),
        COMPRESSED_ZSTD => {
            allowance.inflate(zstd::stream::read::Decoder::new(content).ok()?, max_bytes)
        }
        _ => None,
    }?;
    (size_bytes == promised_bytes).then_some(size_bytes)
}

/// A part of a file as a stream, read in steps.
struct Window<'a, F: ?Sized> {
    file: &'a F,
    rest: Range<u64>,
}

impl<'a, F: ReadAt + ?Sized> Window<'a, F> {
    fn new(file: &'a F, rest: Range<u64>) -> Self {
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

    #[test]
    fn a_decoder_is_stopped_at_the_bound() {
        let mut allowance = Allowance::new(10_000);
        assert_eq!(allowance.inflate(io::repeat(0), 1000), None);
        assert_eq!(
            allowance.inflate(io::repeat(0).take(1000), 1000),
            Some(1000)
        );
    }

    #[test]
    fn what_was_inflated_in_vain_is_paid_for_too() {
        let mut allowance = Allowance::new(3000);
        assert_eq!(allowance.inflate(io::repeat(0), 1999), None);
        assert!(!allowance.take(1001));
        assert_eq!(allowance.inflate(io::repeat(0).take(1001), 5000), None);
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
