//! A session under way.

mod finish;
mod start;

use std::future::Future;
use std::os::fd::OwnedFd;
use std::process::{Child, ExitStatus};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::io::unix::AsyncFd;

use super::attribution::Attribution;
use super::budget::Shares;
use super::cost;
use super::error::{SessionError, system};
use super::jit::JitCode;
use super::options::Options;
use super::unwinding::Unwinding;
use super::verification::Verification;
use super::waiting::{any_readable_from, sleep_until, wait_for_all, watch};
use crate::cache::Cache;
use crate::probe::host::cpus;
use crate::probe::{self, Drain, Programs, Sideband, Timers};
use crate::process::ProcessTable;
use crate::symbolize::{Query, Symbolizer};

/// How often CPUs, memory and the like are looked at.
const HOUSEKEEPING: Duration = Duration::from_secs(1);
/// The share of a table at which they are drained at once.
const DRAIN_AT: f64 = 0.4;
/// Ticks of a CPU after which the tables are looked at. As many stacks of the
/// greatest depth fill about half of one.
const TICKS_A_LOOK: u64 = 16;
/// The shortest and the longest time between two looks. On a busy host each of them
/// takes a CPU from somebody.
const LOOK: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(200));
/// How long looks are taken as often as can be at the start.
const LEARNING: Duration = Duration::from_secs(1);
/// The shortest time between two looks at the process events that woke us: what
/// comes in faster is taken together.
const LISTEN_PAUSE: Duration = Duration::from_millis(2);
/// The longest time until names are asked for, and the share of the time since the
/// start that it is before, as a divisor.
const ASK: Duration = Duration::from_millis(500);
const ASK_AT_A_SHARE: u32 = 8;
/// Time between two looks at the memory while tables are built.
const MEASURE: Duration = Duration::from_millis(10);

/// Why a recording ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Its time was up.
    Duration,
    /// It was told to.
    Stopped,
    /// The processes that it was about have ended.
    TargetsEnded,
    /// The command has ended.
    Command(ExitStatus),
}

/// How far a recording is.
#[derive(Debug, Clone, Copy)]
pub struct Progress {
    /// Since the timers started.
    pub elapsed: Duration,
    /// Samples drained so far.
    pub samples: u64,
    /// Processes that have any.
    pub processes: usize,
}

/// A session whose timers run.
#[derive(Debug)]
pub struct Running {
    options: Options,
    shares: Shares,
    programs: Programs,
    drain: Drain,
    sideband: Sideband,
    timers: Timers,
    table: ProcessTable,
    attribution: Attribution,
    jit: JitCode,
    /// None if no names are wanted.
    symbolizer: Option<Symbolizer>,
    unwinding: Option<Unwinding>,
    verification: Option<Verification>,
    /// One for each process whose end ends the recording.
    targets: Vec<AsyncFd<OwnedFd>>,
    command: Option<Child>,
    start: SystemTime,
    started: Instant,
    /// When names were asked for last.
    asked: Instant,
    times_at_start: Vec<cpus::CpuTime>,
    interval: Duration,
    cache: Option<Arc<Cache>>,
}

impl Running {
    /// The process ID of the command, if the session has one.
    pub fn command_pid(&self) -> Option<u32> {
        self.command.as_ref().map(Child::id)
    }

    /// Samples until the time is up, `stop` is ready, or those that the
    /// recording is about have ended. `progress` is told about once a second.
    pub async fn run(
        &mut self,
        stop: impl Future<Output = ()>,
        mut progress: impl FnMut(Progress),
    ) -> Result<Ended, SessionError> {
        let mut stop = std::pin::pin!(stop);
        let deadline = self.options.deadline(self.started).map(Into::into);
        let mut housekeeping = tokio::time::interval(HOUSEKEEPING);
        let mut next_drain = tokio::time::Instant::now() + self.interval;
        let look =
            Duration::from_micros(TICKS_A_LOOK * 1_000_000 / self.options.frequency_hz.max(1))
                .clamp(LOOK.0, LOOK.1);
        let mut next_look = tokio::time::Instant::now() + LOOK.0;
        let mut rings = self.ring_readiness()?;
        let mut next_listen = tokio::time::Instant::now();
        let tables = self.unwinding.as_ref().map(Unwinding::ready);
        let tables = tables.unwrap_or_default();
        let targets = std::mem::take(&mut self.targets);
        let all_ended = wait_for_all(&targets);
        let mut all_ended = std::pin::pin!(all_ended);
        loop {
            tokio::select! {
                biased;
                () = &mut stop => return Ok(Ended::Stopped),
                () = sleep_until(deadline) => return Ok(Ended::Duration),
                () = &mut all_ended, if !targets.is_empty() => break,
                () = tables.notified() => self.load_tables(),
                () = tokio::time::sleep_until(next_drain) => {
                    self.drain();
                    next_drain = tokio::time::Instant::now() + self.interval;
                }
                () = tokio::time::sleep_until(next_look) => {
                    let wanted = self.drain.fullest() > DRAIN_AT || self.drain.has_copies();
                    if self.options.drain_interval.is_none() && wanted {
                        self.drain();
                        next_drain = tokio::time::Instant::now() + self.interval;
                    }
                    // Copies come as long as the kernel's side has files to
                    // learn of, and each look at them teaches it some.
                    let pause = if wanted || self.started.elapsed() < LEARNING {
                        LOOK.0
                    } else {
                        look
                    };
                    next_look = tokio::time::Instant::now() + pause;
                }
                () = any_readable_from(next_listen, &rings) => {
                    self.listen();
                    next_listen = tokio::time::Instant::now() + LISTEN_PAUSE;
                }
                () = tokio::time::sleep(MEASURE), if self.waits_for_tables() => {
                    cost::rss_bytes();
                }
                _ = housekeeping.tick() => {
                    if self.keep_house() {
                        rings = self.ring_readiness()?;
                    }
                    progress(Progress {
                        elapsed: self.started.elapsed(),
                        samples: self.attribution.samples(),
                        processes: self.attribution.processes().len(),
                    });
                }
            }
        }
        match &mut self.command {
            None => Ok(Ended::TargetsEnded),
            Some(command) => command
                .wait()
                .map(Ended::Command)
                .map_err(system("wait for the command")),
        }
    }

    /// Takes what was counted; hears first what happened until then.
    fn drain(&mut self) {
        let Self {
            drain,
            sideband,
            table,
            attribution,
            unwinding,
            verification,
            ..
        } = self;
        if let Some(unwinding) = unwinding {
            unwinding.wait_for_cpus();
        }
        let mut news = None;
        let mut lost = 0;
        drain.drain(|region, copies| {
            // After the flip, so that every mapping of these samples is known.
            if news.is_none() {
                lost += hear(sideband, table, unwinding.as_mut());
                news = Some(());
            }
            attribution.add(
                region,
                copies,
                table,
                unwinding.as_mut(),
                verification.as_mut(),
            );
        });
        if let Some(unwinding) = &mut self.unwinding {
            unwinding.all_cpus_passed();
        }
        self.heard_losses(lost);
        let made = self.jit.look(&mut self.attribution, &self.table);
        // Less and less often: to ask costs as much as a few names do.
        let pause = (self.started.elapsed() / ASK_AT_A_SHARE).min(ASK);
        if !made.is_empty() || self.asked.elapsed() >= pause {
            self.ask_for_names(made);
        }
    }

    /// Asks for the names of what was not seen before, and of these.
    fn ask_for_names(&mut self, more: Vec<Query>) {
        self.asked = Instant::now();
        let mut queries = self.attribution.traces.take_queries();
        queries.extend(more);
        if let Some(symbolizer) = &self.symbolizer {
            symbolizer.submit(queries);
        }
    }

    /// Whether unwind tables are being built.
    fn waits_for_tables(&self) -> bool {
        self.unwinding.as_ref().is_some_and(Unwinding::waits)
    }

    /// Uses the tables that were built.
    fn load_tables(&mut self) {
        if let Some(unwinding) = &mut self.unwinding
            && unwinding.take_built()
        {
            self.attribution.walk_waiting(unwinding);
        }
    }

    /// Takes what the side band has to say.
    fn listen(&mut self) {
        let lost = hear(&mut self.sideband, &mut self.table, self.unwinding.as_mut());
        self.heard_losses(lost);
    }

    /// After losses, what is known of processes may be old: reads them again.
    fn heard_losses(&mut self, lost: u64) {
        if lost == 0 {
            return;
        }
        tracing::warn!(
            lost,
            "the kernel dropped process events; reading /proc again"
        );
        self.read_proc_again();
    }

    fn read_proc_again(&mut self) {
        if let Err(error) = self.table.scan(|_| true) {
            tracing::warn!(%error, "cannot read /proc again");
        }
    }

    /// Returns whether there are new rings to listen to.
    fn keep_house(&mut self) -> bool {
        self.listen();
        cost::rss_bytes();
        // What ended two drains ago has no samples left in the kernel.
        let kept_ns = 2 * (self.interval.max(HOUSEKEEPING)).as_nanos() as u64;
        self.table
            .forget(crate::process::monotonic_ns().saturating_sub(kept_ns));
        let Ok(online) = cpus::online() else {
            return false;
        };
        self.timers.follow_cpus(&online);
        let before = self.sideband.changes();
        if let Err(error) = self.sideband.follow_cpus(&online) {
            tracing::warn!(%error, "cannot listen to process events of a new CPU");
        }
        let changed = self.sideband.changes() != before;
        if changed {
            tracing::info!("CPUs went or came online; reading /proc again");
            self.read_proc_again();
        }
        changed
    }

    fn ring_readiness(&self) -> Result<Vec<AsyncFd<OwnedFd>>, SessionError> {
        let descriptors = self.sideband.descriptors();
        let descriptors = descriptors.map_err(system("wait for process events"))?;
        descriptors.into_iter().map(watch).collect()
    }
}

/// Applies what the side band has to say. Returns how many records were lost.
fn hear(
    sideband: &mut Sideband,
    table: &mut ProcessTable,
    unwinding: Option<&mut Unwinding>,
) -> u64 {
    let records = sideband.read();
    let lost = probe::lost(&records);
    table.apply(records);
    let new = table.take_new_files();
    if let Some(unwinding) = unwinding {
        unwinding.foresee(&new);
    }
    lost
}
