//! Which boot of which kernel this is: what makes a kernel address mean
//! something later.

use std::fs;

use crate::object::build_id_of_notes;

/// How the remark of a profile begins that says it. A remark that starts with `#`
/// does not clutter reports.
const PREFIX: &str = "# kernel: boot ";

/// A boot.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Boot {
    /// The kernel's random name for it, as text.
    pub id: Option<String>,
    /// The build ID of its kernel, in hexadecimal.
    pub kernel_build_id: Option<String>,
}

impl Boot {
    /// This one. What cannot be read is not known.
    pub fn read() -> Self {
        let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok();
        let notes = fs::read("/sys/kernel/notes").ok();
        Self {
            id: id.map(|id| id.trim().to_owned()).filter(|id| is_id(id)),
            kernel_build_id: notes
                .and_then(|notes| build_id_of_notes(&notes))
                .map(|build_id| build_id.to_string()),
        }
    }

    /// The remark of a profile that says it.
    pub fn comment(&self) -> Option<String> {
        let build_id = self.kernel_build_id.as_deref().unwrap_or("unknown");
        let id = self.id.as_ref()?;
        Some(format!("{PREFIX}{id}, build ID {build_id}"))
    }

    /// The boot that a remark of a profile names, if it is that remark.
    pub fn id_in_comment(comment: &[u8]) -> Option<&str> {
        let rest = str::from_utf8(comment).ok()?.strip_prefix(PREFIX)?;
        let (id, _) = rest.split_once(',')?;
        is_id(id).then_some(id)
    }
}

fn is_id(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-')
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test that unwraps says what it expects
    use super::*;

    #[test]
    fn a_remark_says_which_boot_it_is() {
        let boot = Boot {
            id: Some("0f-12".to_owned()),
            kernel_build_id: None,
        };
        let comment = boot.comment().unwrap();
        assert_eq!(Boot::id_in_comment(comment.as_bytes()), Some("0f-12"));
        for other in [
            "",
            PREFIX,
            "# kernel: boot x y, build ID 1",
            "# kernel: boot , ",
        ] {
            assert_eq!(Boot::id_in_comment(other.as_bytes()), None);
        }
        assert_eq!(Boot::default().comment(), None);
    }

    #[test]
    fn this_boot_has_a_name() {
        assert!(Boot::read().id.is_some());
    }
}
