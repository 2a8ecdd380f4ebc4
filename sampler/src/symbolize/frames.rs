//! From the parser's answer to frames.

use blazesym::symbolize::{CodeInfo, Sym};

use super::demangle::{Demangler, MAX_NAME_BYTES, clean, demangle, is_mangled};
use super::names::FrameName;

/// The deepest chain of inlined calls that is kept; compilers stay far below.
pub(super) const MAX_INLINED: usize = 128;

/// What an inlined function is called when its name lies in another file.
const NAMELESS_INLINED: &str = "[inlined]";

/// The frames of a symbol, innermost inlined function first; none if it has no
/// name.
///
/// `elf_symbol` is what the symbol table calls the same address. DWARF leaves
/// the linkage name out for some functions (C++ functions with internal
/// linkage), and the whole name where it lies in a supplementary file.
pub(super) fn frames(
    symbol: &Sym<'_>,
    elf_symbol: Option<&str>,
    demangler: &mut Demangler,
) -> Vec<FrameName> {
    let Some(system_name) = system_name(&symbol.name, elf_symbol) else {
        return Vec::new();
    };
    let inlined = symbol.inlined.iter().rev().take(MAX_INLINED);
    let inlined = inlined.map(|function| {
        let name = match function.name.as_ref() {
            "" => NAMELESS_INLINED,
            name => name,
        };
        (name, function.code_info.as_ref())
    });
    inlined
        .chain([(system_name, symbol.code_info.as_deref())])
        .map(|(name, code)| frame(name, code, demangler))
        .collect()
}

/// The frames of a symbol of which the name is all that is known; none if that says
/// nothing, or is no text.
pub(super) fn of_symbol(name: &[u8], demangler: &mut Demangler) -> Vec<FrameName> {
    let name = str::from_utf8(name).unwrap_or_else(|error| match error.error_len() {
        None if name.len() > MAX_NAME_BYTES => {
            // Cut in the middle of a character.
            str::from_utf8(&name[..error.valid_up_to()]).unwrap_or_default()
        }
        _ => "",
    });
    let name = system_name(name, None);
    name.map(|name| frame(name, None, demangler))
        .into_iter()
        .collect()
}

/// The raw symbol: the one of the two names that says more.
fn system_name<'a>(debug_name: &'a str, elf_symbol: Option<&'a str>) -> Option<&'a str> {
    let better = elf_symbol.filter(|symbol| {
        debug_name.is_empty()
            || (!is_mangled(debug_name)
                && is_mangled(symbol)
                && is_same_function(debug_name, &demangle(symbol)))
    });
    better
        .or(Some(debug_name))
        .filter(|name| !name.trim().is_empty())
}

/// Whether a symbol, demangled, can be the function that DWARF calls so, and
/// does not cover it by chance.
fn is_same_function(debug_name: &str, symbol: &str) -> bool {
    let base = base_name(debug_name);
    // Rust's older mangling does not number closures.
    symbol.contains(base) || (base.starts_with("{closure#") && symbol.ends_with("{{closure}}"))
}

/// A name without its template arguments, which the compiler spells otherwise
/// than a demangler does.
fn base_name(name: &str) -> &str {
    match name.split_once('<') {
        Some((base, _)) if !base.is_empty() => base,
        _ => name,
    }
}

fn frame(system_name: &str, code: Option<&CodeInfo<'_>>, demangler: &mut Demangler) -> FrameName {
    FrameName {
        name: demangler.demangle(system_name),
        system_name: clean(system_name),
        source_file: code.map_or_else(String::new, source_file),
        line: code.and_then(|code| code.line).unwrap_or(0),
        column: code.and_then(|code| code.column).map_or(0, u32::from),
    }
}

/// Directory and file as the compiler recorded them; "" if too long to be a
/// path.
fn source_file(code: &CodeInfo<'_>) -> String {
    let path = code.to_path();
    if path.as_os_str().len() > MAX_NAME_BYTES {
        return String::new();
    }
    clean(&path.to_string_lossy())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_symbol_table_completes_what_dwarf_leaves_out() {
        for (debug_name, elf_symbol, expected) in [
            ("main", Some("main"), Some("main")),
            ("memcpy", Some("__GI_memcpy"), Some("memcpy")),
            (
                "area",
                Some("_ZN8geometryL4areaEd"),
                Some("_ZN8geometryL4areaEd"),
            ),
            ("area", Some("_ZN8geometry6volumeEd"), Some("area")),
            (
                "apply<names_work(void*)::<lambda()> >",
                Some("_ZN6engine5applyIZ10names_workPvEUlvE_EEiT_"),
                Some("_ZN6engine5applyIZ10names_workPvEUlvE_EEiT_"),
            ),
            (
                "{closure#1}<u8>",
                Some("_ZN4list4recv28_$u7b$$u7b$closure$u7d$$u7d$17h3d28ff4beaccdc7bE"),
                Some("_ZN4list4recv28_$u7b$$u7b$closure$u7d$$u7d$17h3d28ff4beaccdc7bE"),
            ),
            ("_Z4areav", Some("_Z6volumev"), Some("_Z4areav")),
            ("", Some("f"), Some("f")),
            ("", None, None),
            ("", Some(""), None),
            ("f", None, Some("f")),
        ] {
            assert_eq!(
                system_name(debug_name, elf_symbol),
                expected,
                "{debug_name}"
            );
        }
    }
}
