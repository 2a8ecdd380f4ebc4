//! The kernel's own record of forks, execs, mappings and exits: a dummy event
//! on each CPU whose ring carries them.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU64, Ordering};

use super::pairing::Pairing;
use super::perf_abi::{self, PerfEventAttr, event_type, flag, read_format, sample, software};
use super::ticks::read_enabled_ns;
use crate::process::{Event, Record, parse};

/// Pages of a ring's data: what `perf_event_mlock_kb` grants by default.
const RING_PAGES: usize = 128;
/// A ring wakes its reader when it holds this much, so at each record: a file
/// has to be opened while it is there, and it may be deleted a moment later.
const WAKEUP_BYTES: u32 = 1;
/// `struct perf_event_header`: type u32, misc u16, size u16.
const HEADER_BYTES: usize = 8;
/// Offsets in `struct perf_event_mmap_page`.
const DATA_HEAD: usize = 1024;
const DATA_TAIL: usize = 1032;

/// One CPU's ring.
#[derive(Debug)]
struct Ring {
    cpu: u32,
    event: File,
    /// Its enabled time when it was last looked at.
    enabled_ns: u64,
    /// What tells of mappings by build ID, into the same ring; kernels before 5.12
    /// have none.
    by_build_id: Option<BuildIdEvent>,
    pairing: Pairing,
    base: NonNull<u8>,
    page_bytes: usize,
}

// SAFETY: it owns its mapping, which is not tied to a thread.
unsafe impl Send for Ring {}

/// The rings of all CPUs.
#[derive(Debug, Default)]
pub struct Sideband {
    rings: Vec<Ring>,
    changes: u64,
    /// What was left in rings that are gone, for the next reader.
    left: Vec<Record>,
    scratch: Vec<u8>,
    malformed: u64,
}

impl Sideband {
    /// Starts to listen on these CPUs.
    pub fn open(cpus: &[u32]) -> io::Result<Self> {
        let mut sideband = Self::default();
        sideband.follow_cpus(cpus)?;
        Ok(sideband)
    }

    /// Opens a ring on each online CPU that has none, or whose event has
    /// stopped because the CPU was away in between.
    ///
    /// What happened on such a CPU before that went unheard.
    pub fn follow_cpus(&mut self, online: &[u32]) -> io::Result<()> {
        let mut rings = std::mem::take(&mut self.rings);
        rings.retain_mut(|ring| {
            let enabled_ns = read_enabled_ns(&ring.event);
            let stalled = enabled_ns <= ring.enabled_ns;
            ring.enabled_ns = enabled_ns;
            let is_heard = !stalled && online.contains(&ring.cpu);
            if !is_heard {
                self.changes += 1;
                self.scratch.clear();
                ring.take(&mut self.scratch);
                self.malformed += ring.decode(&self.scratch, &mut self.left);
                ring.pairing.end(&mut self.left);
            }
            is_heard
        });
        self.rings = rings;
        for cpu in online {
            if self.rings.iter().any(|ring| ring.cpu == *cpu) {
                continue;
            }
            match Ring::open(*cpu) {
                Ok(ring) => {
                    self.changes += 1;
                    self.rings.push(ring);
                }
                Err(error) if error.raw_os_error() == Some(libc::ENODEV) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// How many rings were opened and closed so far. When it has grown, wait
    /// for other descriptors, and what is known of processes may be old.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// Descriptors that become readable when a ring fills.
    pub fn descriptors(&self) -> io::Result<Vec<OwnedFd>> {
        self.rings
            .iter()
            .map(|ring| ring.event.try_clone().map(OwnedFd::from))
            .collect()
    }

    /// Everything that the rings hold, of all CPUs, in no order.
    pub fn read(&mut self) -> Vec<Record> {
        let mut records = std::mem::take(&mut self.left);
        for ring in &mut self.rings {
            self.scratch.clear();
            ring.take(&mut self.scratch);
            self.malformed += ring.decode(&self.scratch, &mut records);
        }
        records
    }

    /// Records that could not be understood.
    pub fn malformed(&self) -> u64 {
        self.malformed
    }
}

/// An event that writes into the ring of another one.
#[derive(Debug)]
struct BuildIdEvent {
    id: u64,
    /// Closing it ends it.
    _event: OwnedFd,
}

/// Splits the bytes of a ring into records; returns how many made no sense.
fn decode(mut bytes: &[u8], build_id_event: Option<u64>, mut take: impl FnMut(Record)) -> u64 {
    let mut malformed = 0;
    while let Some((header, _)) = bytes.split_at_checked(HEADER_BYTES) {
        let record_type = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]);
        let misc = u16::from_ne_bytes([header[4], header[5]]);
        let size = usize::from(u16::from_ne_bytes([header[6], header[7]]));
        if size < HEADER_BYTES || size > bytes.len() {
            return malformed + 1;
        }
        match parse(
            record_type,
            misc,
            &bytes[HEADER_BYTES..size],
            build_id_event,
        ) {
            Ok(Some(record)) => take(record),
            Ok(None) => {}
            Err(_) => malformed += 1,
        }
        bytes = &bytes[size..];
    }
    malformed
}

/// How many records the kernel says it dropped.
pub fn lost(records: &[Record]) -> u64 {
    records
        .iter()
        .map(|record| match record.event {
            Event::Lost { records } => records,
            _ => 0,
        })
        .sum()
}

impl Ring {
    fn open(cpu: u32) -> io::Result<Self> {
        let attr = PerfEventAttr {
            sample_type: sample::TID | sample::TIME | sample::IDENTIFIER,
            read_format: read_format::TOTAL_TIME_ENABLED,
            flags: flag::DISABLED
                | flag::MMAP
                | flag::MMAP2
                | flag::COMM
                | flag::COMM_EXEC
                | flag::TASK
                | flag::SAMPLE_ID_ALL
                | flag::USE_CLOCKID
                | flag::WATERMARK,
            clockid: libc::CLOCK_MONOTONIC,
            wakeup_events_or_watermark: WAKEUP_BYTES,
            ..PerfEventAttr::new(event_type::SOFTWARE, software::DUMMY)
        };
        let event = perf_abi::perf_event_open(&attr, -1, cpu as i32, None, 0)?;
        // SAFETY: asks for a number.
        let page_bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as usize;
        // SAFETY: a new shared mapping at an address of the kernel's choice.
        let base = unsafe {
            libc::mmap(
                ptr::null_mut(),
                (1 + RING_PAGES) * page_bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                event.as_raw_fd(),
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(base.cast()).ok_or_else(io::Error::last_os_error)?;
        let ring = Self {
            cpu,
            by_build_id: tell_build_ids(cpu, event.as_fd()),
            event: event.into(),
            pairing: Pairing::default(),
            enabled_ns: 0,
            base,
            page_bytes,
        };
        perf_abi::enable(ring.event.as_fd())?;
        Ok(ring)
    }

    /// Splits what was taken into records; returns how many made no sense.
    fn decode(&mut self, bytes: &[u8], records: &mut Vec<Record>) -> u64 {
        let Some(BuildIdEvent { id, .. }) = self.by_build_id else {
            return decode(bytes, None, |record| records.push(record));
        };
        self.pairing.begin(records);
        decode(bytes, Some(id), |record| self.pairing.add(record, records))
    }

    /// Moves what the ring holds to `out`.
    fn take(&self, out: &mut Vec<u8>) {
        let capacity = RING_PAGES * self.page_bytes;
        // SAFETY: both words lie in the mapped control page, aligned; the
        // kernel publishes the head after the data and reads the tail before
        // it overwrites any.
        let (head, tail) = unsafe {
            (
                AtomicU64::from_ptr(self.base.as_ptr().add(DATA_HEAD).cast()),
                AtomicU64::from_ptr(self.base.as_ptr().add(DATA_TAIL).cast()),
            )
        };
        let end = head.load(Ordering::Acquire);
        let start = tail.load(Ordering::Relaxed);
        let pending = (end - start) as usize;
        let at = start as usize % capacity;
        let first = pending.min(capacity - at);
        // SAFETY: the data area follows the control page; both parts lie in
        // it, and the kernel does not write between tail and head.
        unsafe {
            let data = self.base.as_ptr().add(self.page_bytes);
            out.extend_from_slice(std::slice::from_raw_parts(data.add(at), first));
            out.extend_from_slice(std::slice::from_raw_parts(data, pending - first));
        }
        tail.store(end, Ordering::Release);
    }
}

/// Has a second event tell of mappings into the first one's ring, by build ID: the
/// file may be gone by the time its path is read. Goes on without where the
/// kernel cannot.
fn tell_build_ids(cpu: u32, ring_owner: BorrowedFd<'_>) -> Option<BuildIdEvent> {
    let attr = PerfEventAttr {
        sample_type: sample::TID | sample::TIME | sample::IDENTIFIER,
        flags: flag::DISABLED
            | flag::MMAP
            | flag::MMAP2
            | flag::BUILD_ID
            | flag::SAMPLE_ID_ALL
            | flag::USE_CLOCKID,
        clockid: libc::CLOCK_MONOTONIC,
        ..PerfEventAttr::new(event_type::SOFTWARE, software::DUMMY)
    };
    let event = perf_abi::perf_event_open(&attr, -1, cpu as i32, None, 0).and_then(|event| {
        let id = perf_abi::event_id(event.as_fd())?;
        perf_abi::set_output(event.as_fd(), ring_owner)?;
        perf_abi::enable(event.as_fd())?;
        Ok(BuildIdEvent { id, _event: event })
    });
    event
        .inspect_err(|error| tracing::debug!(%error, "mappings come without build IDs"))
        .ok()
}

impl Drop for Ring {
    fn drop(&mut self) {
        // SAFETY: this is the mapping that `open` made.
        unsafe {
            libc::munmap(
                self.base.as_ptr().cast(),
                (1 + RING_PAGES) * self.page_bytes,
            )
        };
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::process::Command;

    use std::os::unix::fs::{FileExt as _, MetadataExt as _};

    use super::*;
    use crate::object::find_build_id;
    use crate::probe::host::cpus;
    use crate::process::Comm;

    /// Rings on all CPUs, if this caller may listen at all.
    fn listen() -> Option<Sideband> {
        match Sideband::open(&cpus::online().unwrap()) {
            Ok(sideband) => Some(sideband),
            Err(error) => {
                eprintln!("skipped: this caller may not open events: {error}");
                None
            }
        }
    }

    /// Waits until a ring has something to read; returns whether one did.
    fn wait_readable(sideband: &Sideband, timeout_ms: i32) -> bool {
        let descriptors = sideband.descriptors().unwrap();
        let mut polled: Vec<_> = descriptors
            .iter()
            .map(|descriptor| libc::pollfd {
                fd: descriptor.as_raw_fd(),
                events: libc::POLLIN,
                revents: 0,
            })
            .collect();
        // SAFETY: the kernel writes to the entries of a live vector.
        let ready = unsafe {
            libc::poll(
                polled.as_mut_ptr(),
                polled.len() as libc::nfds_t,
                timeout_ms,
            )
        };
        ready > 0
    }

    /// Whether the start of a program on a CPU is heard.
    fn hears_a_start_on(sideband: &mut Sideband, cpu: u32) -> bool {
        let mut child = Command::new("taskset")
            .args(["-c", &cpu.to_string(), "true"])
            .spawn()
            .unwrap();
        assert!(child.wait().unwrap().success());
        // `true` is started by the process that was `taskset`, on that CPU.
        let named_true = |record: &Record| matches!(record.event, Event::Exec { comm } if comm == Comm::new(b"true"));
        let records = sideband.read();
        records
            .iter()
            .any(|record| record.pid == child.id() && named_true(record))
    }

    #[test]
    fn a_cpu_whose_event_has_stopped_gets_another() {
        let Some(mut sideband) = listen() else {
            return;
        };
        let online = cpus::online().unwrap();
        let cpu = online[online.len() - 1];
        sideband.follow_cpus(&online).unwrap();
        let changes = sideband.changes();
        assert!(hears_a_start_on(&mut sideband, cpu));
        // As it is after the CPU went offline and came back unnoticed.
        let ring = sideband.rings.iter().find(|ring| ring.cpu == cpu).unwrap();
        perf_abi::disable(ring.event.as_fd()).unwrap();
        assert!(!hears_a_start_on(&mut sideband, cpu));
        // It ran until just now, so that only the second look tells.
        sideband.follow_cpus(&online).unwrap();
        sideband.follow_cpus(&online).unwrap();
        assert_eq!(sideband.changes(), changes + 2);
        assert!(hears_a_start_on(&mut sideband, cpu));
    }

    #[test]
    fn a_cpu_that_is_offline_has_no_ring_until_it_is_back() {
        let Some(mut sideband) = listen() else {
            return;
        };
        let online = cpus::online().unwrap();
        let (cpu, others) = online.split_last().unwrap();
        sideband.follow_cpus(others).unwrap();
        assert_eq!(sideband.descriptors().unwrap().len(), others.len());
        assert!(!hears_a_start_on(&mut sideband, *cpu));
        sideband.follow_cpus(&online).unwrap();
        assert!(hears_a_start_on(&mut sideband, *cpu));
    }

    #[test]
    fn what_a_ring_held_when_its_cpu_went_is_still_read() {
        let Some(mut sideband) = listen() else {
            return;
        };
        sideband.read();
        let status = Command::new("true").status().unwrap();
        assert!(status.success());
        sideband.follow_cpus(&[]).unwrap();
        assert!(sideband.descriptors().unwrap().is_empty());
        let records = sideband.read();
        assert!(
            records
                .iter()
                .any(|record| matches!(record.event, Event::Exec { .. }))
        );
    }

    #[test]
    fn a_mapping_is_told_of_by_inode_and_by_build_id() {
        let Some(mut sideband) = listen() else {
            return;
        };
        if sideband.rings.iter().any(|ring| ring.by_build_id.is_none()) {
            eprintln!("skipped: this kernel tells no build IDs");
            return;
        }
        sideband.read();
        let mut child = Command::new("/bin/true").spawn().unwrap();
        assert!(child.wait().unwrap().success());
        let program = File::open("/bin/true").unwrap();
        let build_id = find_build_id(|offset, buffer| program.read_at(buffer, offset));
        let inode = program.metadata().unwrap().ino();
        let of_program: Vec<_> = sideband
            .read()
            .into_iter()
            .filter(|record| record.pid == child.id())
            .filter_map(|record| match record.event {
                Event::Map(map) if map.id.inode == inode => Some(map.build_id),
                _ => None,
            })
            .collect();
        assert!(build_id.is_some());
        assert_eq!(of_program, [build_id]);
    }

    #[test]
    fn one_program_that_starts_wakes_the_reader() {
        let Some(mut sideband) = listen() else {
            return;
        };
        sideband.read();
        assert!(Command::new("true").status().unwrap().success());
        assert!(wait_readable(&sideband, 2_000));
        let execs = sideband.read();
        assert!(
            execs
                .iter()
                .any(|record| matches!(record.event, Event::Exec { .. }))
        );
    }
}
