//! A program as it is loaded: bytes of its file by virtual address.

use std::ops::Range;

use super::super::headers::{Header, ReadAt, Segment, word};
use super::pages::{MAX_HELD_BYTES, Pages};

/// Loaded segments that are looked at; linkers write six.
const MAX_SEGMENTS: usize = 64;
/// Searched at once, in bytes; a multiple of every width.
const SEARCHED_BYTES: usize = 64 << 10;
/// What one search may look through, in bytes.
const MAX_SEARCHED_BYTES: u64 = 256 << 20;
/// Words that one search may find; in real programs the first one is right.
const MAX_HITS: u32 = 4096;

const SEGMENT_LOAD: u64 = 1;
const FLAG_WRITABLE: u64 = 2;

/// The loaded segments of a file.
#[derive(Debug)]
pub(super) struct Memory<F> {
    pages: Pages<F>,
    segments: Vec<Segment>,
}

/// How much may still be looked through, and found.
#[derive(Debug)]
pub(super) struct Search {
    left_bytes: u64,
    left_hits: u32,
}

impl Default for Search {
    fn default() -> Self {
        Self {
            left_bytes: MAX_SEARCHED_BYTES,
            left_hits: MAX_HITS,
        }
    }
}

impl<F: ReadAt> Memory<F> {
    /// Of a file with this header.
    pub(super) fn of(file: F, header: &Header) -> Option<Self> {
        let mut segments = header.segments(&file).ok()?;
        segments.retain(|segment| segment.kind == SEGMENT_LOAD);
        segments.truncate(MAX_SEGMENTS);
        Some(Self {
            pages: Pages::new(file),
            segments,
        })
    }

    /// The file.
    pub(super) fn file(&self) -> &F {
        &self.pages.file
    }

    /// Frees what is held of the file.
    pub(super) fn close(&self) {
        self.pages.close();
    }

    /// The most memory that is held.
    pub(super) fn held_bytes(&self) -> u64 {
        let segments = self.segments.iter();
        let all_bytes = segments.fold(0_u64, |sum, segment| {
            sum.saturating_add(segment.file.end - segment.file.start)
        });
        all_bytes.min(MAX_HELD_BYTES)
    }

    /// The first address behind those that a segment's file bytes reach from
    /// this address on.
    pub(super) fn end_of(&self, address: u64) -> Option<u64> {
        let (segment, distance) = self.segment(address)?;
        let bytes = segment.file.end - segment.file.start;
        address.checked_add(bytes - distance)
    }

    /// The segment that holds an address, and how far behind its start.
    fn segment(&self, address: u64) -> Option<(&Segment, u64)> {
        self.segments.iter().find_map(|segment| {
            let distance = address.checked_sub(segment.virtual_start)?;
            (distance < segment.file.end - segment.file.start).then_some((segment, distance))
        })
    }

    /// Fills the start of the buffer with what follows an address; how many
    /// bytes that are.
    pub(super) fn read(&self, address: u64, buffer: &mut [u8]) -> usize {
        let Some((segment, distance)) = self.segment(address) else {
            return 0;
        };
        let start = segment.file.start + distance;
        let bytes = (segment.file.end - start).min(buffer.len() as u64) as usize;
        if self.pages.fill(&mut buffer[..bytes], start) {
            bytes
        } else {
            0
        }
    }

    /// The little-endian number of up to eight bytes at an address.
    pub(super) fn word(&self, address: u64, width: usize) -> Option<u64> {
        let mut bytes = [0; 8];
        let field = bytes.get_mut(..width)?;
        (self.read(address, field) == width).then(|| word(&bytes, 0, width))
    }

    /// The text that ends in a NUL, of at most so many bytes, without it.
    pub(super) fn text(&self, address: u64, max_bytes: usize) -> Option<Vec<u8>> {
        const STEP_BYTES: usize = 64;
        let mut text = Vec::new();
        while text.len() <= max_bytes {
            let mut step = [0; STEP_BYTES];
            let at = address.checked_add(text.len() as u64)?;
            let step = match self.read(at, &mut step) {
                0 => return None,
                bytes => &step[..bytes],
            };
            if let Some(end) = step.iter().position(|byte| *byte == 0) {
                text.extend(&step[..end]);
                return (text.len() <= max_bytes).then_some(text);
            }
            text.extend(step);
        }
        None
    }

    /// Looks through all segments, or those that can be written, for words of
    /// this width that `is`, until `found` makes something of one's address.
    pub(super) fn search<T>(
        &self,
        search: &mut Search,
        writable_only: bool,
        width: usize,
        is: impl Fn(u64) -> bool,
        mut found: impl FnMut(u64) -> Option<T>,
    ) -> Option<T> {
        let mut buffer = vec![0; SEARCHED_BYTES];
        for segment in &self.segments {
            if writable_only && segment.flags & FLAG_WRITABLE == 0 {
                continue;
            }
            for range in steps(segment, width as u64) {
                let step = buffer.get_mut(..(range.end - range.start) as usize)?;
                search.left_bytes = search.left_bytes.checked_sub(step.len() as u64)?;
                if self.file().fill(step, range.start).is_err() {
                    break;
                }
                let hits = step.chunks_exact(width).enumerate();
                let hits = hits.filter(|(_, bytes)| is(word(bytes, 0, width)));
                for (index, _) in hits {
                    search.left_hits = search.left_hits.checked_sub(1)?;
                    let distance = range.start - segment.file.start + (index * width) as u64;
                    let made = segment
                        .virtual_start
                        .checked_add(distance)
                        .and_then(&mut found);
                    if made.is_some() {
                        return made;
                    }
                }
            }
        }
        None
    }
}

/// Where in the file a segment's aligned words are, step by step.
fn steps(segment: &Segment, width: u64) -> impl Iterator<Item = Range<u64>> {
    let to_aligned = segment.virtual_start.wrapping_neg() % width;
    let first = segment.file.start.saturating_add(to_aligned);
    let end = segment.file.end;
    (first..end).step_by(SEARCHED_BYTES).map(move |start| {
        let bytes = (end - start).min(SEARCHED_BYTES as u64);
        start..start + bytes
    })
}
