//! What is known of a frame, and where the kernel keeps the rest.
//!
//! DWARF numbers: System V ABI, AMD64 supplement, figure 3.36.

use crate::unwind::Origin;

/// One frame of a walk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Registers {
    /// `rip`: the interrupted instruction, or the return address.
    pub ip: u64,
    /// `rsp`.
    pub sp: u64,
    /// `rbp`, whatever the code uses it for.
    pub bp: u64,
    /// How the frame was reached.
    pub origin: Origin,
}

impl Registers {
    /// Those of interrupted code: where a walk starts.
    #[inline(always)]
    pub const fn interrupted(ip: u64, sp: u64, bp: u64) -> Self {
        Self {
            ip,
            sp,
            bp,
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

/// Sixteen 4-bit numbers, that of register 0 lowest.
const fn nibble(table: u64, register: u32) -> u32 {
    (table >> ((register & 15) * 4)) as u32 & 15
}

/// Which word of the kernel's `struct pt_regs` (arch/x86) holds the register
/// with this DWARF number, for 0..16 but 7: `rsp` has a word that does not
/// fit here, and a frame has it anyway.
#[inline(always)]
pub const fn pt_regs_word(dwarf_number: u32) -> u32 {
    nibble(0x0123_6789_f4ed_5bca, dwarf_number)
}

/// Byte offset of the signal's registers (`struct sigcontext`) from the stack
/// pointer of the trampoline: `uc_flags`, `uc_link` and `uc_stack` come first.
pub(super) const SIGCONTEXT_OFFSET_BYTES: u64 = 40;
/// Words of `struct sigcontext` (arch/x86/include/uapi/asm/sigcontext.h).
pub(super) const SIGCONTEXT_BP: u64 = 10;
/// As above; the next word is `rip`.
pub(super) const SIGCONTEXT_SP: u64 = 15;

/// Which word of `struct sigcontext` holds the register with this DWARF
/// number, for 0..16.
#[inline(always)]
pub(super) const fn sigcontext_word(dwarf_number: u32) -> u32 {
    nibble(0x7654_3210_fa89_becd, dwarf_number)
}

#[cfg(test)]
mod tests {
    use super::{SIGCONTEXT_BP, SIGCONTEXT_SP, pt_regs_word, sigcontext_word};

    const DWARF: [&str; 16] = [
        "ax", "dx", "cx", "bx", "si", "di", "bp", "sp", "r8", "r9", "r10", "r11", "r12", "r13",
        "r14", "r15",
    ];

    #[test]
    fn a_dwarf_number_leads_to_the_same_register_in_the_kernels_structures() {
        let pt_regs = [
            "r15", "r14", "r13", "r12", "bp", "bx", "r11", "r10", "r9", "r8", "ax", "cx", "dx",
            "si", "di", "orig_ax",
        ];
        let sigcontext = [
            "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "di", "si", "bp", "bx", "dx",
            "ax", "cx", "sp",
        ];
        for (number, name) in (0..).zip(DWARF) {
            assert_eq!(sigcontext[sigcontext_word(number) as usize], name);
            if name != "sp" {
                assert_eq!(pt_regs[pt_regs_word(number) as usize], name);
            }
        }
        assert_eq!(sigcontext[SIGCONTEXT_BP as usize], "bp");
        assert_eq!(sigcontext[SIGCONTEXT_SP as usize], "sp");
    }
}
