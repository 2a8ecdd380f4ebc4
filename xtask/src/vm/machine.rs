//! The emulated machine: one boot, from power-on to power-off.

use anyhow::{Context, Result, bail, ensure};
use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Several times what a boot takes on two idle CPUs.
const LIMIT: Duration = Duration::from_secs(240);
const MEMORY_MIB: &str = "1024";
const CPUS: &str = "2";

/// What the guest wrote.
pub struct Output {
    /// The first serial port: kernel messages, what commands complained about.
    pub console: String,
    /// The second one: the report.
    pub report: String,
    /// From power-on to power-off.
    pub elapsed: Duration,
}

/// Boots `kernel` with `initrd` under software emulation and waits for its end.
/// Both serial ports are kept as files of `folder`.
pub fn boot(kernel: &Path, initrd: &Path, folder: &Path) -> Result<Output> {
    let console = folder.join("console");
    let report = folder.join("report");
    let complaints = folder.join("qemu");
    let start = Instant::now();
    let mut machine = Command::new("qemu-system-x86_64")
        // TCG runs on every machine; a nested KVM is a matter of luck.
        .args(["-accel", "tcg", "-cpu", "max"])
        .args(["-smp", CPUS, "-m", MEMORY_MIB])
        .args(["-nodefaults", "-display", "none", "-no-reboot"])
        .arg("-kernel")
        .arg(kernel)
        .arg("-initrd")
        .arg(initrd)
        .args(["-append", "console=ttyS0 quiet panic=-1 rdinit=/init"])
        .args(["-serial", &serial(&console)?])
        .args(["-serial", &serial(&report)?])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(File::create(&complaints)?)
        .spawn()
        .context("cannot start qemu-system-x86_64")?;
    let in_time = wait(&mut machine, LIMIT)?;
    let elapsed = start.elapsed();
    let output = Output {
        console: read(&console),
        report: read(&report),
        elapsed,
    };
    if !in_time {
        bail!(
            "the guest did not power off within {} s; its console ended with:\n{}",
            LIMIT.as_secs(),
            tail(&output.console)
        );
    }
    ensure!(
        !output.report.is_empty(),
        "the guest reported nothing; its console ended with:\n{}{}",
        tail(&output.console),
        read(&complaints)
    );
    Ok(output)
}

/// The end of a console, for an error.
pub fn tail(console: &str) -> String {
    let lines: Vec<&str> = console.lines().collect();
    let mut tail = String::new();
    for line in &lines[lines.len().saturating_sub(40)..] {
        // The firmware and a hostile comm alike may send escape sequences.
        tail.extend(line.chars().filter(|c| !c.is_control() || *c == '\t'));
        tail.push('\n');
    }
    tail
}

/// A serial port that is written to a file. In qemu's options a comma ends a value.
fn serial(file: &Path) -> Result<String> {
    let path = file
        .to_str()
        .with_context(|| format!("{} is not UTF-8", file.display()))?;
    Ok(format!("file:{}", path.replace(',', ",,")))
}

/// What the guest wrote, whatever it was; nothing if qemu did not come so far.
fn read(file: &Path) -> String {
    let bytes = fs::read(file).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Waits for the child's end; `false` if it had to be ended.
fn wait(child: &mut Child, limit: Duration) -> Result<bool> {
    let deadline = Instant::now() + limit;
    while child.try_wait()?.is_none() {
        if Instant::now() >= deadline {
            child.kill()?;
            child.wait()?;
            return Ok(false);
        }
        thread::sleep(Duration::from_millis(100));
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail")]
    use super::*;

    #[test]
    fn a_machine_that_does_not_end_is_ended() {
        let mut sleeping = Command::new("sleep").arg("60").spawn().unwrap();
        assert!(!wait(&mut sleeping, Duration::from_millis(150)).unwrap());
        assert!(sleeping.try_wait().unwrap().is_some());
    }

    #[test]
    fn a_machine_that_ends_is_waited_for() {
        let mut ending = Command::new("true").spawn().unwrap();
        assert!(wait(&mut ending, Duration::from_secs(60)).unwrap());
    }

    #[test]
    fn the_tail_is_short_and_cannot_move_the_cursor() {
        let console = "first\n".to_string() + &"\u{1b}[2Jlast\r\n".repeat(40);
        assert_eq!(tail(&console), "[2Jlast\n".repeat(40));
    }

    #[test]
    fn a_comma_in_a_path_is_no_option() {
        assert_eq!(serial(Path::new("/a,b")).unwrap(), "file:/a,,b");
    }
}
