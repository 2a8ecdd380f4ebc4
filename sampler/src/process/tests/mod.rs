//! What the table must say after what was told to it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::*;
use crate::object::{BuildId, FileId};

mod files;
mod lives;

const PARENT: u32 = 4_000_001; // Above every pid: nobody has them.
const CHILD: u32 = 4_000_002;
const SECOND_NS: u64 = 1_000_000_000;

fn table() -> ProcessTable {
    ProcessTable::new(Procfs::new("/proc"), 256)
}

fn record(time_ns: u64, pid: u32, event: Event) -> Record {
    Record {
        time_ns,
        pid,
        tid: pid,
        event,
    }
}

fn fork(time_ns: u64, pid: u32, parent: u32) -> Record {
    let event = Event::Fork {
        parent_pid: parent,
        parent_tid: parent,
    };
    record(time_ns, pid, event)
}

fn exec(time_ns: u64, pid: u32, comm: &str) -> Record {
    let comm = Comm::new(comm.as_bytes());
    record(time_ns, pid, Event::Exec { comm })
}

fn map_named(time_ns: u64, pid: u32, start: u64, name: &str, id: FileId) -> Record {
    let map = MapRecord {
        start,
        end: start + 0x1000,
        file_offset: 0x3000,
        id,
        generation: None,
        name: name.as_bytes().into(),
        build_id: None,
    };
    record(time_ns, pid, Event::Map(map))
}

/// A mapping of memory that is told apart by its name.
fn map(time_ns: u64, pid: u32, start: u64, name: &str) -> Record {
    let none = FileId {
        device: 0,
        inode: 0,
    };
    map_named(time_ns, pid, start, &format!("[anon:{name}]"), none)
}

fn identity(path: &Path) -> FileId {
    let metadata = fs::metadata(path).unwrap();
    FileId {
        device: metadata.dev(),
        inode: metadata.ino(),
    }
}

/// A sighting of a process that was forked at `forked_ns`.
fn seen(table: &ProcessTable, pid: u32, forked_ns: u64, time_ns: u64) -> Sighting {
    Sighting {
        pid,
        start_time_ns: table.clocks().to_boot_ns(forked_ns) - 1_000,
        time_ns,
        leader_comm: Comm::default(),
    }
}

fn name_at(table: &ProcessTable, key: ProcessKey, time_ns: u64, address: u64) -> Option<String> {
    let mapping = table.locate(key, time_ns, address)?;
    Some(mapping.name().into_owned())
}

fn sleeping_cat() -> Child {
    let mut command = Command::new("cat");
    let child = command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = child.spawn().unwrap();
    // Once it has echoed a byte it is in its main loop, with all libraries in.
    std::io::Write::write_all(child.stdin.as_mut().unwrap(), b"x").unwrap();
    let mut byte = [0];
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut byte).unwrap();
    child
}

fn start_ns(table: &ProcessTable, pid: u32) -> u64 {
    let stat = Procfs::new("/proc").snapshot(pid).unwrap().stat;
    table.clocks().ticks_to_boot_ns(stat.start_ticks) + 1_234
}
