//! Which Linux this is.

use std::ffi::CStr;
use std::fmt;

/// The first two numbers of a kernel release.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct KernelVersion {
    /// `6` of 6.18.
    pub major: u32,
    /// `18` of 6.18.
    pub minor: u32,
}

impl KernelVersion {
    /// The oldest one that has `bpf_loop`.
    pub const OLDEST: Self = Self {
        major: 5,
        minor: 17,
    };

    /// Reads a release such as `6.1.0-18-amd64`.
    pub fn parse(release: &str) -> Option<Self> {
        let mut parts = release.split('.');
        let major = parts.next()?.parse().ok()?;
        let minor = parts.next()?;
        let digits = minor
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(minor.len());
        Some(Self {
            major,
            minor: minor[..digits].parse().ok()?,
        })
    }
}

impl fmt::Display for KernelVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// The release of the running kernel; empty if it tells none.
pub fn release() -> String {
    // SAFETY: all zeroes is a valid utsname; uname fills it and does nothing else.
    let name = unsafe {
        let mut name: libc::utsname = std::mem::zeroed();
        if libc::uname(&raw mut name) != 0 {
            return String::new();
        }
        name
    };
    // SAFETY: the kernel terminates each of the fixed-size arrays with a zero,
    // and `name` outlives the borrow.
    let release = unsafe { CStr::from_ptr(name.release.as_ptr()) };
    release.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)] // a panic is the failure report

    use super::*;

    #[test]
    fn releases_of_all_vendors_begin_with_two_numbers() {
        let version = |text| KernelVersion::parse(text).map(|version| version.to_string());
        assert_eq!(version("6.18.44-fc-v657").as_deref(), Some("6.18"));
        assert_eq!(version("5.4").as_deref(), Some("5.4"));
        assert_eq!(version("6.1-rc3").as_deref(), Some("6.1"));
        assert_eq!(version("six"), None);
        assert_eq!(version("6.x"), None);
        assert_eq!(version(""), None);
    }

    #[test]
    fn versions_compare_as_numbers_not_as_text() {
        assert!(KernelVersion::parse("5.9").unwrap() < KernelVersion::OLDEST);
        assert!(KernelVersion::parse("6.1").unwrap() > KernelVersion::OLDEST);
    }

    #[test]
    fn the_running_kernel_tells_its_release() {
        assert!(KernelVersion::parse(&release()).is_some());
    }
}
