//! The few commands of `bpf(2)` that are issued without the library: one it
//! has no call for, and map updates on a bare descriptor.
//!
//! Numbers and layouts from the kernel's `include/uapi/linux/bpf.h`.

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};

const BPF_MAP_UPDATE_ELEM: libc::c_long = 2;
const BPF_PROG_TEST_RUN: libc::c_long = 10;

/// The leading words of `union bpf_attr` that the commands here read; what
/// follows is zero to the kernel.
#[repr(C, align(8))]
#[derive(Default)]
struct Attr {
    words: [u64; 10],
}

fn bpf(command: libc::c_long, attr: &mut Attr) -> io::Result<()> {
    // SAFETY: the kernel reads and writes at most the size that is said.
    let status = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_mut(attr),
            size_of::<Attr>(),
        )
    };
    if status < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Writes an element of a map whose keys and values are as large as `K` and `V`.
///
/// # Safety
/// The map's key and value sizes are those of `K` and `V`, which are plain data.
pub unsafe fn map_update<K, V>(map: BorrowedFd<'_>, key: &K, value: &V) -> io::Result<()> {
    let mut attr = Attr::default();
    attr.words[0] = map.as_raw_fd() as u64;
    attr.words[1] = std::ptr::from_ref(key) as u64;
    attr.words[2] = std::ptr::from_ref(value) as u64;
    bpf(BPF_MAP_UPDATE_ELEM, &mut attr)
}

/// Runs a raw-tracepoint program once, here and now, in the calling thread.
pub fn run_raw_tracepoint(program: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = Attr::default();
    // prog_fd, then all zero: no context, no data, on this CPU.
    attr.words[0] = program.as_raw_fd() as u64;
    bpf(BPF_PROG_TEST_RUN, &mut attr)
}
