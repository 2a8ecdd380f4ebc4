//! Symbol names to names for people.
//!
//! A name comes from a file that anybody may have written, and a demangler can
//! turn a few hundred bytes into gigabytes. So what goes in is capped and what
//! comes out is cut off while it is written.

use std::collections::HashMap;
use std::fmt::{self, Write};

/// The longest name, demangled or not, in bytes.
pub(super) const MAX_NAME_BYTES: usize = 4096;

/// The longest mangled name that is worth demangling, in bytes.
const MAX_MANGLED_BYTES: usize = 4096;

/// Demangled names that are remembered: most addresses share theirs with others.
const MAX_REMEMBERED: usize = 8192;

/// Demangles, and what it has demangled lately not again.
#[derive(Debug, Default)]
pub(super) struct Demangler {
    known: HashMap<Box<str>, Box<str>>,
}

impl Demangler {
    /// As [`demangle`].
    pub(super) fn demangle(&mut self, symbol: &str) -> String {
        if !is_mangled(symbol) {
            return demangle(symbol);
        }
        if let Some(name) = self.known.get(symbol) {
            return String::from(&**name);
        }
        let name = demangle(symbol);
        if symbol.len() <= MAX_MANGLED_BYTES {
            if self.known.len() >= MAX_REMEMBERED {
                self.known.clear();
            }
            self.known.insert(symbol.into(), name.as_str().into());
        }
        name
    }
}

/// The demangled form of a symbol: C++ (Itanium ABI), Rust legacy (without its
/// hash) and Rust v0. A name in no such scheme, or one that does not parse, is
/// returned as it is. An ELF symbol version (`@@GLIBC_2.14`) is dropped.
pub(super) fn demangle(symbol: &str) -> String {
    let base = match symbol.find('@') {
        Some(at) if at > 0 => &symbol[..at],
        _ => symbol,
    };
    if base.len() > MAX_MANGLED_BYTES {
        return clean(base);
    }
    let demangled = if base.starts_with("_R") || is_rust_legacy(base) {
        demangle_rust(base)
    } else if base.starts_with("_Z") {
        demangle_cpp(base)
    } else {
        None
    };
    demangled.map_or_else(|| clean(base), |name| clean(&name))
}

/// Whether a symbol is mangled in one of the schemes that [`demangle`] knows.
pub(super) fn is_mangled(symbol: &str) -> bool {
    symbol.starts_with("_Z") || symbol.starts_with("_R")
}

/// A text as it may be stored: without NUL, at most [`MAX_NAME_BYTES`] long.
pub(super) fn clean(text: &str) -> String {
    let mut cleaned: String = text.chars().filter(|c| *c != '\0').collect();
    if cleaned.len() > MAX_NAME_BYTES {
        let mut end = MAX_NAME_BYTES - '…'.len_utf8();
        while !cleaned.is_char_boundary(end) {
            end -= 1;
        }
        cleaned.truncate(end);
        cleaned.push('…');
    }
    cleaned
}

/// Rust's legacy scheme borrows C++'s nested names and ends in a component
/// `h` + 16 hex digits. Without that, `_ZN3foo3barE` is C++.
fn is_rust_legacy(symbol: &str) -> bool {
    symbol.starts_with("_ZN")
        && symbol.match_indices("17h").any(|(at, marker)| {
            let hash = &symbol.as_bytes()[at + marker.len()..];
            hash.len() > 16 && hash[..16].iter().all(u8::is_ascii_hexdigit) && hash[16] == b'E'
        })
}

fn demangle_rust(symbol: &str) -> Option<String> {
    let demangled = rustc_demangle::try_demangle(symbol).ok()?;
    let mut out = Capped::default();
    // The alternate form leaves the hash out.
    write!(out, "{demangled:#}").ok()?;
    Some(out.text)
}

fn demangle_cpp(symbol: &str) -> Option<String> {
    let parsed = cpp_demangle::Symbol::new(symbol).ok()?;
    let mut out = Capped::default();
    parsed
        .structured_demangle(&mut out, &cpp_demangle::DemangleOptions::default())
        .ok()?;
    Some(out.text)
}

/// Text that refuses to grow beyond what [`clean`] would keep.
#[derive(Default)]
struct Capped {
    text: String,
}

impl Write for Capped {
    fn write_str(&mut self, piece: &str) -> fmt::Result {
        if self.text.len() + piece.len() > MAX_NAME_BYTES {
            return Err(fmt::Error);
        }
        self.text.push_str(piece);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scheme_reads_as_its_source() {
        for (symbol, name) in [
            ("main", "main"),
            ("_ZN5geometry4areaEdd", "_ZN5geometry4areaEdd"),
            ("_ZN8geometry4areaEdd", "geometry::area(double, double)"),
            ("_ZN3foo3barE", "foo::bar"),
            ("_ZN4core3fmt5write17h0123456789abcdefE", "core::fmt::write"),
            (
                "_ZN4core3fmt5write17h0123456789abcdefE.llvm.77",
                "core::fmt::write",
            ),
            ("_RNvC6_123foo3bar", "123foo::bar"),
            ("memcpy@@GLIBC_2.14", "memcpy"),
            ("@odd", "@odd"),
            ("_Z", "_Z"),
            ("_R", "_R"),
            ("", ""),
        ] {
            assert_eq!(demangle(symbol), name, "{symbol}");
        }
    }

    #[test]
    fn a_compiler_made_clone_keeps_its_function() {
        assert_eq!(
            demangle("_Z3fooi.constprop.0"),
            "foo(int) [clone .constprop.0]"
        );
    }

    #[test]
    fn a_name_that_explodes_stays_as_it_is() {
        // f(A<int, int>, A<1st, 1st>, A<2nd, 2nd>, …): each argument is twice
        // as long as the one before. S_ is A, S0_ the first argument's type.
        let mut bomb = String::from("_Z1f1AIiiE");
        for argument in "0123456789ABCDEFGHIJKLMNOPQRSTUV".chars() {
            let _ = write!(bomb, "S_IS{argument}_S{argument}_E");
        }
        assert!(cpp_demangle::Symbol::new(&bomb).is_ok());
        assert_eq!(demangle(&bomb), bomb);
    }

    #[test]
    fn a_name_is_cut_at_a_character_and_holds_no_nul() {
        let long = "ä".repeat(MAX_NAME_BYTES);
        let cut = clean(&long);
        assert!(
            cut.len() <= MAX_NAME_BYTES && cut.ends_with('…'),
            "{}",
            cut.len()
        );
        assert_eq!(clean("a\0b"), "ab");
        assert!(demangle(&format!("_Z{}", "1a".repeat(MAX_NAME_BYTES))).len() <= MAX_NAME_BYTES);
    }
}
