//! Instructions that say how code keeps its frames, found by their bytes.
//!
//! A match in the middle of an instruction does no harm on its own: rows are
//! looked up where instructions start, or at the last byte of a call.

use super::Machine;

/// What some instructions do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Landmark {
    /// A function starts and sets up its frame pointer.
    Prologue {
        /// Up to the end of the push.
        pushed_bytes: u32,
    },
    /// A function takes its frame down and returns.
    Epilogue {
        /// Up to the return.
        popped_bytes: u32,
    },
    /// A signal handler's way back into the kernel.
    Trampoline,
}

/// Bytes of `code` that no landmark starts in.
pub(super) fn bytes_before_landmark(machine: Machine, code: &[u8]) -> usize {
    match machine {
        Machine::X86_64 => {
            // Two bytes of each tell nearly all other code from them.
            let starts = |pair: &[u8]| {
                matches!(
                    pair,
                    [0xf3 | 0xb8, 0x0f] | [0x55, 0x48] | [0x5d | 0xc9, 0xc3] | [0x48, 0xc7]
                )
            };
            let found = code.windows(2).position(starts);
            found.unwrap_or(code.len())
        }
        Machine::Aarch64 => 0,
    }
}

const ENDBR64: &[u8] = &[0xf3, 0x0f, 0x1e, 0xfa];

/// What `code`, which is not empty, starts with, and bytes to go on by.
pub(super) fn landmark(machine: Machine, code: &[u8]) -> (Option<Landmark>, usize) {
    match machine {
        Machine::X86_64 => x86_64(code),
        Machine::Aarch64 => aarch64(code),
    }
}

/// Whether code looks like the entry that the kernel jumps to: it clears the
/// frame pointer, as the ABI asks of the outermost frame, or passes the stack
/// pointer on, where the arguments of the program are.
pub(super) fn is_entry(machine: Machine, code: &[u8]) -> bool {
    match machine {
        Machine::X86_64 => {
            let code = code.strip_prefix(ENDBR64).unwrap_or(code);
            // xor %ebp,%ebp; xor %rbp,%rbp; mov %rsp,%rdi
            [&[0x31, 0xed][..], &[0x48, 0x31, 0xed], &[0x48, 0x89, 0xe7]]
                .iter()
                .any(|start| code.starts_with(start))
        }
        Machine::Aarch64 => {
            // mov x29, #0; mov x0, sp; with or without a bti in front
            let code = match code.first_chunk() {
                Some(&word) if u32::from_le_bytes(word) & 0xffff_ff3f == 0xd503_241f => &code[4..],
                _ => code,
            };
            code.first_chunk()
                .is_some_and(|&word| matches!(u32::from_le_bytes(word), 0xd280_001d | 0x9100_03e0))
        }
    }
}

/// Whether a function starts by taking its stack from a register: who runs it
/// did not call it but made a stack by hand, and put its address there for
/// another function to return to. glibc's `makecontext` does.
pub(super) fn takes_stack(machine: Machine, code: &[u8]) -> bool {
    let code = code.strip_prefix(ENDBR64).unwrap_or(code);
    match (machine, code) {
        // mov %REG,%rsp in both its forms
        (Machine::X86_64, [0x48 | 0x4c, 0x89, operands, ..]) => operands & 0xc7 == 0xc4,
        (Machine::X86_64, [0x48 | 0x49, 0x8b, operands, ..]) => operands & 0xf8 == 0xe0,
        _ => false,
    }
}

fn x86_64(code: &[u8]) -> (Option<Landmark>, usize) {
    let found = |landmark, bytes| (Some(landmark), bytes);
    match *code {
        // endbr64; push %rbp; mov %rsp,%rbp
        [0xf3, 0x0f, 0x1e, 0xfa, 0x55, 0x48, 0x89, 0xe5, ..]
        | [0xf3, 0x0f, 0x1e, 0xfa, 0x55, 0x48, 0x8b, 0xec, ..] => {
            found(Landmark::Prologue { pushed_bytes: 5 }, 8)
        }
        // push %rbp; mov %rsp,%rbp
        [0x55, 0x48, 0x89, 0xe5, ..] | [0x55, 0x48, 0x8b, 0xec, ..] => {
            found(Landmark::Prologue { pushed_bytes: 1 }, 4)
        }
        // pop %rbp or leave; ret
        [0x5d | 0xc9, 0xc3, ..] => found(Landmark::Epilogue { popped_bytes: 1 }, 2),
        // mov $15,%rax; syscall
        [0x48, 0xc7, 0xc0, 0x0f, 0, 0, 0, 0x0f, 0x05, ..] => found(Landmark::Trampoline, 9),
        // mov $15,%eax; syscall
        [0xb8, 0x0f, 0, 0, 0, 0x0f, 0x05, ..] => found(Landmark::Trampoline, 7),
        _ => (None, 1),
    }
}

fn aarch64(code: &[u8]) -> (Option<Landmark>, usize) {
    const SET: u32 = 0x9100_03fd; // mov x29, sp
    const RETURN: u32 = 0xd65f_03c0; // ret
    const NUMBER: u32 = 0xd280_1168; // mov x8, #139
    const CALL: u32 = 0xd400_0001; // svc #0
    let word = |at: usize| {
        code.get(at..)
            .and_then(|rest| rest.first_chunk())
            .map(|bytes| u32::from_le_bytes(*bytes))
    };
    match (word(0), word(4)) {
        (Some(push), Some(SET)) if is_push(push) => {
            (Some(Landmark::Prologue { pushed_bytes: 4 }), 8)
        }
        (Some(pop), Some(RETURN)) if is_pop(pop) => {
            (Some(Landmark::Epilogue { popped_bytes: 4 }), 8)
        }
        (Some(NUMBER), Some(CALL)) => (Some(Landmark::Trampoline), 8),
        _ => (None, code.len().min(4)),
    }
}

/// stp x29, x30, [sp, #-N]!
const fn is_push(word: u32) -> bool {
    word & 0xffc0_7fff == 0xa980_7bfd
}

/// ldp x29, x30, [sp], #N
const fn is_pop(word: u32) -> bool {
    word & 0xffc0_7fff == 0xa8c0_7bfd
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_is_a_landmark_is_passed_over() {
        let landmarks: [&[u8]; 8] = [
            &[0xf3, 0x0f, 0x1e, 0xfa, 0x55, 0x48, 0x89, 0xe5],
            &[0xf3, 0x0f, 0x1e, 0xfa, 0x55, 0x48, 0x8b, 0xec],
            &[0x55, 0x48, 0x89, 0xe5],
            &[0x55, 0x48, 0x8b, 0xec],
            &[0x5d, 0xc3],
            &[0xc9, 0xc3],
            &[0x48, 0xc7, 0xc0, 0x0f, 0, 0, 0, 0x0f, 0x05],
            &[0xb8, 0x0f, 0, 0, 0, 0x0f, 0x05],
        ];
        for bytes in landmarks {
            let code = [&[0x31, 0xc0, 0x90], bytes].concat();
            assert!(landmark(Machine::X86_64, bytes).0.is_some(), "{bytes:x?}");
            let before = bytes_before_landmark(Machine::X86_64, &code);
            assert_eq!(before, 3, "{bytes:x?}");
        }
        assert_eq!(bytes_before_landmark(Machine::X86_64, &[0x31, 0xc0]), 2);
    }
}
