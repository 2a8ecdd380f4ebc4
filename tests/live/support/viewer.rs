//! `go tool pprof`, the reader that every profile must please.

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::fixture::workshop;
use super::need;
use super::pprof::Profile;
use super::verdict::{Verdict, ensure};

/// The installed Go, and a second one where `SAMPLER_TEST_GO_NEW` names it.
pub fn viewers() -> Verdict<Vec<PathBuf>> {
    let mut found = vec![need::tool("go")?];
    if let Some(newer) = std::env::var_os("SAMPLER_TEST_GO_NEW") {
        found.push(newer.into());
    }
    Ok(found)
}

fn command(go: &Path) -> Verdict<Command> {
    let mut command = Command::new(go);
    command
        .args(["tool", "pprof"])
        .current_dir(workshop()?)
        .env("HOME", workshop()?)
        .env("PPROF_TMPDIR", workshop()?)
        .env("GOTOOLCHAIN", "local")
        .stdin(Stdio::null());
    Ok(command)
}

/// Runs `go tool pprof OPTIONS FILES`: exit 0 and a clean stderr, or a failure.
pub fn pprof(go: &Path, options: &[&str], files: &[impl AsRef<OsStr>]) -> Verdict<String> {
    let run = command(go)?.args(options).args(files).output()?;
    let said = String::from_utf8_lossy(&run.stderr);
    let shown = files
        .iter()
        .map(|file| file.as_ref().to_string_lossy())
        .take(3)
        .collect::<Vec<_>>();
    ensure!(
        run.status.success(),
        "{} tool pprof {options:?} {shown:?}: {}\n{said}",
        go.display(),
        run.status
    );
    let own = [
        "File:",
        "Build ID:",
        "Type:",
        "Time:",
        "Duration:",
        "Generating report in",
    ];
    let complaint = said
        .lines()
        .find(|line| !own.iter().any(|start| line.starts_with(start)));
    ensure!(
        complaint.is_none(),
        "{} tool pprof {options:?} {shown:?} complains:\n{said}",
        go.display()
    );
    Ok(String::from_utf8_lossy(&run.stdout).into_owned())
}

/// The total of all samples after pprof itself merged the files.
pub fn merged_total(go: &Path, files: &[PathBuf]) -> Verdict<u64> {
    let merged = workshop()?.join("merged.pb.gz");
    let output = format!("-output={}", merged.display());
    pprof(go, &["-proto", &output], files)?;
    // What pprof writes is not ours to check, only to add up.
    let total = Profile::open(&merged).map(|profile| profile.total());
    std::fs::remove_file(&merged)?;
    total
}

/// Shows a file in pprof's web pages and asks for two of them.
pub fn browse(go: &Path, file: &Path) -> Verdict {
    // Asked for any port, pprof 1.19 does not say which one it took.
    let free = TcpListener::bind("localhost:0")?.local_addr()?.port();
    let address = format!("localhost:{free}");
    let mut child = command(go)?
        .arg(format!("-http={address}"))
        .arg("-no_browser")
        .arg(file)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()?;
    let verdict = ["/ui/top", "/ui/flamegraph"]
        .iter()
        .try_for_each(|page| answers(&address, page, file));
    // SAFETY: kill only takes numbers; `go` has not been waited for, so the group
    // that it shares with pprof is still the one made above.
    unsafe { libc::kill(-(child.id() as i32), libc::SIGTERM) };
    child.wait()?;
    verdict
}

/// Whether the page of this file is there.
fn answers(address: &str, page: &str, file: &Path) -> Verdict {
    let mut connection = connect(address)?;
    write!(connection, "GET {page} HTTP/1.0\r\nHost: {address}\r\n\r\n")?;
    let mut answer = Vec::new();
    connection.read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer);
    let status = answer.lines().next().unwrap_or_default();
    ensure!(
        status.contains(" 200 "),
        "{page} of {}: {status}",
        file.display()
    );
    Ok(())
}

/// pprof reads the file before it listens.
fn connect(address: &str) -> Verdict<TcpStream> {
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        match TcpStream::connect(address) {
            Ok(connection) => return Ok(connection),
            Err(error) if Instant::now() > end => return Err(error.into()),
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}
