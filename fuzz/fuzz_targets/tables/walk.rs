//! Walks by a table over a stack that an input made up.

use sampler::object::unwind::{Machine, Table};
use sampler_common::Memory;
use sampler_common::unwind::{Interrupted, Origin, PackedRule, Stop, aarch64, x86_64};

/// Steps after which a walk is given up.
const MAX_STEPS: usize = 1024;
/// Where the stack lies.
const STACK: u64 = 0x7ffc_0000_0000;

/// Made of two bytes for each word: half of them addresses of code, half of
/// the rest addresses of the stack itself.
struct Words(Vec<u64>);

impl Words {
    fn of(table: &Table, stack: &[u8]) -> Self {
        let code_bytes = table.buckets() as u64 * 256;
        let words = stack.chunks_exact(2).map(|pair| {
            let value = u64::from(u16::from_le_bytes([pair[0], pair[1]]));
            match value & 3 {
                0 | 1 => table.lowest.wrapping_add((value >> 1) % code_bytes.max(1)),
                2 => STACK + (value >> 2) / 8 * 8 % (stack.len() as u64 * 4 + 64),
                _ => value >> 2,
            }
        });
        Self(words.collect())
    }

    fn at(&self, word: usize) -> u64 {
        self.0.get(word).copied().unwrap_or_default()
    }
}

impl Memory for Words {
    fn read_word(&mut self, address: u64) -> Option<u64> {
        let word = address.checked_sub(STACK)? / 8;
        self.0.get(usize::try_from(word).ok()?).copied()
    }

    fn read_pair(&mut self, address: u64) -> Option<[u64; 2]> {
        Some([
            self.read_word(address)?,
            self.read_word(address.checked_add(8)?)?,
        ])
    }
}

/// Registers of the interrupted code: the stack's first words again.
struct Held(Vec<u64>);

impl Interrupted for Held {
    fn register(&self, dwarf_number: u32) -> Option<u64> {
        self.0.get(dwarf_number as usize).copied()
    }
}

/// Panics if a walk by the table does what none must.
pub fn check(table: &Table, stack: &[u8]) {
    let memory = Words::of(table, stack);
    match table.machine {
        Machine::X86_64 => x86_64(table, memory),
        Machine::Aarch64 => aarch64(table, memory),
    }
}

fn x86_64(table: &Table, mut memory: Words) {
    let held = Held(memory.0.iter().take(16).copied().collect());
    let mut frame = x86_64::Registers::interrupted(memory.at(0), STACK, memory.at(1));
    for _ in 0..MAX_STEPS {
        let rule = table
            .rule_at(frame.lookup_address())
            .unwrap_or(x86_64::Rule::GAP_FRAME_POINTER);
        let before = frame;
        if let Err(stop) = x86_64::step(rule, &mut frame, &mut memory, &held) {
            assert_eq!(frame, before, "changed by {stop:?}");
            return;
        }
        let left = Left {
            signal: x86_64::Rule::unpack(rule) == x86_64::Rule::SignalFrame,
            sp: before.sp,
            origin: before.origin,
        };
        left.for_caller(frame.ip, frame.sp, frame.origin, rule);
    }
}

fn aarch64(table: &Table, mut memory: Words) {
    let (fp, lr) = (memory.at(1), memory.at(2));
    let mut frame = aarch64::Registers::interrupted(memory.at(0), STACK, fp, lr);
    for _ in 0..MAX_STEPS {
        let rule = table
            .rule_at(frame.lookup_address())
            .unwrap_or(aarch64::Rule::GAP_FRAME_POINTER);
        let before = frame;
        if let Err(stop) = aarch64::step(rule, &mut frame, &mut memory) {
            assert_eq!(frame, before, "changed by {stop:?}");
            return;
        }
        let left = Left {
            signal: aarch64::Rule::unpack(rule) == aarch64::Rule::SignalFrame,
            sp: before.sp,
            origin: before.origin,
        };
        left.for_caller(frame.ip, frame.sp, frame.origin, rule);
    }
}

/// A frame that a step has left.
struct Left {
    /// By what the kernel saved for a signal.
    signal: bool,
    sp: u64,
    origin: Origin,
}

impl Left {
    fn for_caller(&self, ip: u64, sp: u64, origin: Origin, rule: PackedRule) {
        assert_ne!(ip, 0, "a caller at zero: {:?}", Stop::ZeroReturnAddress);
        assert_eq!(origin.is_interrupted(), self.signal, "{rule:?}");
        if self.signal {
            return;
        }
        // Interrupted code may have no frame yet.
        let outwards = sp > self.sp || (sp == self.sp && self.origin.is_interrupted());
        assert!(outwards, "{rule:?}: from {:x} to {sp:x}", self.sp);
    }
}
