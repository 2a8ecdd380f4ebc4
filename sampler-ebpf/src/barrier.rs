//! Order between this CPU's writes and what others see of them.

use core::intrinsics::{AtomicOrdering, atomic_xchg};

/// Swaps the value in, with a full barrier; returns the old one.
///
/// # Safety
/// `pointer` is valid; if others write it too, the old value says nothing.
#[inline(always)]
pub unsafe fn exchange(pointer: *mut u64, value: u64) -> u64 {
    // SAFETY: as above. The old value is looked at, or the compiler would make
    // a plain store of it.
    let old = unsafe { atomic_xchg::<u64, { AtomicOrdering::SeqCst }>(pointer, value) };
    core::hint::black_box(old)
}
