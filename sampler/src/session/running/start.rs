//! What happens once, until the timers run.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant, SystemTime};

use tokio::io::unix::AsyncFd;

use super::super::attribution::Attribution;
use super::super::command::HeldCommand;
use super::super::error::{SessionError, system};
use super::super::jit::JitCode;
use super::super::options::{Options, Scope};
use super::super::rights;
use super::super::scope::{self, TargetError};
use super::super::starting::{
    bring_into_scope, grow_heaps_in_large_steps, load, open_cache, open_file_limit, shares,
    start_symbolizer, start_unwinding,
};
use super::super::verification::Verification;
use super::super::waiting::watch;
use super::{Running, hear};
use crate::isolation::niceness;
use crate::probe::host::{HostFacts, cpus};
use crate::probe::{Sideband, Timers};
use crate::process::{ProcessTable, Procfs};

/// Time between two drains when the tables have room.
const DRAIN: Duration = Duration::from_secs(1);
/// Descriptors that are not for pinned files.
const RESERVED_FILES: u64 = 256;

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
        grow_heaps_in_large_steps();
        let jit_descriptors = JitCode::descriptors(open_file_limit());
        let max_files = open_file_limit().saturating_sub(RESERVED_FILES + jit_descriptors);
        let mut table = ProcessTable::new(Procfs::new("/proc"), max_files as usize);
        let command = match &options.scope {
            Scope::Command(command) => {
                Some(HeldCommand::fork(command, open_files).map_err(SessionError::Command)?)
            }
            _ => None,
        };
        // After the command, which has its user's.
        niceness::set(niceness::SAMPLING);
        let watched = bring_into_scope(&options.scope, &programs, &targets, command.as_ref())?;
        let cache = open_cache(&options);
        let kept_rights = rights::to_keep(&options, &facts.sysctls);
        let mut unwinding = start_unwinding(
            &options,
            &programs,
            &settings,
            &shares,
            cache.as_ref(),
            kept_rights,
        )?;
        let symbolizer =
            start_symbolizer(&options, &shares, &programs, cache.as_ref(), kept_rights)?;
        // Both open and raise first what needs more rights. Whoever comes later
        // inherits ours.
        rights::give_up_all_but(kept_rights);
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
        // A command that waits for its start is still a copy of this program.
        let present = table.take_new_files();
        if let (Some(_), None, Some(unwinding)) = (&watched, &command, &mut unwinding) {
            unwinding.expect(&present);
        }
        let _lost_before_the_start = hear(&mut sideband, &mut table, unwinding.as_mut());
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
        let mut ends = watch_all(&targets)?;
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
            asked: started,
            times_at_start,
            cache,
        })
    }
}

/// Descriptors that tell of the end of each of these.
fn watch_all(targets: &[scope::Target]) -> Result<Vec<AsyncFd<OwnedFd>>, SessionError> {
    let mut ends = Vec::new();
    for target in targets {
        let Ok(pidfd) = scope::pidfd(target.pid) else {
            return Err(TargetError::NoProcess(target.pid).into());
        };
        ends.push(watch(pidfd)?);
    }
    Ok(ends)
}

/// The processes that were asked for by ID.
fn targets(scope: &Scope) -> Result<Vec<scope::Target>, TargetError> {
    match scope {
        Scope::Processes { pids, .. } => pids.iter().map(|pid| scope::target(*pid)).collect(),
        _ => Ok(Vec::new()),
    }
}
