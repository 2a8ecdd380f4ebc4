//! What the installed programs work on: the same at every run.

use std::fmt::Write as _;

/// Some seconds of work for each compiler, of `rustc` five at least.
const C_FUNCTIONS: usize = 400;
const RUST_FUNCTIONS: usize = 40;

/// Numbers that look random and are the same everywhere (Marsaglia's xorshift).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

/// A C file: functions with a loop and a `switch`, each of which calls the one before.
pub fn c_source() -> String {
    let mut numbers = Numbers(1);
    let mut text = String::from("#include <stdint.h>\n");
    for function in 0..C_FUNCTIONS {
        let (a, b) = (numbers.below(50) + 3, numbers.below(9) + 1);
        let before = function.saturating_sub(1);
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            "__attribute__((noinline)) uint64_t f{function}(uint64_t x, int n) {{\n\
             \x20   uint64_t s = x;\n\
             \x20   for (int i = 0; i < n; i++)\n\
             \x20       switch (s % 5) {{\n\
             \x20       case 0: s ^= s << {b}; break;\n\
             \x20       case 1: s *= {a}; break;\n\
             \x20       default: s += (uint64_t)i / {a};\n\
             \x20       }}\n\
             \x20   return n % {a} == {b} ? f{before}(x ^ s, n / 2) : s;\n}}\n"
        );
    }
    text
}

/// What the functions of the Rust library share.
const RUST_SHARED: &str = "\
#[derive(Clone, Copy)]
pub enum Step<T> { Turn(T), Grow(T), Keep }
#[inline(never)]
pub fn fold<T: Copy, const EACH: usize>(
    all: &[T], mut state: u64, step: impl Fn(u64, T) -> u64,
) -> u64 {
    for (at, one) in all.iter().enumerate() {
        state = if at % EACH == 0 { step(state, *one) } else { state.rotate_left(at as u32) };
    }
    state
}
";

/// A Rust library: functions with closures, a `match`, iterators and strings. None
/// calls another one: the compiler follows calls by calls of its own, and deeper
/// than a stack is recorded.
pub fn rust_source() -> String {
    let mut numbers = Numbers(2);
    let mut text = String::from(RUST_SHARED);
    for function in 0..RUST_FUNCTIONS {
        let (a, b) = (numbers.below(50) + 3, numbers.below(9) + 1);
        let number = ["u8", "u16", "u32", "u64"][function % 4];
        let _ = write!(
            text,
            "pub fn f{function}(all: &[Step<{number}>], names: &[String]) -> (u64, Vec<String>) {{\n\
             \x20   let s = fold::<_, {a}>(all, {b}, |s, step| match step {{\n\
             \x20       Step::Turn(by) => s.rotate_left({b}) ^ u64::from(by),\n\
             \x20       Step::Grow(by) if s % {a} == {b} => s.wrapping_mul(u64::from(by) + {a}),\n\
             \x20       Step::Grow(by) => s.wrapping_add(u64::from(by) / {a}),\n\
             \x20       Step::Keep => s,\n\
             \x20   }});\n\
             \x20   let mut found: Vec<String> = names.iter()\n\
             \x20       .filter(|name| name.len() % {a} > {b})\n\
             \x20       .map(|name| format!(\"{{name}}-{{s}}-{a}\"))\n\
             \x20       .collect();\n\
             \x20   found.sort_unstable_by_key(|name| name.len());\n\
             \x20   (s, found)\n}}\n"
        );
    }
    text
}

/// Text that a compressor has to work on: words of a small vocabulary.
pub fn words(bytes: usize) -> String {
    let mut numbers = Numbers(3);
    let vocabulary: Vec<String> = (0..3_000)
        .map(|_| {
            let letters = 2 + numbers.below(9);
            (0..letters)
                .map(|_| char::from(b'a' + numbers.below(26) as u8))
                .collect()
        })
        .collect();
    let mut text = String::with_capacity(bytes + 16);
    while text.len() < bytes {
        // The square prefers some words, as languages do.
        let at = numbers.below(3_000) * numbers.below(3_000) / 3_000;
        text.push_str(&vocabulary[at as usize]);
        text.push(if numbers.below(12) == 0 { '\n' } else { ' ' });
    }
    text
}

/// What `git fast-import` makes a repository of: commits that each change some
/// lines of one file.
pub fn repository(commits: usize) -> String {
    let mut numbers = Numbers(4);
    let mut lines: Vec<String> = words(40_000).lines().map(str::to_owned).collect();
    let mut stream = String::new();
    for commit in 1..=commits {
        for _ in 0..10 {
            let (to, from) = (
                numbers.below(lines.len() as u64),
                numbers.below(lines.len() as u64),
            );
            lines[to as usize] = format!("{} {commit}", lines[from as usize]);
        }
        let content = lines.join("\n") + "\n";
        let _ = write!(
            stream,
            "commit refs/heads/main\ncommitter A <a@example.org> {} +0000\ndata 7\nchange\n\n\
             M 100644 inline text\ndata {}\n{content}\n",
            1_700_000_000 + commit,
            content.len()
        );
    }
    stream
}
