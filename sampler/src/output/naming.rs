//! The names of the files.

use super::directory::OutputDirectory;
use crate::format::safe;
use crate::session::{Group, Grouping, SampledProcess};

/// The kind of profile, named as Go's own profiles are.
const KIND: &str = "cpu";

/// The name of a group's file without its ending.
pub fn stem(grouping: Grouping, group: &Group, processes: &[SampledProcess]) -> String {
    match grouping {
        Grouping::Process => {
            let pid = group
                .members
                .first()
                .map_or(0, |first| processes[*first].pid);
            let outside = group
                .members
                .first()
                .is_some_and(|first| processes[*first].outside);
            let comm = safe::file_component(&group.name);
            if outside {
                format!("{KIND}-outside-{comm}")
            } else {
                format!("{KIND}-{comm}-{pid}")
            }
        }
        Grouping::Exe => {
            let base = group.name.rsplit(|byte| *byte == b'/').next();
            format!(
                "{KIND}-exe-{}",
                safe::file_component(base.unwrap_or(&group.name))
            )
        }
        Grouping::Cgroup => {
            let flat: Vec<u8> = group
                .name
                .iter()
                .map(|byte| if *byte == b'/' { b'-' } else { *byte })
                .collect();
            let flat = flat.strip_prefix(b"-").unwrap_or(&flat);
            let name = if flat.is_empty() { b"root" } else { flat };
            format!("{KIND}-cgroup-{}", safe::file_component(name))
        }
        Grouping::Comm | Grouping::Host => {
            format!("{KIND}-{grouping}-{}", safe::file_component(&group.name))
        }
    }
}

/// The first of `stem`, `stem-2`, `stem-3`, … that is free with each of these
/// endings.
pub fn free_stem(directory: &OutputDirectory, stem: &str, endings: &[&str]) -> String {
    let is_free = |stem: &str| {
        endings
            .iter()
            .all(|ending| directory.is_free(&format!("{stem}{ending}")))
    };
    if is_free(stem) {
        return stem.to_owned();
    }
    let mut number = 2_u64;
    loop {
        let candidate = format!("{stem}-{number}");
        if is_free(&candidate) {
            return candidate;
        }
        number += 1;
    }
}
