//! Somebody else's answer to whether a place in a file has a symbol: that of
//! `llvm-symbolizer`, else of `addr2line`, for the file and its debug file.

use crate::project;
use anyhow::{Context, Result};
use object::read::elf::{FileHeader as _, ProgramHeader as _};
use object::{Endianness, elf};
use std::fmt::Write as _;
use std::fs::File;
use std::io::{Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Where distributions put debug files.
const DEBUG_FOLDER: &str = "/usr/lib/debug";

/// The names it may have, newer ones first.
const LLVM: [&str; 3] = [
    "llvm-symbolizer-22",
    "llvm-symbolizer-19",
    "llvm-symbolizer",
];

/// The program that is asked.
pub struct Judge {
    program: PathBuf,
    is_llvm: bool,
}

/// What is known of the places that one file was asked for.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// For each place the name it has, if any.
    Names(Vec<Option<String>>),
    /// There is no such file, or it is another one now.
    NoFile,
}

impl Judge {
    /// The first of them that is installed.
    pub fn find() -> Result<Self> {
        let found = LLVM.iter().find_map(|name| project::find_program(name));
        let is_llvm = found.is_some();
        let program = found
            .or_else(|| project::find_program("addr2line"))
            .context("llvm-symbolizer or addr2line has to judge")?;
        Ok(Self { program, is_llvm })
    }

    /// What it is called.
    pub fn name(&self) -> String {
        self.program.display().to_string()
    }

    /// Asks for places, by their offsets in the file. A file of another build ID
    /// than `build_id` is another file; without one, the path has to do.
    pub fn ask(&self, file: &Path, build_id: &str, offsets: &[u64]) -> Result<Verdict> {
        let Some(image) = Image::read(file) else {
            return Ok(Verdict::NoFile);
        };
        if !build_id.is_empty() && image.build_id != build_id {
            return Ok(Verdict::NoFile);
        }
        let addresses: Vec<Option<u64>> = offsets.iter().map(|at| image.address(*at)).collect();
        let mut names = self.names(file, &addresses)?;
        let debug_file = debug_file(&image.build_id);
        if debug_file.is_file() && names.iter().any(Option::is_none) {
            let others = self.names(&debug_file, &addresses)?;
            for (name, other) in names.iter_mut().zip(others) {
                *name = name.take().or(other);
            }
        }
        Ok(Verdict::Names(names))
    }

    fn names(&self, file: &Path, addresses: &[Option<u64>]) -> Result<Vec<Option<String>>> {
        let mut asked = tempfile::tempfile()?;
        for address in addresses.iter().flatten() {
            writeln!(asked, "{address:#x}")?;
        }
        asked.rewind()?;
        let mut command = Command::new(&self.program);
        if self.is_llvm {
            command.args(["--output-style=GNU", "--functions=linkage", "--no-inlines"]);
        } else {
            command.arg("-f");
        }
        command
            .arg("-e")
            .arg(file)
            .stdin(asked)
            .stderr(Stdio::null());
        let answer = command.output().with_context(|| self.name())?.stdout;
        let answer = String::from_utf8_lossy(&answer);
        // The function, then the line.
        let mut names = answer.lines().step_by(2);
        Ok(addresses
            .iter()
            .map(|address| {
                let name = address.and_then(|_| names.next())?;
                (name != "??").then(|| name.to_owned())
            })
            .collect())
    }
}

fn debug_file(build_id: &str) -> PathBuf {
    let (first, rest) = build_id.split_at_checked(2).unwrap_or_default();
    Path::new(DEBUG_FOLDER)
        .join(".build-id")
        .join(first)
        .join(format!("{rest}.debug"))
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// What an ELF file says of itself.
struct Image {
    build_id: String,
    /// Of each loaded segment: offset in the file, size there, address.
    segments: Vec<(u64, u64, u64)>,
}

impl Image {
    fn read(file: &Path) -> Option<Self> {
        let cache = object::ReadCache::new(File::open(file).ok()?);
        let header = elf::FileHeader64::<Endianness>::parse(&cache).ok()?;
        let endian = header.endian().ok()?;
        let mut image = Self {
            build_id: String::new(),
            segments: Vec::new(),
        };
        for segment in header.program_headers(endian, &cache).ok()? {
            if segment.p_type(endian) == elf::PT_LOAD {
                image.segments.push((
                    segment.p_offset(endian),
                    segment.p_filesz(endian),
                    segment.p_vaddr(endian),
                ));
            }
            let Ok(Some(mut notes)) = segment.notes(endian, &cache) else {
                continue;
            };
            while let Ok(Some(note)) = notes.next() {
                if note.name() == elf::ELF_NOTE_GNU && note.n_type(endian) == elf::NT_GNU_BUILD_ID {
                    image.build_id = hexadecimal(note.desc());
                }
            }
        }
        Some(image)
    }

    fn address(&self, offset: u64) -> Option<u64> {
        self.segments.iter().find_map(|(start, size, address)| {
            let within = offset.checked_sub(*start)?;
            (within < *size).then(|| address + within)
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail")]
    use super::*;
    use std::fs;

    #[test]
    fn a_function_has_a_name_and_what_is_stripped_or_replaced_has_none() {
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("x.c");
        let program = folder.path().join("x");
        fs::write(
            &source,
            "__attribute__((noinline)) int named(int x) { return x * 3; }\n\
             int main(int c, char **v) { return named(c); }\n",
        )
        .unwrap();
        let mut compile = Command::new("cc");
        compile.args(["-O0", "-Wl,--build-id=0x0102030405", "-o"]);
        project::run(compile.arg(&program).arg(&source)).unwrap();
        let symbols = project::output(Command::new("nm").arg(&program)).unwrap();
        let line = symbols.lines().find(|line| line.ends_with(" T named"));
        let address = u64::from_str_radix(line.unwrap().split(' ').next().unwrap(), 16).unwrap();
        let image = Image::read(&program).unwrap();
        assert_eq!(image.build_id, "0102030405");
        let segment = image
            .segments
            .iter()
            .find(|(_, size, start)| (*start..start + size).contains(&address));
        let (start, _, first) = segment.unwrap();
        let offset = address - first + start;
        assert_eq!(image.address(offset), Some(address));
        let judge = Judge::find().unwrap();
        let ask = |build_id: &str| judge.ask(&program, build_id, &[u64::MAX, offset]).unwrap();
        let named = Verdict::Names(vec![None, Some("named".into())]);
        assert_eq!(ask("0102030405"), named);
        assert_eq!(ask(""), named);
        assert_eq!(ask("0102030406"), Verdict::NoFile);
        project::run(Command::new("strip").arg(&program)).unwrap();
        assert_eq!(ask(""), Verdict::Names(vec![None, None]));
        let gone = judge.ask(&folder.path().join("gone"), "", &[offset]);
        assert_eq!(gone.unwrap(), Verdict::NoFile);
    }
}
