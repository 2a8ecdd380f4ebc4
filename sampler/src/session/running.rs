//! A session under way.

use std::future::Future;
use std::os::fd::OwnedFd;
use std::process::{Child, ExitStatus};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::io::unix::AsyncFd;

use super::attribution::Attribution;
use super::budget::Shares;
use super::command::HeldCommand;
use super::cost;
use super::error::{SessionError, system};
use super::jit::JitCode;
use super::ledger::{CpuAccount, Ledger};
use super::options::{Options, Scope};
use super::recording::{Lifecycle, Recording};
use super::scope::{self, TargetError};
use super::starting::{
    bring_into_scope, load, open_cache, open_file_limit, shares, start_unwinding,
};
use super::unwinding::Unwinding;
use super::verification::Verification;
use super::waiting::{any_readable_from, sleep_until, wait_for_all, watch};
use crate::cache::Cache;
use crate::probe::host::boot::Boot;
use crate::probe::host::{HostFacts, cpus};
use crate::probe::{self, Drain, Programs, RuleCounters, Sideband, Timers};
use crate::process::{ProcessTable, Procfs};
use crate::symbolize::{self, Query, Symbolizer};

/// How often CPUs, memory and the like are looked at.
const HOUSEKEEPING: Duration = Duration::from_secs(1);
/// Time between two drains when the tables have room.
const DRAIN: Duration = Duration::from_secs(1);
/// The share of a table at which they are drained at once.
const DRAIN_AT: f64 = 0.4;
/// Ticks of a CPU after which the tables are looked at. As many stacks of the
/// greatest depth fill about half of one.
const TICKS_A_LOOK: u64 = 16;
/// The shortest and the longest time between two looks.
const LOOK: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(50));
/// How long looks are taken as often as can be at the start.
const LEARNING: Duration = Duration::from_secs(1);
/// Time between two looks for unwind tables that were built.
const TABLES: Duration = Duration::from_millis(2);
/// The shortest time between two looks at the process events that woke us: what
/// comes in faster is taken together.
const LISTEN_PAUSE: Duration = Duration::from_millis(2);
/// Time between two looks at the memory while tables are built.
const MEASURE: Duration = Duration::from_millis(10);
/// How long a recording that is over waits for the last unwind tables.
const LAST_TABLES: Duration = Duration::from_secs(10);
/// Descriptors that are not for pinned files.
const RESERVED_FILES: u64 = 256;

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
    times_at_start: Vec<cpus::CpuTime>,
    interval: Duration,
    measured: Instant,
    cache: Option<Arc<Cache>>,
}

impl Running {
    /// Loads, attaches and starts. `open_files` is the limit that a command
    /// inherits; this process may have raised its own.
    ///
    /// Must be called on the runtime that [`Self::run`] is awaited on.
    pub fn start(
        options: Options,
        facts: &HostFacts,
        open_files: libc::rlimit,
    ) -> Result<Self, SessionError> {
        let targets = targets(&options.scope)?;
        let shares = shares(&options)?;
        let (programs, settings) = load(&options, facts, shares.maps)?;
        let drain = programs.drain()?;

        // Listen first, read then: what happens in between is heard twice.
        let mut sideband =
            Sideband::open(&facts.online_cpus).map_err(system("listen to process events"))?;
        let jit_descriptors = JitCode::descriptors(open_file_limit());
        let max_files = open_file_limit().saturating_sub(RESERVED_FILES + jit_descriptors);
        let mut table = ProcessTable::new(Procfs::new("/proc"), max_files as usize);
        let command = match &options.scope {
            Scope::Command(command) => {
                Some(HeldCommand::fork(command, open_files).map_err(SessionError::Command)?)
            }
            _ => None,
        };
        let watched = bring_into_scope(&options.scope, &programs, &targets, command.as_ref())?;
        let cache = open_cache(&options);
        let mut unwinding =
            start_unwinding(&options, &programs, &settings, &shares, cache.as_ref())?;
        let verification = if options.wants_tables() && options.check_every > 0 {
            let started = Verification::start(shares.checks_bytes);
            Some(started.map_err(system("start the check of the walk"))?)
        } else {
            None
        };
        table
            .scan(|pid| {
                watched
                    .as_ref()
                    .is_none_or(|watched| watched.contains(&pid))
            })
            .map_err(system("read /proc"))?;

        // Whatever ran before may never be sampled; what was asked for will be.
        let present = table.take_new_files();
        if let (Some(_), Some(unwinding)) = (&watched, &mut unwinding) {
            unwinding.expect(&present);
        }
        let _lost_before_the_start = hear(&mut sideband, &mut table, unwinding.as_mut());
        let start_symbolizer = || {
            Symbolizer::spawn(symbolize::Options {
                debug_servers: options.debug_servers.clone(),
                rss_bytes: cost::rss_bytes,
                max_parser_bytes: shares.parsers_bytes,
                // Whoever holds it: parsers can be opened again.
                max_rss_bytes: shares.budget_bytes.saturating_sub(programs.map_bytes()),
                ..symbolize::Options::default()
            })
        };
        let symbolizer = options.names.then(start_symbolizer).transpose();
        let symbolizer = symbolizer.map_err(system("start the symbolizer"))?;
        let event_error = |error| SessionError::Event {
            event: options.event,
            error,
        };
        let timers = Timers::open(
            programs.on_cpu()?,
            options.event,
            options.frequency_hz,
            &facts.online_cpus,
        )
        .map_err(event_error)?;
        let mut ends = Vec::new();
        for target in &targets {
            let Ok(pidfd) = scope::pidfd(target.pid) else {
                return Err(TargetError::NoProcess(target.pid).into());
            };
            ends.push(watch(pidfd)?);
        }
        let times_at_start = cpus::times().map_err(system("read /proc/stat"))?;
        let (start, started) = (SystemTime::now(), Instant::now());
        timers.start().map_err(event_error)?;
        let command = match command {
            Some(held) => {
                let pidfd = scope::pidfd(held.pid).map_err(system("watch the command"))?;
                ends.push(watch(pidfd)?);
                Some(held.release().map_err(SessionError::Command)?)
            }
            None => None,
        };
        Ok(Self {
            interval: options.drain_interval.unwrap_or(DRAIN),
            attribution: Attribution::new(
                options.wanted,
                options.cgroups,
                shares.waiting_copies_bytes,
            ),
            options,
            shares,
            programs,
            drain,
            sideband,
            timers,
            table,
            jit: JitCode::new(jit_descriptors),
            symbolizer,
            unwinding,
            verification,
            targets: ends,
            command,
            start,
            started,
            times_at_start,
            measured: started,
            cache,
        })
    }

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
        let targets = std::mem::take(&mut self.targets);
        let all_ended = wait_for_all(&targets);
        let mut all_ended = std::pin::pin!(all_ended);
        loop {
            tokio::select! {
                biased;
                () = &mut stop => return Ok(Ended::Stopped),
                () = sleep_until(deadline) => return Ok(Ended::Duration),
                () = &mut all_ended, if !targets.is_empty() => break,
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
                () = tokio::time::sleep(TABLES), if self.waits_for_tables() => self.load_tables(),
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

    /// Stops the timers, drains what is left and names it.
    ///
    /// Returns the command too, which may still run.
    pub fn finish(mut self) -> (Recording, Option<Child>) {
        self.timers.stop();
        let stopped = Instant::now();
        let duration_ns = (stopped - self.started).as_nanos() as u64;
        let ledger = self.ledger();
        self.drain();
        self.drain();
        self.finish_unwinding();
        let verified = self.verification.take().map(Verification::finish);
        self.attribution.refresh_all(&mut self.table);
        let made = self.jit.finish(&mut self.attribution, &self.table);
        self.ask_for_names(made);
        cost::rss_bytes();
        let tables = self.unwinding.as_ref().map(Unwinding::counts);
        // Its threads and tables are not needed to name and to write.
        self.unwinding = None;
        if let Some(cache) = &self.cache {
            cache.trim();
        }
        let names = self.symbolizer.map(Symbolizer::finish);
        let counters = self.drain.counters();
        let (departures, departures_ns) = self.drain.departures();
        let sum = |of: fn(&probe::CpuCounters) -> u64| counters.iter().map(of).sum::<u64>();
        let scope_overflows = sum(|cpu| cpu.scope_overflows);
        if scope_overflows > 0 {
            tracing::warn!(
                scope_overflows,
                "children were not followed: too many processes are in scope at once"
            );
        }
        let table = self.table.counters();
        let recording = Recording {
            event: self.options.event,
            frequency_hz: self.options.frequency_hz,
            cpus: self.shares.maps.cpus,
            start: self.start,
            duration_ns,
            stopped,
            lifecycle: Lifecycle {
                records: table.records,
                lost_records: table.lost_records + self.sideband.malformed(),
                unpinned_files: table.unpinned_files,
                scope_overflows,
            },
            boot_unix_ns: crate::process::boot_unix_ns(),
            boot: Boot::read(),
            bpf_ns: cost::extrapolate_bpf_ns(
                sum(|cpu| cpu.clocked_ns),
                sum(|cpu| cpu.clocked_ticks),
                ledger.ticks,
            ) + departures_ns,
            departures,
            ledger,
            attribution: self.attribution,
            memory_budget_bytes: self.shares.budget_bytes,
            tables: tables.unwrap_or_default(),
            names,
            verified,
            jit: self.jit.counts(),
            jit_refusals: self.jit.into_refusals(),
            bpf_map_bytes: self.programs.map_bytes(),
            rules: RuleCounters {
                in_order: sum(|cpu| cpu.rules.in_order),
                by_index: sum(|cpu| cpu.rules.by_index),
                missed: sum(|cpu| cpu.rules.missed),
            },
        };
        (recording, self.command)
    }

    fn ledger(&self) -> Ledger {
        let counters = self.drain.counters();
        let enabled_ns = self.timers.enabled_ns(counters.len());
        let times = cpus::times().unwrap_or_default();
        let time_of = |times: &[cpus::CpuTime], cpu: usize| {
            let found = times.iter().find(|time| time.cpu as usize == cpu);
            found.map_or((0, 0), |time| {
                (time.idle_ns + time.iowait_ns, time.steal_ns)
            })
        };
        let accounts: Vec<_> = counters
            .into_iter()
            .zip(enabled_ns)
            .enumerate()
            .map(|(cpu, (counters, enabled_ns))| {
                let (idle_before, steal_before) = time_of(&self.times_at_start, cpu);
                let (idle_after, steal_after) = time_of(&times, cpu);
                CpuAccount {
                    counters,
                    enabled_ns,
                    idle_ns: idle_after.saturating_sub(idle_before),
                    steal_ns: steal_after.saturating_sub(steal_before),
                }
            })
            .collect();
        let rate = self.options.event.has_rate();
        Ledger::new(&accounts, rate.then_some(self.options.frequency_hz))
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
        self.ask_for_names(made);
    }

    /// Asks for the names of what was not seen before, and of these.
    fn ask_for_names(&mut self, more: Vec<Query>) {
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
        if self.measured.elapsed() >= MEASURE {
            self.measured = Instant::now();
            cost::rss_bytes();
        }
    }

    /// Waits a while for the tables that the last copies need.
    fn finish_unwinding(&mut self) {
        let deadline = Instant::now() + LAST_TABLES;
        while self.attribution.waits() && self.waits_for_tables() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
            self.load_tables();
        }
        let Some(unwinding) = &mut self.unwinding else {
            return;
        };
        self.attribution.give_up_waiting(unwinding);
        let counts = unwinding.counts();
        if counts.is_short() {
            tracing::warn!(
                not_loaded = counts.not_loaded,
                evicted = counts.evicted,
                dropped = counts.dropped,
                refused = counts.refused,
                "unwind tables found no room: stacks were copied instead, or cut; more `--memory` gives them room"
            );
        }
        self.ask_for_names(Vec::new());
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

/// The processes that were asked for by ID.
fn targets(scope: &Scope) -> Result<Vec<scope::Target>, TargetError> {
    match scope {
        Scope::Processes { pids, .. } => pids.iter().map(|pid| scope::target(*pid)).collect(),
        _ => Ok(Vec::new()),
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
