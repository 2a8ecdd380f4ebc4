//! What makes the timer tick.

use std::fmt;
use std::str::FromStr;

use super::perf_abi::{PerfEventAttr, event_type, flag, hardware, read_format, software};

/// The event whose overflow is a tick.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Event {
    /// The kernel's high-resolution timer on each CPU. Works everywhere.
    #[default]
    CpuClock,
    /// Cycles of the CPU, counted by its performance monitoring unit.
    Cycles,
    /// Retired instructions, likewise.
    Instructions,
}

impl Event {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::CpuClock, Self::Cycles, Self::Instructions];

    /// Its name, as `perf list` has it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::CpuClock => "cpu-clock",
            Self::Cycles => "cycles",
            Self::Instructions => "instructions",
        }
    }

    /// Whether it needs a performance monitoring unit.
    pub const fn is_hardware(self) -> bool {
        !matches!(self, Self::CpuClock)
    }

    /// Whether enabled time times frequency is the number of ticks to expect.
    pub const fn has_rate(self) -> bool {
        matches!(self, Self::CpuClock)
    }

    /// What the kernel is asked for: an event that starts disabled and tells
    /// how long it was enabled.
    pub fn attr(self, frequency_hz: u64) -> PerfEventAttr {
        let (kind, config) = match self {
            Self::CpuClock => (event_type::SOFTWARE, software::CPU_CLOCK),
            Self::Cycles => (event_type::HARDWARE, hardware::CPU_CYCLES),
            Self::Instructions => (event_type::HARDWARE, hardware::INSTRUCTIONS),
        };
        PerfEventAttr {
            sample_period_or_freq: frequency_hz,
            read_format: read_format::TOTAL_TIME_ENABLED,
            flags: flag::DISABLED | flag::FREQ,
            ..PerfEventAttr::new(kind, config)
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Not the name of an event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no such event; there are: cpu-clock, cycles, instructions")]
pub struct UnknownEvent;

impl FromStr for Event {
    type Err = UnknownEvent;

    fn from_str(name: &str) -> Result<Self, UnknownEvent> {
        Self::ALL
            .into_iter()
            .find(|event| event.name() == name)
            .ok_or(UnknownEvent)
    }
}
