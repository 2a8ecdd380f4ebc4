//! The programs that this task needs from Debian.

use crate::project;
use anyhow::{Result, bail};
use std::env::consts::ARCH;

/// A program and the package it is in.
const PROGRAMS: [(&str, &str); 8] = [
    ("apt-cache", "apt"),
    ("apt-get", "apt"),
    ("cc", "gcc"),
    ("cpio", "cpio"),
    ("dpkg-deb", "dpkg"),
    ("ldd", "libc-bin"),
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("strip", "binutils"),
];

/// An error that says what to install, unless all is there.
pub fn require() -> Result<()> {
    if ARCH != "x86_64" {
        bail!(
            "this boots an x86_64 guest with this machine's own programs; this machine is {ARCH}"
        );
    }
    match missing(|program| project::find_program(program).is_some()) {
        packages if packages.is_empty() => Ok(()),
        packages => bail!(
            "programs are missing; on Debian: apt-get install -y {}",
            packages.join(" ")
        ),
    }
}

/// The packages of the programs that are not there, each once.
fn missing(is_there: impl Fn(&str) -> bool) -> Vec<&'static str> {
    let mut packages: Vec<_> = PROGRAMS
        .iter()
        .filter(|(program, _)| !is_there(program))
        .map(|(_, package)| *package)
        .collect();
    packages.sort_unstable();
    packages.dedup();
    packages
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_everything_is_there_nothing_is_missing() {
        assert_eq!(missing(|_| true), Vec::<&str>::new());
    }

    #[test]
    fn what_is_missing_is_named_by_its_package() {
        assert_eq!(missing(|program| program != "cc"), ["gcc"]);
    }

    #[test]
    fn a_package_of_two_missing_programs_is_named_once() {
        assert_eq!(missing(|program| !program.starts_with("apt")), ["apt"]);
    }
}
