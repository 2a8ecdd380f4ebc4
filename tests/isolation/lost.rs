//! Parsers that are lost in the middle of a file: what remains named.

use std::ffi::CString;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use sampler::isolation;
use sampler::object::PinnedFile;
use sampler::symbolize::{Names, Options, Place, Query, Stats, Symbolizer, Waiting};

use crate::fixture::{Built, C_SOURCE, build, file_offset, function, in_file, pin};
use crate::tool::{Outcome, Stop, fail, trial};

pub fn trials() -> Vec<Trial> {
    vec![
        trial("a_parser_killed_over_a_file_costs_its_lines_only", killed),
        trial(
            "a_parser_killed_with_nothing_to_do_costs_nothing",
            killed_idle,
        ),
        trial("a_parser_that_hangs_is_ended_at_the_deadline", hangs),
        trial("a_file_that_always_takes_too_long_is_given_up", always_late),
        trial(
            "a_file_truncated_under_its_mapping_costs_its_own_names",
            truncated,
        ),
        trial(
            "dwarf_nested_deeper_than_the_stack_costs_its_lines_only",
            nested,
        ),
        trial("debug_information_without_room_waits_for_the_end", waits),
        trial("what_is_not_answered_in_time_is_left_behind", left_behind),
        trial("who_waits_for_names_is_told_how_far_it_is", told),
        trial("a_table_of_the_kernel_that_is_a_fifo_is_not_opened", fifo),
        trial("memory_is_measured_where_parsers_are_open", measured),
        trial("children_are_counted_and_end", counted),
    ]
}

/// The name of the outermost function, and whether its line is known.
type Answer = Option<(String, bool)>;

/// A program with lines and inlined functions, and where they are.
struct Program {
    _built: Built,
    pin: Arc<PinnedFile>,
    offset: u64,
}

impl Program {
    fn build() -> Result<Self, Stop> {
        let built = build("cc", "c", C_SOURCE, &["-g", "-O2"])?;
        let start = function(&built.program, "outer")?.start;
        Ok(Self {
            offset: file_offset(&built.program, start)?,
            pin: pin(&built.program)?,
            _built: built,
        })
    }

    fn ask(&self, symbolizer: &Symbolizer) {
        symbolizer.submit(in_file(&self.pin, &[self.offset]));
    }

    fn answer(&self, names: &Names) -> Answer {
        let answer = names.get(&Place::File(Arc::clone(&self.pin)).key(), self.offset)?;
        let frame = answer.last()?;
        Some((frame.name.clone(), frame.line > 0))
    }
}

fn with_lines() -> Answer {
    Answer::from(("outer".to_owned(), true))
}

fn without_lines() -> Answer {
    Answer::from(("outer".to_owned(), false))
}

fn own_program() -> Result<Arc<PinnedFile>, Stop> {
    pin(&std::env::current_exe()?)
}

/// Offsets all over a file, some of them code.
fn spread(file: &Arc<PinnedFile>) -> Result<Vec<Query>, Stop> {
    let step = file.size_bytes()? / 2000;
    let offsets: Vec<u64> = (0..2000).map(|at| at * step).collect();
    Ok(in_file(file, &offsets))
}

/// The one child, once it is confined and waits to be asked.
fn idle_child() -> Result<u32, Stop> {
    let deadline = Instant::now() + Duration::from_secs(30);
    while Instant::now() < deadline {
        if let [child] = isolation::pids()[..]
            && status_of(child).contains("Seccomp:\t2")
            && status_of(child).contains("State:\tS")
        {
            return Ok(child);
        }
        thread::sleep(Duration::from_millis(1));
    }
    fail(format!("no child that waits: {:?}", isolation::pids()))
}

fn status_of(pid: u32) -> String {
    fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default()
}

fn signal(pid: u32, signal: libc::c_int) {
    // SAFETY: a signal to a child of this process.
    unsafe { libc::kill(pid as libc::pid_t, signal) };
}

fn spawn(options: Options) -> Result<Symbolizer, Stop> {
    Ok(Symbolizer::spawn(options)?)
}

/// What was counted of lost children: deaths, files that took too long, files
/// that were given up.
fn losses(stats: Stats) -> [u64; 3] {
    [
        stats.parser_deaths,
        stats.timed_out_files,
        stats.given_up_files,
    ]
}

macro_rules! expect {
    ($found:expr, $expected:expr $(,)?) => {{
        let (found, expected) = ($found, $expected);
        if found != expected {
            return fail(format!("{found:?} is not {expected:?}"));
        }
    }};
}

fn killed() -> Outcome {
    let (first, second) = (Program::build()?, Program::build()?);
    let symbolizer = spawn(Options::default())?;
    let child = idle_child()?;
    signal(child, libc::SIGSTOP);
    first.ask(&symbolizer);
    thread::sleep(Duration::from_millis(300));
    signal(child, libc::SIGKILL);
    second.ask(&symbolizer);
    let names = symbolizer.finish();
    expect!(first.answer(&names), without_lines());
    expect!(second.answer(&names), with_lines());
    expect!(losses(names.stats()), [1, 0, 0]);
    Ok(())
}

fn killed_idle() -> Outcome {
    let program = Program::build()?;
    let symbolizer = spawn(Options::default())?;
    signal(idle_child()?, libc::SIGKILL);
    thread::sleep(Duration::from_millis(300));
    program.ask(&symbolizer);
    let names = symbolizer.finish();
    expect!(program.answer(&names), with_lines());
    expect!(losses(names.stats()), [1, 0, 0]);
    Ok(())
}

fn hangs() -> Outcome {
    let (first, second) = (Program::build()?, Program::build()?);
    let symbolizer = spawn(Options {
        file_deadline: Duration::from_secs(1),
        ..Options::default()
    })?;
    signal(idle_child()?, libc::SIGSTOP);
    first.ask(&symbolizer);
    second.ask(&symbolizer);
    let begun = Instant::now();
    let names = symbolizer.finish();
    if begun.elapsed() > Duration::from_secs(20) {
        return fail(format!("{:?}", begun.elapsed()));
    }
    // Whichever of them it was at.
    let mut answers = [first.answer(&names), second.answer(&names)];
    answers.sort();
    expect!(answers, [without_lines(), with_lines()]);
    expect!(losses(names.stats()), [1, 1, 0]);
    Ok(())
}

fn always_late() -> Outcome {
    let large = own_program()?;
    let symbolizer = spawn(Options {
        // Less than it takes to read the symbols of a program of many MiB.
        file_deadline: Duration::from_millis(1),
        ..Options::default()
    })?;
    let asked = spread(&large)?;
    let offsets: Vec<u64> = asked.iter().map(|query| query.address).collect();
    symbolizer.submit(asked);
    let names = symbolizer.finish();
    let key = Place::File(large).key();
    let is_unnamed = |offset: &u64| names.get(&key, *offset).is_some_and(|it| it.is_empty());
    if !offsets.iter().all(is_unnamed) {
        return fail("named though given up");
    }
    expect!(names.stats().unanswered, 0);
    expect!(losses(names.stats()), [2, 1, 1]);
    Ok(())
}

fn truncated() -> Outcome {
    let program = Program::build()?;
    let dir = tempfile::TempDir::new()?;
    let path = dir.path().join("program");
    fs::copy(std::env::current_exe()?, &path)?;
    let victim = pin(&path)?;
    let symbolizer = spawn(Options::default())?;
    let child = idle_child()?;
    symbolizer.submit(in_file(&victim, &[0x1000]));
    let maps = format!("/proc/{child}/maps");
    let deadline = Instant::now() + Duration::from_secs(20);
    while !fs::read_to_string(&maps)?.contains("program") {
        if Instant::now() > deadline {
            return fail("it was never mapped");
        }
        thread::sleep(Duration::from_millis(1));
    }
    let asked = spread(&victim)?;
    // Whether it is at work or waits, it has the file mapped.
    File::options().write(true).open(&path)?.set_len(8192)?;
    symbolizer.submit(asked);
    program.ask(&symbolizer);
    let names = symbolizer.finish();
    expect!(program.answer(&names), with_lines());
    expect!(names.stats().unanswered, 0);
    expect!(losses(names.stats()), [1, 0, 0]);
    Ok(())
}

fn waits() -> Outcome {
    // One byte is room for no parser.
    for (max_rss_bytes, is_read_at_once) in [(u64::MAX, true), (1, false)] {
        let program = Program::build()?;
        let symbolizer = spawn(Options {
            max_rss_bytes,
            ..Options::default()
        })?;
        let maps = format!("/proc/{}/maps", idle_child()?);
        program.ask(&symbolizer);
        let path = program.pin.path.to_string_lossy().into_owned();
        let is_read = || fs::read_to_string(&maps).is_ok_and(|maps| maps.contains(&path));
        let deadline = Instant::now() + Duration::from_secs(if is_read_at_once { 20 } else { 1 });
        while !is_read() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(1));
        }
        expect!(is_read(), is_read_at_once);
        let names = symbolizer.finish();
        expect!(program.answer(&names), with_lines());
        expect!(names.stats().unanswered, 0);
        expect!(losses(names.stats()), [0, 0, 0]);
    }
    Ok(())
}

/// Functions that are each inlined into the one before it; DEPTH of them.
const NESTED: &str = r#"
.text
.globl main, outer
.type outer, @function
outer:
    .file 1 "deep.c"
    .loc 1 7
    nop
    nop
    ret
.size outer, .-outer
.type main, @function
main: xor %eax, %eax
    ret
.size main, .-main
.Lend:
.section .debug_line,"",@progbits
.Lline:
.section .debug_abbrev,"",@progbits
    .uleb128 1, 0x11
    .byte 1
    .uleb128 0x10, 0x17, 0x11, 1, 0x12, 7, 0, 0
    .uleb128 2, 0x2e
    .byte 1
    .uleb128 0x03, 8, 0x11, 1, 0x12, 7, 0, 0
    .uleb128 3, 0x1d
    .byte 1
    .uleb128 0x31, 0x13, 0x11, 1, 0x12, 6, 0, 0
    .byte 0
.section .debug_info,"",@progbits
.Lunit:
    .long .Lunit_end - .Lunit_start
.Lunit_start:
    .short 4
    .long 0
    .byte 8
    .uleb128 1
    .long .Lline
    .quad outer
    .quad .Lend - outer
.Lorigin:
    .uleb128 2
    .asciz "outer"
    .quad outer
    .quad 3
    .rept DEPTH
    .byte 3
    .long .Lorigin - .Lunit
    .quad outer
    .long 3
    .endr
    .rept DEPTH
    .byte 0
    .endr
    .byte 0
    .byte 0
.Lunit_end:
"#;

/// `outer`, with so many functions inlined into it.
fn inlined(depth: u32) -> Result<Program, Stop> {
    let source = NESTED.replace("DEPTH", &depth.to_string());
    let built = build("cc", "s", &source, &["-Wl,-z,noexecstack"])?;
    let start = function(&built.program, "outer")?.start;
    Ok(Program {
        offset: file_offset(&built.program, start)?,
        pin: pin(&built.program)?,
        _built: built,
    })
}

fn nested() -> Outcome {
    let (shallow, deep, program) = (inlined(3)?, inlined(1_500_000)?, Program::build()?);
    let symbolizer = spawn(Options::default())?;
    shallow.ask(&symbolizer);
    deep.ask(&symbolizer);
    program.ask(&symbolizer);
    let names = symbolizer.finish();
    expect!(shallow.answer(&names), with_lines());
    expect!(deep.answer(&names), without_lines());
    expect!(program.answer(&names), with_lines());
    expect!(losses(names.stats()), [1, 0, 0]);
    Ok(())
}

fn left_behind() -> Outcome {
    let file = Place::File(own_program()?);
    let symbolizer = spawn(Options {
        max_wait: Duration::from_millis(200),
        ..Options::default()
    })?;
    let child = idle_child()?;
    signal(child, libc::SIGSTOP);
    let query = |place: &Place, address| Query {
        place: place.clone(),
        address,
    };
    let first = u64::MAX - 8;
    let kernel = Place::Kernel;
    symbolizer.submit(vec![
        query(&kernel, first),
        query(&kernel, first),
        query(&file, 0),
    ]);
    symbolizer.submit(vec![query(&kernel, u64::MAX)]);
    let begun = Instant::now();
    let names = symbolizer.finish();
    if begun.elapsed() > Duration::from_secs(10) {
        return fail(format!("{:?}", begun.elapsed()));
    }
    signal(child, libc::SIGKILL);
    if names.get(&file.key(), 0).is_some() {
        return fail("answered by whom?");
    }
    // Three different addresses; one was asked for twice, which the thread may
    // have found out or not.
    let unanswered = names.stats().unanswered;
    if !(3..=4).contains(&unanswered) {
        return fail(format!("{unanswered} unanswered"));
    }
    gone()
}

/// What [`told`] was told.
static TOLD: Mutex<Vec<Waiting>> = Mutex::new(Vec::new());

fn told() -> Outcome {
    let program = Program::build()?;
    let symbolizer = spawn(Options {
        file_deadline: Duration::from_millis(2500),
        on_wait: |waiting| {
            let mut told = TOLD.lock().unwrap_or_else(PoisonError::into_inner);
            told.push(waiting);
        },
        ..Options::default()
    })?;
    signal(idle_child()?, libc::SIGSTOP);
    program.ask(&symbolizer);
    let names = symbolizer.finish();
    expect!(program.answer(&names), without_lines());
    let told = TOLD.lock().unwrap_or_else(PoisonError::into_inner);
    let Some((Waiting::Over, before)) = told.split_last() else {
        return fail(format!("{told:?}"));
    };
    let mut last_s = 0;
    for waiting in before {
        match waiting {
            // Each second, unless this machine had others to see to.
            Waiting::For {
                waited,
                answered: 0,
                asked: 1,
            } if waited.as_secs() > last_s => last_s = waited.as_secs(),
            _ => return fail(format!("{told:?}")),
        }
    }
    if before.is_empty() {
        return fail("nothing was said");
    }
    Ok(())
}

/// Waits until there are no children.
fn gone() -> Outcome {
    let deadline = Instant::now() + Duration::from_secs(40);
    while !isolation::pids().is_empty() {
        if Instant::now() > deadline {
            return fail(format!("still there: {:?}", isolation::pids()));
        }
        thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

fn fifo() -> Outcome {
    let dir = tempfile::TempDir::new()?;
    // A pipe that nobody writes to: whoever opens it waits for ever.
    let path = dir.path().join("kallsyms");
    let name = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: the name is a NUL-terminated string that lives for the call.
    if unsafe { libc::mkfifo(name.as_ptr(), 0o600) } != 0 {
        return fail("no FIFO");
    }
    let symbolizer = spawn(Options {
        kallsyms: path,
        ..Options::default()
    })?;
    symbolizer.submit(vec![Query {
        place: Place::Kernel,
        address: u64::MAX - 8,
    }]);
    let stats = symbolizer.finish().stats();
    expect!(
        (stats.kernel_names_hidden, stats.unnamed, stats.unanswered),
        (true, 1, 0),
    );
    Ok(())
}

fn measured() -> Outcome {
    let symbolizer = spawn(Options {
        rss_bytes: || 4321,
        ..Options::default()
    })?;
    symbolizer.submit(in_file(&own_program()?, &[0]));
    let stats = symbolizer.finish().stats();
    expect!((stats.peak_rss_bytes, stats.unanswered), (4321, 0));
    Ok(())
}

fn counted() -> Outcome {
    let before = isolation::cpu_ns();
    let symbolizer = spawn(Options::default())?;
    let program = own_program()?;
    symbolizer.submit(spread(&program)?);
    let names = symbolizer.finish();
    gone()?;
    let after = isolation::cpu_ns();
    // Some thousands of names of a program with debug information.
    if names.stats().named == 0 || after - before < 1_000_000 {
        return fail(format!("{} ns for {:?}", after - before, names.stats()));
    }
    Ok(())
}
