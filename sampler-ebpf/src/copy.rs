//! Copying a user stack, for user space to walk it.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::{bpf_ktime_get_ns, bpf_loop};
use sampler_common::{
    COPY_CHUNK_WORDS, COPY_HEADER_WORDS, COPY_PIECE_BYTES, CopyChunk, CpuState, Full,
    MAX_COPY_BYTES, Region, RegisterLayout, StackCopy, TablePlace,
};

use crate::maps::COPIES;
use crate::settings::setting;
use crate::task::read_kernel;
use crate::window::{PAGE_BYTES, read_piece};

/// What lies this far below the stack pointer is copied too: by many tables a
/// register that was just popped is still where it was saved.
const BELOW_STACK_POINTER_BYTES: u64 = 256;

/// What a copy is taken for.
pub struct Wanted {
    /// The CPU's region of this generation, and its number.
    pub region: *mut Region,
    pub region_number: u32,
    /// Position of the thread in it.
    pub thread: u32,
    /// Reference to the kernel half.
    pub kernel_stack: u32,
    /// Reference to the user half, if it was walked.
    pub checked_stack: u32,
}

/// What `bpf_loop` hands to each step.
struct Copying {
    words: *mut u64,
    at: u64,
    address: u64,
    bytes: u64,
}

/// One piece: 0 to go on, 1 to stop.
unsafe extern "C" fn piece_step(index: u32, copying: *mut c_void) -> i64 {
    // SAFETY: `ship` below hands over its own `Copying`; the position is masked
    // to the chunk's length, behind which there is room for a piece.
    unsafe {
        let copying = &mut *copying.cast::<Copying>();
        let done = u64::from(index) * COPY_PIECE_BYTES as u64;
        let at = (copying.at + done / 8) & (COPY_CHUNK_WORDS as u64 - 1);
        let bytes = read_piece(
            copying.words.add(at as usize).cast(),
            copying.address + done,
        );
        copying.bytes = done + bytes;
        i64::from(bytes < COPY_PIECE_BYTES as u64)
    }
}

/// Copies the stack of the current task.
///
/// # Safety
/// `cpu` is this CPU's state, whose scratch holds the registers of the user
/// half; the region is this CPU's.
#[inline(always)]
pub unsafe fn ship(cpu: *mut CpuState, wanted: &Wanted) -> Result<(), Full> {
    // SAFETY: the state is this CPU's; masked to the room of the scratch.
    let address = unsafe {
        let saved = (&raw const (*cpu).scratch).cast::<u64>();
        let stack_pointer = *saved.add((setting!(registers.stack_pointer) & 63) as usize);
        // The page below may never have been touched.
        let below = stack_pointer & (PAGE_BYTES - 1);
        let below = if below < BELOW_STACK_POINTER_BYTES {
            below
        } else {
            BELOW_STACK_POINTER_BYTES
        };
        stack_pointer.wrapping_sub(below) & !7
    };
    let wanted_bytes = wanted_bytes(cpu, address);
    let room = COPY_HEADER_WORDS as u64 + wanted_bytes / 8;
    // SAFETY: the region and its chunks are this CPU's in this generation.
    unsafe {
        if setting!(limits.copy_chunks) == 0 {
            return Err(Full);
        }
        let mut chunk = chunk(wanted, (*wanted.region).copy_chunk)?;
        let mut used = used_words(chunk);
        if used + room > COPY_CHUNK_WORDS as u64 {
            let next = (*wanted.region).copy_chunk + 1;
            if next >= setting!(limits.copy_chunks) {
                return Err(Full);
            }
            (*wanted.region).copy_chunk = next;
            chunk = self::chunk(wanted, next)?;
            used = used_words(chunk);
            if used + room > COPY_CHUNK_WORDS as u64 {
                return Err(Full);
            }
        }
        let words = (&raw mut (*chunk).words).cast::<u64>();
        let header_at = (used - 1) & (COPY_CHUNK_WORDS as u64 - 1);
        let mut copying = Copying {
            words,
            at: header_at + COPY_HEADER_WORDS as u64,
            address,
            bytes: 0,
        };
        bpf_loop(
            (wanted_bytes as u32).div_ceil(COPY_PIECE_BYTES as u32),
            piece_step as *mut c_void,
            (&raw mut copying).cast::<c_void>(),
            0,
        );
        let bytes = if copying.bytes < wanted_bytes {
            copying.bytes
        } else {
            wanted_bytes
        };
        let header = words.add(header_at as usize).cast::<StackCopy>();
        (*header).thread = wanted.thread;
        (*header).kernel_stack = wanted.kernel_stack;
        (*header).checked_stack = wanted.checked_stack;
        (*header).bytes = bytes as u32;
        (*header).wanted_bytes = wanted_bytes as u32;
        (*header).reserved = 0;
        (*header).address = address;
        (*header).time_ns = bpf_ktime_get_ns();
        let unknown = &raw const (*cpu).walk.unknown;
        let file = (*unknown).file;
        let looked_up = (*cpu).walk.registers.lookup_address();
        (*header).unknown_file = file;
        (*header).unknown_inode = if file > TablePlace::VDSO {
            read_kernel(file + u64::from(setting!(memory.inode_number))).unwrap_or(0)
        } else {
            0
        };
        (*header).unknown_address = looked_up;
        (*header).unknown_offset = looked_up.wrapping_sub((*unknown).bias);
        let saved = (&raw const (*cpu).scratch).cast::<u64>();
        let registers = (&raw mut (*header).registers).cast::<u64>();
        let mut word = 0;
        while word < RegisterLayout::MAX_WORDS {
            *registers.add(word) = *saved.add(word);
            word += 1;
        }
        (*chunk).used_words = used + COPY_HEADER_WORDS as u64 + bytes.div_ceil(8);
    }
    Ok(())
}

/// How much of a stack is to be copied: up to where the first thread's began,
/// or as much as is allowed.
#[inline(always)]
fn wanted_bytes(cpu: *mut CpuState, address: u64) -> u64 {
    let limit = u64::from(setting!(limits.copy_bytes)).min(u64::from(MAX_COPY_BYTES));
    let at = setting!(memory.start_stack);
    if at != 0 {
        // SAFETY: the state is this CPU's.
        let memory = unsafe { (*cpu).walk.memory };
        if let Some(start) = read_kernel::<u64>(memory + u64::from(at)) {
            // The word count of the arguments lies there, and outside all frames.
            let bytes = (start & !7).wrapping_sub(address).wrapping_add(8);
            if bytes <= limit {
                return bytes;
            }
        }
    }
    limit & !7
}

#[inline(always)]
fn chunk(wanted: &Wanted, number: u32) -> Result<*mut CopyChunk, Full> {
    let first = wanted.region_number * setting!(limits.copy_chunks);
    COPIES.get_ptr_mut(first + number).ok_or(Full)
}

/// # Safety
/// The chunk is this CPU's.
#[inline(always)]
unsafe fn used_words(chunk: *mut CopyChunk) -> u64 {
    // SAFETY: as above.
    match unsafe { (*chunk).used_words } {
        0 => 1,
        used => used,
    }
}
