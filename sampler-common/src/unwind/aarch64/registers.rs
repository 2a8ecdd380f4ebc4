//! What is known of a frame, and where the kernel keeps the rest.
//!
//! The interrupted registers 0..=30 lie in `struct user_pt_regs` in the order
//! of their DWARF numbers ("DWARF for the Arm 64-bit Architecture", 4.1).

use crate::unwind::Origin;

/// Bits of a user address; those above may hold a pointer signature (PAC).
const ADDRESS_BITS: u32 = 48;

/// One frame of a walk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Registers {
    /// `pc`: the interrupted instruction, or the return address.
    pub ip: u64,
    /// `sp`.
    pub sp: u64,
    /// `x29`, whatever the code uses it for.
    pub fp: u64,
    /// `x30`; known of interrupted code only.
    pub lr: u64,
    /// How the frame was reached.
    pub origin: Origin,
}

impl Registers {
    /// Those of interrupted code: where a walk starts.
    #[inline(always)]
    pub const fn interrupted(ip: u64, sp: u64, fp: u64, lr: u64) -> Self {
        Self {
            ip,
            sp,
            fp,
            lr,
            origin: Origin::INTERRUPTED,
        }
    }

    /// The address whose row describes the frame.
    #[inline(always)]
    pub const fn lookup_address(&self) -> u64 {
        if self.origin.is_interrupted() {
            self.ip
        } else {
            self.ip.wrapping_sub(1)
        }
    }
}

/// A return address without the signature in its upper bits.
#[inline(always)]
pub const fn without_signature(return_address: u64) -> u64 {
    return_address & ((1 << ADDRESS_BITS) - 1)
}

/// Byte offset of the signal's `x0` from the stack pointer of the trampoline:
/// `siginfo` (128), then a `struct ucontext` whose `uc_mcontext` (176) starts
/// with the fault address (8).
pub(super) const SIGCONTEXT_OFFSET_BYTES: u64 = 128 + 176 + 8;
/// Words of `struct sigcontext` (arch/arm64/include/uapi/asm/sigcontext.h)
/// from `x0` on; the next word is `x30`.
pub(super) const SIGCONTEXT_FP: u64 = 29;
/// As above; the next word is `pc`.
pub(super) const SIGCONTEXT_SP: u64 = 31;
