//! ELF files built for a test, and what binutils say about them.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sampler::object::{FileId, PinnedFile};
use sampler::symbolize::{Names, Options, Place, Query, Symbolizer};
use tempfile::TempDir;

use crate::tool::{Stop, fail, run};

/// C with two levels of inlining below `outer`.
pub const C_SOURCE: &str = r"
volatile int sink;
static inline __attribute__((always_inline)) int innermost(int x) {
    sink += x;
    return sink * 3;
}
static inline __attribute__((always_inline)) int middle(int x) {
    return innermost(x + 1) + sink;
}
__attribute__((noinline)) int outer(int x) {
    return middle(x) - 7;
}
int main(int argc, char **argv) { return outer(argc); }
";

/// C++ with a template, a namespace and a function with internal linkage.
pub const CPP_SOURCE: &str = r"
volatile int sink;
namespace shapes {
template <typename T> __attribute__((noinline)) int area(T side) { sink += side; return sink; }
static __attribute__((noinline)) int hidden(int x) { sink ^= x; return sink + 1; }
struct Circle { __attribute__((noipa)) int grow(long by) { sink += by; return sink; } };
int both(int x) { return area<int>(x) + hidden(x) + Circle().grow(x); }
}
int main(int argc, char **) { return shapes::both(argc); }
";

/// Rust with a generic function and a method.
pub const RUST_SOURCE: &str = r"
pub struct Meter(u64);
impl Meter {
    #[inline(never)]
    pub fn turn<T: Into<u64>>(&mut self, by: T) { self.0 = std::hint::black_box(self.0 + by.into()); }
}
fn main() { let mut m = Meter(1); m.turn(3u8); std::process::exit((m.0 & 1) as i32) }
";

/// A directory with a program in it.
pub struct Built {
    pub dir: TempDir,
    pub program: PathBuf,
}

/// Compiles `source` with `compiler` and these further arguments.
pub fn build(compiler: &str, extension: &str, source: &str, more: &[&str]) -> Result<Built, Stop> {
    let dir = TempDir::new()?;
    let file = dir.path().join(format!("source.{extension}"));
    fs::write(&file, source)?;
    let program = dir.path().join("program");
    let mut arguments: Vec<&str> = more.to_vec();
    let (file, output) = (file.to_string_lossy(), program.to_string_lossy());
    arguments.extend([&*file, "-o", &*output]);
    run(compiler, arguments)?;
    Ok(Built { dir, program })
}

/// Pins a file as the process room does.
pub fn pin(path: &Path) -> Result<Arc<PinnedFile>, Stop> {
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    let id = FileId {
        device: metadata.dev(),
        inode: metadata.ino(),
    };
    Ok(Arc::new(PinnedFile::new(id, path.to_owned(), None, file)))
}

/// A function of the symbol table.
#[derive(Debug, Clone)]
pub struct Function {
    pub symbol: String,
    pub start: u64,
    pub end: u64,
}

/// The functions that `nm` lists with a size.
pub fn functions(program: &Path) -> Result<Vec<Function>, Stop> {
    let listing = run("nm", ["-S".as_ref(), program.as_os_str()])?;
    let functions = listing.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [start, size, "t" | "T" | "W" | "w", symbol] = fields[..] else {
            return None;
        };
        let start = u64::from_str_radix(start, 16).ok()?;
        Some(Function {
            symbol: symbol.to_owned(),
            start,
            end: start + u64::from_str_radix(size, 16).ok()?,
        })
    });
    Ok(functions.collect())
}

/// The one function whose symbol holds this text.
pub fn function(program: &Path, part: &str) -> Result<Function, Stop> {
    let found = functions(program)?;
    match found.iter().find(|function| function.symbol.contains(part)) {
        Some(function) => Ok(function.clone()),
        None => fail(format!("no function {part} among {found:?}")),
    }
}

/// The file offset of code at a virtual address, as `readelf` tells it.
pub fn file_offset(program: &Path, address: u64) -> Result<u64, Stop> {
    let listing = run("readelf", ["-lW".as_ref(), program.as_os_str()])?;
    let number = |text: &str| u64::from_str_radix(text.trim_start_matches("0x"), 16).ok();
    for line in listing.lines() {
        let fields: Vec<&str> = line.split_whitespace().collect();
        if let ["LOAD", offset, start, _, size, ..] = fields[..]
            && let (Some(offset), Some(start), Some(size)) =
                (number(offset), number(start), number(size))
            && (start..start + size).contains(&address)
        {
            return Ok(address - start + offset);
        }
    }
    fail(format!("{address:#x} is in no segment"))
}

/// A frame as text: demangled name, file and line.
pub type Said = (String, String);

/// The inline chain that `addr2line` gives for an address.
pub fn addr2line(program: &Path, address: u64) -> Result<Vec<Said>, Stop> {
    let address = format!("{address:#x}");
    let listing = run(
        "addr2line",
        ["-Cfie".as_ref(), program.as_os_str(), address.as_ref()],
    )?;
    let lines: Vec<&str> = listing.lines().collect();
    let chain = lines.chunks(2).map(|pair| {
        let place = pair.get(1).copied().unwrap_or_default();
        let place = place.split(" (discriminator").next().unwrap_or_default();
        (pair[0].to_owned(), place.to_owned())
    });
    Ok(chain.collect())
}

/// Asks for these queries and waits.
pub fn names_of(queries: Vec<Query>) -> Result<Names, Stop> {
    let symbolizer = Symbolizer::spawn(Options::default())?;
    symbolizer.submit(queries);
    Ok(symbolizer.finish())
}

/// Queries for file offsets.
pub fn in_file(file: &Arc<PinnedFile>, offsets: &[u64]) -> Vec<Query> {
    let place = Place::File(Arc::clone(file));
    let query = |&address: &u64| Query {
        place: place.clone(),
        address,
    };
    offsets.iter().map(query).collect()
}

/// The names of the frames at each address, outermost last.
pub fn said(names: &Names, file: &Arc<PinnedFile>, addresses: &[u64]) -> Vec<Vec<String>> {
    let key = Place::File(Arc::clone(file)).key();
    let at = |address: &u64| {
        let answer = names.get(&key, *address);
        let frames = answer.iter().flat_map(|frames| frames.iter());
        frames
            .map(|frame| format!("{}:{}", frame.name, frame.line))
            .collect()
    };
    addresses.iter().map(at).collect()
}
