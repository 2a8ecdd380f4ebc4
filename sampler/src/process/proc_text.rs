//! The text of `/proc/PID/*`, parsed.
//!
//! A process writes parts of it (its names, its paths, the names of its
//! memory), so a parser takes what fits and passes over the rest. Format:
//! proc(5), and `fs/proc/task_mmu.c` for what is escaped.

use std::io::BufRead;

use super::record::MapRecord;
use crate::object::FileId;

/// Executable mappings kept of one process: the kernel's own default limit on
/// mappings of any kind.
pub const MAX_MAPPINGS: usize = 65_536;
/// The longest line looked at; a path is at most 4,096 bytes, each of which
/// may be escaped by four.
const MAX_LINE_BYTES: usize = 20_000;
/// The longest path kept.
const MAX_NAME_BYTES: usize = 4_096 + " (deleted)".len();

const PF_KTHREAD: u64 = 0x0020_0000;

/// What is wanted of `/proc/PID/stat`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// `R`, `S`, `Z` and so on.
    pub state: u8,
    /// The parent's pid; 0 for none that is visible.
    pub parent_pid: u32,
    /// Threads that have not been reaped.
    pub threads: u32,
    /// When the thread-group leader started, in clock ticks since boot.
    pub start_ticks: u64,
    /// Whether it is a thread of the kernel's own.
    pub kernel_thread: bool,
}

/// Parses `/proc/PID/stat`. The name in it may hold blanks and brackets, so
/// the fields are counted from the last `)`.
pub fn parse_stat(text: &[u8]) -> Option<Stat> {
    let behind_name = text.iter().rposition(|&byte| byte == b')')? + 1;
    let fields: Vec<&str> = std::str::from_utf8(&text[behind_name..])
        .ok()?
        .split_ascii_whitespace()
        .collect();
    // `fields[0]` is what proc(5) calls field 3.
    let field = |number: usize| fields.get(number - 3).copied();
    Some(Stat {
        state: *field(3)?.as_bytes().first()?,
        parent_pid: field(4)?.parse().ok()?,
        kernel_thread: field(9)?.parse::<u64>().ok()? & PF_KTHREAD != 0,
        threads: field(20)?.parse().ok()?,
        start_ticks: field(22)?.parse().ok()?,
    })
}

/// What is wanted of `/proc/PID/status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status {
    /// The user whose files it makes.
    pub user: u32,
    /// The pid as the process itself sees it.
    pub namespace_pid: u32,
}

/// Parses `/proc/PID/status`. A line of it is the process's name, but what
/// could break a line in there is escaped.
pub fn parse_status(text: &[u8]) -> Option<Status> {
    let last = |key: &[u8]| -> Option<u32> {
        let mut lines = text.split(|&byte| byte == b'\n');
        let values = lines.find_map(|line| line.strip_prefix(key))?;
        let values = std::str::from_utf8(values).ok()?;
        values.split_ascii_whitespace().next_back()?.parse().ok()
    };
    Some(Status {
        // The last of four: real, effective, saved, and for files.
        user: last(b"Uid:")?,
        // One for each pid namespace, the innermost last.
        namespace_pid: last(b"NSpid:")?,
    })
}

/// Parses `/proc/PID/maps`: its executable mappings, the first
/// [`MAX_MAPPINGS`] of them. Stops where reading fails.
pub fn parse_maps(mut text: impl BufRead) -> Vec<MapRecord> {
    let mut maps = Vec::new();
    let mut line = Vec::new();
    while maps.len() < MAX_MAPPINGS && read_line(&mut text, &mut line) {
        maps.extend(parse_maps_line(&line));
    }
    maps
}

/// The next line without its end, cut at [`MAX_LINE_BYTES`]; false at the end.
fn read_line(text: &mut impl BufRead, line: &mut Vec<u8>) -> bool {
    line.clear();
    let mut any = false;
    loop {
        let Ok(buffer) = text.fill_buf() else {
            return any;
        };
        if buffer.is_empty() {
            return any;
        }
        any = true;
        let end = buffer.iter().position(|&byte| byte == b'\n');
        let part = &buffer[..end.unwrap_or(buffer.len())];
        let room = MAX_LINE_BYTES - line.len();
        line.extend_from_slice(&part[..part.len().min(room)]);
        let used = end.map_or(buffer.len(), |end| end + 1);
        text.consume(used);
        if end.is_some() {
            return true;
        }
    }
}

/// One line, if it is of an executable mapping.
fn parse_maps_line(line: &[u8]) -> Option<MapRecord> {
    let permissions = line.split(|&byte| byte == b' ').nth(1)?;
    if permissions.get(2) != Some(&b'x') {
        return None;
    }
    parse_maps_range(line)
}

/// One line, whatever its permissions:
/// `start-end perms offset major:minor inode    name`.
pub fn parse_maps_range(line: &[u8]) -> Option<MapRecord> {
    let (range, rest) = field(line)?;
    let (_permissions, rest) = field(rest)?;
    let (file_offset, rest) = field(rest)?;
    let (device, rest) = field(rest)?;
    let (inode, name) = field(rest)?;
    let (start, end) = range.split_once('-')?;
    let (major, minor) = device.split_once(':')?;
    let start = u64::from_str_radix(start, 16).ok()?;
    let end = u64::from_str_radix(end, 16).ok()?;
    let name = unescape_newlines(name.trim_ascii_start());
    (start < end).then_some(MapRecord {
        start,
        end,
        file_offset: u64::from_str_radix(file_offset, 16).ok()?,
        id: FileId {
            device: libc::makedev(
                u32::from_str_radix(major, 16).ok()?,
                u32::from_str_radix(minor, 16).ok()?,
            ),
            inode: inode.parse().ok()?,
        },
        generation: None,
        name: name.into(),
        build_id: None,
    })
}

/// Splits off the next field, which is followed by a blank or the end.
fn field(text: &[u8]) -> Option<(&str, &[u8])> {
    let text = text.trim_ascii_start();
    let end = text.iter().position(|&byte| byte == b' ');
    let (field, rest) = text.split_at(end.unwrap_or(text.len()));
    Some((std::str::from_utf8(field).ok()?, rest))
}

/// Undoes the one escape of `maps`. A path that really holds the four
/// characters `\012` cannot be told apart; it is then not found by its name.
fn unescape_newlines(name: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(name.len().min(MAX_NAME_BYTES));
    let mut rest = name;
    while let Some((&byte, behind)) = rest.split_first() {
        if plain.len() == MAX_NAME_BYTES {
            break;
        }
        if let Some(behind) = rest.strip_prefix(br"\012") {
            plain.push(b'\n');
            rest = behind;
        } else {
            plain.push(byte);
            rest = behind;
        }
    }
    plain
}

/// The path of the cgroup2 hierarchy in `/proc/PID/cgroup`, as seen from the
/// reader's cgroup namespace.
pub fn parse_cgroup2(text: &[u8]) -> Option<&[u8]> {
    text.split(|&byte| byte == b'\n')
        .find_map(|line| line.strip_prefix(b"0::"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use proptest::prelude::*;

    /// Captured from `cat /proc/self/maps`, shortened.
    const MAPS: &[u8] = b"\
5642aa4cb000-5642aa4cd000 r--p 00000000 fe:00 247030                     /usr/bin/cat
5642aa4cd000-5642aa4d2000 r-xp 00002000 fe:00 247030                     /usr/bin/cat
5642c7b1b000-5642c7b3c000 rw-p 00000000 00:00 0                          [heap]
7f7d0d904000-7f7d0d926000 rwxp 00000000 00:00 0 
7f7d0d9af000-7f7d0db05000 r-xp 00026000 fe:00 326279                     /usr/lib/x86_64-linux-gnu/libc.so.6
7ffd8a9f6000-7ffd8a9f8000 r-xp 00000000 00:00 0                          [vdso]
ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]
";

    #[test]
    fn the_executable_mappings_of_a_captured_file_are_kept() {
        let maps = parse_maps(MAPS);
        let names: Vec<_> = maps
            .iter()
            .map(|map| map.name.escape_ascii().to_string())
            .collect();
        assert_eq!(
            names,
            [
                "/usr/bin/cat",
                "",
                "/usr/lib/x86_64-linux-gnu/libc.so.6",
                "[vdso]",
                "[vsyscall]"
            ]
        );
        assert_eq!(
            maps[0],
            MapRecord {
                start: 0x5642_aa4c_d000,
                end: 0x5642_aa4d_2000,
                file_offset: 0x2000,
                id: FileId {
                    device: libc::makedev(0xfe, 0),
                    inode: 247_030,
                },
                generation: None,
                name: (*b"/usr/bin/cat").into(),
                build_id: None,
            }
        );
    }

    #[test]
    fn a_hostile_path_stays_one_path() {
        let text =
            b"1000-2000 r-xp 00000000 fe:00 1   /tmp/a  b\\0123000-4000 r-xp\xff (deleted)\n";
        let maps = parse_maps(&text[..]);
        assert_eq!(maps.len(), 1);
        assert_eq!(&*maps[0].name, b"/tmp/a  b\n3000-4000 r-xp\xff (deleted)");
    }

    #[test]
    fn a_line_without_end_is_cut() {
        let mut text = b"1000-2000 r-xp 00000000 fe:00 1 /".to_vec();
        text.resize(1 << 20, b'a');
        text.extend(b"\n3000-4000 r-xp 00000000 fe:00 1 /b\n");
        let maps = parse_maps(&text[..]);
        assert_eq!(maps[0].name.len(), MAX_NAME_BYTES);
        assert_eq!(&*maps[1].name, b"/b");
    }

    #[test]
    fn lines_that_make_no_sense_are_passed_over() {
        let text = b"\n-\nzz-yy r-xp 0 0:0 0\n2000-1000 r-xp 00000000 00:00 0\n1-2 r-xp 0 0:0\n\
            1000-2000 r-xp 0 00:00 0\n";
        assert_eq!(parse_maps(&text[..]).len(), 1);
    }

    #[test]
    fn a_name_full_of_brackets_does_not_shift_the_fields() {
        let tail = "S 41 12 12 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 3 0 987654 1 2 3";
        for name in ["cat", "a) R 1 2 (b", "", "))) (("] {
            let stat = parse_stat(format!("12 ({name}) {tail}").as_bytes()).unwrap();
            assert_eq!(
                stat,
                Stat {
                    state: b'S',
                    parent_pid: 41,
                    threads: 3,
                    start_ticks: 987_654,
                    kernel_thread: false,
                }
            );
        }
    }

    #[test]
    fn a_kernel_thread_is_told_by_its_flag() {
        let stat =
            b"2 (kthreadd) S 0 0 0 0 -1 2129984 0 0 0 0 0 4 0 0 20 0 1 0 1 0 0 18446744073709551615 0";
        assert!(parse_stat(stat).unwrap().kernel_thread);
    }

    #[test]
    fn a_cut_stat_is_none() {
        assert_eq!(parse_stat(b"12 (cat) S 41 12"), None);
        assert_eq!(parse_stat(b"12 cat S 41"), None);
    }

    #[test]
    fn status_tells_the_innermost_pid_and_the_user_of_files() {
        let text = b"Name:\tUid:\\n7\nTgid:\t500\nUid:\t1\t2\t3\t1000\nNSpid:\t500\t12\t7\n";
        let status = Status {
            user: 1000,
            namespace_pid: 7,
        };
        assert_eq!(parse_status(text), Some(status));
        assert_eq!(parse_status(b"Uid:\t1\t2\t3\t1000\n"), None);
        assert_eq!(parse_status(b"Uid:\nNSpid:\n"), None);
    }

    #[test]
    fn the_cgroup2_path_is_found_among_v1_lines() {
        assert_eq!(
            parse_cgroup2(b"9:name=systemd:/\n0::/user.slice/a b\n"),
            Some(&b"/user.slice/a b"[..])
        );
        assert_eq!(parse_cgroup2(b"9:name=systemd:/\n"), None);
    }

    proptest! {
        #[test]
        fn no_bytes_make_them_panic(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
            parse_stat(&bytes);
            parse_status(&bytes);
            parse_maps(&bytes[..]);
            parse_cgroup2(&bytes);
        }

        #[test]
        fn no_text_like_theirs_makes_them_panic(text in "[0-9a-fx() :\\-/\n]{0,200}") {
            parse_stat(text.as_bytes());
            parse_maps(text.as_bytes());
        }
    }
}
