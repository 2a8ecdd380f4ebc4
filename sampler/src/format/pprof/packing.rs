//! From a file to the message in it, and back.

use std::io::{self, Read, Write};

use flate2::read::MultiGzDecoder;
use flate2::{Compression, GzBuilder};

use super::error::ReadError;

/// The most that a file may hold, compressed or not, and once inflated.
pub(super) const MAX_BYTES: u64 = 512 << 20;

const GZIP: &[u8] = &[0x1f, 0x8b];

/// Whether a file was compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packing {
    /// By gzip.
    Gzip,
    /// Not at all.
    Plain,
}

/// The message in a file, gzip or not; at most 512 MiB of it.
pub fn unpack(file: impl Read) -> Result<(Vec<u8>, Packing), ReadError> {
    let mut bytes = Vec::new();
    let read = file.take(MAX_BYTES + 1).read_to_end(&mut bytes);
    read.map_err(ReadError::Io)?;
    let (bytes, packing) = if bytes.starts_with(GZIP) {
        let mut message = Vec::new();
        let inflated = MultiGzDecoder::new(bytes.as_slice())
            .take(MAX_BYTES + 1)
            .read_to_end(&mut message);
        inflated.map_err(ReadError::Gzip)?;
        (message, Packing::Gzip)
    } else {
        (bytes, Packing::Plain)
    };
    if bytes.len() as u64 > MAX_BYTES {
        return Err(ReadError::TooLarge);
    }
    Ok((bytes, packing))
}

/// The file of a message.
pub fn pack(message: &[u8], packing: Packing, mut out: impl Write) -> io::Result<()> {
    match packing {
        Packing::Plain => out.write_all(message)?,
        Packing::Gzip => {
            let mut gzip = GzBuilder::new().write(&mut out, Compression::default());
            gzip.write_all(message)?;
            gzip.finish()?;
        }
    }
    out.flush()
}
