//! The stack that is walked, a piece at a time: one copy of many words costs
//! about as much as one of a single word.

use core::ffi::c_void;
use core::ptr::read_volatile;

use aya_ebpf::helpers::generated::bpf_probe_read_user;
use sampler_common::{COPY_PIECE_BYTES, CpuState, Memory, WINDOW_WORDS};

/// Bytes below the word asked for that come with it: the registers that a
/// function saved lie below its return address.
const BELOW_BYTES: u64 = 128;
/// No mapping ends inside a page of this size.
pub const PAGE_BYTES: u64 = 4096;

/// The memory of the current process, through this CPU's window.
pub struct Window(pub *mut CpuState);

impl Window {
    /// The word at an address, if the window holds it.
    #[inline(always)]
    fn held(&self, address: u64) -> Option<u64> {
        // SAFETY: the state is this CPU's; the position is masked.
        unsafe {
            let offset = address.wrapping_sub((*self.0).walk.window_address);
            // Read anew, since the compiler, which knows what was written there,
            // would leave out the mask that the verifier wants to see.
            let bytes = read_volatile(&raw const (*self.0).walk.window_bytes);
            // The window holds whole words.
            if offset & 7 != 0 || offset >= bytes & !7 {
                return None;
            }
            let words = (&raw const (*self.0).window).cast::<u64>();
            Some(*words.add((offset >> 3) as usize & (WINDOW_WORDS - 1)))
        }
    }
}

impl Memory for Window {
    #[inline(always)]
    fn read_word(&mut self, address: u64) -> Option<u64> {
        if let Some(word) = self.held(address) {
            return Some(word);
        }
        if address & 7 != 0 {
            return read_word(address);
        }
        let from = address.wrapping_sub(BELOW_BYTES);
        // SAFETY: the window is this CPU's.
        unsafe {
            let window = (&raw mut (*self.0).window).cast::<u8>();
            (*self.0).walk.window_address = from;
            (*self.0).walk.window_bytes = read_piece(window, from);
        }
        match self.held(address) {
            Some(word) => Some(word),
            // The window began before what can be read.
            None => read_word(address),
        }
    }

    #[inline(always)]
    fn read_pair(&mut self, address: u64) -> Option<[u64; 2]> {
        Some([
            self.read_word(address)?,
            self.read_word(address.wrapping_add(8))?,
        ])
    }
}

/// One word of the current process, wherever it is.
#[inline(always)]
pub fn read_word(address: u64) -> Option<u64> {
    let mut word = 0_u64;
    // SAFETY: the destination is ours; a fault is an error.
    let status = unsafe {
        bpf_probe_read_user(
            (&raw mut word).cast::<c_void>(),
            size_of::<u64>() as u32,
            address as *const c_void,
        )
    };
    (status == 0).then_some(word)
}

/// Copies a piece of the current process's memory, or as much of it as lies
/// before the first page that cannot be read; returns how many bytes.
///
/// # Safety
/// `to` has room for [`COPY_PIECE_BYTES`].
#[inline(always)]
pub unsafe fn read_piece(to: *mut u8, from: u64) -> u64 {
    // SAFETY: the caller gives the room; a fault is an error.
    unsafe {
        if bpf_probe_read_user(to.cast(), COPY_PIECE_BYTES as u32, from as *const c_void) == 0 {
            return COPY_PIECE_BYTES as u64;
        }
        let page_rest = PAGE_BYTES - (from & (PAGE_BYTES - 1));
        if page_rest >= COPY_PIECE_BYTES as u64 {
            return 0;
        }
        let bytes = core::hint::black_box(page_rest) & (COPY_PIECE_BYTES as u64 - 1);
        if bpf_probe_read_user(to.cast(), bytes as u32, from as *const c_void) == 0 {
            bytes
        } else {
            0
        }
    }
}
