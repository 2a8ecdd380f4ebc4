//! The timers: one event on each online CPU, also on those that come online
//! while the recording runs.

use std::io;
use std::io::Read as _;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use super::event::Event;
use super::perf_abi;

/// One event of one CPU.
#[derive(Debug)]
struct Timer {
    cpu: u32,
    event: std::fs::File,
    /// Its enabled time when it was last looked at.
    enabled_ns: u64,
}

/// All timers of a recording.
#[derive(Debug)]
pub struct Timers {
    program: OwnedFd,
    event: Event,
    frequency_hz: u64,
    running: Vec<Timer>,
    /// Enabled time of events whose CPU went away, by CPU.
    ended_ns: Vec<(u32, u64)>,
}

impl Timers {
    /// Opens an event on each of these CPUs, attached and disabled.
    pub fn open(
        program: BorrowedFd<'_>,
        event: Event,
        frequency_hz: u64,
        cpus: &[u32],
    ) -> io::Result<Self> {
        let mut timers = Self {
            program: program.try_clone_to_owned()?,
            event,
            frequency_hz,
            running: Vec::with_capacity(cpus.len()),
            ended_ns: Vec::new(),
        };
        for cpu in cpus {
            match timers.open_one(*cpu) {
                Ok(timer) => timers.running.push(timer),
                // It went offline since the list was read.
                Err(error) if error.raw_os_error() == Some(libc::ENODEV) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(timers)
    }

    fn open_one(&self, cpu: u32) -> io::Result<Timer> {
        let attr = self.event.attr(self.frequency_hz);
        let event = perf_abi::perf_event_open(&attr, -1, cpu as i32, None, 0)?;
        perf_abi::set_bpf(event.as_fd(), self.program.as_fd())?;
        Ok(Timer {
            cpu,
            event: event.into(),
            enabled_ns: 0,
        })
    }

    /// Starts all of them.
    pub fn start(&self) -> io::Result<()> {
        self.running
            .iter()
            .try_for_each(|timer| perf_abi::enable(timer.event.as_fd()))
    }

    /// Stops all of them. When it returns, no tick is under way any more.
    pub fn stop(&mut self) {
        for timer in &self.running {
            if let Err(error) = perf_abi::disable(timer.event.as_fd()) {
                tracing::warn!(cpu = timer.cpu, %error, "cannot stop the timer");
            }
        }
    }

    /// Opens and starts an event on each online CPU that has none, or whose
    /// event has stopped because the CPU was away in between.
    pub fn follow_cpus(&mut self, online: &[u32]) {
        let mut running = std::mem::take(&mut self.running);
        running.retain_mut(|timer| {
            let enabled_ns = read_enabled_ns(&timer.event);
            let stalled = enabled_ns == timer.enabled_ns;
            timer.enabled_ns = enabled_ns;
            if stalled {
                self.ended_ns.push((timer.cpu, enabled_ns));
            }
            !stalled
        });
        self.running = running;
        for cpu in online {
            if self.running.iter().any(|timer| timer.cpu == *cpu) {
                continue;
            }
            let opened = self.open_one(*cpu).and_then(|timer| {
                perf_abi::enable(timer.event.as_fd())?;
                Ok(timer)
            });
            match opened {
                Ok(timer) => {
                    tracing::info!(cpu, "sampling a CPU that came online");
                    self.running.push(timer);
                }
                Err(error) => tracing::warn!(cpu, %error, "cannot sample a CPU that came online"),
            }
        }
    }

    /// Enabled time by CPU, over every event that the CPU had, in nanoseconds.
    pub fn enabled_ns(&self, cpus: usize) -> Vec<u64> {
        let mut total_ns = vec![0; cpus];
        let ended = self.ended_ns.iter().copied();
        let running = self
            .running
            .iter()
            .map(|timer| (timer.cpu, read_enabled_ns(&timer.event)));
        for (cpu, ns) in ended.chain(running) {
            if let Some(sum_ns) = total_ns.get_mut(cpu as usize) {
                *sum_ns += ns;
            }
        }
        total_ns
    }
}

/// The enabled time of an event that was opened with `TOTAL_TIME_ENABLED`; 0 if
/// the kernel would not say.
///
/// It stands still once the event's CPU has gone offline, also when the CPU has
/// come back: the event has not.
pub(super) fn read_enabled_ns(mut event: &std::fs::File) -> u64 {
    // The count, then what `read_format` asks for.
    let mut words = [0; 16];
    match event.read(&mut words) {
        Ok(16) => u64::from_ne_bytes([
            words[8], words[9], words[10], words[11], words[12], words[13], words[14], words[15],
        ]),
        _ => 0,
    }
}
