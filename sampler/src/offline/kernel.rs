//! Whether a profile's kernel addresses can be named, and from what.
//!
//! The kernel lies elsewhere after each boot, modules and BPF programs after each
//! loading. So its symbols are good for one boot, and what can be unloaded is
//! named only from symbols that were taken while the profile was.

use std::ops::Range;

use super::reason::Reason;
use crate::probe::host::boot::Boot;
use crate::probe::host::kallsyms;

/// Where the names of the kernel come from.
#[derive(Debug)]
pub(super) enum KernelNames {
    /// Symbols that somebody says are those of the profile.
    Brought,
    /// This kernel's, for profiles of this boot.
    OfThisBoot {
        boot_id: Option<String>,
        /// The code of the kernel proper; `None` if it is hidden.
        text: Option<Range<u64>>,
    },
}

impl KernelNames {
    /// Those of the kernel that runs.
    pub fn of_this_boot() -> Self {
        Self::OfThisBoot {
            boot_id: Boot::read().id,
            text: kallsyms::core_text().unwrap_or_default(),
        }
    }

    /// The addresses that can be asked for, of a profile with these remarks.
    pub fn admitted<'a>(
        &self,
        comments: impl Iterator<Item = &'a [u8]>,
    ) -> Result<Range<u64>, Reason> {
        let Self::OfThisBoot { boot_id, text } = self else {
            return Ok(0..u64::MAX);
        };
        let this = boot_id.as_deref().ok_or(Reason::UnknownBoot)?;
        let mut boots = comments.filter_map(Boot::id_in_comment).peekable();
        boots.peek().ok_or(Reason::UnknownBoot)?;
        // One that was merged from profiles of several boots is of none.
        if boots.any(|boot| boot != this) {
            return Err(Reason::OtherBoot);
        }
        text.clone().ok_or(Reason::KernelHidden)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: &str = "# kernel: boot 0f0e, build ID 12";
    const THERE: &str = "# kernel: boot 0d0c, build ID 12";

    fn admitted(comments: &[&str]) -> Result<Range<u64>, Reason> {
        let names = KernelNames::OfThisBoot {
            boot_id: Some("0f0e".to_owned()),
            text: Some(0x1000..0x2000),
        };
        names.admitted(comments.iter().map(|comment| comment.as_bytes()))
    }

    #[test]
    fn only_the_kernel_proper_of_this_very_boot_is_named() {
        assert_eq!(admitted(&["something", HERE]), Ok(0x1000..0x2000));
        assert_eq!(admitted(&[HERE, HERE]), Ok(0x1000..0x2000));
        assert_eq!(admitted(&[]), Err(Reason::UnknownBoot));
        assert_eq!(admitted(&[THERE]), Err(Reason::OtherBoot));
        assert_eq!(admitted(&[HERE, THERE]), Err(Reason::OtherBoot));
    }

    #[test]
    fn a_kernel_that_hides_its_addresses_names_none() {
        let names = KernelNames::OfThisBoot {
            boot_id: Some("0f0e".to_owned()),
            text: None,
        };
        let hidden = names.admitted([HERE.as_bytes()].into_iter());
        assert_eq!(hidden, Err(Reason::KernelHidden));
    }

    #[test]
    fn symbols_that_are_brought_are_believed() {
        let brought = KernelNames::Brought.admitted([THERE.as_bytes()].into_iter());
        assert_eq!(brought, Ok(0..u64::MAX));
    }
}
