//! Which perf events this kernel opens for this caller.

use std::io;

use crate::probe::perf_abi::{
    PerfEventAttr, event_type, flag, hardware, perf_event_open, sample, software,
};

/// What became of an attempt to open an event on a whole CPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventState {
    /// It opened.
    Works,
    /// The kernel or the hardware has no such event.
    NotSupported,
    /// The caller may not.
    NotPermitted,
    /// Something else, by its errno.
    Failed(i32),
}

impl EventState {
    fn of<T>(result: &io::Result<T>) -> Self {
        let Err(error) = result else {
            return Self::Works;
        };
        match error.raw_os_error().unwrap_or_default() {
            libc::EACCES | libc::EPERM => Self::NotPermitted,
            libc::ENOENT | libc::EOPNOTSUPP | libc::ENODEV | libc::ENOSYS | libc::EINVAL => {
                Self::NotSupported
            }
            errno => Self::Failed(errno),
        }
    }
}

/// The events that a recording may want.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Events {
    /// The timer that takes the samples.
    pub cpu_clock: EventState,
    /// The side band: which process maps which file, and forks and execs.
    pub side_band: EventState,
    /// CPU cycles, counted by hardware.
    pub cycles: EventState,
}

impl Events {
    /// Opens each of them, stopped, on `cpu`, and closes it again.
    pub fn probe(cpu: u32) -> Self {
        let clock = PerfEventAttr {
            flags: flag::DISABLED | flag::FREQ,
            sample_period_or_freq: 1,
            ..PerfEventAttr::new(event_type::SOFTWARE, software::CPU_CLOCK)
        };
        let side_band = PerfEventAttr {
            flags: flag::DISABLED
                | flag::MMAP
                | flag::MMAP2
                | flag::BUILD_ID
                | flag::COMM
                | flag::COMM_EXEC
                | flag::TASK
                | flag::SAMPLE_ID_ALL,
            sample_type: sample::TID | sample::TIME,
            ..PerfEventAttr::new(event_type::SOFTWARE, software::DUMMY)
        };
        let cycles = PerfEventAttr {
            config: hardware::CPU_CYCLES,
            event_type: event_type::HARDWARE,
            ..clock
        };
        let open = |attr| EventState::of(&perf_event_open(attr, -1, cpu as i32, None, 0));
        Self {
            cpu_clock: open(&clock),
            side_band: open(&side_band),
            cycles: open(&cycles),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_told_from_absence() {
        let state = |errno| EventState::of::<()>(&Err(io::Error::from_raw_os_error(errno)));
        assert_eq!(state(libc::EACCES), EventState::NotPermitted);
        assert_eq!(state(libc::EOPNOTSUPP), EventState::NotSupported);
        assert_eq!(state(libc::ENOENT), EventState::NotSupported);
        assert_eq!(state(libc::EMFILE), EventState::Failed(libc::EMFILE));
        assert_eq!(EventState::of(&Ok(())), EventState::Works);
    }

    #[test]
    fn no_event_opens_on_a_cpu_that_does_not_exist() {
        assert_ne!(Events::probe(1 << 20).cpu_clock, EventState::Works);
    }
}
