//! Which licences are acceptable where. A decision of the project, as code.

use spdx::{Expression, ParseMode};

/// Where a package's code ends up, which decides what its licence must allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In the object the kernel loads, which declares itself "Dual MIT/GPL".
    EbpfObject,
    /// In the program people run.
    Program,
    /// On the developer's machine only.
    Tool,
}

/// Permissive, and compatible with GPL-2.0 by the FSF's list.
const PERMISSIVE_AND_GPL_2: [&str; 10] = [
    "0BSD",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "ISC",
    "MIT",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];
/// Its exception is there to make it compatible with GPL-2.0.
const APACHE_WITH_LLVM: &str = "Apache-2.0 WITH LLVM-exception";
/// Fit for the object beside the permissive ones.
const GPL_2: [&str; 4] = ["GPL-2.0-only", "GPL-2.0-or-later", "GPL-2.0", "GPL-2.0+"];
/// Permissive, but GPL-2.0 does not allow its terms on patents.
const PERMISSIVE_ONLY: [&str; 1] = ["Apache-2.0"];
/// Copyleft that ends at the file: fine to link unmodified.
const FILE_COPYLEFT: [&str; 1] = ["MPL-2.0"];

/// Packages with a licence that no other package may have.
///
/// `inferno` draws the flame graphs; it is a port of Perl scripts under
/// CDDL-1.0 and kept that. CDDL's copyleft ends at the file and asks for the
/// source of files that we changed: we link the published crate as it is. It
/// must never come near the object: CDDL and GPL-2.0 exclude each other.
const EXCEPTIONS: [(&str, &str); 1] = [("inferno", "CDDL-1.0")];

/// `Err` says in one line why the package may not be in that place.
pub fn judge(package: &str, licence: Option<&str>, place: Place) -> Result<(), String> {
    let text =
        licence.ok_or_else(|| format!("{package}: no licence expression in its manifest"))?;
    let expression = Expression::parse_mode(text, ParseMode::LAX)
        .map_err(|error| format!("{package}: {text:?} cannot be read: {}", error.reason))?;
    if expression.evaluate(|requirement| allowed(package, &requirement.to_string(), place)) {
        Ok(())
    } else {
        Err(format!("{package}: {text} is not acceptable for {place:?}"))
    }
}

fn allowed(package: &str, licence: &str, place: Place) -> bool {
    if PERMISSIVE_AND_GPL_2.contains(&licence) || licence == APACHE_WITH_LLVM {
        return true;
    }
    match place {
        Place::EbpfObject => GPL_2.contains(&licence),
        Place::Program | Place::Tool => {
            PERMISSIVE_ONLY.contains(&licence)
                || FILE_COPYLEFT.contains(&licence)
                || EXCEPTIONS.contains(&(package, licence))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ok(package: &str, licence: &str, place: Place) -> bool {
        judge(package, Some(licence), place).is_ok()
    }

    #[test]
    fn one_acceptable_branch_of_a_choice_is_enough() {
        assert!(ok("serde", "MIT OR Apache-2.0", Place::EbpfObject));
        assert!(ok("memchr", "Unlicense/MIT", Place::Program));
        assert!(ok(
            "r-efi",
            "MIT OR Apache-2.0 OR LGPL-2.1-or-later",
            Place::Program
        ));
    }

    #[test]
    fn every_part_of_a_conjunction_counts() {
        assert!(ok(
            "unicode-ident",
            "(MIT OR Apache-2.0) AND Unicode-3.0",
            Place::Program
        ));
        assert!(!ok("x", "MIT AND AGPL-3.0-only", Place::Program));
        assert!(!ok("x", "MIT AND Apache-2.0", Place::EbpfObject));
    }

    #[test]
    fn apache_alone_is_fine_in_the_program_but_not_in_the_object() {
        assert!(ok("x", "Apache-2.0", Place::Program));
        assert!(!ok("x", "Apache-2.0", Place::EbpfObject));
        assert!(ok("x", "Apache-2.0 WITH LLVM-exception", Place::EbpfObject));
    }

    #[test]
    fn gpl_is_fine_in_the_object_but_not_in_the_program() {
        assert!(ok("x", "GPL-2.0-only", Place::EbpfObject));
        assert!(ok("x", "GPL-2.0-or-later", Place::EbpfObject));
        assert!(!ok("x", "GPL-3.0-only", Place::EbpfObject));
        assert!(!ok("x", "GPL-2.0-only", Place::Program));
        assert!(!ok("x", "GPL-2.0-only", Place::Tool));
    }

    #[test]
    fn cddl_is_for_inferno_only_and_never_in_the_object() {
        assert!(ok("inferno", "CDDL-1.0", Place::Program));
        assert!(!ok("inferno", "CDDL-1.0", Place::EbpfObject));
        assert!(!ok("other", "CDDL-1.0", Place::Program));
    }

    #[test]
    fn a_missing_or_unreadable_licence_is_refused() {
        assert!(judge("x", None, Place::Tool).is_err());
        assert!(!ok("x", "see the file", Place::Tool));
    }
}
