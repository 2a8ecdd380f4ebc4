//! The capabilities of the calling thread.

use std::io;

/// Version 3 of the kernel's interface: 64 capabilities in two words.
const VERSION: u32 = 0x2008_0522;
/// More capabilities than any kernel knows.
const MAX_CAPABILITIES: libc::c_int = 64;

#[repr(C)]
struct Header {
    version: u32,
    pid: libc::c_int,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Words {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// Leaves this thread, of which `u64::MAX` asks nothing, only those of its capabilities that are in `kept`, one
/// bit each, and those of them only for itself: no program that it starts gets
/// more than these from it, and none of them as an ambient one.
///
/// The bounding set can be lowered only with `CAP_SETPCAP`; without, it stays.
pub fn keep_only(kept: u64) -> io::Result<()> {
    if kept == u64::MAX {
        return Ok(());
    }
    for capability in 0..MAX_CAPABILITIES {
        if kept & 1 << capability == 0 {
            // SAFETY: drops a capability and touches no memory of ours.
            unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) };
        }
    }
    // SAFETY: clears a set of this thread's and touches no memory of ours.
    unsafe {
        libc::prctl(
            libc::PR_CAP_AMBIENT,
            libc::PR_CAP_AMBIENT_CLEAR_ALL,
            0,
            0,
            0,
        )
    };
    let mut header = Header {
        version: VERSION,
        pid: 0,
    };
    let mut words = [Words::default(); 2];
    // SAFETY: the kernel writes the version it likes and, since this is one that
    // it knows, two elements of three words.
    let read = unsafe { libc::syscall(libc::SYS_capget, &raw mut header, words.as_mut_ptr()) };
    if read != 0 {
        return Err(io::Error::last_os_error());
    }
    for (word, kept) in words.iter_mut().zip([kept as u32, (kept >> 32) as u32]) {
        word.permitted &= kept;
        word.effective &= kept;
        word.inheritable = 0;
    }
    // SAFETY: the kernel reads what it wrote above, in the same layout.
    match unsafe { libc::syscall(libc::SYS_capset, &raw const header, words.as_ptr()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
