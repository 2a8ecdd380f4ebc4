//! What is done once, before the timers run.

use std::collections::HashSet;
use std::io;
use std::num::NonZeroUsize;
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::thread;

use sampler_common::Settings;

use super::budget::{DEFAULT_MEMORY_BYTES, Shares};
use super::command::HeldCommand;
use super::cost;
use super::error::{SessionError, system};
use super::options::{Options, Scope};
use super::scope::{self, Target};
use super::settings;
use super::unwinding::{TableRoom, Unwinding};
use crate::cache::Cache;
use crate::probe::host::boot::Boot;
use crate::probe::host::{HostFacts, cpus};
use crate::probe::{self, MapSizes, Programs};
use crate::symbolize::{self, Symbolizer};

/// CPUs for each of the threads that look for names, and the most of these.
const CPUS_A_NAMER: usize = 4;
const MAX_NAMERS: NonZeroUsize = NonZeroUsize::MIN.saturating_add(3);

/// What the allocator takes from the system beyond what it needs.
const HEAP_STEP_BYTES: libc::c_int = 1 << 20;

/// Refuses a memory budget that is too small.
pub fn check_memory(options: &Options) -> Result<Shares, SessionError> {
    let possible = cpus::possible().map_err(system("list the possible CPUs"))?;
    let possible_cpus = possible.last().map_or(1, |last| last + 1);
    Ok(options.needs(possible_cpus).divide(options.memory_bytes)?)
}

/// What each room of a recording may take, which is logged.
pub(super) fn shares(options: &Options) -> Result<Shares, SessionError> {
    let shares = check_memory(options)?;
    tracing::info!("{shares}");
    if options.memory_bytes.is_none() && shares.budget_bytes > DEFAULT_MEMORY_BYTES {
        tracing::warn!(
            bytes = shares.budget_bytes,
            "the usual memory budget is too small for this many CPUs: it is raised"
        );
    }
    Ok(shares)
}

/// The cache of earlier recordings, if one was asked for. Without it everything is
/// worked out anew.
pub(super) fn open_cache(options: &Options) -> Option<Arc<Cache>> {
    let path = options.cache.as_deref()?;
    match Cache::open(path) {
        Ok(cache) => Some(Arc::new(cache)),
        Err(error) => {
            tracing::info!(?path, %error, "nothing is kept for the next recording");
            None
        }
    }
}

/// Starts what supplies the walk by tables, if stacks are walked so.
pub(super) fn start_unwinding(
    options: &Options,
    programs: &Programs,
    settings: &Settings,
    shares: &Shares,
    cache: Option<&Arc<Cache>>,
    kept_rights: u64,
) -> Result<Option<Unwinding>, SessionError> {
    if !options.wants_tables() {
        return Ok(None);
    }
    let room = TableRoom {
        builders_bytes: shares.builders_bytes,
        kept_bytes: shares.kept_tables_bytes,
    };
    Unwinding::start(
        programs.tables()?,
        room,
        settings.limits.user_frames,
        options.scope.may_grow(),
        cache,
        kept_rights,
    )
    .map(Some)
    .map_err(system("start the building of unwind tables"))
}

/// Starts the thread that names frames, if names are wanted.
pub(super) fn start_symbolizer(
    options: &Options,
    shares: &Shares,
    programs: &Programs,
    cache: Option<&Arc<Cache>>,
    kept_rights: u64,
) -> Result<Option<Symbolizer>, SessionError> {
    let start = || {
        Symbolizer::spawn(symbolize::Options {
            debug_servers: options.debug_servers.clone(),
            on_wait: options.on_naming,
            cache: cache.cloned(),
            boot_id: Boot::read().id,
            own_kernel_code: programs.code().into(),
            rss_bytes: cost::rss_bytes,
            kept_rights,
            max_parser_bytes: shares.parsers_bytes,
            at_a_time: named_at_a_time(),
            // Whoever holds it: parsers can be opened again.
            max_rss_bytes: shares.budget_bytes.saturating_sub(programs.map_bytes()),
            ..symbolize::Options::default()
        })
    };
    let started = options.names.then(start).transpose();
    started.map_err(system("start the symbolizer"))
}

/// Files whose names are looked for at a time: on large hosts there are more of
/// them, and nobody misses some CPUs.
fn named_at_a_time() -> NonZeroUsize {
    let cpus = thread::available_parallelism().map_or(1, NonZeroUsize::get);
    NonZeroUsize::new(cpus / CPUS_A_NAMER)
        .unwrap_or(NonZeroUsize::MIN)
        .min(MAX_NAMERS)
}

/// Loads the programs for this host and these options; returns what they were
/// told, too.
pub(super) fn load(
    options: &Options,
    facts: &HostFacts,
    maps: MapSizes,
) -> Result<(Programs, Settings), SessionError> {
    let layout = match &facts.layout {
        Ok(layout) => *layout,
        Err(error) => {
            return Err(SessionError::System {
                action: "read the kernel's types",
                error: io::Error::other(error.to_string()),
            });
        }
    };
    let mut settings = settings::settings(options, facts, layout, &maps, random_seed()?);
    if facts
        .pid_namespace
        .is_some_and(|namespace| !namespace.initial)
    {
        let (namespace, level) = probe::own_pid_namespace(&settings)?;
        settings.pid_namespace = namespace;
        settings.pid_namespace_level = level;
    }
    let programs = Programs::load(&settings, maps)?;
    if let Scope::Cgroup(cgroup) = &options.scope {
        programs.set_cgroup(cgroup.as_fd())?;
    }
    Ok((programs, settings))
}

/// Tells the programs who is in scope at the start; returns those, or `None`
/// when it cannot be said by process.
pub(super) fn bring_into_scope(
    scope: &Scope,
    programs: &Programs,
    targets: &[Target],
    command: Option<&HeldCommand>,
) -> Result<Option<HashSet<u32>>, SessionError> {
    let mut known = HashSet::new();
    let mut add = |target: &Target| {
        known.insert(target.pid);
        programs.add_process(target.pid, target.start_clock_ticks)
    };
    match scope {
        Scope::Processes { children, .. } => {
            targets.iter().try_for_each(&mut add)?;
            if *children {
                let pids: Vec<u32> = targets.iter().map(|target| target.pid).collect();
                // Until none is found: one may fork while the list is read.
                loop {
                    let found = scope::new_descendants(&pids, &known);
                    if found.is_empty() {
                        break;
                    }
                    for target in &found {
                        known.insert(target.pid);
                        programs.add_process(target.pid, target.start_clock_ticks)?;
                    }
                }
            }
        }
        Scope::Command(_) => {
            if let Some(command) = command {
                add(&scope::target(command.pid)?)?;
            }
        }
        Scope::Host | Scope::Comm(_) | Scope::Cgroup(_) => return Ok(None),
    }
    Ok(Some(known))
}

/// Files that this process may have open.
pub(super) fn open_file_limit() -> u64 {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the kernel writes one rlimit.
    unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) };
    limit.rlim_cur
}

/// Has the allocator grow its heaps in few steps: each is a call that waits for the
/// others of this process. What is not touched takes no memory.
pub(super) fn grow_heaps_in_large_steps() {
    // SAFETY: sets a number of the allocator's, which takes any.
    unsafe { libc::mallopt(libc::M_TOP_PAD, HEAP_STEP_BYTES) };
}

fn random_seed() -> Result<[u64; 2], SessionError> {
    let mut seed = [0_u64; 2];
    // SAFETY: the kernel writes at most the size that is said.
    let filled = unsafe { libc::getrandom(seed.as_mut_ptr().cast(), size_of_val(&seed), 0) };
    if filled < 0 {
        return Err(system("get random numbers")(io::Error::last_os_error()));
    }
    Ok(seed)
}
