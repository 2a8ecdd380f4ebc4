//! The kernel's walk, checked by framehop.

use libtest_mimic::Trial;

use crate::support::fixture::fixture;
use crate::support::index::Verification;
use crate::support::need;
use crate::support::run::{Finished, Recorder, record};
use crate::support::verdict::{Verdict, ensure, trial};

/// Of this many walks that framehop can do, one at most may differ: a process
/// may change its mappings while they are learned.
const ONE_IN: u64 = 1_000;
/// Tables are built while the recording runs, and what was walked before is not
/// checked: this share of the samples is asked for, in percent.
const MOST: u64 = 50;

const PYTHON: &str = "
import time
def f(n):
    return sum(i * i for i in range(n)) if n < 20 else f(n - 1) + f(n - 2)
while time.process_time() < 4: f(24)
";

pub fn trials() -> Vec<Trial> {
    vec![
        trial("verification::agrees_without_frame_pointers", nofp),
        trial("verification::agrees_on_python", python),
        trial("verification::agrees_on_openssl", openssl),
        trial("verification::signal_frames_are_no_agreement", signal),
        trial("verification::one_walk_in_many", one_in_many),
        trial("verification::is_absent_unless_asked_for", absent),
        trial("verification::needs_tables", needs_tables),
    ]
}

/// Records a command with all walks checked.
fn checked(command: impl AsRef<std::ffi::OsStr>, arguments: &[&str]) -> Verdict<Checked> {
    need::root()?;
    let options = ["-F", "499", "--unwind", "tables", "--verify-unwind=1"];
    // The first drain makes the tables known to the kernel's side.
    let recorder = Recorder::new(&options)?.option("--test-drain", "100ms");
    let run = recorder.command(command, arguments).run()?;
    let index = run.recording()?.index;
    let found = index.verification.ok_or("index.json says nothing of it")?;
    ensure!(
        run.talk().contains("verify-unwind: "),
        "stderr says nothing of it:\n{}",
        run.talk()
    );
    ensure!(found.dropped == 0, "{} walks were dropped", found.dropped);
    Ok(Checked {
        samples: index.ledger.counted,
        found,
        run,
    })
}

struct Checked {
    samples: u64,
    found: Verification,
    run: Finished,
}

impl Checked {
    fn agrees(&self) -> Verdict {
        let found = &self.found;
        let compared = found.agreed + found.disagreed;
        ensure!(
            found.callers_agreed > 0,
            "no frame was compared:\n{}",
            self.run.talk()
        );
        ensure!(
            found.disagreed * ONE_IN <= compared.max(ONE_IN),
            "{} of {compared} walks disagree:\n{}",
            found.disagreed,
            self.run.talk()
        );
        Ok(())
    }

    /// At least this share of all samples, in percent.
    fn most(&self, walks: u64, what: &str) -> Verdict {
        ensure!(
            walks > 0 && walks * 100 >= self.samples * MOST,
            "{walks} of {} samples {what}:\n{}",
            self.samples,
            self.run.talk()
        );
        Ok(())
    }
}

fn nofp() -> Verdict {
    let checked = checked(fixture("nofp")?, &["4000"])?;
    checked.agrees()?;
    checked.most(checked.found.agreed, "agree")
}

fn python() -> Verdict {
    let checked = checked(need::tool("python3")?, &["-c", PYTHON])?;
    checked.agrees()?;
    checked.most(checked.found.agreed, "agree")
}

fn openssl() -> Verdict {
    let arguments = ["speed", "-seconds", "2", "sha256", "rsa2048"];
    let checked = checked(need::tool("openssl")?, &arguments)?;
    checked.agrees()?;
    checked.most(checked.found.agreed, "agree")
}

fn signal() -> Verdict {
    // All of its work is done in a handler, out of which framehop finds no way.
    let checked = checked(fixture("altstack")?, &["4", "3"])?;
    checked.agrees()?;
    checked.most(checked.found.framehop_failed, "are beyond framehop")?;
    ensure!(
        checked.run.talk().contains("signal frame"),
        "no signal frame among the reasons:\n{}",
        checked.run.talk()
    );
    Ok(())
}

fn one_in_many() -> Verdict {
    need::root()?;
    let options = ["-F", "499", "--unwind", "tables", "--verify-unwind"];
    let recorder = Recorder::new(&options)?.option("--test-drain", "100ms");
    let run = recorder.command(fixture("nofp")?, &["4000"]).run()?;
    let index = run.recording()?.index;
    let found = index.verification.ok_or("index.json says nothing of it")?;
    // One tick in 16 of each CPU: twice as many would be another share.
    ensure!(
        found.checked > 0 && found.checked * 8 <= index.ledger.ticks,
        "{} walks of {} ticks were checked",
        found.checked,
        index.ledger.ticks
    );
    Ok(())
}

fn absent() -> Verdict {
    need::root()?;
    let (_, recording) = record(&["-d", "200ms", "--unwind", "tables"])?;
    ensure!(
        recording.index.verification.is_none(),
        "index.json tells of checks that nobody asked for"
    );
    Ok(())
}

fn needs_tables() -> Verdict {
    let options = ["--unwind", "frame-pointers", "--verify-unwind", "-d", "1s"];
    let run = Recorder::new(&options)?.run()?;
    run.exits(2)?.names("--unwind tables").map(|_| ())
}
