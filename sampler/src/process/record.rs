//! The kernel's own news of processes: `PERF_RECORD_*` of a `dummy` event.
//!
//! Layouts: `enum perf_event_type` in `linux/perf_event.h`. The event is opened
//! with `sample_id_all` and `sample_type` = TID | TIME | IDENTIFIER on
//! `CLOCK_MONOTONIC`, so that each record ends in `{ u32 pid, tid; u64 time, id; }`.
//!
//! A second event, opened with `build_id`, tells of the same mappings by build ID.
//! The flag in the record's header does not say which of the two wrote it: once
//! any event of this host has set it, those behind it inherit it.

use thiserror::Error;

use super::comm::Comm;
use crate::object::{BuildId, FileId};

const PERF_RECORD_LOST: u32 = 2;
const PERF_RECORD_COMM: u32 = 3;
const PERF_RECORD_EXIT: u32 = 4;
const PERF_RECORD_FORK: u32 = 7;
const PERF_RECORD_MMAP2: u32 = 10;

const MISC_CPUMODE_MASK: u16 = 7;
const MISC_KERNEL: u16 = 1;
const MISC_COMM_EXEC: u16 = 1 << 13;
const MISC_MMAP_BUILD_ID: u16 = 1 << 14;

/// `{ u32 pid, tid; u64 time, id; }` at the end of each record.
const SAMPLE_ID_BYTES: usize = 24;
/// What says in a mapping's record which file it is of: inode or build ID.
const IDENTITY_BYTES: usize = 24;

/// One piece of news.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// When, on `CLOCK_MONOTONIC`.
    pub time_ns: u64,
    /// The process it is about, as the opener's pid namespace numbers it; 0 or
    /// `u32::MAX` for one that has no number there.
    pub pid: u32,
    /// The thread it is about: the child of a fork, the one that maps.
    pub tid: u32,
    /// What happened.
    pub event: Event,
}

/// What happened to a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The thread was created: a process if its parent's pid is another.
    Fork {
        /// The process that created it.
        parent_pid: u32,
        /// The thread that created it.
        parent_tid: u32,
    },
    /// The thread ended.
    Exit,
    /// The process runs another program from here on.
    Exec {
        /// Its new name.
        comm: Comm,
    },
    /// The thread was renamed.
    Comm {
        /// Its new name.
        comm: Comm,
    },
    /// An executable mapping was made.
    Map(MapRecord),
    /// The ring was full: there were records here that nobody will see.
    Lost {
        /// How many.
        records: u64,
    },
}

/// An executable mapping, as the kernel or `/proc` tells of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MapRecord {
    /// The first address.
    pub start: u64,
    /// The first address behind it; always greater than `start`.
    pub end: u64,
    /// Where in the file `start` lies.
    pub file_offset: u64,
    /// The device of the file's superblock and the inode; inode 0 for none.
    pub id: FileId,
    /// What tells two files apart that had the same inode number one after the
    /// other; `/proc` does not say it.
    pub generation: Option<u32>,
    /// A path or the kernel's word for the mapping; any bytes but NUL.
    pub name: Box<[u8]>,
    /// The build ID of the file, where the kernel said it. A record of the kernel's
    /// that does says no inode.
    pub build_id: Option<BuildId>,
}

/// Why a record cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum RecordError {
    /// It ends before its fixed part does.
    #[error("perf record of type {record_type} is cut after {bytes} bytes")]
    Short {
        /// `PERF_RECORD_*`.
        record_type: u32,
        /// The length of its body.
        bytes: usize,
    },
    /// A mapping that is empty or wraps round the address space.
    #[error("mapping of {length_bytes} bytes at {start:#x} is not a range")]
    NoRange {
        /// Its first address.
        start: u64,
        /// Its length.
        length_bytes: u64,
    },
}

/// Reads the body (all behind the 8-byte header) of one record.
///
/// `build_id_event` is the ID of the event that tells of mappings by build ID, if
/// there is one. `Ok(None)` is a record that says nothing about user processes: a
/// mapping of the kernel's or one without `PROT_EXEC`, types that are not asked
/// for, and what that event says of other things.
pub fn parse(
    record_type: u32,
    misc: u16,
    body: &[u8],
    build_id_event: Option<u64>,
) -> Result<Option<Record>, RecordError> {
    if misc & MISC_CPUMODE_MASK == MISC_KERNEL {
        return Ok(None);
    }
    let short = RecordError::Short {
        record_type,
        bytes: body.len(),
    };
    let (mut fields, sample_id) = body
        .len()
        .checked_sub(SAMPLE_ID_BYTES)
        .map(|at| body.split_at(at))
        .map(|(fields, sample_id)| (Fields(fields), Fields(sample_id)))
        .ok_or(short)?;
    let (time_ns, teller_pid, teller, event_id) = sample_id.sample_id().ok_or(short)?;
    let tells_build_ids = build_id_event == Some(event_id);
    if tells_build_ids && !matches!(record_type, PERF_RECORD_LOST | PERF_RECORD_MMAP2) {
        return Ok(None);
    }

    let (pid, tid, event) = match record_type {
        PERF_RECORD_LOST => {
            let (_id, records) = fields.pair_u64().ok_or(short)?;
            (teller_pid, teller, Event::Lost { records })
        }
        PERF_RECORD_COMM => {
            let (pid, tid) = fields.pair_u32().ok_or(short)?;
            let comm = Comm::new(fields.0);
            let event = if misc & MISC_COMM_EXEC == 0 {
                Event::Comm { comm }
            } else {
                Event::Exec { comm }
            };
            (pid, tid, event)
        }
        PERF_RECORD_FORK | PERF_RECORD_EXIT => {
            let (pid, parent_pid) = fields.pair_u32().ok_or(short)?;
            let (tid, parent_thread) = fields.pair_u32().ok_or(short)?;
            let event = if record_type == PERF_RECORD_FORK {
                Event::Fork {
                    parent_pid,
                    parent_tid: parent_thread,
                }
            } else {
                Event::Exit
            };
            (pid, tid, event)
        }
        PERF_RECORD_MMAP2 => {
            let (pid, tid) = fields.pair_u32().ok_or(short)?;
            let has_build_id = tells_build_ids && misc & MISC_MMAP_BUILD_ID != 0;
            match fields.map(short, has_build_id)? {
                Some(map) => (pid, tid, Event::Map(map)),
                None => return Ok(None),
            }
        }
        _ => return Ok(None),
    };
    Ok(Some(Record {
        time_ns,
        pid,
        tid,
        event,
    }))
}

/// What is left of a record.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn u32(&mut self) -> Option<u32> {
        let (value, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u32::from_ne_bytes(*value))
    }

    fn u64(&mut self) -> Option<u64> {
        let (value, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u64::from_ne_bytes(*value))
    }

    fn pair_u32(&mut self) -> Option<(u32, u32)> {
        Some((self.u32()?, self.u32()?))
    }

    fn pair_u64(&mut self) -> Option<(u64, u64)> {
        Some((self.u64()?, self.u64()?))
    }

    /// Time, pid, tid, and the ID of the event.
    fn sample_id(mut self) -> Option<(u64, u32, u32, u64)> {
        let (pid, tid) = self.pair_u32()?;
        let (time_ns, event_id) = self.pair_u64()?;
        Some((time_ns, pid, tid, event_id))
    }

    /// A mapping behind its pid and tid; nothing if it is not executable.
    fn map(
        mut self,
        short: RecordError,
        has_build_id: bool,
    ) -> Result<Option<MapRecord>, RecordError> {
        let (start, length_bytes) = self.pair_u64().ok_or(short)?;
        let file_offset = self.u64().ok_or(short)?;
        let (identity, rest) = self.0.split_first_chunk().ok_or(short)?;
        self.0 = rest;
        let (protection, _flags) = self.pair_u32().ok_or(short)?;
        if protection & libc::PROT_EXEC as u32 == 0 {
            return Ok(None);
        }
        let end = start
            .checked_add(length_bytes)
            .filter(|end| *end > start)
            .ok_or(RecordError::NoRange {
                start,
                length_bytes,
            })?;
        let (id, generation, build_id) = if has_build_id {
            (FileId::default(), None, build_id(identity))
        } else {
            let (id, generation) = inode(identity);
            (id, Some(generation), None)
        };
        let name_end = self.0.iter().position(|&byte| byte == 0);
        Ok(Some(MapRecord {
            start,
            end,
            file_offset,
            id,
            generation,
            name: self.0[..name_end.unwrap_or(self.0.len())].into(),
            build_id,
        }))
    }
}

/// `{ u32 major, minor; u64 inode, generation; }`
fn inode(identity: &[u8; IDENTITY_BYTES]) -> (FileId, u32) {
    let mut fields = Fields(identity);
    let (major, minor) = fields.pair_u32().unwrap_or_default();
    let (inode, generation) = fields.pair_u64().unwrap_or_default();
    let device = libc::makedev(major, minor);
    (FileId { device, inode }, generation as u32)
}

/// `{ u8 size, reserved[3], build_id[20]; }`
fn build_id(identity: &[u8; IDENTITY_BYTES]) -> Option<BuildId> {
    let build_id = identity.get(4..4 + usize::from(identity[0]))?;
    (!build_id.is_empty()).then(|| BuildId(build_id.into()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use proptest::prelude::*;

    const EVENT: u64 = 40;
    const BUILD_ID_EVENT: u64 = 41;

    fn body(parts: &[&[u8]]) -> Vec<u8> {
        let mut body = parts.concat();
        // The sample_id of pid 70, tid 71 at 5,000 ns.
        body.extend(70_u32.to_ne_bytes());
        body.extend(71_u32.to_ne_bytes());
        body.extend(5_000_u64.to_ne_bytes());
        body.extend(EVENT.to_ne_bytes());
        body
    }

    /// As the event with this ID wrote it.
    fn told_by(event: u64, mut body: Vec<u8>) -> Vec<u8> {
        let at = body.len() - 8;
        body[at..].copy_from_slice(&event.to_ne_bytes());
        body
    }

    fn parse(record_type: u32, misc: u16, body: &[u8]) -> Result<Option<Record>, RecordError> {
        super::parse(record_type, misc, body, Some(BUILD_ID_EVENT))
    }

    fn words(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_ne_bytes()).collect()
    }

    fn longs(longs: &[u64]) -> Vec<u8> {
        longs.iter().flat_map(|long| long.to_ne_bytes()).collect()
    }

    fn mmap2(length_bytes: u64, protection: u32, name: &[u8]) -> Vec<u8> {
        body(&[
            &words(&[70, 71]),
            &longs(&[0x7000, length_bytes, 0x2000]),
            &words(&[254, 3]),
            &longs(&[1234, 99]),
            &words(&[protection, 2]),
            name,
        ])
    }

    /// Hexadecimal digits as bytes, and the ID of the event.
    fn captured(digits: &str) -> Vec<u8> {
        (0..digits.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap())
            .chain(EVENT.to_ne_bytes())
            .collect()
    }

    /// Taken from the rings of Linux 6.18 while `sh -c /bin/true` ran; event IDs
    /// were not asked for then.
    #[test]
    fn records_of_a_real_kernel_tell_the_life_of_true() {
        let parse = |record_type, misc, digits| {
            let record = parse(record_type, misc, &captured(digits));
            let record = record.unwrap().unwrap();
            assert_eq!(record.pid, 7952);
            record.event
        };
        let forked = "101f00000f1f0000101f00000f1f000069287a2c1c020000\
            0f1f00000f1f000067267a2c1c020000";
        assert_eq!(
            parse(PERF_RECORD_FORK, 0, forked),
            Event::Fork {
                parent_pid: 7951,
                parent_tid: 7951,
            }
        );
        let named = "101f0000101f00007472756500000000101f0000101f000096c57b2c1c020000";
        let comm = Comm::new(b"true");
        assert_eq!(parse(PERF_RECORD_COMM, 0x2000, named), Event::Exec { comm });
        let mapped = "101f0000101f0000004085afce55000000400000000000000020000000000000\
            fe0000000000000031c80300000000000000000000000000\
            05000000020000002f7573722f62696e2f74727565000000\
            101f0000101f0000e93c7c2c1c020000";
        let Event::Map(map) = parse(PERF_RECORD_MMAP2, 2, mapped) else {
            panic!("no mapping");
        };
        assert_eq!((map.start, map.end), (0x55ce_af85_4000, 0x55ce_af85_8000));
        assert_eq!((map.file_offset, map.id.inode), (0x2000, 247_857));
        assert_eq!(map.id.device, libc::makedev(254, 0));
        assert_eq!(&*map.name, b"/usr/bin/true");
        let exited = "101f00000f1f0000101f00000f1f0000ba59832c1c020000\
            101f0000101f0000de57832c1c020000";
        assert_eq!(parse(PERF_RECORD_EXIT, 0, exited), Event::Exit);
    }

    #[test]
    fn a_fork_tells_child_and_parent_apart() {
        let record = parse(
            PERF_RECORD_FORK,
            0,
            &body(&[&words(&[80, 70, 81, 71]), &longs(&[4_999])]),
        );
        let expected = Record {
            time_ns: 5_000,
            pid: 80,
            tid: 81,
            event: Event::Fork {
                parent_pid: 70,
                parent_tid: 71,
            },
        };
        assert_eq!(record, Ok(Some(expected)));
    }

    #[test]
    fn an_exec_is_a_rename_with_a_flag() {
        let renamed = body(&[&words(&[70, 71]), b"cat\0\0\0\0\0"]);
        let comm = Comm::new(b"cat");
        let event = |misc| {
            parse(PERF_RECORD_COMM, misc, &renamed)
                .unwrap()
                .unwrap()
                .event
        };
        assert_eq!(event(0), Event::Comm { comm });
        assert_eq!(event(MISC_COMM_EXEC), Event::Exec { comm });
    }

    #[test]
    fn a_mapping_names_range_file_and_generation() {
        let record = parse(
            PERF_RECORD_MMAP2,
            2,
            &mmap2(0x1000, 5, b"/bin/a b\0\0\0\0\0\0\0\0"),
        );
        let expected = MapRecord {
            start: 0x7000,
            end: 0x8000,
            file_offset: 0x2000,
            id: FileId {
                device: libc::makedev(254, 3),
                inode: 1234,
            },
            generation: Some(99),
            name: (*b"/bin/a b").into(),
            build_id: None,
        };
        assert_eq!(record.unwrap().unwrap().event, Event::Map(expected));
    }

    #[test]
    fn what_is_not_code_of_a_process_is_passed_over() {
        assert_eq!(
            parse(PERF_RECORD_MMAP2, 2, &mmap2(4096, 1, b"/data\0\0\0")),
            Ok(None)
        );
        assert_eq!(
            parse(PERF_RECORD_MMAP2, 1, &mmap2(4096, 5, b"[module]")),
            Ok(None)
        );
        assert_eq!(parse(14, 0, &body(&[])), Ok(None));
    }

    #[test]
    fn a_mapping_that_is_no_range_is_an_error() {
        for length_bytes in [0, u64::MAX] {
            assert!(matches!(
                parse(
                    PERF_RECORD_MMAP2,
                    2,
                    &mmap2(length_bytes, 5, b"/x\0\0\0\0\0\0")
                ),
                Err(RecordError::NoRange { .. })
            ));
        }
    }

    fn by_build_id(said_bytes: u8) -> Vec<u8> {
        let identity = [&[said_bytes, 0, 0, 0][..], &[9; 20]].concat();
        body(&[
            &words(&[70, 71]),
            &longs(&[0x7000, 0x1000, 0x2000]),
            &identity,
            &words(&[5, 2]),
            b"/x\0\0\0\0\0\0",
        ])
    }

    #[test]
    fn a_mapping_may_name_its_file_by_build_id() {
        for (said_bytes, expected) in [
            (20, Some(vec![9; 20])),
            (8, Some(vec![9; 8])),
            (0, None),
            (21, None),
        ] {
            let record = told_by(BUILD_ID_EVENT, by_build_id(said_bytes));
            let record = parse(PERF_RECORD_MMAP2, 2 | MISC_MMAP_BUILD_ID, &record);
            let Event::Map(map) = record.unwrap().unwrap().event else {
                panic!("not a mapping");
            };
            assert_eq!((map.id, map.generation), (FileId::default(), None));
            assert_eq!(map.build_id.map(|id| id.0.into_vec()), expected);
            assert_eq!(&*map.name, b"/x");
        }
    }

    #[test]
    fn whoever_else_asks_for_build_ids_does_not_change_what_we_are_told() {
        let told = mmap2(0x1000, 5, b"/x\0\0\0\0\0\0");
        let plain = parse(PERF_RECORD_MMAP2, 2, &told);
        let flagged = parse(PERF_RECORD_MMAP2, 2 | MISC_MMAP_BUILD_ID, &told);
        assert_eq!(flagged, plain);
        // Where the kernel found no build ID, there is an inode.
        let by_other = parse(PERF_RECORD_MMAP2, 2, &told_by(BUILD_ID_EVENT, told));
        assert_eq!(by_other, plain);
    }

    #[test]
    fn only_one_of_two_events_tells_of_lives() {
        let forked = body(&[&words(&[80, 70, 81, 71]), &longs(&[4_999])]);
        assert!(matches!(parse(PERF_RECORD_FORK, 0, &forked), Ok(Some(_))));
        let again = told_by(BUILD_ID_EVENT, forked);
        assert_eq!(parse(PERF_RECORD_FORK, 0, &again), Ok(None));
        let lost = told_by(BUILD_ID_EVENT, body(&[&longs(&[1, 17])]));
        assert!(matches!(parse(PERF_RECORD_LOST, 0, &lost), Ok(Some(_))));
    }

    #[test]
    fn losses_are_counted_by_the_kernel() {
        let record = parse(PERF_RECORD_LOST, 0, &body(&[&longs(&[1, 17])]));
        assert_eq!(record.unwrap().unwrap().event, Event::Lost { records: 17 });
    }

    #[test]
    fn a_cut_record_is_an_error() {
        let whole = mmap2(0x1000, 5, b"");
        for length in 0..whole.len() {
            assert!(matches!(
                parse(PERF_RECORD_MMAP2, 2, &whole[..length]),
                Err(RecordError::Short { .. })
            ));
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(
            record_type in 0_u32..20,
            misc: u16,
            bytes in proptest::collection::vec(any::<u8>(), 0..160),
        ) {
            let _ = parse(record_type, misc, &bytes);
        }
    }
}
