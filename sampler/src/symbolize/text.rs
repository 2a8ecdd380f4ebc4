//! Texts in files.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use super::demangle::MAX_NAME_BYTES;

/// Bytes of a text that are read at once; most are shorter.
const STEP_BYTES: usize = 256;

/// The text at an offset of a file, up to a NUL; of one that is longer than a name,
/// one byte more than a name has. `None` if the file ends before it does.
pub(super) fn text_at(file: &File, offset: u64) -> Option<Vec<u8>> {
    let mut text = Vec::new();
    loop {
        let mut step = [0; STEP_BYTES];
        let found = file.read_at(&mut step, offset + text.len() as u64).ok()?;
        let step = &step[..found];
        let end = step.iter().position(|byte| *byte == 0);
        text.extend_from_slice(&step[..end.unwrap_or(found)]);
        if end.is_some() || text.len() > MAX_NAME_BYTES {
            text.truncate(MAX_NAME_BYTES + 1);
            return Some(text);
        }
        if found == 0 {
            return None;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is the failure report")]

    use std::io::Write as _;

    use super::*;

    #[test]
    fn a_text_ends_with_a_nul_or_is_too_long() {
        let mut file = tempfile::tempfile().unwrap();
        let long = "x".repeat(5000);
        file.write_all(format!("{long}\0short\0\0open").as_bytes())
            .unwrap();
        let length_at = |offset| text_at(&file, offset).map(|text| text.len());
        assert_eq!(length_at(0), Some(MAX_NAME_BYTES + 1));
        assert_eq!(length_at(4000), Some(1000));
        assert_eq!(text_at(&file, 5001).unwrap(), b"short");
        assert_eq!(length_at(5007), Some(0));
        assert_eq!(length_at(5008), None);
        assert_eq!(length_at(9000), None);
    }
}
