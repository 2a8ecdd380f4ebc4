//! A run's whole output directory, checked against itself.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::index::{File, Index};
use super::pprof::{Profile, Sample};
use super::verdict::{Verdict, ensure};

pub struct Recording {
    pub index: Index,
    /// In the order of `index.files`.
    pub profiles: Vec<Profile>,
}

impl Recording {
    /// Reads every file and holds each against what `index.json` says of it.
    pub fn open(out: &Path) -> Verdict<Self> {
        let json = fs::read(out.join("index.json"))
            .map_err(|error| format!("{}/index.json: {error}", out.display()))?;
        let index = Index::parse(&json)?;
        mode(out, 0o700)?;
        mode(&out.join("index.json"), 0o600)?;

        let mut listed = BTreeSet::from(["index.json".to_owned()]);
        let mut profiles = Vec::new();
        for file in &index.files {
            let path = out.join(&file.name);
            mode(&path, 0o600)?;
            let profile = Profile::open(&path)?;
            check_profile(&index, file, &profile)?;
            ensure!(
                listed.insert(file.name.clone()),
                "{} is listed twice",
                file.name
            );
            profiles.push(profile);
        }
        let present: BTreeSet<String> = fs::read_dir(out)?
            .map(|entry| Ok::<_, std::io::Error>(entry?.file_name().to_string_lossy().into_owned()))
            .collect::<Result<_, _>>()?;
        ensure!(
            present == listed,
            "the directory holds {present:?}, the index lists {listed:?}"
        );
        Ok(Self { index, profiles })
    }

    /// The files of one process name, with their profiles.
    pub fn of_comm(&self, comm: &str) -> impl Iterator<Item = (&File, &Profile)> {
        self.files()
            .filter(move |(file, _)| file.comm.as_deref() == Some(comm))
    }

    pub fn files(&self) -> impl Iterator<Item = (&File, &Profile)> {
        self.index.files.iter().zip(&self.profiles)
    }

    /// The one file of this process name.
    pub fn only(&self, comm: &str) -> Verdict<(&File, &Profile)> {
        let mut found = self.of_comm(comm);
        let first = found.next();
        ensure!(
            found.next().is_none(),
            "more than one file of a process named {comm}"
        );
        first.ok_or_else(|| {
            let names: Vec<_> = self.index.files.iter().map(|f| f.name.as_str()).collect();
            format!("no file of a process named {comm} among {names:?}").into()
        })
    }

    /// Samples in all files that `wanted` accepts.
    pub fn count(&self, wanted: impl Fn(&Sample) -> bool) -> u64 {
        self.profiles
            .iter()
            .map(|profile| profile.count(&wanted))
            .sum()
    }
}

/// The mode of a file or directory that must not be a symbolic link.
fn mode(path: &Path, wanted: u32) -> Verdict {
    let found =
        fs::symlink_metadata(path).map_err(|error| format!("{}: {error}", path.display()))?;
    ensure!(!found.is_symlink(), "{} is a symbolic link", path.display());
    let mode = found.permissions().mode() & 0o7777;
    ensure!(
        mode == wanted,
        "{} has mode {mode:o} instead of {wanted:o}",
        path.display()
    );
    Ok(())
}

fn check_profile(index: &Index, file: &File, profile: &Profile) -> Verdict {
    let name = &file.name;
    let pair = |kind: &str, unit: &str| (kind.to_owned(), unit.to_owned());
    ensure!(
        profile.sample_types == [pair("samples", "count"), pair("cpu", "nanoseconds")],
        "{name}: sample types {:?}",
        profile.sample_types
    );
    ensure!(
        profile.period_type == pair("cpu", "nanoseconds"),
        "{name}: period type {:?}",
        profile.period_type
    );
    let period = 1_000_000_000 / index.frequency_hz;
    ensure!(
        (profile.period as u64).abs_diff(period) <= 1,
        "{name}: period {} ns at {} Hz",
        profile.period,
        index.frequency_hz
    );
    ensure!(
        profile.time_nanos > 1_500_000_000_000_000_000 && profile.duration_nanos > 0,
        "{name}: time {} and duration {}",
        profile.time_nanos,
        profile.duration_nanos
    );
    ensure!(
        !profile.comments.is_empty(),
        "{name}: no ledger in the comments"
    );
    ensure!(
        profile.total() == file.samples,
        "{name} holds {} samples, the index says {}",
        profile.total(),
        file.samples
    );
    let cpu_ns: i64 = profile.samples.iter().filter_map(|s| s.values.get(1)).sum();
    ensure!(
        cpu_ns as u64 == file.cpu_ns,
        "{name} holds {cpu_ns} ns, the index says {}",
        file.cpu_ns
    );
    ensure!(
        file.cpu_ns.abs_diff(file.samples * period) <= file.samples,
        "{name}: {} samples of {period} ns are not {} ns",
        file.samples,
        file.cpu_ns
    );
    for sample in &profile.samples {
        check_labels(file, sample)?;
    }
    Ok(())
}

fn check_labels(file: &File, sample: &Sample) -> Verdict {
    let name = &file.name;
    for key in ["pid", "tid"] {
        let found = sample.numbers.get(key);
        let (number, unit) =
            found.ok_or_else(|| format!("{name}: a sample without a numeric {key}"))?;
        ensure!(unit == key, "{name}: the unit of {key} is {unit:?}");
        if let (Some(pid), "pid") = (file.pid, key) {
            ensure!(
                *number == i64::from(pid),
                "{name}: a sample of pid {number} in the file of {pid}"
            );
        }
    }
    // pprof keeps no empty label, and a process may have an empty name.
    if file.comm.as_deref() == Some("") {
        return Ok(());
    }
    for key in ["comm", "thread_name"] {
        ensure!(
            sample.strings.contains_key(key),
            "{name}: a sample without {key}: {:?}",
            sample.strings
        );
    }
    Ok(())
}
