//! Two walks of one stack, frame by frame.

use sampler_common::Ending;

use super::row::Incapable;

/// One step of framehop's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PeerStep {
    /// To a caller; its return address.
    Caller(u64),
    /// The stack ends here.
    End,
    /// It finds what it was led to impossible.
    Refused,
    /// It cannot walk this code, and would guess.
    Incapable(Incapable),
    /// What it asked for was not copied.
    CopyEnds,
}

/// What a comparison came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The same frames, and the same end.
    Agrees,
    /// One frame differs.
    Disagrees {
        /// Which, counted from the interrupted one, which is 0.
        frame: usize,
        /// Its address by the kernel's side; none after the end.
        ours: Option<u64>,
        /// By framehop.
        theirs: Option<u64>,
    },
    /// The same frames up to one that framehop cannot walk.
    FramehopFailed(Incapable),
    /// The same frames up to where the copy ends.
    CopyTooShort,
    /// The same frames up to where the kernel's side gave up.
    Truncated,
}

/// Compares the frames of the kernel's walk with the steps of framehop's,
/// which both start at the interrupted instruction. Also says how many callers
/// were the same.
pub(super) fn compare(
    frames: &[u64],
    ending: Ending,
    mut step: impl FnMut() -> PeerStep,
) -> (Verdict, u64) {
    let mut frame = 1;
    let verdict = loop {
        let ours = frames.get(frame).copied();
        if ours.is_none() && ending != Ending::Complete {
            break match (ending, step()) {
                // Both found a return address of zero.
                (Ending::BrokenChain, PeerStep::End) => Verdict::Agrees,
                _ => Verdict::Truncated,
            };
        }
        let theirs = match step() {
            PeerStep::Caller(address) => Some(address),
            PeerStep::Refused if ours.is_none() => {
                break Verdict::FramehopFailed(Incapable::Refused);
            }
            PeerStep::End | PeerStep::Refused => None,
            PeerStep::Incapable(why) => break Verdict::FramehopFailed(why),
            PeerStep::CopyEnds => break Verdict::CopyTooShort,
        };
        if ours != theirs {
            break Verdict::Disagrees {
                frame,
                ours,
                theirs,
            };
        }
        if ours.is_none() {
            break Verdict::Agrees;
        }
        frame += 1;
    };
    (verdict, frame as u64 - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAMES: [u64; 4] = [0x10, 0x20, 0x30, 0x40];

    fn compared(frames: &[u64], ending: Ending, steps: &[PeerStep]) -> Verdict {
        let mut steps = steps.iter().copied();
        compare(frames, ending, || steps.next().unwrap_or(PeerStep::Refused)).0
    }

    fn to_the_end() -> [PeerStep; 4] {
        [
            PeerStep::Caller(0x20),
            PeerStep::Caller(0x30),
            PeerStep::Caller(0x40),
            PeerStep::End,
        ]
    }

    #[test]
    fn equal_walks_agree() {
        assert_eq!(
            compared(&FRAMES, Ending::Complete, &to_the_end()),
            Verdict::Agrees
        );
    }

    #[test]
    fn callers_that_are_the_same_are_counted() {
        let same = |frames: &[u64]| {
            let mut steps = to_the_end().into_iter();
            compare(frames, Ending::Complete, || {
                steps.next().unwrap_or(PeerStep::Refused)
            })
            .1
        };
        assert_eq!(same(&FRAMES), 3);
        assert_eq!(same(&[0x10, 0x20, 0x31, 0x40]), 1);
    }

    #[test]
    fn a_frame_that_was_altered_or_left_out_is_found() {
        let disagrees = |frame, ours, theirs| Verdict::Disagrees {
            frame,
            ours,
            theirs,
        };
        let mut altered = FRAMES;
        altered[2] += 1;
        let cases = [
            (&altered[..], disagrees(2, Some(0x31), Some(0x30))),
            (&[0x10, 0x30, 0x40], disagrees(1, Some(0x30), Some(0x20))),
            (&[0x10, 0x20, 0x40], disagrees(2, Some(0x40), Some(0x30))),
            (&FRAMES[..3], disagrees(3, None, Some(0x40))),
            (
                &[0x10, 0x20, 0x30, 0x40, 0x50],
                disagrees(4, Some(0x50), None),
            ),
        ];
        for (frames, expected) in cases {
            assert_eq!(
                compared(frames, Ending::Complete, &to_the_end()),
                expected,
                "{frames:x?}"
            );
        }
    }

    #[test]
    fn what_precedes_a_truncation_is_compared() {
        let cut = Ending::UnsupportedRule;
        assert_eq!(
            compared(&FRAMES[..2], cut, &to_the_end()),
            Verdict::Truncated
        );
        assert_eq!(
            compared(&[0x10, 0x21], cut, &to_the_end()),
            Verdict::Disagrees {
                frame: 1,
                ours: Some(0x21),
                theirs: Some(0x20),
            }
        );
    }

    #[test]
    fn an_end_that_only_framehop_takes_for_one_agrees_if_it_is_the_same() {
        let cut = Ending::BrokenChain;
        assert_eq!(compared(&FRAMES, cut, &to_the_end()), Verdict::Agrees);
        assert_eq!(
            compared(&FRAMES[..3], cut, &to_the_end()),
            Verdict::Truncated
        );
        assert_eq!(
            compared(&FRAMES, Ending::NotOutwards, &to_the_end()),
            Verdict::Truncated
        );
    }

    #[test]
    fn what_framehop_cannot_do_is_no_agreement() {
        let cannot = PeerStep::Incapable(Incapable::Memory);
        for (step, expected) in [
            (cannot, Verdict::FramehopFailed(Incapable::Memory)),
            (PeerStep::CopyEnds, Verdict::CopyTooShort),
        ] {
            let steps = [PeerStep::Caller(0x20), step];
            assert_eq!(compared(&FRAMES, Ending::Complete, &steps), expected);
            // Even where only the end is left to be told.
            assert_eq!(compared(&FRAMES[..2], Ending::Complete, &steps), expected);
        }
    }

    #[test]
    fn what_framehop_refuses_ends_its_walk() {
        assert_eq!(
            compared(
                &FRAMES,
                Ending::Complete,
                &[PeerStep::Caller(0x20), PeerStep::Refused]
            ),
            Verdict::Disagrees {
                frame: 2,
                ours: Some(0x30),
                theirs: None,
            }
        );
        // At the end it might have found a caller.
        assert_eq!(
            compared(&FRAMES[..1], Ending::Complete, &[PeerStep::Refused]),
            Verdict::FramehopFailed(Incapable::Refused)
        );
    }
}
