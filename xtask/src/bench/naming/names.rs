//! How many frames of a result have a name, each as often as it was sampled.

use anyhow::Result;
use corpus::profile::{self, Frame};
use serde::Serialize;
use std::path::PathBuf;

/// Frames by whether they are named.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Names {
    /// Of user space, all.
    pub user: u64,
    /// With a name.
    pub user_named: u64,
    /// Of the kernel, all.
    pub kernel: u64,
    /// With a name.
    pub kernel_named: u64,
}

impl Names {
    fn add(&mut self, is_kernel: bool, is_named: bool, count: u64) {
        let (all, named) = if is_kernel {
            (&mut self.kernel, &mut self.kernel_named)
        } else {
            (&mut self.user, &mut self.user_named)
        };
        *all += count;
        *named += if is_named { count } else { 0 };
    }

    /// The share of the user frames that is named; `None` without any.
    pub fn user_share(&self) -> Option<f64> {
        (self.user > 0).then(|| self.user_named as f64 / self.user as f64)
    }

    /// The same of the kernel's.
    pub fn kernel_share(&self) -> Option<f64> {
        (self.kernel > 0).then(|| self.kernel_named as f64 / self.kernel as f64)
    }

    /// Of pprof files. `is_named` judges a frame; inlined calls are part of theirs.
    pub fn of_pprof(files: &[PathBuf], is_named: fn(&Frame) -> bool) -> Result<Self> {
        let mut names = Self::default();
        for file in files {
            for sample in profile::read(file)? {
                for frame in sample.stack.iter().filter(|frame| frame.remark.is_none()) {
                    names.add(frame.is_kernel, is_named(frame), sample.count);
                }
            }
        }
        Ok(names)
    }

    /// Of what `perf script` prints: a frame on each line, as
    /// `ADDRESS NAME+OFFSET (FILE)`; inlined ones have no address of their own.
    pub fn of_perf_script(text: &str) -> Self {
        let mut names = Self::default();
        for line in text.lines() {
            // The line that begins a sample is not indented as deep.
            let Some(frame) = line.strip_prefix('\t') else {
                continue;
            };
            let mut words = frame.split_whitespace();
            let address = words
                .next()
                .and_then(|word| u64::from_str_radix(word, 16).ok());
            let (Some(address), Some(name)) = (address, words.next()) else {
                continue;
            };
            if !frame.ends_with("(inlined)") {
                names.add(address >= 1 << 63, name != "[unknown]", 1);
            }
        }
        names
    }

    /// Of profile-bee's folded stacks: the process's name first, the kernel's
    /// frames marked at their end.
    pub fn of_folded(text: &str) -> Self {
        let mut names = Self::default();
        for line in text.lines() {
            let Some((stack, count)) = line.rsplit_once(' ') else {
                continue;
            };
            for frame in stack.split(';').skip(1) {
                let is_kernel = frame.ends_with("_k") || frame.ends_with("_[k]");
                names.add(is_kernel, frame != "[unknown]", count.parse().unwrap_or(0));
            }
        }
        names
    }
}

/// Of `sampler`: a frame without a name has no function.
pub fn is_named(frame: &Frame) -> bool {
    !frame.name.is_empty()
}

/// Of lightswitch: what it could not name, it says in the name's place.
pub fn is_named_by_lightswitch(frame: &Frame) -> bool {
    const ERRORS: [&str; 4] = ["<blazesym", "<failed", "<could not", "<not found"];
    is_named(frame) && !ERRORS.iter().any(|error| frame.name.starts_with(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn perfs_frames_are_counted_without_the_inlined_ones() {
        let text = "rustc  77 12.5:  1001001 cpu-clock:pppH: \n\
                    \tffffffff810011aa do_syscall_64+0x5a ([kernel.kallsyms])\n\
                    \t    7f00 inner (inlined)\n\
                    \t    7f00 outer+0x5 (/usr/lib/libc.so.6)\n\
                    \t    7e00 [unknown] (/tmp/x)\n\n";
        let expected = Names {
            user: 2,
            user_named: 1,
            kernel: 1,
            kernel_named: 1,
        };
        assert_eq!(Names::of_perf_script(text), expected);
    }

    #[test]
    fn folded_frames_count_as_often_as_their_stack() {
        let text = "rustc;main;[unknown];do_exit_k 3\nsh;main 4\n";
        let expected = Names {
            user: 10,
            user_named: 7,
            kernel: 3,
            kernel_named: 3,
        };
        assert_eq!(Names::of_folded(text), expected);
        assert_eq!(expected.user_share(), Some(0.7));
        assert_eq!(Names::default().user_share(), None);
    }
}
