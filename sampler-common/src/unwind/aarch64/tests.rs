//! Each rule on a stack laid out by hand.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::{Base, Registers, Rule, Saved, step};
use crate::unwind::words::Words;
use crate::unwind::{Origin, Stop};

const LEAF: Registers = Registers::interrupted(0x40_1000, 0x7000, 0x7100, 0xc1);

/// As [`LEAF`], but it called something.
const CALLER: Registers = Registers {
    origin: Origin::CALLER,
    ..LEAF
};

fn walked(rule: Rule, from: Registers, words: &[(u64, u64)]) -> Result<Registers, Stop> {
    let mut registers = from;
    let result = step(rule.pack().unwrap(), &mut registers, &mut Words::new(words));
    if result.is_err() {
        assert_eq!(
            registers, from,
            "an error leaves the registers as they were"
        );
    }
    result.map(|()| registers)
}

const fn caller(ip: u64, sp: u64, fp: u64) -> Registers {
    Registers {
        ip,
        sp,
        fp,
        lr: 0,
        origin: Origin::CALLER,
    }
}

const fn offset(base: Base, cfa_pairs: u16, saved: Saved) -> Rule {
    Rule::Offset {
        base,
        cfa_pairs,
        saved,
    }
}

#[test]
fn a_leaf_returns_by_its_link_register_and_no_caller_can() {
    let rule = offset(Base::StackPointer, 0, Saved::InRegisters);
    assert_eq!(walked(rule, LEAF, &[]), Ok(caller(0xc1, 0x7000, 0x7100)));
    let with_frame = offset(Base::StackPointer, 2, Saved::InRegisters);
    assert_eq!(
        walked(with_frame, LEAF, &[]),
        Ok(caller(0xc1, 0x7020, 0x7100))
    );
    assert_eq!(walked(with_frame, CALLER, &[]), Err(Stop::RegisterLost));
    assert_eq!(walked(rule, CALLER, &[]), Err(Stop::NotOutwards));
}

#[test]
fn a_frame_gives_back_the_pair_or_the_link_that_it_saved() {
    let stack = [(0x7000, 0x7200), (0x7008, 0xa1)];
    let expected = Ok(caller(0xa1, 0x7040, 0x7200));
    for saved in [Saved::PairBelowCfa(8), Saved::PairAboveBase(0)] {
        let rule = offset(Base::StackPointer, 4, saved);
        assert_eq!(walked(rule, CALLER, &stack), expected);
    }
    let rule = offset(Base::StackPointer, 1, Saved::LinkBelowCfa(2));
    let stack = [(0x7000, 0xa1)];
    assert_eq!(
        walked(rule, CALLER, &stack),
        Ok(caller(0xa1, 0x7010, 0x7100))
    );
}

#[test]
fn a_frame_may_be_counted_from_the_frame_pointer() {
    let rule = offset(Base::FramePointer, 32, Saved::PairAboveBase(0));
    let stack = [(0x7100, 0x7400), (0x7108, 0xa1)];
    assert_eq!(
        walked(rule, CALLER, &stack),
        Ok(caller(0xa1, 0x7300, 0x7400))
    );
}

#[test]
fn a_signed_return_address_is_read_without_its_signature() {
    let rule = offset(Base::StackPointer, 1, Saved::PairBelowCfa(2));
    let stack = [(0x7000, 0x7200), (0x7008, 0x00bf_aaaa_bbbb_cccc)];
    assert_eq!(
        walked(rule, CALLER, &stack),
        Ok(caller(0xaaaa_bbbb_cccc, 0x7010, 0x7200))
    );
}

#[test]
fn a_signal_frame_gives_back_interrupted_code() {
    let first = 0x7000 + 312;
    let stack = [
        (first + 29 * 8, 0x7500),
        (first + 30 * 8, 0xc2),
        (first + 31 * 8, 0x7400),
        (first + 32 * 8, 0xa1),
    ];
    let found = walked(Rule::SignalFrame, CALLER, &stack).unwrap();
    let origin = Origin::signal(first);
    let expected = Registers {
        ip: 0xa1,
        sp: 0x7400,
        fp: 0x7500,
        lr: 0xc2,
        origin,
    };
    assert_eq!(found, expected);
    assert_eq!(found.lookup_address(), 0xa1);
}

#[test]
fn a_stub_returns_by_its_link_register_only_when_interrupted() {
    let stack = [(0x7100, 0x7200), (0x7108, 0xb1)];
    assert_eq!(
        walked(Rule::GapStub, LEAF, &[]),
        Ok(caller(0xc1, 0x7000, 0x7100))
    );
    let by_frame_pointer = Ok(caller(0xb1, 0x7110, 0x7200));
    assert_eq!(walked(Rule::GapStub, CALLER, &stack), by_frame_pointer);
    assert_eq!(
        walked(Rule::GapFramePointer, LEAF, &stack),
        by_frame_pointer
    );
}

#[test]
fn a_walk_ends_where_the_rows_the_chain_or_the_stack_say_so() {
    assert_eq!(walked(Rule::EndOfStack, CALLER, &[]), Err(Stop::EndOfStack));
    assert_eq!(
        walked(Rule::Unsupported, CALLER, &[]),
        Err(Stop::Unsupported)
    );
    let no_chain = Registers { fp: 0, ..CALLER };
    assert_eq!(
        walked(Rule::GapFramePointer, no_chain, &[]),
        Err(Stop::EndOfChain)
    );
    let inwards = Registers {
        fp: 0x6ff0,
        ..CALLER
    };
    assert_eq!(
        walked(Rule::GapFramePointer, inwards, &[]),
        Err(Stop::NotOutwards)
    );
    let rule = offset(Base::StackPointer, 1, Saved::PairBelowCfa(2));
    assert_eq!(walked(rule, CALLER, &[]), Err(Stop::Unreadable));
    let zero = [(0x7000, 0x7200), (0x7008, 0)];
    assert_eq!(walked(rule, CALLER, &zero), Err(Stop::ZeroReturnAddress));
}
