//! A process and all below it: who they are, and what they use.

use std::collections::BTreeMap;
use std::fs;

/// `root` and its living descendants; none when it has ended.
pub fn pids(root: u32) -> Vec<u32> {
    let mut found = vec![root];
    let mut at = 0;
    while let Some(pid) = found.get(at).copied() {
        at += 1;
        // Each thread has its own children. A process may end meanwhile.
        let threads = fs::read_dir(format!("/proc/{pid}/task"))
            .into_iter()
            .flatten();
        for thread in threads.flatten() {
            let children = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
            found.extend(
                children
                    .split_whitespace()
                    .filter_map(|child| child.parse::<u32>().ok()),
            );
        }
    }
    found
}

/// User and system time of all threads of a process so far; 0 when it has ended.
pub fn cpu_ns(pid: u32) -> u64 {
    let mut clock = 0;
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: both pointers are to live variables of the types that are written.
    let result = unsafe {
        match libc::clock_getcpuclockid(pid.cast_signed(), &raw mut clock) {
            0 => libc::clock_gettime(clock, &raw mut time),
            error => error,
        }
    };
    if result == 0 {
        time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
    } else {
        0
    }
}

/// Memory of a process that no file backs: `RssAnon` + `RssShmem`; 0 when it has ended.
pub fn rss_bytes(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    parse_rss(&status)
}

/// Kernel memory of the BPF maps that a process and those below it hold open.
pub fn map_bytes(root: u32) -> u64 {
    let mut maps = BTreeMap::new();
    for pid in pids(root) {
        let infos = fs::read_dir(format!("/proc/{pid}/fdinfo"));
        for entry in infos.into_iter().flatten().flatten() {
            // A descriptor may be closed in between.
            maps.extend(
                fs::read_to_string(entry.path())
                    .ok()
                    .as_deref()
                    .and_then(map_of),
            );
        }
    }
    maps.values().sum()
}

/// The id and the memory of the map that an fdinfo describes, if it is one.
fn map_of(fdinfo: &str) -> Option<(u64, u64)> {
    let field = |name: &str| {
        fdinfo
            .lines()
            .find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
    };
    Some((field("map_id:")?, field("memlock:")?))
}

fn parse_rss(status: &str) -> u64 {
    status
        .lines()
        .filter_map(|line| {
            let value = line
                .strip_prefix("RssAnon:")
                .or_else(|| line.strip_prefix("RssShmem:"))?;
            value.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()
        })
        .sum::<u64>()
        * 1024
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail")]
    use super::*;
    use std::process::{Command, Stdio};
    use std::thread;
    use std::time::{Duration, Instant};

    #[test]
    fn grandchildren_belong_to_it_and_their_time_and_memory_are_seen() {
        let mut root = Command::new("sh")
            .args(["-c", "sh -c 'while :; do :; done' & wait"])
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let started = Instant::now();
        let burnt = || {
            let below = pids(root.id());
            (below.len() == 2).then(|| cpu_ns(below[1]))
        };
        while burnt().is_none_or(|burnt| burnt < 50_000_000) {
            assert!(started.elapsed() < Duration::from_secs(20), "{:?}", burnt());
            thread::sleep(Duration::from_millis(20));
        }
        let child = pids(root.id())[1];
        assert!(rss_bytes(child) > 10_000);
        // SAFETY: no memory is passed; the child's parent, which would reap it,
        // is ours and lives.
        unsafe { libc::kill(child.cast_signed(), libc::SIGKILL) };
        root.wait().unwrap();
        assert_eq!((cpu_ns(root.id()), rss_bytes(root.id())), (0, 0));
    }

    #[test]
    fn memory_is_what_no_file_backs() {
        let status =
            "VmRSS:\t 90 kB\nRssAnon:\t      12 kB\nRssFile:\t 70 kB\nRssShmem:\t       8 kB\n";
        assert_eq!(parse_rss(status), 20 * 1024);
    }

    #[test]
    fn a_map_is_known_by_its_id_and_a_program_is_none() {
        assert_eq!(
            map_of("map_type:\t2\nmemlock:\t4096\nmap_id:\t7\n"),
            Some((7, 4096))
        );
        assert_eq!(map_of("prog_type:\t7\nmemlock:\t4096\nprog_id:\t7\n"), None);
    }
}
