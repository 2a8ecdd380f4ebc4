//! What other tools say about an address.

use std::io::{BufWriter, ErrorKind, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;

use crate::tool::{Stop, fail};

/// One function at an address.
#[derive(Debug, Clone)]
pub struct Frame {
    /// As the file has it.
    name: String,
    file: String,
    /// 0 if unknown.
    pub line: u32,
}

impl Frame {
    pub fn new(name: &str, file: &str, line: u32) -> Self {
        Self {
            name: name.to_owned(),
            file: file.to_owned(),
            line,
        }
    }

    /// Whether both are in a file of the same name. Tools print directories in
    /// their own ways; where no line is known, they print the name of the object
    /// that a symbol comes from.
    pub fn has_file_of(&self, other: &Self) -> bool {
        let name = |frame: &Self| frame.file.rsplit('/').next().map(str::to_owned);
        (self.line == 0 && other.line == 0) || name(self) == name(other)
    }

    /// Whether both have the same name, in one or another spelling: with or
    /// without its namespaces, template arguments and parameters.
    pub fn has_name_of(&self, other: &Self) -> bool {
        self.name == other.name || base_name(&self.name) == base_name(&other.name)
    }
}

/// The last component of a name, demangled.
fn base_name(name: &str) -> String {
    let name = name.split_once('@').map_or(name, |(name, _)| name);
    // Go's symbol table says how a function is called, its DWARF does not.
    let name = name.strip_suffix(".abi0").unwrap_or(name);
    let demangled = if let Ok(rust) = rustc_demangle::try_demangle(name) {
        format!("{rust:#}")
    } else {
        cpp_demangle::Symbol::new(name)
            .ok()
            .and_then(|symbol| symbol.demangle().ok())
            .unwrap_or_else(|| name.to_owned())
    };
    for anonymous in ["closure", "lambda"] {
        if demangled.ends_with('}') && demangled.contains(anonymous) {
            return anonymous.to_owned();
        }
    }
    last_component(&demangled)
}

/// `int ns::C<a::b>::f<int>(x::y) const` to `f`.
fn last_component(name: &str) -> String {
    let (mut depth, mut last) = (0_u32, String::new());
    let characters: Vec<char> = name.chars().collect();
    for (at, &character) in characters.iter().enumerate() {
        match character {
            '<' | '{' if !last.starts_with("operator") => depth += 1,
            '>' | '}' if !last.starts_with("operator") => depth = depth.saturating_sub(1),
            '(' if depth == 0 && !last.is_empty() && last != "operator" => break,
            _ if depth > 0 => {}
            ':' if characters.get(at + 1) == Some(&':') => {}
            ':' | ' ' if !last.starts_with("operator") => last.clear(),
            other => last.push(other),
        }
    }
    if last.is_empty() {
        name.to_owned()
    } else {
        last
    }
}

/// A program that answers many addresses.
pub struct Tool {
    program: &'static str,
    arguments: &'static [&'static str],
}

/// The versions of LLVM that may be installed, newest first.
const LLVM: [&str; 6] = [
    "llvm-symbolizer-22",
    "llvm-symbolizer-19",
    "llvm-symbolizer-17",
    "llvm-symbolizer-16",
    "llvm-symbolizer",
    "llvm-symbolizer-14",
];

impl Tool {
    pub fn both() -> Result<[Self; 2], Stop> {
        let runs = |program: &&&str| Command::new(program).arg("--version").output().is_ok();
        let Some(llvm) = LLVM.iter().find(runs) else {
            return Err(Stop::Missing("llvm-symbolizer".into()));
        };
        let addr2line = Self {
            program: "addr2line",
            arguments: &["-a", "-i", "-f", "-e"],
        };
        let llvm = Self {
            program: llvm,
            arguments: &[
                "--output-style=GNU",
                "-a",
                "-i",
                "--functions=linkage",
                "--no-demangle",
                "-e",
            ],
        };
        Ok([addr2line, llvm])
    }

    /// The frames at each virtual address, innermost first; none where it knows
    /// nothing.
    pub fn ask(&self, file: &Path, addresses: &[u64]) -> Result<Vec<Vec<Frame>>, Stop> {
        let mut process = Command::new(self.program)
            .args(self.arguments)
            .arg(file)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| Stop::Missing(format!("{}: {error}", self.program)))?;
        let (input, asked) = (process.stdin.take(), addresses.to_vec());
        let writer = thread::spawn(move || {
            let mut input = input.map(BufWriter::new).ok_or(ErrorKind::BrokenPipe)?;
            let mut lines = asked.iter().map(|address| writeln!(input, "{address:#x}"));
            lines.try_for_each(|line| line)
        });
        let output = process.wait_with_output()?;
        let written = writer.join();
        if !matches!(written, Ok(Ok(()))) {
            return fail(format!("{}: {written:?}", self.program));
        }
        let answers = parse(&String::from_utf8_lossy(&output.stdout));
        if answers.len() != addresses.len() {
            return fail(format!(
                "{} answers {} of {} addresses in {}",
                self.program,
                answers.len(),
                addresses.len(),
                file.display()
            ));
        }
        Ok(answers)
    }
}

/// For each address its line, then a line with the function and a line with
/// file and line number for each frame.
fn parse(output: &str) -> Vec<Vec<Frame>> {
    let mut answers: Vec<Vec<Frame>> = Vec::new();
    let mut lines = output.lines();
    while let Some(line) = lines.next() {
        if line.starts_with("0x") {
            answers.push(Vec::new());
        } else if let (Some(answer), Some(place)) = (answers.last_mut(), lines.next())
            && line != "??"
        {
            let place = place.split(" (discriminator").next().unwrap_or(place);
            let (file, number) = place.rsplit_once(':').unwrap_or((place, ""));
            answer.push(Frame::new(line, file, number.parse().unwrap_or(0)));
        }
    }
    answers
}
