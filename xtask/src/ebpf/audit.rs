//! What must be true of the object's bytes, wherever they come from.

use super::atomics::{self, Atomic};
use anyhow::{Context, Result, bail, ensure};
use object::{Object, ObjectSection, SectionFlags, elf};
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

/// The kernel refuses `bpf_get_stack` to "MIT" and to "MIT OR Apache-2.0".
const LICENCE: &[u8] = b"Dual MIT/GPL\0";

/// Atomic instructions that the sources ask for, and how many at least.
///
/// Two exchanges: a tick makes its CPU's sequence number odd when it enters
/// and even when it leaves. Both must be full barriers, which on this target
/// only an operation that returns the old value is.
const REQUIRED_ATOMICS: [(Atomic, usize); 1] = [(Atomic::Exchange, 2)];

/// Names in the object that look like absolute paths and are the same everywhere:
/// rustc's own name for its sources.
const VIRTUAL_PATHS: &str = "/rustc/";

/// Fails with everything that is wrong with `object`.
pub fn audit(object: &[u8], machine_paths: &[PathBuf]) -> Result<()> {
    let file = object::File::parse(object).context("the object is not an ELF file")?;
    let licence = file
        .section_by_name("license")
        .context("the object has no licence section")?
        .data()?;
    ensure!(
        licence == LICENCE,
        "the licence section holds {:?} instead of {:?}",
        String::from_utf8_lossy(licence),
        String::from_utf8_lossy(LICENCE)
    );
    check_atomics(&file)?;
    let forbidden: Vec<&[u8]> = machine_paths
        .iter()
        .map(|path| path.as_os_str().as_bytes())
        .collect();
    let paths = absolute_paths(object, &forbidden);
    if !paths.is_empty() {
        bail!(
            "the object names paths of the machine it was built on:\n  {}",
            paths.join("\n  ")
        );
    }
    Ok(())
}

fn check_atomics(file: &object::File<'_>) -> Result<()> {
    let mut code = Vec::new();
    for section in file.sections() {
        if let SectionFlags::Elf { sh_flags, .. } = section.flags()
            && sh_flags & u64::from(elf::SHF_EXECINSTR) != 0
        {
            code.push(atomics::count(section.data()?));
        }
    }
    for (atomic, at_least) in REQUIRED_ATOMICS {
        let found: usize = code.iter().filter_map(|counts| counts.get(&atomic)).sum();
        ensure!(
            found >= at_least,
            "the object holds {found} atomic instructions {atomic:?}, the sources ask for {at_least}"
        );
    }
    Ok(())
}

/// Every text in `bytes` that is an absolute path of at least two parts, or
/// holds one of `forbidden` wherever in the text.
fn absolute_paths(bytes: &[u8], forbidden: &[&[u8]]) -> Vec<String> {
    bytes
        .split(|byte| !byte.is_ascii_graphic() && *byte != b' ')
        .filter(|text| {
            looks_absolute(text)
                || forbidden.iter().any(|path| {
                    path.len() > 1 && text.windows(path.len()).any(|part| part == *path)
                })
        })
        .map(|text| String::from_utf8_lossy(text).into_owned())
        .collect()
}

/// `/part/part…`, each of the two of at least two characters that file names
/// commonly have: machine code forms shorter ones by chance.
fn looks_absolute(text: &[u8]) -> bool {
    let mut parts = text.split(|byte| *byte == b'/');
    let common = |part: Option<&[u8]>| {
        part.is_some_and(|part| {
            part.len() >= 2
                && part
                    .iter()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"._-+".contains(byte))
        })
    };
    parts.next() == Some(b"")
        && common(parts.next())
        && common(parts.next())
        && !text.starts_with(VIRTUAL_PATHS.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_absolute_path_is_found_between_other_bytes() {
        let bytes = b"\x95\0\0\0/srv/checkout/sampler-ebpf\0rust/library/core\0Dual MIT/GPL\0";
        assert_eq!(absolute_paths(bytes, &[]), ["/srv/checkout/sampler-ebpf"]);
    }

    #[test]
    fn a_path_of_this_machine_is_found_in_the_middle_of_a_text() {
        let bytes = b"panicked at /srv/checkout/src/main.rs\0";
        assert_eq!(absolute_paths(bytes, &[]), [""; 0]);
        assert_eq!(
            absolute_paths(bytes, &[b"/srv/checkout"]),
            ["panicked at /srv/checkout/src/main.rs"]
        );
    }

    #[test]
    fn names_without_a_machine_in_them_pass() {
        let bytes =
            b"./sampler-ebpf\0registry/aya-ebpf-0.2.1/src/lib.rs\0/rustc/ac68/library\0/x/y\0";
        assert_eq!(absolute_paths(bytes, &[b"/srv/checkout"]), [""; 0]);
    }

    #[test]
    fn what_is_not_an_object_is_refused() {
        assert!(audit(b"not an object", &[]).is_err());
    }
}
