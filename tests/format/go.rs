//! `go tool pprof` on a file of ours.

use std::io::Write as _;
use std::process::Command;

use sampler::format::pprof;
use sampler::profile::Profile;
use tempfile::NamedTempFile;

/// Why there is no `go tool pprof`, if there is none.
pub fn missing() -> Option<String> {
    match Command::new("go").args(["tool", "-n", "pprof"]).output() {
        Ok(output) if output.status.success() => None,
        Ok(output) => Some(format!(
            "`go tool pprof` does not work: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        )),
        Err(error) => Some(format!("`go` cannot be started: {error}")),
    }
}

/// A profile on disk.
pub struct File(NamedTempFile);

impl File {
    /// Writes `profile`; the file is gone when the value is.
    pub fn of(profile: &Profile) -> Self {
        let file = tempfile::Builder::new()
            .suffix(".pb.gz")
            .tempfile()
            .expect("a temporary file");
        pprof::write(profile, file.as_file()).expect("a written profile");
        Self(file)
    }

    /// Writes a message as it is.
    pub fn of_message(message: &[u8]) -> Self {
        let mut file = tempfile::Builder::new()
            .suffix(".pb")
            .tempfile()
            .expect("a temporary file");
        file.write_all(message).expect("a written profile");
        Self(file)
    }

    /// What pprof prints with these flags.
    pub fn report(&self, flags: &[&str]) -> String {
        self.report_with(flags, &[])
    }

    /// The same, of this profile merged with `others`.
    pub fn report_with(&self, flags: &[&str], others: &[&Self]) -> String {
        let output = Command::new("go")
            .args(["tool", "pprof"])
            .args(flags)
            .arg(self.0.path())
            .args(others.iter().map(|other| other.0.path()))
            .output()
            .expect("a started `go tool pprof`");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{flags:?}: {stderr}");
        let complaints: Vec<_> = stderr.lines().filter(|line| !is_heading(line)).collect();
        assert!(complaints.is_empty(), "{flags:?}: {complaints:#?}");
        String::from_utf8(output.stdout).expect("a report in UTF-8")
    }
}

/// Lines by which pprof says which profile it shows and how it read an option.
fn is_heading(line: &str) -> bool {
    ["File: ", "Build ID: ", "Type: ", "Time: ", "Duration: "]
        .iter()
        .any(|heading| line.starts_with(heading))
        || line.ends_with("as range, not regexp")
}
