//! Sampled stacks are those that gdb sees, frame by frame.

use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use libtest_mimic::Trial;

use crate::support::fixture::{fixture, scratch};
use crate::support::guard::Background;
use crate::support::need;
use crate::support::pprof::{Location, Sample};
use crate::support::run::record;
use crate::support::verdict::{Verdict, ensure, trial};

pub fn trials() -> Vec<Trial> {
    vec![
        trial("debugger::gdb_sees_the_same_stack_of_go", || {
            same_stack("chain_go", "main.spin", 30)
        }),
        trial("debugger::gdb_sees_the_same_stack_of_cpp", || {
            same_stack("chain_cpp", "chain::spin(unsigned long)", 30)
        }),
        trial("debugger::gdb_sees_the_same_stack_of_rust", || {
            same_stack("chain_rust", "chain::spin", 30)
        }),
    ]
}

/// On a host that is busy with something else, too.
const LEAST_SAMPLES: u64 = 20;

/// A frame as gdb has it.
#[derive(Debug)]
struct Frame {
    /// Of the next instruction: the interrupted one, or the one behind the call.
    address: u64,
    /// As the linker knows it.
    name: String,
}

/// What gdb prints of each frame of the first thread that is on the stack: no
/// inlined call, and no frame that it deduces from a jump.
const FRAMES: &str = r#"python
for thread in gdb.selected_inferior().threads():
    if thread.ptid[0] == thread.ptid[1]:
        thread.switch()
frame = gdb.newest_frame()
while frame and frame.pc():
    if frame.type() not in (gdb.INLINE_FRAME, gdb.TAILCALL_FRAME):
        function = frame.function()
        name = function.linkage_name if function else frame.name()
        print("frame: %x %s" % (frame.pc(), name))
    if frame.unwind_stop_reason() > gdb.FRAME_UNWIND_OUTERMOST:
        break
    frame = frame.older()
"#;

fn gdb(pid: u32) -> Verdict<Vec<Frame>> {
    let folder = scratch()?;
    let script = folder.path().join("frames.gdb");
    std::fs::write(&script, FRAMES)?;
    let settings = ["set debuginfod enabled off", "set backtrace past-main on"];
    let said = std::process::Command::new(need::tool("gdb")?)
        .args(["-nx", "-batch"])
        .args(settings.iter().flat_map(|setting| ["-ex", setting]))
        .args(["-p", &pid.to_string(), "-x"])
        .arg(&script)
        .output()?;
    ensure!(
        said.status.success(),
        "gdb: {}",
        String::from_utf8_lossy(&said.stderr)
    );
    let text = String::from_utf8_lossy(&said.stdout);
    let frames = text
        .lines()
        .filter_map(|line| line.strip_prefix("frame: ")?.split_once(' '))
        .map(|(address, name)| {
            Ok::<_, std::num::ParseIntError>(Frame {
                address: u64::from_str_radix(address, 16)?,
                name: name.to_owned(),
            })
        });
    Ok(frames.collect::<Result<_, _>>()?)
}

/// Records a program that spins in `leaf` under a chain of calls, then has gdb
/// look at it: each sample must have gdb's frames, of which there are `least`.
fn same_stack(name: &'static str, leaf: &str, least: usize) -> Verdict {
    need::root()?;
    need::tool("gdb")?;
    let program = fixture(name)?;
    // Go's own signals would be in the way; nobody else cares.
    let line = ["GODEBUG=asyncpreemptoff=1", &program.to_string_lossy()];
    let target = Background::start("env", &line)?;
    sleep(Duration::from_millis(500));
    let pid = target.pid();
    let (_, recording) = record(&["-p", &pid.to_string(), "-d", "2s", "-F", "999"])?;
    let theirs = gdb(pid)?;
    ensure!(
        theirs.len() >= least,
        "gdb sees {} frames only: {theirs:#?}",
        theirs.len()
    );
    let (_, profile) = recording.only(name)?;
    let spinning = profile.count(|sample| sample.holds(leaf));
    ensure!(
        spinning >= LEAST_SAMPLES,
        "{spinning} samples in {leaf} of two seconds at 999 Hz"
    );
    for sample in profile.samples.iter().filter(|sample| sample.holds(leaf)) {
        agree(sample, &theirs, &program)?;
    }
    Ok(())
}

fn agree(sample: &Sample, theirs: &[Frame], program: &Path) -> Verdict {
    let ours: Vec<&Location> = sample
        .stack
        .iter()
        .filter(|location| !location.mapping.is_kernel())
        .collect();
    let same = ours.len() == theirs.len()
        && ours
            .iter()
            .zip(theirs)
            .enumerate()
            .all(|(at, (ours, theirs))| same_frame(at, ours, theirs, program));
    ensure!(same, "the stacks differ:\n{}", side_by_side(&ours, theirs));
    Ok(())
}

/// The function, in the program itself, and the call in it. Of libraries only the
/// call: without their symbols each of the two has a name of its own.
fn same_frame(at: usize, ours: &Location, theirs: &Frame, program: &Path) -> bool {
    // Samples are of the call, and of any instruction of the loop.
    let same_call = at == 0 || ours.address + 1 == theirs.address;
    let is_own = Path::new(&ours.mapping.file) == program;
    // gdb says so of C++'s `main`, which the linker knows without arguments.
    let name = theirs.name.strip_suffix("()").unwrap_or(&theirs.name);
    same_call && (!is_own || name_of(ours) == name)
}

/// Of the function that is on the stack, whatever was inlined into it.
fn name_of(location: &Location) -> &str {
    let name = location.lines.last().map_or("", |line| &line.system_name);
    // Go marks which of its two ways to call a function is meant.
    name.strip_suffix(".abi0").unwrap_or(name)
}

fn side_by_side(ours: &[&Location], theirs: &[Frame]) -> String {
    let line = |at: usize| {
        let ours = ours
            .get(at)
            .map_or(String::new(), |l| format!("{:x} {}", l.address, name_of(l)));
        let theirs = theirs
            .get(at)
            .map_or(String::new(), |t| format!("{:x} {}", t.address, t.name));
        format!("{at:>3}  {ours}  |  {theirs}")
    };
    let lines: Vec<String> = (0..ours.len().max(theirs.len())).map(line).collect();
    lines.join("\n")
}
