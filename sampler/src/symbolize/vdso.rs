//! The vDSO as a file: the kernel maps the same image into every process.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader};
use std::ops::Range;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::PathBuf;
use std::sync::Arc;

use crate::object::{BuildId, FileId, PinnedFile, find_build_id};

use super::sealed::sealed_file;

/// Far more than any kernel's image (two pages on x86-64).
const MAX_IMAGE_BYTES: u64 = 1 << 20;

/// The build ID of our own vDSO, if it has one that can be read.
pub fn build_id() -> Option<BuildId> {
    let image = own_image().ok()?;
    find_build_id(|offset, buffer| {
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let rest = image.get(start..).unwrap_or_default();
        let bytes = buffer.len().min(rest.len());
        buffer[..bytes].copy_from_slice(&rest[..bytes]);
        Ok(bytes)
    })
}

/// Copies our own vDSO into a sealed file in memory. Its file offsets are the
/// offsets into the image.
pub fn pin() -> io::Result<Arc<PinnedFile>> {
    let image = own_image()?;
    let file = sealed_file(c"vdso", &image)?;
    let metadata = file.metadata()?;
    let id = FileId {
        device: metadata.dev(),
        inode: metadata.ino(),
    };
    Ok(Arc::new(PinnedFile::new(
        id,
        PathBuf::from("[vdso]"),
        None,
        file,
    )))
}

fn own_image() -> io::Result<Vec<u8>> {
    let range = own_range()?;
    let mut image = vec![0; (range.end - range.start) as usize];
    File::open("/proc/self/mem")?.read_exact_at(&mut image, range.start)?;
    Ok(image)
}

fn own_range() -> io::Result<Range<u64>> {
    for line in BufReader::new(File::open("/proc/self/maps")?).split(b'\n') {
        if let Some(range) = vdso_range(&line?) {
            return Ok(range);
        }
    }
    Err(io::Error::new(
        io::ErrorKind::NotFound,
        "this process has no vDSO",
    ))
}

/// The address range of a line of `/proc/PID/maps`, if it is the vDSO's and
/// sane.
fn vdso_range(line: &[u8]) -> Option<Range<u64>> {
    let line = str::from_utf8(line).ok()?.strip_suffix(" [vdso]")?;
    let (start, end) = line.split_whitespace().next()?.split_once('-')?;
    let start = u64::from_str_radix(start, 16).ok()?;
    let end = u64::from_str_radix(end, 16).ok()?;
    (start < end && end - start <= MAX_IMAGE_BYTES).then_some(start..end)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test that unwraps says what it expects
    use std::io::Write as _;

    use super::*;

    #[test]
    fn only_the_vdso_line_counts() {
        let line =
            b"7fb9f31a9000-7fb9f31ab000 r-xp 00000000 00:00 0                          [vdso]";
        assert_eq!(vdso_range(line), Some(0x7fb9_f31a_9000..0x7fb9_f31a_b000));
        for line in [
            &b"7fb9f31a9000-7fb9f31ab000 r--p 00000000 00:00 0    [vvar]"[..],
            b"7fb9f31ab000-7fb9f31a9000 r-xp 00000000 00:00 0    [vdso]",
            b"0-ffffffffffffffff r-xp 00000000 00:00 0    [vdso]",
            b"\xff [vdso]",
            b" [vdso]",
            b"",
        ] {
            assert_eq!(vdso_range(line), None);
        }
    }

    #[test]
    fn the_copy_is_the_elf_image_and_cannot_be_written() {
        let pinned = pin().unwrap();
        let image = std::fs::read(pinned.reopen_path()).unwrap();
        assert_eq!(&image[..4], b"\x7fELF");
        let writer = File::options().write(true).open(pinned.reopen_path());
        assert!(writer.and_then(|mut file| file.write_all(b"x")).is_err());
    }
}
