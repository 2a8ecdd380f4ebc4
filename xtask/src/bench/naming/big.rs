//! A debug build of half a gigabyte, in half a minute: one file of functions with
//! inlined calls, compiled once, and linked many times under other names.

use crate::project;
use anyhow::{Context, Result};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// How big it is to be.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    /// Functions in the file.
    pub functions: usize,
    /// How often it is linked.
    pub copies: usize,
}

/// About 550 MB.
pub const BIG: Size = Size {
    functions: 300,
    copies: 215,
};
/// Shows that it works.
pub const SMALL: Size = Size {
    functions: 40,
    copies: 3,
};

/// What all functions share: `work` of each is a function of its own only in
/// the debug information.
const SHARED: &str = "\
#include <stdint.h>
struct point { uint64_t x, y; struct { uint32_t a, b; } inner; };
#define INLINED static inline __attribute__((always_inline)) uint64_t
INLINED work(uint64_t a, uint64_t b) { return a ^ (b << 7) ^ (a >> 9); }
";

/// Builds it in `cache`, unless it is there.
pub fn build(size: Size, cache: &Path) -> Result<PathBuf> {
    let name = format!("big-{}-{}", size.functions, size.copies);
    let program = cache.join(&name);
    if program.exists() {
        return Ok(program);
    }
    fs::create_dir_all(cache)?;
    let folder = tempfile::Builder::new().prefix("big-").tempdir_in(cache)?;
    let folder = folder.path();
    fs::write(folder.join("unit.c"), unit_text(size.functions))?;
    fs::write(folder.join("main.c"), main_text(size.copies))?;
    for source in ["unit.c", "main.c"] {
        let mut compile = Command::new("cc");
        compile
            .args(["-O1", "-g", "-c", source])
            .current_dir(folder);
        project::run(&mut compile).context("the debug build needs a C compiler")?;
    }
    let mut link = Command::new("cc");
    link.args(["-o", &name, "main.o"]).current_dir(folder);
    for copy in 0..size.copies {
        let object = format!("unit{copy}.o");
        let mut rename = Command::new("objcopy");
        rename
            .arg(format!("--prefix-symbols=u{copy}_"))
            .args(["unit.o", &object])
            .current_dir(folder);
        project::run(&mut rename).context("the debug build needs objcopy")?;
        link.arg(object);
    }
    project::run(&mut link)?;
    // In place only when whole.
    fs::rename(folder.join(&name), &program)?;
    Ok(program)
}

/// The C file: of each function `fN`, three calls deep are inlined into it.
fn unit_text(functions: usize) -> String {
    let mut text = SHARED.to_owned();
    for at in 0..functions {
        let (odd, shift) = (at * 2 + 3, at % 13 + 1);
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            "INLINED c{at}(uint64_t x, uint64_t by) {{\n\
             \x20   uint64_t one = x * {odd}, two = one ^ by;\n\
             \x20   struct point p = {{one, two, {{(uint32_t)one, (uint32_t)two}}}};\n\
             \x20   for (uint64_t at = 0; at < by; at++) {{\n\
             \x20       uint64_t mixed = work(p.x, at);\n\
             \x20       p.x += mixed;\n\
             \x20       p.y ^= p.x >> {shift};\n\
             \x20   }}\n\
             \x20   return p.x + p.y + p.inner.a;\n}}\n\
             INLINED b{at}(uint64_t x, uint64_t by) {{\n\
             \x20   uint64_t first = c{at}(x, by), second = c{at}(first, by / 2 + 1);\n\
             \x20   return first ^ second;\n}}\n\
             INLINED a{at}(uint64_t x, uint64_t by) {{\n\
             \x20   uint64_t up = b{at}(x + 1, by), down = b{at}(x - 1, by + 1);\n\
             \x20   return up - down;\n}}\n\
             __attribute__((noinline)) uint64_t f{at}(uint64_t x, uint64_t by) {{\n\
             \x20   uint64_t left = a{at}(x, by), right = a{at}(left, by + 2);\n\
             \x20   return left ^ right;\n}}\n"
        );
    }
    text.push_str("uint64_t (*const table[])(uint64_t, uint64_t) = {");
    for at in 0..functions {
        let _ = write!(text, "f{at}, ");
    }
    // Some of the functions of each copy, so that hundreds are hot.
    let _ = write!(
        text,
        "}};\nuint64_t run(uint64_t x) {{\n\
         \x20   for (int at = 0; at < {functions}; at += 37)\n\
         \x20       x = table[at](x, 200);\n\
         \x20   return x;\n}}\n"
    );
    text
}

fn main_text(copies: usize) -> String {
    let mut text = String::from("#include <stdint.h>\n");
    for copy in 0..copies {
        let _ = writeln!(text, "uint64_t u{copy}_run(uint64_t);");
    }
    text.push_str("int main(void) {\n    for (uint64_t x = 1;;) {\n");
    for copy in 0..copies {
        let _ = writeln!(text, "        x = u{copy}_run(x);");
    }
    text.push_str("    }\n}\n");
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail")]
    use super::*;

    #[test]
    fn each_copy_has_its_symbols_and_its_debug_information() {
        let folder = tempfile::tempdir().unwrap();
        let program = build(SMALL, folder.path()).unwrap();
        let symbols = project::output(Command::new("nm").arg(&program)).unwrap();
        for copy in 0..SMALL.copies {
            assert!(symbols.contains(&format!(" T u{copy}_f39\n")), "{copy}");
        }
        let line = symbols.lines().find(|line| line.ends_with(" T u2_f37"));
        let address = line.unwrap().split(' ').next().unwrap();
        let mut lookup = Command::new("addr2line");
        lookup.arg("-fe").arg(&program).arg(address);
        let found = project::output(&mut lookup).unwrap();
        assert!(
            found.starts_with("f37\n") && found.contains("unit.c:"),
            "{found}"
        );
        // A second time it is there.
        assert_eq!(build(SMALL, folder.path()).unwrap(), program);
    }
}
