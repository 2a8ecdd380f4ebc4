//! What is left in `/tmp` under the name of a perf map, and is none that may be
//! read, or none that makes sense.

use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::os::unix::fs::{chown, symlink};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use libtest_mimic::Trial;

use crate::support::fixture::{fixture, scratch};
use crate::support::guard::Background;
use crate::support::index::Jit;
use crate::support::need;
use crate::support::perf_map::PerfMap;
use crate::support::run::Recorder;
use crate::support::verdict::{Verdict, ensure, trial};

pub fn trials() -> Vec<Trial> {
    vec![
        trial("hostile_maps::a_fifo", a_fifo),
        trial("hostile_maps::a_folder", a_folder),
        trial("hostile_maps::a_link_to_secrets", a_link_to_secrets),
        trial("hostile_maps::a_second_name_of_secrets", a_second_name),
        trial("hostile_maps::a_mount_of_secrets", a_mount),
        trial("hostile_maps::another_users_file", another_users_file),
        trial(
            "hostile_maps::a_file_of_another_user_than_the_process",
            a_file_of_another_user,
        ),
        trial("hostile_maps::an_older_file", an_older_file),
        trial("hostile_maps::two_gigabytes", two_gigabytes),
        trial("hostile_maps::garbage", garbage),
        trial("hostile_maps::lines_without_end", lines_without_end),
        trial("hostile_maps::ten_million_lines", ten_million_lines),
        trial("hostile_maps::names_that_are_not_text", names),
    ]
}

/// What nobody may ever see of a file that is none of the process's.
const SECRET: &str = "secret-that-stays-where-it-is";
/// A map that names the fixture's code, if it is read.
const GOOD: &[u8] = b"6a0000000000 e secret-that-stays-where-it-is\n";
const MODEST: Duration = Duration::from_secs(20);

/// What became of the process with the trap, beside one with a map as it should
/// be.
struct Outcome {
    /// The names of the code that it made.
    names: Vec<String>,
    jit: Jit,
    talk: String,
}

/// Sets a trap for a process of `user`, and records it and an innocent one. The
/// innocent one must not suffer, and the profiler must not hang.
fn spring(user: u32, set: impl FnOnce(&Path) -> Verdict) -> Verdict<Outcome> {
    need::root()?;
    let user = user.to_string();
    let victim = Background::fixture("jit", &["60000", "never", "made", &user])?;
    let innocent = Background::fixture("jit", &["60000", "start", "innocent"])?;
    let trap = PerfMap::left_by(victim.pid());
    let _good = PerfMap::left_by(innocent.pid());
    set(&trap.path)?;
    let run = Recorder::new(&["-F", "499", "-d", "1s"])?
        .option("-p", victim.pid().to_string())
        .option("-p", innocent.pid().to_string())
        .run()?;
    let recording = run.recording()?;
    // The whole is bounded by the recorder; loading may take long on a busy host.
    let finished = Duration::from_nanos(recording.index.cost.finish_ns);
    ensure!(finished < MODEST, "the end took {finished:?}");
    let of = |pid: u32| {
        let mut files = recording.files();
        files
            .find(|(file, _)| file.pid == Some(pid))
            .map(|(_, profile)| profile)
            .ok_or_else(|| format!("no file of {pid}"))
    };
    let profile = of(innocent.pid())?;
    let innocents = profile.count(|sample| sample.holds("innocent"));
    ensure!(
        innocents * 10 >= profile.total() * 9,
        "the innocent process has {innocents} of {} names",
        profile.total()
    );
    let made = of(victim.pid())?
        .samples
        .iter()
        .flat_map(|sample| &sample.stack)
        .filter(|location| location.mapping.file == "//anon");
    let found = made
        .flat_map(|location| &location.lines)
        .map(|line| line.name.clone())
        .collect();
    let talk = run.talk();
    ensure!(
        talk.chars().all(|c| c == '\n' || !c.is_control()),
        "stderr acts on the terminal: {talk:?}"
    );
    Ok(Outcome {
        names: found,
        jit: recording.index.jit,
        talk,
    })
}

impl Outcome {
    /// The file was not read, nothing of it is anywhere, and a person is told
    /// why, unless nobody could have meant it.
    fn is_refused(&self, why: Option<&str>) -> Verdict {
        ensure!(self.names.is_empty(), "it was read: {:?}", self.names[0]);
        ensure!(
            !self.talk.contains(SECRET) && !self.talk.contains("root:"),
            "stderr tells what is in it:\n{}",
            self.talk
        );
        ensure!(self.jit.bad_lines == 0, "{:?}", self.jit);
        let (programs, files) = (self.jit.programs, self.jit.programs_with_files);
        ensure!((programs, files) == (2, 1), "{:?}", self.jit);
        if let Some(why) = why {
            ensure!(self.talk.contains(why), "no {why:?} in:\n{}", self.talk);
        }
        Ok(())
    }

    /// All of the code has this name.
    fn is_named(&self, name: &str) -> Verdict {
        ensure!(
            !self.names.is_empty() && self.names.iter().all(|found| found == name),
            "{} frames are not all {name:?}, the first is {:?}",
            self.names.len(),
            self.names.first()
        );
        Ok(())
    }
}

fn run(program: &str, arguments: &[&str]) -> Verdict {
    let said = Command::new(need::tool(program)?)
        .args(arguments)
        .output()?;
    ensure!(said.status.success(), "{program} failed: {said:?}");
    Ok(())
}

fn a_fifo() -> Verdict {
    spring(0, |trap| run("mkfifo", &[&trap.to_string_lossy()]))?
        .is_refused(Some("it is no regular file"))
}

fn a_folder() -> Verdict {
    spring(0, |trap| Ok(fs::create_dir(trap)?))?.is_refused(Some("it is no regular file"))
}

fn a_link_to_secrets() -> Verdict {
    spring(0, |trap| Ok(symlink("/etc/shadow", trap)?))?.is_refused(Some("it is a link"))?;
    let folder = scratch()?;
    let secret = folder.path().join("secret");
    fs::write(&secret, GOOD)?;
    spring(0, |trap| Ok(symlink(&secret, trap)?))?.is_refused(Some("it is a link"))
}

fn a_second_name() -> Verdict {
    let secret = tempfile::NamedTempFile::new_in("/tmp")?;
    fs::write(&secret, GOOD)?;
    spring(0, |trap| Ok(fs::hard_link(&secret, trap)?))?.is_refused(Some("it has several names"))
}

/// A mount on a file, undone by a failure too.
struct Mounted(String);

impl Drop for Mounted {
    fn drop(&mut self) {
        // It may not have come to be mounted.
        let _ = Command::new("umount").arg(&self.0).output();
    }
}

fn a_mount() -> Verdict {
    let folder = scratch()?;
    let secret = folder.path().join("secret");
    fs::write(&secret, GOOD)?;
    let mut mounted = None;
    let outcome = spring(0, |trap| {
        fs::write(trap, "")?;
        let trap = trap.to_string_lossy().into_owned();
        run("mount", &["--bind", &secret.to_string_lossy(), &trap])?;
        mounted = Some(Mounted(trap));
        Ok(())
    });
    let path = mounted.as_ref().map(|mounted| mounted.0.clone());
    drop(mounted);
    if let Some(path) = path {
        fs::remove_file(path)?;
    }
    outcome?.is_refused(Some("it is a link, or is mounted there"))
}

/// A map that names the code, of this user.
fn good_of(user: u32) -> impl FnOnce(&Path) -> Verdict {
    move |trap| {
        fs::write(trap, GOOD)?;
        Ok(chown(trap, Some(user), None)?)
    }
}

fn another_users_file() -> Verdict {
    let why = "it belongs neither to the process's user nor to root";
    spring(0, good_of(1000))?.is_refused(Some(why))
}

fn a_file_of_another_user() -> Verdict {
    let why = "it belongs neither to the process's user nor to root";
    spring(1000, good_of(1001))?.is_refused(Some(why))?;
    // And with the right ones it is read.
    spring(1000, good_of(1000))?.is_named(SECRET)?;
    spring(1000, good_of(0))?.is_named(SECRET)
}

fn an_older_file() -> Verdict {
    let older = |trap: &Path| {
        fs::write(trap, GOOD)?;
        run("touch", &["-d", "2001-02-03", &trap.to_string_lossy()])
    };
    spring(0, older)?.is_refused(Some("it is older than the process"))
}

fn two_gigabytes() -> Verdict {
    let outcome = spring(0, |trap| {
        let mut file = File::create(trap)?;
        file.write_all(GOOD)?;
        Ok(file.set_len(2 << 30)?)
    })?;
    ensure!(outcome.names.is_empty(), "it was read");
    ensure!(outcome.jit.refused_files == 1, "{:?}", outcome.jit);
    Ok(())
}

/// Bytes of all values, in no order, the same each time.
fn noise(count: usize) -> Vec<u8> {
    let mut state = 88_172_645_463_325_252_u64;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    std::iter::repeat_with(next).take(count).collect()
}

fn garbage() -> Verdict {
    let outcome = spring(0, |trap| {
        let mut bytes = noise(1 << 20);
        bytes.extend_from_slice(b"\nroot:x:0:0\n");
        bytes.extend_from_slice(GOOD);
        Ok(fs::write(trap, bytes)?)
    })?;
    outcome.is_named(SECRET)?;
    ensure!(outcome.jit.bad_lines > 1_000, "{:?}", outcome.jit);
    ensure!(!outcome.talk.contains("root:"), "{}", outcome.talk);
    Ok(())
}

fn lines_without_end() -> Verdict {
    let outcome = spring(0, |trap| {
        let mut bytes = Vec::new();
        for _ in 0..20 {
            bytes.extend_from_slice(b"6a0000000000 e ");
            bytes.resize(bytes.len() + (1 << 20), b'x');
            bytes.push(b'\n');
        }
        bytes.extend_from_slice(GOOD);
        // And one that never ends.
        bytes.extend_from_slice(b"6a0000000000 e ");
        bytes.resize(bytes.len() + (1 << 20), b'y');
        Ok(fs::write(trap, bytes)?)
    })?;
    outcome.is_named(SECRET)?;
    ensure!(outcome.jit.bad_lines == 20, "{:?}", outcome.jit);
    Ok(())
}

fn ten_million_lines() -> Verdict {
    let outcome = spring(0, |trap| {
        let mut file = BufWriter::new(File::create(trap)?);
        for _ in 0..10_000_000 {
            file.write_all(b"6a0000000000 e f\n")?;
        }
        file.write_all(GOOD)?;
        Ok(file.flush()?)
    })?;
    outcome.is_named(SECRET)
}

fn names() -> Verdict {
    let outcome = spring(0, |trap| {
        let name = b"\x1b[31mred\x07\xff;</text>\xe2\x80\xaeleft";
        let line = [b"6a0000000000 e ".as_slice(), name, b"\n"].concat();
        Ok(fs::write(trap, line)?)
    })?;
    outcome.is_named("\\x1b[31mred\\x07\u{fffd};</text>\\u{202e}left")?;
    // The name lies in what a person opens as well.
    let run = Recorder::new(&["-F", "499"])?
        .option("--format", "folded,svg")
        .command(
            fixture("jit")?,
            &["300", "start", "\x1b[31mred\x07;</text>"],
        )
        .run()?;
    run.exits(0)?;
    let mut found = 0;
    for entry in fs::read_dir(&run.out)? {
        let path = entry?.path();
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        let pid = stem.strip_prefix("cpu-jit-").map(str::parse);
        let _map = pid.transpose()?.map(PerfMap::left_by);
        let text = fs::read_to_string(&path)?;
        let bad = text
            .chars()
            .find(|c| c.is_control() && !"\n\t\r".contains(*c));
        ensure!(bad.is_none(), "{} holds {bad:?}", path.display());
        ensure!(
            !text.contains("red\\x07;</text>"),
            "{} has markup",
            path.display()
        );
        found += usize::from(text.contains("\\x1b[31mred\\x07"));
    }
    ensure!(found == 2, "the name is in {found} files instead of two");
    Ok(())
}
