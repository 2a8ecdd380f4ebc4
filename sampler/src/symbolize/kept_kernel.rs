//! The kernel's own symbols, kept for all recordings of one boot.
//!
//! Of `/proc/kallsyms`, which takes the kernel long to write, the part that does
//! not change until the next boot: the symbols of its code proper, without those
//! of modules and of code that was made at run time. It is kept as it stands
//! there, in the [cache](crate::cache), under the name of the boot.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use crate::cache::{Cache, Key};

use super::sealed::sealed_file;

/// The symbols around the code.
const FIRST: &[u8] = b"_stext";
const LAST: &[u8] = b"_etext";
/// More than any kernel has symbols, in bytes.
const MAX_BYTES: u64 = 64 << 20;

/// What is kept of this boot's kernel.
#[derive(Debug)]
pub(super) struct KeptKernel {
    place: Option<(Arc<Cache>, Key)>,
    state: State,
}

#[derive(Debug)]
enum State {
    NotLookedFor,
    Missing,
    There { table: File, code: Range<u64> },
}

impl KeptKernel {
    /// Nothing is kept without a cache, or for a boot without a name.
    pub(super) fn new(cache: Option<Arc<Cache>>, boot_id: Option<&str>) -> Self {
        let key = boot_id.and_then(Key::of_boot);
        Self {
            place: cache.zip(key),
            state: State::NotLookedFor,
        }
    }

    /// The addresses whose symbols are in [`Self::table`].
    pub(super) fn code(&mut self) -> Range<u64> {
        if matches!(self.state, State::NotLookedFor) {
            self.state = self.look().unwrap_or(State::Missing);
        }
        match &self.state {
            State::There { code, .. } => code.clone(),
            State::NotLookedFor | State::Missing => 0..0,
        }
    }

    /// Lines as those of kallsyms, if [`Self::code`] has found any.
    pub(super) fn table(&self) -> Option<&File> {
        match &self.state {
            State::There { table, .. } => Some(table),
            State::NotLookedFor | State::Missing => None,
        }
    }

    fn look(&self) -> Option<State> {
        let (cache, key) = self.place.as_ref()?;
        let lines = cache.get(key)?;
        let code = code(&lines)?;
        let table = sealed_file(c"kallsyms", &lines).ok()?;
        Some(State::There { table, code })
    }

    /// Keeps what is missing.
    pub(super) fn keep(&self, kallsyms: &File) {
        let (State::Missing, Some((cache, key))) = (&self.state, &self.place) else {
            return;
        };
        let from_start = FromStart {
            file: kallsyms,
            at: 0,
        };
        let lines = BufReader::with_capacity(1 << 16, from_start.take(MAX_BYTES));
        match core_lines(lines) {
            Ok(Some(lines)) => cache.put(key, &lines),
            Ok(None) => {}
            Err(error) => tracing::debug!(%error, "the kernel's symbols could not be kept"),
        }
    }
}

/// A file from its first byte on, wherever others are in it.
struct FromStart<'a> {
    file: &'a File,
    at: u64,
}

impl Read for FromStart<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.file.read_at(buffer, self.at)?;
        self.at += bytes as u64;
        Ok(bytes)
    }
}

/// The lines from the code's start to its end; `None` if it has none, or if they
/// hide their addresses.
fn core_lines(mut lines: impl BufRead) -> io::Result<Option<Vec<u8>>> {
    let mut core = Vec::new();
    loop {
        let start = core.len();
        if lines.read_until(b'\n', &mut core)? == 0 {
            return Ok(None);
        }
        let Some((address, name)) = symbol(&core[start..]) else {
            return Ok(None);
        };
        let is_inside = start > 0;
        if name == LAST && is_inside {
            return Ok(code(&core).map(|_| core));
        }
        if !is_inside && (name != FIRST || address == 0) {
            core.clear();
        }
    }
}

/// From the first symbol of such lines to the last.
fn code(lines: &[u8]) -> Option<Range<u64>> {
    let lines = lines.strip_suffix(b"\n")?;
    let last = lines.rsplit(|byte| *byte == b'\n').next()?;
    let (start, first_name) = symbol(lines.split(|byte| *byte == b'\n').next()?)?;
    let (end, last_name) = symbol(last)?;
    (first_name == FIRST && last_name == LAST && start < end).then_some(start..end)
}

/// Address and name of a line, if it is one of the kernel proper.
fn symbol(line: &[u8]) -> Option<(u64, &[u8])> {
    let mut fields = line.trim_ascii_end().split(|byte| *byte == b' ');
    let address = str::from_utf8(fields.next()?).ok()?;
    let (_kind, name) = (fields.next()?, fields.next()?);
    let is_of_module = name.contains(&b'\t') || fields.next().is_some();
    (!is_of_module).then_some((u64::from_str_radix(address, 16).ok()?, name))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is the failure report")]

    use std::io::{Seek as _, SeekFrom, Write as _};

    use super::*;

    const CORE: &str = "\
        ffffffff81000000 T _stext\n\
        ffffffff81000100 t schedule\n\
        ffffffff81000200 T _etext\n";

    fn core_of(kallsyms: &str) -> Option<String> {
        let lines = core_lines(kallsyms.as_bytes()).unwrap();
        lines.map(|lines| String::from_utf8(lines).unwrap())
    }

    #[test]
    fn it_is_the_code_proper_without_what_lies_around_it() {
        let all = format!(
            "0000000000001000 A per_cpu_thing\n\
             {CORE}ffffffff82000000 D jiffies\n\
             ffffffffc0000000 t bpf_prog_6deef7357e7b4530_f\t[bpf]\n"
        );
        assert_eq!(core_of(&all).as_deref(), Some(CORE));
        let code = code(CORE.as_bytes()).unwrap();
        assert_eq!(code, 0xffff_ffff_8100_0000..0xffff_ffff_8100_0200);
    }

    #[test]
    fn what_is_no_such_table_is_not_kept() {
        let hidden = CORE.replace("ffffffff81000", "0000000000000");
        let without_end = CORE.replace("_etext", "end");
        let with_module = CORE.replace("schedule", "schedule\t[module]");
        for other in [&hidden, &without_end, &with_module, "", "nonsense\n"] {
            assert_eq!(core_of(other), None, "{other}");
        }
        assert_eq!(code(&CORE.as_bytes()[..CORE.len() - 3]), None);
    }

    #[test]
    fn a_second_recording_of_a_boot_has_the_symbols_of_the_first() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Arc::new(Cache::open(folder.path()).unwrap());
        let mut kallsyms = tempfile::tempfile().unwrap();
        kallsyms.write_all(CORE.as_bytes()).unwrap();
        let kept = |boot: &str| KeptKernel::new(Some(Arc::clone(&cache)), Some(boot));

        let boot = "1b4e28ba-2fa1-11d2-883f-b9a761bde3fb";
        let mut first = kept(boot);
        assert!(first.code().is_empty() && first.table().is_none());
        // Wherever the child has read to.
        kallsyms.seek(SeekFrom::End(0)).unwrap();
        first.keep(&kallsyms);

        let mut second = kept(boot);
        assert!(second.code().contains(&0xffff_ffff_8100_0104));
        let mut lines = String::new();
        let from_start = FromStart {
            file: second.table().unwrap(),
            at: 0,
        };
        BufReader::new(from_start)
            .read_to_string(&mut lines)
            .unwrap();
        assert_eq!(lines, CORE);

        let other = "1b4e28ba-2fa1-11d2-883f-b9a761bde3fc";
        assert!(kept(other).code().is_empty());
        assert!(KeptKernel::new(None, Some(boot)).code().is_empty());
    }
}
