//! Frames bear the names that their programs' authors gave them.

use std::path::Path;
use std::process::Command;

use libtest_mimic::Trial;

use crate::support::fixture::{fixture, scratch};
use crate::support::guard::Background;
use crate::support::need;
use crate::support::pprof::{Line, Profile, Sample};
use crate::support::run::{Recorder, record, record_fixture};
use crate::support::verdict::{Verdict, ensure, trial};

pub fn trials() -> Vec<Trial> {
    vec![
        trial(
            "names::a_stack_reads_from_leaf_to_root",
            a_stack_reads_from_leaf_to_root,
        ),
        trial("names::cpp_is_demangled", cpp_is_demangled),
        trial("names::rust_legacy_is_demangled", rust_legacy_is_demangled),
        trial("names::rust_v0_is_demangled", rust_v0_is_demangled),
        trial("names::inline_frames_have_lines", inline_frames_have_lines),
        trial(
            "names::without_frame_pointers_the_leaf_is_right",
            without_frame_pointers,
        ),
        trial(
            "names::a_stripped_program_keeps_its_module",
            a_stripped_program,
        ),
        trial(
            "names::a_stripped_go_program_has_names",
            a_stripped_go_program,
        ),
        trial("names::a_32_bit_program", a_32_bit_program),
        trial(
            "names::debug_information_in_a_supplement_is_counted_and_told",
            in_a_supplement,
        ),
    ]
}

/// Most of a profile's samples, which is what a fixture's main loop is.
fn mostly(profile: &Profile, what: &str, count: u64) -> Verdict {
    ensure!(
        count * 10 >= profile.total() * 9,
        "{count} of {} samples {what}",
        profile.total()
    );
    Ok(())
}

fn a_stack_reads_from_leaf_to_root() -> Verdict {
    need::root()?;
    let (_, recording) = record_fixture(&["-F", "499"], "split", &["1000"])?;
    let (file, profile) = recording.only("split")?;
    let whole = profile.count(|sample| {
        let names: Vec<&str> = sample.frames().map(|line| line.name.as_str()).collect();
        // Inlined steps of work may stand before the leaf.
        ["leaf_half", "leaf_third", "leaf_fifth"]
            .iter()
            .any(|leaf| {
                names
                    .iter()
                    .position(|name| name == leaf)
                    .is_some_and(|at| names[at + 1..].starts_with(&["split_work", "chain_root"]))
            })
    });
    mostly(profile, "read leaf, split_work, chain_root", whole)?;
    ensure!(
        file.stacks.complete * 10 >= file.samples * 9,
        "{} of {} stacks are complete",
        file.stacks.complete,
        file.samples
    );
    ensure!(
        profile
            .mappings
            .first()
            .is_some_and(|m| m.file.ends_with("/split")),
        "the first mapping is not the program"
    );
    ensure!(
        profile.mappings[0].build_id.len() >= 16,
        "the program's build ID is {:?}",
        profile.mappings[0].build_id
    );
    Ok(())
}

/// Lines whose demangled name holds `part`, each with its mangled one.
fn lines<'a>(profile: &'a Profile, part: &'a str) -> impl Iterator<Item = &'a Line> {
    profile
        .samples
        .iter()
        .flat_map(Sample::frames)
        .filter(move |line| line.name.contains(part))
}

fn cpp_is_demangled() -> Verdict {
    need::root()?;
    let (_, recording) = record_fixture(&["-F", "499"], "names_cpp", &["600"])?;
    let (_, profile) = recording.only("names_cpp")?;
    let mixed = profile.count(|sample| {
        sample
            .frames()
            .any(|line| line.name.contains("engine::Mixer<unsigned long, 7>::mix"))
    });
    mostly(profile, "name the template's method", mixed)?;
    for part in ["engine::Mixer<unsigned long, 7>::mix", "engine::apply<"] {
        let line = lines(profile, part).next();
        let line = line.ok_or_else(|| format!("no frame named {part}"))?;
        ensure!(
            line.system_name.starts_with("_ZN"),
            "the mangled name of {} is {:?}",
            line.name,
            line.system_name
        );
    }
    ensure!(
        lines(profile, "{lambda(").next().is_some(),
        "no frame of a lambda"
    );
    Ok(())
}

fn rust(fixture: &'static str, mangled: &str) -> Verdict {
    need::root()?;
    let (_, recording) = record_fixture(&["-F", "499"], fixture, &["600"])?;
    let (_, profile) = recording.only(fixture)?;
    let churned = profile.count(|sample| {
        sample.frames().any(|line| {
            line.name.contains("names::engine::churn") || line.name.contains("engine::churn")
        })
    });
    mostly(profile, "name the generic function", churned)?;
    let line = lines(profile, "engine::churn")
        .find(|line| line.system_name != line.name)
        .ok_or("no mangled name beside the demangled one")?;
    ensure!(
        line.system_name.starts_with(mangled),
        "the mangled name is {:?}",
        line.system_name
    );
    ensure!(
        !line.name.contains("::h") || !line.name.ends_with(|c: char| c.is_ascii_hexdigit()),
        "a hash is left in {:?}",
        line.name
    );
    Ok(())
}

fn rust_legacy_is_demangled() -> Verdict {
    rust("names_legacy", "_ZN")
}

fn rust_v0_is_demangled() -> Verdict {
    rust("names_v0", "_R")
}

fn inline_frames_have_lines() -> Verdict {
    need::root()?;
    let (_, recording) = record_fixture(&["-F", "499"], "names_v0", &["600"])?;
    let (_, profile) = recording.only("names_v0")?;
    let folded = profile.count(|sample| {
        sample.stack.first().is_some_and(|leaf| {
            let at = |part: &str| leaf.lines.iter().position(|line| line.name.contains(part));
            // The innermost first: what was folded in before what it was folded into.
            matches!((at("folded_in"), at("churn")), (Some(inner), Some(outer)) if inner < outer)
        })
    });
    mostly(
        profile,
        "show the inlined function in the one around it",
        folded,
    )?;
    let sourced = profile.count(|sample| {
        sample.frames().any(|line| {
            line.name.contains("folded_in") && line.file.ends_with("names.rs") && line.number > 0
        })
    });
    mostly(profile, "know their source lines", sourced)
}

fn without_frame_pointers() -> Verdict {
    need::root()?;
    let options = ["-F", "499", "--unwind", "frame-pointers"];
    let (_, recording) = record_fixture(&options, "nofp", &["600"])?;
    let (file, profile) = recording.only("nofp")?;
    let leaf = profile.count(|sample| {
        sample
            .stack
            .iter()
            .find(|location| !location.mapping.is_kernel())
            .is_some_and(|location| location.lines.iter().any(|line| line.name == "nofp_leaf"))
    });
    mostly(profile, "have the right leaf", leaf)?;
    // A register full of data is no frame: such a stack must not pass as whole.
    ensure!(
        file.stacks.complete * 10 <= file.samples,
        "{} of {} stacks without frame pointers pass as complete",
        file.stacks.complete,
        file.samples
    );
    Ok(())
}

/// A fixture without its symbols, under another name.
fn stripped(name: &'static str, program: &Path) -> Verdict {
    let strip = Command::new(need::tool("strip")?)
        .arg("-o")
        .arg(program)
        .arg(fixture(name)?)
        .status()?;
    ensure!(strip.success(), "strip: {strip}");
    Ok(())
}

/// Two copies of a fixture have all in common, which dwz moves to a third file.
fn in_a_supplement() -> Verdict {
    need::root()?;
    let folder = scratch()?;
    let [program, copy, common] =
        ["supplemented", "copy", "common"].map(|name| folder.path().join(name));
    for to in [&program, &copy] {
        std::fs::copy(fixture("burn")?, to)?;
    }
    let dwz = Command::new(need::tool("dwz")?)
        .arg("-m")
        .args([&common, &program, &copy])
        .status()?;
    ensure!(dwz.success() && common.exists(), "dwz: {dwz}");
    let run = Recorder::new(&["-F", "199"])?
        .command(&program, &["600"])
        .run()?;
    run.names("supplements of dwz")?;
    let index = run.recording()?.index;
    let counted = (
        index.parsers.files_without_supplement,
        index.parsers.files_without_debug_info,
    );
    ensure!(counted == (1, 0), "{:?}", index.parsers);
    Ok(())
}

fn a_stripped_program() -> Verdict {
    need::root()?;
    let folder = scratch()?;
    let program = folder.path().join("bare");
    stripped("burn", &program)?;
    let run = Recorder::new(&["-F", "199"])?
        .command(&program, &["600"])
        .run()?;
    let recording = run.recording()?;
    let (file, profile) = recording.only("bare")?;
    ensure!(
        file.frames.unnamed > 0,
        "frames without symbols pass as named"
    );
    let placed = profile.count(|sample| {
        sample
            .stack
            .first()
            .is_some_and(|leaf| leaf.address != 0 && leaf.mapping.file.ends_with("/bare"))
    });
    mostly(profile, "keep module and address", placed)
}

fn a_stripped_go_program() -> Verdict {
    need::root()?;
    let folder = scratch()?;
    let program = folder.path().join("bare_go");
    stripped("chain_go", &program)?;
    let target = Background::start(&program, &[])?;
    let (_, recording) = record(&["-p", &target.pid().to_string(), "-d", "1s", "-F", "199"])?;
    let (_, profile) = recording.only("bare_go")?;
    // Without its symbols it has no unwind information either, and frame pointers
    // cannot tell who called the loop, which has no frame.
    let called = [
        "main.spin",
        "main.(*link).follow.func1",
        "sort.Slice",
        "main.pass",
        "main.main",
        "runtime.main",
    ];
    let whole = profile.count(|sample| {
        let mut names = sample.frames().map(|line| line.name.as_str());
        let in_order = called.iter().all(|name| names.any(|found| found == *name));
        let is_whole = sample
            .frames()
            .last()
            .is_some_and(|line| line.name.starts_with("runtime.goexit"));
        in_order && is_whole
    });
    mostly(profile, "name every call down to the first", whole)?;
    let sourced = profile.count(|sample| {
        let mut frames = sample.frames();
        frames.any(|line| {
            line.name == "main.spin" && line.file.ends_with("chain.go") && line.number > 0
        })
    });
    mostly(profile, "know the source of the loop", sourced)
}

fn a_32_bit_program() -> Verdict {
    need::root()?;
    let target = Background::fixture("compat", &[])?;
    let (_, recording) = record(&["-p", &target.pid().to_string(), "-d", "1s", "-F", "199"])?;
    let (_, profile) = recording.only("compat")?;
    let spun = profile.count(|sample| sample.holds("spin32"));
    mostly(profile, "name the 32-bit loop", spun)
}
