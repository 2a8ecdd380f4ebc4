//! The words of `perf_event_open(2)` that this crate uses.
//!
//! Numbers and layout from the kernel's `include/uapi/linux/perf_event.h`.

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};

/// `struct perf_event_attr` as of Linux 5.13 (`PERF_ATTR_SIZE_VER7`, 128 bytes).
///
/// All zeroes is a valid value, except for `size`; [`PerfEventAttr::new`] sets it.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PerfEventAttr {
    /// One of [`event_type`].
    pub event_type: u32,
    /// Bytes of this structure that the caller knows.
    pub size: u32,
    /// Which event of its type.
    pub config: u64,
    /// Events between two samples, or samples a second (Hz) with [`flag::FREQ`].
    pub sample_period_or_freq: u64,
    /// Bits of [`sample`].
    pub sample_type: u64,
    /// Bits of [`read_format`].
    pub read_format: u64,
    /// Bits of [`flag`].
    pub flags: u64,
    /// Wake-up after so many events, or bytes with [`flag::WATERMARK`].
    pub wakeup_events_or_watermark: u32,
    /// Hardware breakpoint type.
    pub bp_type: u32,
    /// Breakpoint address, or the extension of `config`.
    pub config1: u64,
    /// Breakpoint length, or the extension of `config1`.
    pub config2: u64,
    /// Branch record selection.
    pub branch_sample_type: u64,
    /// User registers to dump with each sample.
    pub sample_regs_user: u64,
    /// Bytes of user stack to dump with each sample.
    pub sample_stack_user: u32,
    /// The clock of the timestamps, with [`flag::USE_CLOCKID`].
    pub clockid: i32,
    /// Registers to dump at the interrupt.
    pub sample_regs_intr: u64,
    /// Wake-up watermark of the AUX area, in bytes.
    pub aux_watermark: u32,
    /// Deepest call chain.
    pub sample_max_stack: u16,
    /// Zero.
    pub reserved_2: u16,
    /// Bytes of AUX area in each sample.
    pub aux_sample_size: u32,
    /// Zero.
    pub reserved_3: u32,
    /// Payload of a `sigtrap` event.
    pub sig_data: u64,
}

const _: () = assert!(size_of::<PerfEventAttr>() == 128);

impl PerfEventAttr {
    /// An event that is otherwise all zeroes.
    pub fn new(event_type: u32, config: u64) -> Self {
        Self {
            event_type,
            size: size_of::<Self>() as u32,
            config,
            ..Self::default()
        }
    }
}

/// `perf_event_attr.type`.
pub mod event_type {
    /// Counted by the CPU's performance monitoring unit.
    pub const HARDWARE: u32 = 0;
    /// Counted by the kernel.
    pub const SOFTWARE: u32 = 1;
}

/// `perf_event_attr.config` of an [`event_type::SOFTWARE`] event.
pub mod software {
    /// A high-resolution timer on each CPU.
    pub const CPU_CLOCK: u64 = 0;
    /// Counts nothing; carries the side band (mmap, comm, task records).
    pub const DUMMY: u64 = 9;
}

/// `perf_event_attr.config` of an [`event_type::HARDWARE`] event.
pub mod hardware {
    /// Cycles of the CPU.
    pub const CPU_CYCLES: u64 = 0;
    /// Instructions that the CPU has completed.
    pub const INSTRUCTIONS: u64 = 1;
}

/// Bits of `perf_event_attr.flags` (bit fields in C, from bit 0 upwards).
pub mod flag {
    /// Off until enabled.
    pub const DISABLED: u64 = 1 << 0;
    /// Children of the thread get the event too.
    pub const INHERIT: u64 = 1 << 1;
    /// Do not count in user space.
    pub const EXCLUDE_USER: u64 = 1 << 4;
    /// Do not count in the kernel.
    pub const EXCLUDE_KERNEL: u64 = 1 << 5;
    /// Do not count in the idle task.
    pub const EXCLUDE_IDLE: u64 = 1 << 7;
    /// MMAP records for executable mappings.
    pub const MMAP: u64 = 1 << 8;
    /// COMM records.
    pub const COMM: u64 = 1 << 9;
    /// `sample_period_or_freq` is a frequency in Hz.
    pub const FREQ: u64 = 1 << 10;
    /// The next exec of the thread enables the event.
    pub const ENABLE_ON_EXEC: u64 = 1 << 12;
    /// FORK and EXIT records.
    pub const TASK: u64 = 1 << 13;
    /// `wakeup_events_or_watermark` is a number of bytes.
    pub const WATERMARK: u64 = 1 << 14;
    /// Every record ends in a `sample_id`.
    pub const SAMPLE_ID_ALL: u64 = 1 << 18;
    /// MMAP2 records instead of MMAP.
    pub const MMAP2: u64 = 1 << 23;
    /// COMM records say whether an exec was the cause.
    pub const COMM_EXEC: u64 = 1 << 24;
    /// Timestamps are of `clockid`.
    pub const USE_CLOCKID: u64 = 1 << 25;
    /// MMAP2 records hold the build ID in place of device and inode (5.12).
    pub const BUILD_ID: u64 = 1 << 34;
}

/// Bits of `perf_event_attr.sample_type`.
pub mod sample {
    /// Process and thread id.
    pub const TID: u64 = 1 << 1;
    /// Timestamp, in nanoseconds.
    pub const TIME: u64 = 1 << 2;
    /// The CPU.
    pub const CPU: u64 = 1 << 7;
    /// The event's ID, in a fixed place.
    pub const IDENTIFIER: u64 = 1 << 16;
}

/// Bits of `perf_event_attr.read_format`: which u64 follow the count in a
/// `read(2)` of the event, in this order.
pub mod read_format {
    /// Nanoseconds enabled.
    pub const TOTAL_TIME_ENABLED: u64 = 1 << 0;
    /// Nanoseconds really counting.
    pub const TOTAL_TIME_RUNNING: u64 = 1 << 1;
    /// Samples lost (6.0).
    pub const LOST: u64 = 1 << 4;
}

/// `perf_event_header.type` of the records in an event's ring.
pub mod record_type {
    /// So many records did not fit the ring.
    pub const LOST: u32 = 2;
    /// A thread changed its name.
    pub const COMM: u32 = 3;
    /// A thread ended.
    pub const EXIT: u32 = 4;
    /// A thread was made.
    pub const FORK: u32 = 7;
    /// A file was mapped executable.
    pub const MMAP2: u32 = 10;
}

/// Close the event's descriptor on exec.
pub const PERF_FLAG_FD_CLOEXEC: u64 = 1 << 3;
/// `pid` is the descriptor of a cgroup directory.
pub const PERF_FLAG_PID_CGROUP: u64 = 1 << 2;

const PERF_EVENT_IOC_ENABLE: libc::Ioctl = 0x2400;
const PERF_EVENT_IOC_DISABLE: libc::Ioctl = 0x2401;
const PERF_EVENT_IOC_SET_OUTPUT: libc::Ioctl = 0x2405;
const PERF_EVENT_IOC_SET_BPF: libc::Ioctl = 0x4004_2408;
const PERF_EVENT_IOC_ID: libc::Ioctl = 0x8008_2407;

/// Opens an event on a thread (`pid` > 0), the caller (0) or everything (-1),
/// on one CPU or on all (-1).
///
/// `group` is the leader to join. The descriptor is never inherited across
/// exec, whatever `flags` says.
pub fn perf_event_open(
    attr: &PerfEventAttr,
    pid: i32,
    cpu: i32,
    group: Option<BorrowedFd<'_>>,
    flags: u64,
) -> io::Result<OwnedFd> {
    let group_fd = group.map_or(-1, |fd| fd.as_raw_fd());
    // SAFETY: the kernel reads `attr.size` bytes from a live reference of
    // exactly that type and writes at most its `size` field on E2BIG; a copy
    // is passed, so the caller's value is never changed.
    let fd = unsafe {
        let mut attr = *attr;
        attr.size = size_of::<PerfEventAttr>() as u32;
        libc::syscall(
            libc::SYS_perf_event_open,
            &raw mut attr,
            pid,
            cpu,
            group_fd,
            flags | PERF_FLAG_FD_CLOEXEC,
        )
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Starts the event.
pub fn enable(event: BorrowedFd<'_>) -> io::Result<()> {
    ioctl(event, PERF_EVENT_IOC_ENABLE, 0)
}

/// Stops the event.
pub fn disable(event: BorrowedFd<'_>) -> io::Result<()> {
    ioctl(event, PERF_EVENT_IOC_DISABLE, 0)
}

/// Runs a loaded BPF program at each overflow of the event.
pub fn set_bpf(event: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    ioctl(event, PERF_EVENT_IOC_SET_BPF, program.as_raw_fd())
}

/// Writes the event's records into the ring of another event on the same CPU.
pub fn set_output(event: BorrowedFd<'_>, ring_owner: BorrowedFd<'_>) -> io::Result<()> {
    ioctl(event, PERF_EVENT_IOC_SET_OUTPUT, ring_owner.as_raw_fd())
}

/// The event's ID, by which its records tell who wrote them.
pub fn event_id(event: BorrowedFd<'_>) -> io::Result<u64> {
    let mut id = 0_u64;
    // SAFETY: the kernel writes one u64, which lives for the call.
    let result = unsafe { libc::ioctl(event.as_raw_fd(), PERF_EVENT_IOC_ID, &raw mut id) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(id)
}

/// One of the calls above that take a plain number.
fn ioctl(event: BorrowedFd<'_>, request: libc::Ioctl, argument: RawFd) -> io::Result<()> {
    // SAFETY: the callers pass ENABLE, DISABLE, SET_OUTPUT and SET_BPF, which
    // take an integer by value and touch no memory of this process.
    let result = unsafe { libc::ioctl(event.as_raw_fd(), request, libc::c_long::from(argument)) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)] // a panic is the failure report

    use std::mem::offset_of;
    use std::os::fd::AsFd as _;

    use super::*;

    #[test]
    fn the_layout_is_the_kernels() {
        assert_eq!(offset_of!(PerfEventAttr, flags), 40);
        assert_eq!(offset_of!(PerfEventAttr, branch_sample_type), 72);
        assert_eq!(offset_of!(PerfEventAttr, clockid), 92);
        assert_eq!(offset_of!(PerfEventAttr, sample_max_stack), 108);
        assert_eq!(offset_of!(PerfEventAttr, sig_data), 120);
    }

    #[test]
    fn an_event_of_no_type_is_refused_by_the_kernel() {
        let attr = PerfEventAttr::new(0xffff_0000, 0);
        assert!(perf_event_open(&attr, 0, -1, None, 0).is_err());
    }

    #[test]
    fn an_event_on_this_thread_starts_and_stops() {
        let attr = PerfEventAttr {
            flags: flag::DISABLED | flag::EXCLUDE_KERNEL,
            ..PerfEventAttr::new(event_type::SOFTWARE, software::DUMMY)
        };
        match perf_event_open(&attr, 0, -1, None, 0) {
            Ok(event) => {
                enable(event.as_fd()).unwrap();
                disable(event.as_fd()).unwrap();
                let not_a_program = std::fs::File::open("/dev/null").unwrap();
                assert!(set_bpf(event.as_fd(), not_a_program.as_fd()).is_err());
            }
            Err(error) => eprintln!("skipped: this caller may not open events: {error}"),
        }
    }
}
