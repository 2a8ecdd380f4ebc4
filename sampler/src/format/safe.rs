//! Names of targets, made harmless.
//!
//! A process chooses its own name, its thread names, its paths and its
//! symbols. None of them may move a cursor, turn the reading direction, break a
//! line or leave a directory. What is replaced stays visible, as an escape.

use std::borrow::Cow;
use std::fmt::Write as _;

/// Longest [`file_component`] in bytes: with what we put around it, well below
/// the 255 bytes that Linux allows a file name.
pub const MAX_FILE_COMPONENT_BYTES: usize = 100;

/// Text for a terminal, a log or a report: one line, printed as it reads.
///
/// Control characters, characters without width, those that turn the reading
/// direction, line separators and code points that XML forbids become `\x1b`
/// or `\u{202e}`; bytes that are not UTF-8 become `\xff`.
pub fn terminal(text: impl AsRef<[u8]>) -> String {
    let mut out = String::new();
    for chunk in text.as_ref().utf8_chunks() {
        out.push_str(&visible(chunk.valid()));
        for &byte in chunk.invalid() {
            escape_byte(&mut out, byte);
        }
    }
    out
}

/// [`terminal`] for text that mostly needs no change, and then is not copied.
pub fn visible(text: &str) -> Cow<'_, str> {
    let Some(first) = text.find(is_harmful) else {
        return Cow::Borrowed(text);
    };
    let mut out = String::with_capacity(text.len() + 8);
    out.push_str(&text[..first]);
    for c in text[first..].chars() {
        if !is_harmful(c) {
            out.push(c);
        } else if let Ok(byte) = u8::try_from(c) {
            escape_byte(&mut out, byte);
        } else {
            out.extend(c.escape_unicode());
        }
    }
    Cow::Owned(out)
}

/// A part of a file name: ASCII letters, digits and `._+-`, anything else one
/// `_`; no leading `.` or `-`, at most [`MAX_FILE_COMPONENT_BYTES`], never
/// empty.
///
/// The colon is left out because `go tool pprof` takes `a:b.pb.gz` for a host
/// and a port.
pub fn file_component(name: &[u8]) -> String {
    let text = String::from_utf8_lossy(&name[..name.len().min(4 * MAX_FILE_COMPONENT_BYTES)]);
    let mut out: String = text
        .chars()
        .take(MAX_FILE_COMPONENT_BYTES)
        .map(|c| match c {
            'a'..='z' | 'A'..='Z' | '0'..='9' | '.' | '_' | '+' | '-' => c,
            _ => '_',
        })
        .collect();
    if out.is_empty() || out.starts_with(['.', '-']) {
        out.replace_range(..out.len().min(1), "_");
    }
    out
}

fn escape_byte(out: &mut String, byte: u8) {
    // Writing to a string cannot fail.
    let _ = write!(out, "\\x{byte:02x}");
}

/// Whether a character acts, hides or is forbidden instead of being seen.
fn is_harmful(c: char) -> bool {
    if c.is_ascii() {
        return c.is_ascii_control();
    }
    c.is_control()
        || matches!(c,
            // soft hyphen, Arabic letter mark, Mongolian vowel separator
            '\u{ad}' | '\u{61c}' | '\u{180e}'
            // zero width space, direction marks
            | '\u{200b}' | '\u{200e}' | '\u{200f}'
            // line and paragraph separator, direction embeddings and overrides
            | '\u{2028}'..='\u{202e}'
            // invisible operators, direction isolates
            | '\u{2060}'..='\u{206f}'
            // byte order mark, interlinear annotation
            | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
            // tags, supplementary variation selectors
            | '\u{e0000}'..='\u{e0fff}'
            | '\u{fdd0}'..='\u{fdef}')
        // the two last code points of each plane are no characters
        || (c as u32) & 0xfffe == 0xfffe
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ordinary_text_is_left_as_it_is() {
        for text in ["", "kworker/0:1-events", "Größe 7", "進程", "a\\b", "🦀"] {
            assert_eq!(terminal(text), text);
            assert!(matches!(visible(text), Cow::Borrowed(_)));
        }
    }

    #[test]
    fn what_acts_on_a_terminal_becomes_visible() {
        assert_eq!(terminal("\x1b[31mred"), "\\x1b[31mred");
        assert_eq!(terminal("a\nb\tc\r"), "a\\x0ab\\x09c\\x0d");
        assert_eq!(terminal("\u{9b}31m"), "\\x9b31m");
        assert_eq!(terminal("\x7f"), "\\x7f");
        assert_eq!(terminal("exe\u{202e}cod"), "exe\\u{202e}cod");
        assert_eq!(terminal("a\u{200b}b"), "a\\u{200b}b");
        assert_eq!(terminal(b"a\xffb\xc3".as_slice()), "a\\xffb\\xc3");
    }

    #[test]
    fn a_file_name_cannot_leave_its_directory() {
        assert_eq!(file_component(b"../../etc/passwd"), "_._.._etc_passwd");
        assert_eq!(file_component(b".."), "_.");
        assert_eq!(file_component(b"."), "_");
        assert_eq!(file_component(b""), "_");
        assert_eq!(file_component(b"-rf"), "_rf");
        assert_eq!(file_component(b"a\0b\"c'd e"), "a_b_c_d_e");
        assert_eq!(file_component(b"kworker/0:1"), "kworker_0_1");
        assert_eq!(file_component(b"g++"), "g++");
    }

    #[test]
    fn a_file_name_is_bounded() {
        assert_eq!(
            file_component(&[b'a'; 5000]).len(),
            MAX_FILE_COMPONENT_BYTES
        );
        assert_eq!(
            file_component(&[0xff; 5000]).len(),
            MAX_FILE_COMPONENT_BYTES
        );
    }

    proptest! {
        #[test]
        fn any_bytes_become_one_harmless_line(bytes: Vec<u8>) {
            let text = terminal(&bytes);
            prop_assert!(!text.chars().any(is_harmful));
            prop_assert_eq!(terminal(&text), text);
        }

        #[test]
        fn any_text_becomes_one_harmless_line(text: String) {
            prop_assert!(!terminal(&text).chars().any(is_harmful));
            prop_assert_eq!(terminal(&text), visible(&text));
        }

        #[test]
        fn any_bytes_become_a_plain_file_name(bytes: Vec<u8>) {
            let name = file_component(&bytes);
            prop_assert!(!name.is_empty() && name.len() <= MAX_FILE_COMPONENT_BYTES);
            prop_assert!(!name.starts_with(['.', '-']));
            prop_assert!(name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._+-".contains(&b)));
        }
    }
}
