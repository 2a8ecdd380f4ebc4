//! What the installed programs work on: the same at every run.

use std::fmt::Write as _;

/// Some seconds of work for each compiler.
const C_FUNCTIONS: usize = 400;
const RUST_FUNCTIONS: usize = 2_000;

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

/// A Rust library: functions with a `match`, each of which calls the one before.
pub fn rust_source() -> String {
    let mut numbers = Numbers(2);
    let mut text = String::new();
    for function in 0..RUST_FUNCTIONS {
        let (a, b) = (numbers.below(50) + 3, numbers.below(9) + 1);
        let before = function.saturating_sub(1);
        let _ = write!(
            text,
            "#[inline(never)]\npub fn f{function}(x: u64, n: u64) -> u64 {{\n\
             \x20   let s = match x % 5 {{\n\
             \x20       0 => x.rotate_left({b}) ^ n,\n\
             \x20       1 => x.wrapping_mul({a}),\n\
             \x20       _ => x.wrapping_add(n / {a}),\n\
             \x20   }};\n\
             \x20   if n % {a} == {b} {{ f{before}(x ^ {b}, n / 2) }} else {{ s }}\n}}\n"
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
