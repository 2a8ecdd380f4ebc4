//! What is made of an ELF file without a parser of debug information: for whoever has
//! its bytes at hand.

use super::decompressed::Decompressed;
use super::inflation::Allowance;
use super::inspect::inspect;

/// What the symbol tables of a file say of all of its code: rows of an offset from
/// which on something holds, and of what does, 32 bits each, little-endian: where its
/// name is in the file, 0 for nothing, `u32::MAX` where it is not known. `None` for
/// what is no such file, or a large one.
pub fn symbol_rows(file: &[u8]) -> Option<Vec<u8>> {
    let image = inspect(file, &mut Allowance::default()).ok()?;
    let rows = image.symbol_rows(file).ok()??;
    Some(rows.as_bytes().to_vec())
}

/// A file without compression, and how large it was to be, if that is not more than so
/// many bytes; nothing if a section is not what its header promises.
pub fn decompressed(file: &[u8], max_bytes: u64) -> Option<(u64, Option<Vec<u8>>)> {
    let plan = Decompressed::of(file).ok()??;
    let size_bytes = plan.size_bytes();
    if size_bytes > max_bytes {
        return None;
    }
    let mut out = Vec::new();
    // Compressed bytes are paid for, too.
    let mut allowance = Allowance::new(max_bytes + file.len() as u64);
    let written = plan.write(file, &mut allowance, &mut out);
    Some((size_bytes, written.is_ok().then_some(out)))
}
