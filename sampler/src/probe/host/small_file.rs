//! The one place that reads a small pseudo-file whole.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

/// Far above what any of the pseudo-files read here holds: `/proc/stat` of
/// 4,096 CPUs is about 1 MiB.
const CAP_BYTES: u64 = 16 << 20;

/// The file's text, invalid UTF-8 replaced; an error when it is longer than
/// [`CAP_BYTES`].
pub(super) fn read_text(path: impl AsRef<Path>) -> io::Result<String> {
    let bytes = read_bytes(path, CAP_BYTES)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The file's bytes; an error when there are more than `cap_bytes`.
pub(super) fn read_bytes(path: impl AsRef<Path>, cap_bytes: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?
        .take(cap_bytes + 1)
        .read_to_end(&mut bytes)?;
    if bytes.len() as u64 > cap_bytes {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(bytes)
}
