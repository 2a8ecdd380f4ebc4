//! The mapping at an address of the current process, as the kernel keeps it.
//!
//! Asking the kernel's own tree leaves nothing to be told, and so nothing to be
//! late for: the first sample of a process that has just started, or that has
//! just loaded a library, finds its mappings as well as any later one.
//!
//! The tree is read without its lock, by copies that a fault cannot hurt. A
//! mapping counts only if it says itself that it is of this address space and
//! holds the address.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::bpf_probe_read_kernel;
use sampler_common::{
    CpuState, LEVELS, NODE_WORDS, NodeReference, TablePlace, WALK_MAPPINGS, WalkMapping, WalkState,
};

use crate::settings::setting;
use crate::tables;
use crate::task::read_kernel;

/// `VM_EXEC`.
const EXECUTABLE: u64 = 4;
/// The greatest address of user code, and one more.
const USER_END: u64 = 1 << 56;

/// What is at an address.
pub enum Found {
    /// A mapping, by its position in the walk's.
    Mapping(u32),
    /// A mapping that cannot be walked here, or something that cannot be read.
    Unknown,
    /// No code.
    Nothing,
}

/// Looks an address up.
///
/// # Safety
/// `cpu` is this CPU's state.
#[inline(always)]
pub unsafe fn find(cpu: *mut CpuState, address: u64) -> Found {
    // SAFETY: the state is this CPU's.
    let state = unsafe { &raw mut (*cpu).walk };
    // SAFETY: as above.
    if let Some(position) = unsafe { remembered(state, address) } {
        return Found::Mapping(position);
    }
    if setting!(memory.known) == 0 {
        return Found::Unknown;
    }
    if address >= USER_END {
        return Found::Nothing;
    }
    // SAFETY: the state is this CPU's.
    unsafe {
        let Some(entry) = leaf_entry(cpu, (*state).memory, address) else {
            return Found::Unknown;
        };
        if entry == 0 {
            return Found::Nothing;
        }
        let bytes = setting!(memory.area_file) + 8;
        if bytes > (NODE_WORDS * 8) as u32 {
            return Found::Unknown;
        }
        let words = (&raw mut (*cpu).node).cast::<u64>();
        if bpf_probe_read_kernel(words.cast(), bytes, entry as *const c_void) != 0 {
            return Found::Unknown;
        }
        let word = |offset: u32| *words.add((offset >> 3) as usize & (NODE_WORDS - 1));
        let start = word(setting!(memory.area_start));
        let end = word(setting!(memory.area_end));
        if address < start
            || address >= end
            || word(setting!(memory.area_memory)) != (*state).memory
        {
            return Found::Unknown;
        }
        if word(setting!(memory.area_flags)) & EXECUTABLE == 0 {
            return Found::Nothing;
        }
        let offset = word(setting!(memory.area_page_offset)) << (setting!(memory.page_shift) & 31);
        let file = file(state, word(setting!(memory.area_file)), start, end);
        // The image of the vDSO begins where its mapping does.
        let bias = if file == TablePlace::VDSO {
            start
        } else {
            start.wrapping_sub(offset)
        };
        let place = if file == 0 {
            Some(WalkMapping::FRAME_POINTER)
        } else {
            tables::place_of(file, address.wrapping_sub(bias))
        };
        let found = WalkMapping {
            start,
            end,
            bias,
            file,
            place: place.unwrap_or(0),
            reserved: 0,
        };
        if place.is_none() {
            (*state).unknown = found;
            return Found::Unknown;
        }
        let position = (*state).mappings_found;
        (*state).mappings_found = position + 1;
        *at(state, position) = found;
        Found::Mapping(position)
    }
}

/// A mapping that the walk has found.
///
/// # Safety
/// `state` is this CPU's.
#[inline(always)]
pub unsafe fn at(state: *mut WalkState, position: u32) -> *mut WalkMapping {
    // SAFETY: masked to the array's length.
    unsafe {
        (&raw mut (*state).mappings)
            .cast::<WalkMapping>()
            .add(position as usize & (WALK_MAPPINGS - 1))
    }
}

/// The last mapping of this walk that holds the address.
#[inline(always)]
unsafe fn remembered(state: *mut WalkState, address: u64) -> Option<u32> {
    let mut back = 1;
    // SAFETY: the state is this CPU's.
    unsafe {
        let found = (*state).mappings_found;
        while back <= WALK_MAPPINGS as u32 && back <= found {
            let position = found - back;
            let mapping = at(state, position);
            if address >= (*mapping).start && address < (*mapping).end {
                return Some(position);
            }
            back += 1;
        }
    }
    None
}

/// What the tree of an address space holds at an address: 0 for nothing,
/// `None` if it cannot be read.
#[inline(always)]
unsafe fn leaf_entry(cpu: *mut CpuState, memory: u64, address: u64) -> Option<u64> {
    let root = read_kernel::<u64>(memory + u64::from(setting!(memory.tree_root)))?;
    let mut node = NodeReference::root(root)?;
    let mut level = 0;
    while level < LEVELS {
        // SAFETY: the state is this CPU's; a fault is an error.
        let entry = unsafe {
            let words = (&raw mut (*cpu).node).cast::<u64>();
            let status = bpf_probe_read_kernel(
                words.cast(),
                (NODE_WORDS * 8) as u32,
                node.address as *const c_void,
            );
            if status != 0 {
                return None;
            }
            node.entry(words, address)
        };
        if node.is_leaf() {
            return Some(entry);
        }
        node = NodeReference::child(entry)?;
        level += 1;
    }
    None
}

/// What a mapping's file is known by; 0 if it has none.
#[inline(always)]
unsafe fn file(state: *mut WalkState, file: u64, start: u64, end: u64) -> u64 {
    if file != 0 {
        return read_kernel::<u64>(file + u64::from(setting!(memory.file_inode))).unwrap_or(0);
    }
    // SAFETY: the state is this CPU's.
    let vdso = unsafe { (*state).memory } + u64::from(setting!(memory.vdso));
    match read_kernel::<u64>(vdso) {
        Some(vdso) if vdso >= start && vdso < end => TablePlace::VDSO,
        _ => 0,
    }
}
