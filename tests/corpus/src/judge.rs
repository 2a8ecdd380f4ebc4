//! Whether a stack reaches its root, decided by where its outermost frame lies
//! and by nothing that `sampler` says of it, except that it marks stacks that
//! it cut.

use crate::image::Image;
use crate::profile::Frame;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// Where Go's stacks begin: those of goroutines, of threads, and of what a
/// thread does on a stack of its own in a goroutine's place.
const GO_STARTS: &[&str] = &[
    "runtime.goexit",
    "runtime.mstart",
    "runtime.rt0_go",
    "_rt0_amd64",
    "_rt0_amd64_linux",
    "runtime.mcall",
    "runtime.morestack",
    "runtime.systemstack",
];

/// A function of the program itself with which its stacks may begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Base {
    /// None but the general ones.
    General,
    /// The start function of a context that the program made.
    Context(&'static str),
}

/// What is found at a stack's outermost end.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Ending {
    /// The function where the program or its dynamic loader begins to run.
    Entry,
    /// A function that by its file's own word nobody called, as `clone3`.
    NobodyCalled,
    /// A start of Go's runtime.
    GoStart,
    /// A function that begins stacks of this program.
    Base,
    /// `sampler` says why it went no further.
    Marked(String),
    /// There is no user half.
    KernelOnly,
    /// Something that is no root, though `sampler` does not say so.
    Elsewhere,
}

impl Ending {
    /// Whether the stack is complete.
    pub fn is_complete(&self) -> bool {
        matches!(
            self,
            Self::Entry | Self::NobodyCalled | Self::GoStart | Self::Base
        )
    }
}

/// Knows the files that it was asked about.
#[derive(Default)]
pub struct Judge {
    images: HashMap<PathBuf, Option<Image>>,
}

impl Judge {
    /// Of a stack, leaf first, in a run of `program`.
    pub fn ending(&mut self, stack: &[Frame], program: &Path, base: Base) -> Ending {
        let (mark, frames) = match stack.split_last() {
            Some((last, rest)) if last.remark.is_some() => (last.remark.clone(), rest),
            _ => (None, stack),
        };
        let Some(last) = frames.last() else {
            return mark.map_or(Ending::KernelOnly, Ending::Marked);
        };
        if let Some(mark) = mark {
            return Ending::Marked(mark);
        }
        if last.is_kernel {
            return Ending::KernelOnly;
        }
        if let Base::Context(name) = base
            && self.begins_with(name, frames, program)
        {
            return Ending::Base;
        }
        self.root(last)
    }

    /// The name of the function that holds the frame, or its place in the file.
    pub fn describe(&mut self, frame: &Frame) -> String {
        let file = Path::new(&frame.file);
        let short = file
            .file_name()
            .map_or(frame.file.as_str().into(), |name| name.to_string_lossy());
        let Some((image, address)) = self.place(frame) else {
            return short.into_owned();
        };
        match (image.name(address), image.function(address)) {
            (Some(name), _) => format!("{name} {short}"),
            (None, Some(function)) => format!("{:#x} {short}", function.start),
            (None, None) => format!("{address:#x}? {short}"),
        }
    }

    fn root(&mut self, last: &Frame) -> Ending {
        let Some((image, address)) = self.place(last) else {
            return Ending::Elsewhere;
        };
        let is_go_start = || {
            let name = image.name(address).unwrap_or_default();
            GO_STARTS.contains(&name.strip_suffix(".abi0").unwrap_or(name))
        };
        if image.is_entry(address) {
            Ending::Entry
        } else if image.is_outermost(address) {
            Ending::NobodyCalled
        } else if is_go_start() {
            Ending::GoStart
        } else {
            Ending::Elsewhere
        }
    }

    /// Whether the outermost frame that is the program's own, not its C
    /// library's, lies in the function `name`.
    fn begins_with(&mut self, name: &str, frames: &[Frame], program: &Path) -> bool {
        for frame in frames.iter().rev() {
            if let Some((image, address)) = self.place(frame)
                && Path::new(&frame.file) == program
            {
                let found = image.name(address);
                let is_library = found.is_some_and(|found| found.contains("libc_start_main"));
                if is_library || image.is_entry(address) {
                    continue;
                }
                return found == Some(name);
            }
        }
        false
    }

    fn place(&mut self, frame: &Frame) -> Option<(&Image, u64)> {
        let image = self.image(Path::new(&frame.file))?;
        let address = image.address_of(frame.offset)?;
        Some((image, address))
    }

    fn image(&mut self, path: &Path) -> Option<&Image> {
        if !self.images.contains_key(path) {
            // Not every mapping is of a file, and not every file is ELF.
            let image = path.is_absolute().then(|| Image::open(path).ok()).flatten();
            self.images.insert(path.to_path_buf(), image);
        }
        self.images.get(path)?.as_ref()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail")]
    use super::*;
    use object::{Object as _, ObjectSection as _, ObjectSymbol as _};

    fn program() -> PathBuf {
        std::env::current_exe().unwrap().canonicalize().unwrap()
    }

    /// The frame at the second byte of a function of this test program.
    fn within(name: &str) -> Frame {
        let bytes = std::fs::read(program()).unwrap();
        let file = object::File::parse(&*bytes).unwrap();
        let address = file.symbol_by_name(name).unwrap().address();
        let text = file.section_by_name(".text").unwrap();
        let offset = address - text.address() + text.file_range().unwrap().0 + 1;
        frame(program().to_str().unwrap(), offset)
    }

    fn frame(file: &str, offset: u64) -> Frame {
        Frame {
            file: file.into(),
            offset,
            build_id: String::new(),
            name: String::new(),
            remark: None,
            is_kernel: file.starts_with("[kernel"),
        }
    }

    fn mark() -> Frame {
        Frame {
            remark: Some("[truncated: depth_limit]".into()),
            ..frame("", 0)
        }
    }

    fn ending(stack: &[Frame], base: Base) -> Ending {
        Judge::default().ending(stack, &program(), base)
    }

    #[test]
    fn a_stack_is_complete_at_the_entry_and_not_before() {
        let general = Base::General;
        assert_eq!(
            ending(&[within("main"), within("_start")], general),
            Ending::Entry
        );
        assert_eq!(ending(&[within("main")], general), Ending::Elsewhere);
        assert!(!Ending::Elsewhere.is_complete());
    }

    #[test]
    fn a_stack_with_a_mark_is_cut_wherever_it_ends() {
        let cut = ending(&[within("main"), within("_start"), mark()], Base::General);
        assert_eq!(cut, Ending::Marked("[truncated: depth_limit]".into()));
        assert!(!cut.is_complete());
    }

    #[test]
    fn a_context_is_complete_at_its_start_unless_it_is_marked() {
        let context = Base::Context("main");
        assert_eq!(ending(&[within("main")], context), Ending::Base);
        assert!(!ending(&[within("main"), mark()], context).is_complete());
        assert!(!ending(&[within("main")], Base::Context("other")).is_complete());
    }

    #[test]
    fn the_kernel_alone_is_no_user_stack() {
        let kernel = frame("[kernel.kallsyms]_stext", 0x10);
        assert_eq!(ending(&[kernel], Base::General), Ending::KernelOnly);
        assert_eq!(ending(&[], Base::General), Ending::KernelOnly);
    }

    #[test]
    fn what_is_no_file_is_no_root() {
        assert_eq!(
            ending(&[frame("[vdso]", 0x10)], Base::General),
            Ending::Elsewhere
        );
        assert_eq!(
            ending(&[frame("/etc/passwd", 1)], Base::General),
            Ending::Elsewhere
        );
    }
}
