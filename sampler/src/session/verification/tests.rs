//! The stack of the test itself, walked by framehop and falsified.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::arch::asm;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::PathBuf;
use std::sync::Arc;

use sampler_common::{Ending, RegisterLayout, StackCopy};

use super::compare::{PeerStep, Verdict};
use super::files::Files;
use super::peer::PeerWalk;
use super::row::Incapable;
use super::{Checked, CheckedWalk, Order, Verification, check};
use crate::object::{FileId, PinnedFile};
use crate::process::{AddressSpace, Backing, Mapping};

/// Larger than the frames of a test.
const COPY_BYTES: usize = 32 << 10;

/// The registers and the stack of the caller, and its mappings.
#[inline(never)]
fn own_stack() -> (StackCopy, Vec<u64>, Arc<AddressSpace>) {
    let (ip, sp, bp): (u64, u64, u64);
    // SAFETY: reads three registers and changes nothing else.
    unsafe {
        asm!(
            "lea {ip}, [rip]", "mov {sp}, rsp", "mov {bp}, rbp",
            ip = out(reg) ip, sp = out(reg) sp, bp = out(reg) bp,
            options(nomem, nostack, preserves_flags)
        );
    }
    let mut bytes = vec![0; COPY_BYTES];
    let memory = File::open("/proc/self/mem").unwrap();
    let read = memory.read_at(&mut bytes, sp).unwrap();
    let words: Vec<u64> = bytes[..read]
        .chunks_exact(8)
        .map(|word| u64::from_le_bytes(word.try_into().unwrap()))
        .collect();
    let layout = RegisterLayout::X86_64;
    let mut registers = [0; RegisterLayout::MAX_WORDS];
    for (word, value) in [
        (layout.program_counter, ip),
        (layout.stack_pointer, sp),
        (layout.frame_pointer, bp),
        (layout.mode, layout.mode_user),
    ] {
        registers[word as usize] = value;
    }
    let copy = StackCopy {
        thread: 0,
        kernel_stack: 0,
        checked_stack: 1,
        bytes: words.len() as u32 * 8,
        wanted_bytes: COPY_BYTES as u32,
        reserved: 0,
        address: sp,
        time_ns: 0,
        unknown_file: 0,
        unknown_inode: 0,
        unknown_address: 0,
        unknown_offset: 0,
        registers,
    };
    (copy, words, Arc::new(own_mappings()))
}

fn own_mappings() -> AddressSpace {
    let mut space = AddressSpace::fresh(0);
    for line in fs::read_to_string("/proc/self/maps").unwrap().lines() {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [range, rights, offset, _, _, path] = fields[..] else {
            continue;
        };
        let hexadecimal = |text| u64::from_str_radix(text, 16).unwrap();
        if !rights.contains('x') || !path.starts_with('/') {
            continue;
        }
        let (start, end) = range.split_once('-').unwrap();
        let file = File::open(path).unwrap();
        let metadata = file.metadata().unwrap();
        let id = FileId {
            device: metadata.dev(),
            inode: metadata.ino(),
        };
        space.insert(
            1,
            Mapping {
                start: hexadecimal(start),
                end: hexadecimal(end),
                file_offset: hexadecimal(offset),
                backing: Backing::File(Arc::new(PinnedFile::new(
                    id,
                    PathBuf::from(path),
                    None,
                    file,
                ))),
            },
        );
    }
    space
}

fn checked(frames: &[u64], stack: &(StackCopy, Vec<u64>, Arc<AddressSpace>)) -> Order {
    Order {
        pid: std::process::id(),
        space: Arc::clone(&stack.2),
        frames: frames.into(),
        ending: Ending::Complete,
        copy: stack.0,
        words: stack.1.as_slice().into(),
    }
}

/// What framehop makes of it: the frames, the interrupted one first.
fn walked(stack: &(StackCopy, Vec<u64>, Arc<AddressSpace>)) -> Vec<u64> {
    let (copy, words, space) = stack;
    let mut peer = PeerWalk::new(copy, words, space);
    let mut files = Files::new(64 << 20);
    let mut frames = vec![copy.registers[RegisterLayout::X86_64.program_counter as usize]];
    loop {
        match peer.step(&mut files) {
            PeerStep::Caller(address) => frames.push(address),
            PeerStep::End => return frames,
            other => panic!("{other:?} after {frames:x?}"),
        }
    }
}

#[test]
fn a_whole_walk_agrees_and_a_falsified_one_does_not() {
    let stack = own_stack();
    let frames = walked(&stack);
    assert!(frames.len() > 5, "{frames:x?}");
    let mut files = Files::new(64 << 20);
    let whole = Checked {
        verdict: Verdict::Agrees,
        callers: frames.len() as u64 - 1,
        disagreement: None,
    };
    assert_eq!(check(&checked(&frames, &stack), true, &mut files), whole);

    // The caller of the caller left out.
    let mut dropped = frames.clone();
    dropped.remove(2);
    let found = check(&checked(&dropped, &stack), true, &mut files);
    let differs = Verdict::Disagrees {
        frame: 2,
        ours: Some(frames[3]),
        theirs: Some(frames[2]),
    };
    assert_eq!((found.verdict, found.callers), (differs, 1));
    let disagreement = found.disagreement.unwrap();
    let last = disagreement.visited.last().unwrap();
    assert_eq!((last.number, last.address), (1, frames[1] - 1));
    let path = std::env::current_exe().unwrap();
    assert!(last.place.starts_with(path.to_str().unwrap()), "{last:?}");
    assert!(last.rule.starts_with("Offset"), "{last:?}");
    assert!(last.row.contains("CFA"), "{last:?}");
}

#[test]
fn the_thread_counts_what_it_was_given() {
    let stack = own_stack();
    let frames = walked(&stack);
    let mut wrong = frames.clone();
    wrong[1] += 1;
    let mut verification = Verification::start(64 << 20).unwrap();
    for frames in [&frames, &wrong, &frames] {
        verification.hand_over(CheckedWalk {
            pid: 1,
            space: Arc::clone(&stack.2),
            frames,
            ending: Ending::Complete,
            copy: &stack.0,
            words: &stack.1,
        });
    }
    let found = verification.finish();
    assert_eq!((found.agreed, found.disagreed, found.dropped), (2, 1, 0));
    assert_eq!(found.shown.len(), 1);
}

#[test]
fn what_belongs_to_no_file_or_to_a_narrow_program_is_not_compared() {
    let mut stack = own_stack();
    let frames = walked(&stack);
    stack.2 = Arc::default();
    let mut files = Files::new(64 << 20);
    let found = check(&checked(&frames, &stack), true, &mut files);
    assert_eq!(found.verdict, Verdict::FramehopFailed(Incapable::NoFile));
    let layout = RegisterLayout::X86_64;
    stack.0.registers[layout.mode as usize] = layout.mode_user_narrow;
    let found = check(&checked(&frames, &stack), true, &mut files);
    assert_eq!(found.verdict, Verdict::FramehopFailed(Incapable::Narrow));
}

#[test]
fn a_copy_that_ends_within_the_stack_is_no_disagreement() {
    let mut stack = own_stack();
    let frames = walked(&stack);
    stack.1.truncate(1);
    stack.0.bytes = 8;
    let found = check(&checked(&frames, &stack), true, &mut Files::new(64 << 20));
    assert_eq!(found.verdict, Verdict::CopyTooShort);
}
