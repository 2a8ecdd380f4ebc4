//! The few commands of `bpf(2)` that are issued without the library: those it
//! has no call for, and map updates on a bare descriptor.
//!
//! Numbers and layouts from the kernel's `include/uapi/linux/bpf.h`.

use std::io;
use std::ops::Range;
use std::os::fd::{AsRawFd as _, BorrowedFd};

const BPF_MAP_UPDATE_ELEM: libc::c_long = 2;
const BPF_PROG_TEST_RUN: libc::c_long = 10;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_long = 15;

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

/// The leading words of `struct bpf_prog_info`; the kernel writes as many as there
/// is room for.
#[repr(C, align(8))]
#[derive(Default)]
struct ProgramInfo {
    /// Type and number.
    _identity: [u32; 2],
    tag: [u8; 8],
    /// Of its code, in either form: sizes, and where they were to be copied to.
    _code: [u64; 3],
    _load_time: u64,
    _created_by: u32,
    _map_count: u32,
    _maps: u64,
    _name: [u8; 16],
    _device: [u64; 3],
    jited_function_count: u32,
    jited_length_count: u32,
    /// Where their addresses and lengths are to be copied to.
    jited_functions: u64,
    jited_lengths: u64,
}

/// The main function of a loaded program, as the kernel runs it: the program's
/// tag, and its addresses. `None` if it is interpreted, or if the kernel does not
/// show us addresses.
pub fn main_function(program: BorrowedFd<'_>) -> io::Result<Option<([u8; 8], Range<u64>)>> {
    let (mut start, mut bytes) = (0_u64, 0_u32);
    let mut info = ProgramInfo {
        jited_function_count: 1,
        jited_length_count: 1,
        jited_functions: &raw mut start as u64,
        jited_lengths: &raw mut bytes as u64,
        ..ProgramInfo::default()
    };
    let mut attr = Attr::default();
    // bpf_fd and info_len, then where it is to be written.
    attr.words[0] = program.as_raw_fd() as u64 | (size_of::<ProgramInfo>() as u64) << 32;
    attr.words[1] = &raw mut info as u64;
    bpf(BPF_OBJ_GET_INFO_BY_FD, &mut attr)?;
    let is_shown = info.jited_function_count > 0 && start != 0 && bytes != 0;
    Ok(is_shown.then(|| (info.tag, start..start + u64::from(bytes))))
}
