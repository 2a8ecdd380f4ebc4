//! Each rule on a stack laid out by hand.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

extern crate std;
use super::{Base, Registers, Rule, Saved, step};
use crate::unwind::words::Words;
use crate::unwind::{Interrupted, Origin, Stop};

const LEAF: Registers = Registers::interrupted(0x40_1000, 0x7000, 0x7100);

/// As [`LEAF`], but it called something.
const CALLER: Registers = Registers {
    origin: Origin::CALLER,
    ..LEAF
};

fn walked(rule: Rule, from: Registers, words: &[(u64, u64)]) -> Result<Registers, Stop> {
    with_register(rule, from, words, None)
}

/// As [`walked`]; the interrupted code has this in the one register it asks for.
fn with_register(
    rule: Rule,
    from: Registers,
    words: &[(u64, u64)],
    register: Option<(u32, u64)>,
) -> Result<Registers, Stop> {
    struct One(Option<(u32, u64)>);
    impl Interrupted for One {
        fn register(&self, dwarf_number: u32) -> Option<u64> {
            self.0
                .filter(|(number, _)| *number == dwarf_number)
                .map(|(_, value)| value)
        }
    }
    let mut registers = from;
    let packed = rule.pack().unwrap();
    let result = step(
        packed,
        &mut registers,
        &mut Words::new(words),
        &One(register),
    );
    if result.is_err() {
        assert_eq!(
            registers, from,
            "an error leaves the registers as they were"
        );
    }
    result.map(|()| registers)
}

const fn caller(ip: u64, sp: u64, bp: u64) -> Registers {
    Registers {
        ip,
        sp,
        bp,
        origin: Origin::CALLER,
    }
}

const fn offset(base: Base, cfa_words: u32, saved: Saved) -> Rule {
    Rule::Offset {
        base,
        cfa_words,
        saved,
    }
}

#[test]
fn a_leaf_without_a_frame_returns_to_what_the_stack_pointer_points_at() {
    let rule = offset(Base::StackPointer, 1, Saved::Unchanged);
    assert_eq!(
        walked(rule, LEAF, &[(0x7000, 0xa1)]),
        Ok(caller(0xa1, 0x7008, 0x7100))
    );
}

#[test]
fn a_frame_without_frame_pointer_gives_back_the_rbp_it_pushed() {
    let rule = offset(Base::StackPointer, 6, Saved::BelowCfa(3));
    let stack = [(0x7028, 0xa1), (0x7018, 0x5555)];
    assert_eq!(
        walked(rule, CALLER, &stack),
        Ok(caller(0xa1, 0x7030, 0x5555))
    );
}

#[test]
fn a_frame_of_half_a_megabyte_is_left_in_one_step() {
    let words = 540_080 / 8;
    let rule = offset(Base::StackPointer, words, Saved::Unchanged);
    let cfa = 0x7000 + 540_080;
    assert_eq!(
        walked(rule, CALLER, &[(cfa - 8, 0xa1)]),
        Ok(caller(0xa1, cfa, 0x7100))
    );
}

#[test]
fn a_frame_with_frame_pointer_is_counted_from_it() {
    let rule = offset(Base::FramePointer, 2, Saved::BelowCfa(2));
    let stack = [(0x7108, 0xa1), (0x7100, 0x7200)];
    assert_eq!(walked(rule, LEAF, &stack), Ok(caller(0xa1, 0x7110, 0x7200)));
}

#[test]
fn a_realigned_frame_says_in_a_slot_where_it_began() {
    // gcc: cfa = *(rbp - 8), and rbp at rbp.
    let rule = Rule::Dereferenced {
        base: Base::FramePointer,
        slot_words: -1,
        add_words: 0,
        saved: Saved::AtFramePointer,
    };
    let stack = [(0x70f8, 0x7180), (0x7178, 0xa1), (0x7100, 0x7300)];
    assert_eq!(
        walked(rule, CALLER, &stack),
        Ok(caller(0xa1, 0x7180, 0x7300))
    );
    // OpenSSL: cfa = *(rsp + 152) + 8, rbp pushed below.
    let rule = Rule::Dereferenced {
        base: Base::StackPointer,
        slot_words: 19,
        add_words: 1,
        saved: Saved::BelowCfa(3),
    };
    let stack = [(0x7098, 0x7180), (0x7180, 0xa1), (0x7170, 0x42)];
    assert_eq!(walked(rule, CALLER, &stack), Ok(caller(0xa1, 0x7188, 0x42)));
}

#[test]
fn another_register_counts_in_interrupted_code_only() {
    let rule = Rule::Register {
        register: 10,
        cfa_words: 0,
        saved: Saved::AtFramePointer,
    };
    let stack = [(0x7178, 0xa1), (0x7100, 0x7300)];
    assert_eq!(
        with_register(rule, LEAF, &stack, Some((10, 0x7180))),
        Ok(caller(0xa1, 0x7180, 0x7300))
    );
    assert_eq!(
        with_register(rule, CALLER, &stack, Some((10, 0x7180))),
        Err(Stop::RegisterLost)
    );
    assert_eq!(walked(rule, LEAF, &stack), Err(Stop::RegisterLost));
}

#[test]
fn a_probe_of_a_large_frame_counts_from_r11() {
    let rule = Rule::Probe {
        cfa_words: 0x2001,
        saved: Saved::BelowCfa(2),
    };
    let cfa = 0x8000 + 0x2001 * 8;
    let stack = [(cfa - 8, 0xa1), (cfa - 16, 0x42)];
    assert_eq!(
        with_register(rule, LEAF, &stack, Some((11, 0x8000))),
        Ok(caller(0xa1, cfa, 0x42))
    );
}

#[test]
fn vfork_keeps_its_return_address_in_a_register() {
    let rule = Rule::ReturnAddressIn {
        register: 5,
        cfa_words: 0,
        saved: Saved::Unchanged,
    };
    assert_eq!(
        with_register(rule, LEAF, &[], Some((5, 0xa1))),
        Ok(caller(0xa1, 0x7000, 0x7100))
    );
}

#[test]
fn a_plt_entry_has_pushed_its_number_behind_its_eleventh_byte() {
    let rule = Rule::Plt { threshold: 11 };
    let stack = [(0x7000, 0xa1), (0x7008, 0xa2)];
    for (ip, expected) in [
        (0x40_1000, caller(0xa1, 0x7008, 0x7100)),
        (0x40_100a, caller(0xa1, 0x7008, 0x7100)),
        (0x40_100b, caller(0xa2, 0x7010, 0x7100)),
    ] {
        assert_eq!(walked(rule, Registers { ip, ..LEAF }, &stack), Ok(expected));
    }
}

#[test]
fn a_signal_frame_gives_back_interrupted_code_and_all_its_registers() {
    let registers = 0x7000 + 40;
    let mut stack = std::vec::Vec::new();
    // As in struct sigcontext: r8 to r15, then the others, each its number.
    for word in 0..17 {
        stack.push((registers + word * 8, 0x9000 + word));
    }
    let on_alternate_stack = Registers {
        sp: 0x7000,
        ..CALLER
    };
    let found = walked(Rule::SignalFrame, on_alternate_stack, &stack).unwrap();
    assert_eq!((found.bp, found.sp, found.ip), (0x900a, 0x900f, 0x9010));
    assert_eq!(found.lookup_address(), 0x9010);
    // Code that was interrupted while its CFA hung on rax, the 13th.
    stack.push((0x900d + 16 - 8, 0xa1));
    let rule = Rule::Register {
        register: 0,
        cfa_words: 2,
        saved: Saved::Unchanged,
    };
    let outside = Registers {
        sp: 0x9000,
        ..found
    };
    assert_eq!(
        walked(rule, outside, &stack),
        Ok(caller(0xa1, 0x901d, 0x900a))
    );
}

#[test]
fn a_signal_may_have_left_a_stack_that_lies_above() {
    let stack = [
        (0x7000 + 120, 1),
        (0x7000 + 160, 0x100),
        (0x7000 + 168, 0xa1),
    ];
    assert_eq!(
        walked(Rule::SignalFrame, CALLER, &stack).map(|found| found.sp),
        Ok(0x100)
    );
}

#[test]
fn a_stub_has_its_return_address_on_top_only_when_interrupted() {
    let stack = [(0x7000, 0xa1), (0x7100, 0x7200), (0x7108, 0xb1)];
    assert_eq!(
        walked(Rule::GapStub, LEAF, &stack),
        Ok(caller(0xa1, 0x7008, 0x7100))
    );
    let by_frame_pointer = Ok(caller(0xb1, 0x7110, 0x7200));
    assert_eq!(walked(Rule::GapStub, CALLER, &stack), by_frame_pointer);
    assert_eq!(
        walked(Rule::GapFramePointer, CALLER, &stack),
        by_frame_pointer
    );
    assert_eq!(
        walked(Rule::GapFramePointer, LEAF, &stack),
        by_frame_pointer
    );
}

#[test]
fn a_walk_ends_where_the_rows_or_the_chain_say_so() {
    assert_eq!(walked(Rule::EndOfStack, CALLER, &[]), Err(Stop::EndOfStack));
    assert_eq!(
        walked(Rule::Unsupported, CALLER, &[]),
        Err(Stop::Unsupported)
    );
    let no_chain = Registers { bp: 0, ..CALLER };
    assert_eq!(
        walked(Rule::GapFramePointer, no_chain, &[]),
        Err(Stop::EndOfChain)
    );
}

#[test]
fn a_row_that_leads_inwards_is_not_followed() {
    let rule = offset(Base::FramePointer, 2, Saved::Unchanged);
    for bp in [0x6000, 0x6ff0, u64::MAX - 7] {
        let from = Registers { bp, ..CALLER };
        assert_eq!(walked(rule, from, &[]), Err(Stop::NotOutwards), "{bp:x}");
    }
    let from = Registers {
        bp: 0x6ff0,
        ..CALLER
    };
    assert_eq!(
        walked(Rule::GapFramePointer, from, &[]),
        Err(Stop::NotOutwards)
    );
}

#[test]
fn memory_that_is_not_there_and_a_return_to_nowhere_are_told_apart() {
    let rule = offset(Base::StackPointer, 2, Saved::BelowCfa(2));
    assert_eq!(walked(rule, LEAF, &[]), Err(Stop::Unreadable));
    assert_eq!(walked(rule, LEAF, &[(0x7008, 0xa1)]), Err(Stop::Unreadable));
    let zero = [(0x7008, 0), (0x7000, 0)];
    assert_eq!(walked(rule, LEAF, &zero), Err(Stop::ZeroReturnAddress));
    assert_eq!(walked(Rule::SignalFrame, LEAF, &[]), Err(Stop::Unreadable));
}
