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
    _btf_id: u32,
    function_info_bytes: u32,
    function_infos: u64,
    function_info_count: u32,
    _line_info_count: u32,
    _line_infos: [u64; 2],
    _line_info_bytes: [u32; 3],
    tag_count: u32,
    tags: u64,
}

/// `struct bpf_func_info`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct FunctionInfo {
    _instruction: u32,
    type_id: u32,
}

/// More than a program of ours has functions.
const MAX_FUNCTIONS: usize = 256;

/// A function of a loaded program, as the kernel runs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Function {
    /// What tells its code from others.
    pub tag: [u8; 8],
    /// Its addresses.
    pub code: Range<u64>,
    /// Its type in the BTF that was loaded with the program; 0 if there was none.
    pub type_id: u32,
}

/// The functions of a loaded program, the main one first. None if it is interpreted,
/// or if the kernel does not show us addresses.
pub fn functions(program: BorrowedFd<'_>) -> io::Result<Vec<Function>> {
    let (mut starts, mut lengths) = ([0_u64; MAX_FUNCTIONS], [0_u32; MAX_FUNCTIONS]);
    let mut tags = [[0_u8; 8]; MAX_FUNCTIONS];
    let mut infos = [FunctionInfo::default(); MAX_FUNCTIONS];
    let count = MAX_FUNCTIONS as u32;
    let mut info = ProgramInfo {
        jited_function_count: count,
        jited_length_count: count,
        jited_functions: starts.as_mut_ptr() as u64,
        jited_lengths: lengths.as_mut_ptr() as u64,
        function_info_bytes: size_of::<FunctionInfo>() as u32,
        function_infos: infos.as_mut_ptr() as u64,
        function_info_count: count,
        tag_count: count,
        tags: tags.as_mut_ptr() as u64,
        ..ProgramInfo::default()
    };
    let mut attr = Attr::default();
    // bpf_fd and info_len, then where it is to be written.
    attr.words[0] = program.as_raw_fd() as u64 | (size_of::<ProgramInfo>() as u64) << 32;
    attr.words[1] = &raw mut info as u64;
    bpf(BPF_OBJ_GET_INFO_BY_FD, &mut attr)?;
    let shown = info.jited_function_count.min(info.jited_length_count);
    let shown = shown.min(info.tag_count).min(count) as usize;
    // The main function goes by what tells the whole program from others.
    tags[0] = info.tag;
    let functions = (0..shown).map(|at| Function {
        tag: tags[at],
        code: starts[at]..starts[at].saturating_add(lengths[at].into()),
        type_id: infos[at].type_id,
    });
    let is_shown = |function: &Function| function.code.start != 0 && !function.code.is_empty();
    Ok(functions.filter(is_shown).collect())
}

const _: () = assert!(std::mem::offset_of!(ProgramInfo, tags) == 184);
