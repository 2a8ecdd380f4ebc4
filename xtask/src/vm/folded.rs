//! Folded stacks, as far as the checks need them: `root;…;leaf COUNT` a line.

/// One stack and how often it was seen.
pub struct Stack<'a> {
    /// From the root to the leaf.
    pub frames: Vec<&'a str>,
    /// Samples.
    pub samples: u64,
}

/// The stacks of a folded file. Lines that are none are left out.
pub fn stacks(text: &str) -> impl Iterator<Item = Stack<'_>> {
    text.lines().filter_map(|line| {
        let (frames, samples) = line.rsplit_once(' ')?;
        Some(Stack {
            frames: frames.split(';').collect(),
            samples: samples.trim().parse().ok()?,
        })
    })
}

/// How deep the recursion was seen where its depth is known: in stacks that
/// hold `spin`, which only the last `descend` calls.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Recursion {
    /// Samples in `spin`.
    pub samples: u64,
    /// Those with the whole chain: one `begin`, then `depth` of `descend`, then `spin`.
    pub whole: u64,
}

impl Recursion {
    /// Looks for a recursion `depth` deep.
    pub fn of(text: &str, depth: usize) -> Self {
        let mut found = Self::default();
        for stack in stacks(text) {
            let Some(spin) = stack.frames.iter().position(|frame| *frame == "spin") else {
                continue;
            };
            found.samples += stack.samples;
            let above = &stack.frames[..spin];
            let descends = above
                .iter()
                .rev()
                .take_while(|frame| **frame == "descend")
                .count();
            if descends == depth && above.contains(&"begin") {
                found.whole += stack.samples;
            }
        }
        found
    }

    /// Whether at least 19 of 20 stacks are whole, and there are any. A frame
    /// pointer does not show the caller of a function that was interrupted in
    /// its first two instructions.
    pub fn is_seen(&self) -> bool {
        self.samples > 0 && self.whole * 20 >= self.samples * 19
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_recursion_counts_also_below_kernel_frames() {
        let text = "fixture;_start;begin;recurse_until;descend;descend;spin 5\n\
                    fixture;_start;begin;recurse_until;descend;descend;spin;asm_irq_[k] 2\n";
        let expected = Recursion {
            samples: 7,
            whole: 7,
        };
        assert_eq!(Recursion::of(text, 2), expected);
        assert!(expected.is_seen());
    }

    #[test]
    fn a_lost_frame_or_a_lost_root_is_not_whole() {
        let text = "fixture;_start;begin;recurse_until;descend;spin 3\n\
                    fixture;descend;descend;spin 1\n\
                    fixture;_start;begin;descend;descend;other;spin 1\n";
        let found = Recursion::of(text, 2);
        assert_eq!(
            found,
            Recursion {
                samples: 5,
                whole: 0
            }
        );
        assert!(!found.is_seen());
    }

    #[test]
    fn stacks_elsewhere_in_the_program_say_nothing_of_its_depth() {
        let text = "fixture;_start;begin;fork_until 9\nnot a stack\n";
        let found = Recursion::of(text, 2);
        assert_eq!(found, Recursion::default());
        assert!(!found.is_seen());
    }
}
