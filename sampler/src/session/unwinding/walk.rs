//! Walking the copy of a stack: the walk of the kernel's side, on a copy.

use sampler_common::unwind::x86_64::{Registers, pt_regs_word, step};
use sampler_common::unwind::{Interrupted, PackedRule, Stop};
use sampler_common::{Ending, Memory, RegisterLayout, StackCopy};

use crate::object::FileId;

/// What is known of the code at an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Code {
    /// Its rule.
    Rule(PackedRule),
    /// The table of its file is being built.
    Awaited(FileId),
    /// No table will come.
    Missing,
    /// There is none.
    Nothing,
}

/// A copy that was walked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Walked {
    /// To its end.
    To(Ending),
    /// The table of a file has to be waited for.
    Awaits(FileId),
}

/// Walks a copy; `frames` gets the addresses as the kernel's side would give
/// them: that of the interrupted instruction, then of the callers.
pub(super) fn walk(
    copy: &StackCopy,
    words: &[u64],
    max_frames: u32,
    mut code_at: impl FnMut(u64) -> Code,
    frames: &mut Vec<u64>,
) -> Walked {
    let layout = RegisterLayout::X86_64;
    let saved = |word: u32| copy.registers[word as usize];
    let mut registers = Registers::interrupted(
        saved(layout.program_counter),
        saved(layout.stack_pointer),
        saved(layout.frame_pointer),
    );
    let mut memory = Copied::new(copy, words);
    frames.clear();
    frames.push(registers.ip);
    while frames.len() < max_frames as usize {
        let rule = match code_at(registers.lookup_address()) {
            Code::Rule(rule) => rule,
            Code::Awaited(file) => return Walked::Awaits(file),
            Code::Missing => return Walked::To(Ending::TableMissing),
            Code::Nothing => return Walked::To(Ending::UnmappedAddress),
        };
        match step(rule, &mut registers, &mut memory, &Saved(copy)) {
            Ok(()) => frames.push(registers.lookup_address().wrapping_add(1)),
            Err(stop) => {
                return Walked::To(match stop {
                    Stop::EndOfStack | Stop::EndOfChain | Stop::ZeroReturnAddress => {
                        Ending::Complete
                    }
                    Stop::Unsupported | Stop::RegisterLost => Ending::UnsupportedRule,
                    Stop::Unreadable if memory.cut_off => Ending::CopyTooShort,
                    Stop::Unreadable => Ending::UnreadableStack,
                    Stop::NotOutwards => Ending::NotOutwards,
                    Stop::BrokenChain => Ending::BrokenChain,
                });
            }
        }
    }
    Walked::To(Ending::DepthLimit)
}

/// The registers that the copy came with.
struct Saved<'a>(&'a StackCopy);

impl Interrupted for Saved<'_> {
    fn register(&self, dwarf_number: u32) -> Option<u64> {
        let word = pt_regs_word(dwarf_number) as usize;
        self.0.registers.get(word).copied()
    }
}

/// The memory that was copied.
pub(in crate::session) struct Copied<'a> {
    copy: &'a StackCopy,
    words: &'a [u64],
    /// Whether something was asked for that a larger copy might have held.
    cut_off: bool,
}

impl<'a> Copied<'a> {
    /// That of a copy.
    pub(in crate::session) fn new(copy: &'a StackCopy, words: &'a [u64]) -> Self {
        Self {
            copy,
            words,
            cut_off: false,
        }
    }
}

impl Memory for Copied<'_> {
    fn read_word(&mut self, address: u64) -> Option<u64> {
        let offset = address.wrapping_sub(self.copy.address);
        let end = offset.checked_add(8);
        if end.is_none_or(|end| end > u64::from(self.copy.bytes)) {
            // Between what was copied and what was to be, nothing is readable.
            self.cut_off = end.is_none_or(|end| end > u64::from(self.copy.wanted_bytes));
            return None;
        }
        let at = (offset / 8) as usize;
        let low = *self.words.get(at)?;
        let shift = offset % 8 * 8;
        if shift == 0 {
            return Some(low);
        }
        let high = *self.words.get(at + 1)?;
        Some(low >> shift | high << (64 - shift))
    }

    fn read_pair(&mut self, address: u64) -> Option<[u64; 2]> {
        Some([
            self.read_word(address)?,
            self.read_word(address.wrapping_add(8))?,
        ])
    }
}

#[cfg(test)]
mod tests {
    use sampler_common::unwind::x86_64::{Base, Rule, Saved as SavedAt};

    use super::*;

    const STACK: u64 = 0x7ffc_0000_1000;

    fn copy(bytes: u32, wanted_bytes: u32) -> StackCopy {
        let mut registers = [0; RegisterLayout::MAX_WORDS];
        registers[RegisterLayout::X86_64.program_counter as usize] = 0x1000;
        registers[RegisterLayout::X86_64.stack_pointer as usize] = STACK;
        StackCopy {
            thread: 0,
            kernel_stack: 0,
            checked_stack: 0,
            bytes,
            wanted_bytes,
            reserved: 0,
            address: STACK,
            time_ns: 0,
            unknown_file: 0,
            unknown_inode: 0,
            unknown_address: 0,
            unknown_offset: 0,
            registers,
        }
    }

    /// Frames of two words, but at 0x9000, where the stack ends.
    fn code(address: u64) -> Code {
        if address == 0x8fff {
            return Rule::EndOfStack.pack().map_or(Code::Missing, Code::Rule);
        }
        let rule = Rule::Offset {
            base: Base::StackPointer,
            cfa_words: 2,
            saved: SavedAt::Unchanged,
        };
        rule.pack().map_or(Code::Missing, Code::Rule)
    }

    fn walked(copy: &StackCopy, words: &[u64]) -> (Walked, Vec<u64>) {
        let mut frames = Vec::new();
        let walked = walk(copy, words, 100, code, &mut frames);
        (walked, frames)
    }

    #[test]
    fn a_whole_copy_is_walked_to_its_end() {
        let words = [0, 0x2000, 0, 0x9000];
        let (ending, frames) = walked(&copy(32, 32), &words);
        assert_eq!(ending, Walked::To(Ending::Complete));
        assert_eq!(frames, [0x1000, 0x2000, 0x9000]);
    }

    #[test]
    fn a_copy_that_was_cut_is_told_from_a_stack_that_ends() {
        let words = [0, 0x2000];
        let (ending, frames) = walked(&copy(16, 16), &words);
        assert_eq!(ending, Walked::To(Ending::CopyTooShort));
        assert_eq!(frames, [0x1000, 0x2000]);
        let (ending, _) = walked(&copy(16, 4096), &words);
        assert_eq!(ending, Walked::To(Ending::UnreadableStack));
    }

    #[test]
    fn what_is_awaited_is_said() {
        let file = FileId {
            device: 1,
            inode: 2,
        };
        let mut frames = Vec::new();
        let code = |address| {
            if address == 0x1000 {
                code(address)
            } else {
                Code::Awaited(file)
            }
        };
        let ending = walk(&copy(16, 16), &[0, 0x2000], 100, code, &mut frames);
        assert_eq!(ending, Walked::Awaits(file));
    }

    #[test]
    fn words_need_not_be_aligned() {
        let copy = copy(16, 16);
        let words = [0x8877_6655_4433_2211, 0xffee_ddcc_bbaa_9900];
        let mut memory = Copied::new(&copy, &words);
        assert_eq!(memory.read_word(STACK + 3), Some(0xaa99_0088_7766_5544));
        assert_eq!(memory.read_word(STACK + 8), Some(0xffee_ddcc_bbaa_9900));
        assert_eq!(memory.read_word(STACK + 9), None);
        assert_eq!(memory.read_word(STACK - 8), None);
    }
}
