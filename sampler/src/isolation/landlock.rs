//! No access to any file by its path, by the kernel's Landlock, where it has it.
//!
//! A second wall: the filter of system calls lets nothing through that takes a
//! path.

use std::io;

/// The rights over files that the first version knows; each later one knows
/// these too.
const ALL_FILE_RIGHTS: u64 = (1 << 13) - 1;

/// Takes all rights to reach files by their paths from this thread. Needs
/// `no_new_privs`.
pub(super) fn forbid_files() -> io::Result<()> {
    let handled = ALL_FILE_RIGHTS;
    // SAFETY: the kernel reads eight bytes, a set of rights.
    let rules = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            &raw const handled,
            size_of_val(&handled),
            0,
        )
    };
    if rules < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: takes a descriptor, which is closed with all others at the end of
    // the process at the latest, and touches no memory of ours.
    let restricted = unsafe {
        let restricted = libc::syscall(libc::SYS_landlock_restrict_self, rules, 0);
        libc::close(rules as libc::c_int);
        restricted
    };
    match restricted {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
