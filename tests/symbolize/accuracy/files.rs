//! Files whose addresses are sampled.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::fixture::{RUST_SOURCE, build};
use crate::separate::build_id;
use crate::tool::{Stop, fail, run};

/// C++ with templates of the standard library, inlined into each other.
const CPP_SOURCE: &str = r"
#include <algorithm>
#include <map>
#include <memory>
#include <sstream>
#include <string>
#include <unordered_map>
#include <vector>
namespace ledger {
struct Entry { std::string name; std::vector<long> amounts; virtual ~Entry() = default;
               virtual long total() const { long s = 0; for (long a : amounts) s += a; return s; } };
struct Doubled : Entry { long total() const override { return 2 * Entry::total(); } };
class Book {
    std::map<std::string, std::shared_ptr<Entry>> entries;
    std::unordered_map<long, std::vector<std::string>> index;
public:
    void put(const std::string &name, long amount) {
        auto &entry = entries[name];
        if (!entry) entry = amount % 2 ? std::make_shared<Entry>() : std::make_shared<Doubled>();
        entry->name = name;
        entry->amounts.push_back(amount);
        index[entry->total()].push_back(name);
    }
    template <typename Order> std::vector<std::string> sorted(Order order) const {
        std::vector<std::string> names;
        for (const auto &[name, entry] : entries) names.push_back(name);
        std::sort(names.begin(), names.end(), order);
        return names;
    }
    std::string text() const {
        std::ostringstream out;
        for (const auto &[total, names] : index)
            for (const auto &name : names) out << total << ' ' << name << '\n';
        return out.str();
    }
};
}
int main(int argc, char **argv) {
    ledger::Book book;
    for (int i = 0; i < argc * 100; i++) book.put(std::to_string(i * 7 % 31) + argv[0], i);
    auto names = book.sorted([](const auto &a, const auto &b) { return a.size() < b.size() || a > b; });
    return (names.size() + book.text().size()) & 1;
}
";

const GO_SOURCE: &str = r#"
package main

import (
    "fmt"
    "sort"
    "strings"
)

type entry struct { name string; amounts []int }

func (e *entry) total() (sum int) { for _, a := range e.amounts { sum += a }; return }

func main() {
    book := map[string]*entry{}
    for i := 0; i < 1000; i++ {
        name := strings.Repeat("x", i%7)
        if book[name] == nil { book[name] = &entry{name: name} }
        book[name].amounts = append(book[name].amounts, i)
    }
    names := []string{}
    for name := range book { names = append(names, name) }
    sort.Slice(names, func(i, j int) bool { return book[names[i]].total() < book[names[j]].total() })
    fmt.Println(names)
}
"#;

/// A file whose addresses are sampled.
pub struct Subject {
    pub name: String,
    pub program: PathBuf,
    /// Where its DWARF is, if in another file with the same addresses.
    pub debug: Option<PathBuf>,
    _dir: Option<TempDir>,
}

/// The section with a file's code: addresses, and the offset in the file.
pub struct Code {
    pub start: u64,
    pub end: u64,
    pub offset: u64,
}

impl Code {
    pub fn of(program: &Path) -> Result<Self, Stop> {
        let sections = run("readelf", ["-SW".as_ref(), program.as_os_str()])?;
        for line in sections.lines() {
            let mut fields = line
                .split_whitespace()
                .skip_while(|field| *field != ".text");
            let mut number = |nth| u64::from_str_radix(fields.nth(nth)?, 16).ok();
            if let (Some(start), Some(offset), Some(size)) = (number(2), number(0), number(0)) {
                let end = start + size;
                return Ok(Self { start, end, offset });
            }
        }
        fail(format!("{} has no code", program.display()))
    }
}

/// What this machine can make or has; all of it, or a few.
pub fn subjects(all: bool) -> Result<Vec<Subject>, Stop> {
    let cpp = |compiler: &'static str, version: &'static str, level: &'static str| {
        let name = format!("C++ by {compiler} {level} DWARF {version}");
        let dwarf = match version {
            "4" => "-gdwarf-4",
            _ => "-gdwarf-5",
        };
        (
            name,
            compiler,
            "cc",
            CPP_SOURCE,
            vec!["-std=c++17", dwarf, level],
        )
    };
    let rust = vec![
        "-Copt-level=3",
        "-Cdebuginfo=2",
        "-Csymbol-mangling-version=v0",
    ];
    let mut recipes = vec![
        cpp("g++", "5", "-O2"),
        cpp("clang++-19", "4", "-O2"),
        ("Rust, DWARF 4".into(), "rustc", "rs", RUST_SOURCE, rust),
    ];
    if all {
        recipes.extend([
            cpp("g++", "4", "-O2"),
            cpp("g++", "5", "-O3"),
            cpp("g++", "5", "-Og"),
            cpp("clang++-19", "5", "-O3"),
        ]);
    }
    let mut subjects = Vec::new();
    for (name, compiler, extension, source, arguments) in recipes {
        match build(compiler, extension, source, &arguments) {
            Ok(built) => subjects.push(Subject {
                name,
                program: built.program,
                debug: None,
                _dir: Some(built.dir),
            }),
            Err(Stop::Missing(why)) => eprintln!("left out: {name}: {why}"),
            Err(failed) => return Err(failed),
        }
    }
    subjects.extend(go()?);
    subjects.extend(libc()?);
    if all {
        subjects.push(Subject {
            name: "this test".into(),
            program: std::env::current_exe()?,
            debug: None,
            _dir: None,
        });
    }
    Ok(subjects)
}

fn go() -> Result<Option<Subject>, Stop> {
    let dir = TempDir::new()?;
    let source = dir.path().join("main.go");
    let program = dir.path().join("program");
    fs::write(&source, GO_SOURCE)?;
    let arguments = [
        "build".as_ref(),
        "-o".as_ref(),
        program.as_os_str(),
        source.as_os_str(),
    ];
    match run("go", arguments) {
        Ok(_) => Ok(Some(Subject {
            name: "Go".into(),
            program,
            debug: None,
            _dir: Some(dir),
        })),
        Err(Stop::Missing(why)) => {
            eprintln!("left out: Go: {why}");
            Ok(None)
        }
        Err(failed) => Err(failed),
    }
}

/// The C library, if its debug file is installed.
fn libc() -> Result<Option<Subject>, Stop> {
    let maps = fs::read_to_string("/proc/self/maps")?;
    let path = maps
        .lines()
        .filter_map(|line| line.split_whitespace().nth(5))
        .find(|path| path.ends_with("/libc.so.6"));
    let Some(path) = path else {
        return Ok(None);
    };
    let id = build_id(Path::new(path))?;
    let debug = format!("/usr/lib/debug/.build-id/{}/{}.debug", &id[..2], &id[2..]);
    let debug = PathBuf::from(debug);
    if !debug.exists() {
        eprintln!("left out: libc: no debug file");
        return Ok(None);
    }
    Ok(Some(Subject {
        name: "libc.so.6, separate debug file".into(),
        program: path.into(),
        debug: Some(debug),
        _dir: None,
    }))
}
