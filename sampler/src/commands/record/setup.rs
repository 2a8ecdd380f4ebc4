//! From arguments to options, and everything that can be refused beforehand.

use std::env;
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::anyhow;
use sampler_common::{Limits, MAX_KERNEL_FRAMES, MAX_USER_FRAMES};

use crate::cache;
use crate::commands::cli::RecordArgs;
use crate::commands::{Failure, naming_line};
use crate::output::{
    CostIndex, FrameIndex, HostIndex, Index, JitIndex, LedgerIndex, ParsersIndex, from_unix_ns,
    rfc3339,
};
use crate::probe::host::HostFacts;
use crate::probe::host::cgroup::{CgroupError, CgroupMounts};
use crate::probe::host::events::EventState;
use crate::process::Comm;
use crate::session::{
    self, DEFAULT_LIMITS, Grouping, Options, Recording, Scope, SessionError, WantedFrames,
};
use crate::symbolize::Waiting;

/// Names longer than this are cut by the kernel.
const MAX_COMM_BYTES: usize = 15;

/// Who is told how far naming is: nobody, where stderr is a program's to read.
fn on_naming(args: &RecordArgs) -> fn(Waiting) {
    if args.json && !args.command.is_empty() {
        |_| ()
    } else {
        naming_line::show
    }
}

/// Makes options of arguments.
pub fn check(args: &RecordArgs) -> Result<Options, Failure> {
    if args.event.is_hardware() && !args.experimental {
        return Err(Failure::Usage(anyhow!(
            "the event {} is untested: add `--experimental`, or use cpu-clock",
            args.event
        )));
    }
    let options = Options {
        scope: scope(args)?,
        event: args.event,
        frequency_hz: args.frequency,
        duration: args.duration,
        wanted: WantedFrames {
            user: !args.kernel_only,
            kernel: !args.user_only,
        },
        cgroups: args.group == Grouping::Cgroup,
        unwind: args.unwind,
        check_every: args.verify_unwind.unwrap_or(0),
        names: !args.no_names,
        limits: limits(args)?,
        memory_bytes: args.memory,
        cache: cache(args),
        debug_servers: args.debug_servers.servers()?,
        on_naming: on_naming(args),
        overrides_permissions: false,
        drain_interval: args.test.drain,
        fault_kernel_stack: args.test.fault.is_some(),
    };
    if options.check_every > 0 && !options.wants_tables() {
        return Err(Failure::Usage(anyhow!(
            "`--verify-unwind` checks the walk by tables: it needs `--unwind tables` and user frames, on x86_64"
        )));
    }
    Ok(options)
}

fn cache(args: &RecordArgs) -> Option<PathBuf> {
    if args.no_cache {
        return None;
    }
    args.cache.clone().or_else(cache::default_directory)
}

fn scope(args: &RecordArgs) -> Result<Scope, Failure> {
    if !args.pid.is_empty() {
        let mut pids = args.pid.clone();
        pids.sort_unstable();
        pids.dedup();
        return Ok(Scope::Processes {
            pids,
            children: args.children,
        });
    }
    if let Some(comm) = &args.comm {
        let bytes = comm.as_bytes();
        if bytes.is_empty() || bytes.contains(&0) {
            return Err(Failure::Usage(anyhow!("`--comm` needs a name")));
        }
        if bytes.len() > MAX_COMM_BYTES {
            return Err(Failure::Usage(anyhow!(
                "the kernel keeps {MAX_COMM_BYTES} bytes of a name: use `--comm {}`",
                String::from_utf8_lossy(&bytes[..MAX_COMM_BYTES])
            )));
        }
        return Ok(Scope::Comm(Comm::new(bytes)));
    }
    if let Some(path) = &args.cgroup {
        let mounts = CgroupMounts::read().unwrap_or_default();
        return mounts
            .find(path)
            .map(Scope::Cgroup)
            .map_err(|error| match error {
                CgroupError::NotFound(_) => Failure::Target(error.into()),
                CgroupError::Version1(_) | CgroupError::NotACgroup(_) => {
                    Failure::Usage(error.into())
                }
                CgroupError::Unreadable { .. } => Failure::Host(error.into()),
            });
    }
    if !args.command.is_empty() {
        return Ok(Scope::Command(args.command.clone()));
    }
    Ok(Scope::Host)
}

fn limits(args: &RecordArgs) -> Result<Limits, Failure> {
    let mut limits = DEFAULT_LIMITS;
    for (name, number) in &args.test.limit {
        let limit = match name.as_str() {
            "threads" => &mut limits.threads,
            "counts" => &mut limits.counts,
            "words" => &mut limits.words,
            "copy-bytes" => &mut limits.copy_bytes,
            "copy-chunks" => &mut limits.copy_chunks,
            _ => return Err(Failure::Usage(anyhow!("no such table: {name}"))),
        };
        *limit = (*limit).min(*number);
    }
    for (name, number) in &args.test.depth {
        match name.as_str() {
            "user" => limits.user_frames = (*number).clamp(1, MAX_USER_FRAMES),
            "kernel" => limits.kernel_frames = (*number).clamp(1, MAX_KERNEL_FRAMES),
            _ => return Err(Failure::Usage(anyhow!("no such half: {name}"))),
        }
    }
    if let Some(regions) = args.test.regions {
        limits.regions = regions;
    }
    Ok(limits)
}

/// Refuses processes that are not there, before the host is looked at.
pub fn check_targets(options: &Options) -> Result<(), Failure> {
    session::check_targets(&options.scope).map_err(|error| Failure::Target(error.into()))
}

/// Refuses what this host's settings and its number of CPUs do not allow.
pub fn check_host(options: &Options, facts: &HostFacts) -> Result<(), Failure> {
    if let Err(SessionError::Memory(error)) = session::check_memory(options) {
        return Err(Failure::Usage(anyhow!("{error}: raise `--memory`")));
    }
    if let Some(max_hz) = facts.sysctls.perf_event_max_sample_rate_hz
        && u64::try_from(max_hz).is_ok_and(|max_hz| options.frequency_hz > max_hz)
    {
        return Err(Failure::Host(anyhow!(
            "{} Hz is above this kernel's limit of {max_hz} Hz: lower `-F`, or raise it with `sysctl kernel.perf_event_max_sample_rate={}`",
            options.frequency_hz,
            options.frequency_hz
        )));
    }
    if options.event.is_hardware() && facts.events.cycles != EventState::Works {
        return Err(Failure::Host(anyhow!(
            "this host has no performance monitoring unit for {}: use `--event cpu-clock`",
            options.event
        )));
    }
    Ok(())
}

/// The failure that a session's refusal to start is; `command` is what it was
/// to start, if anything.
pub fn start_failure(error: SessionError, command: &[OsString]) -> Failure {
    match error {
        SessionError::Target(_) => Failure::Target(error.into()),
        SessionError::Memory(_) => Failure::Usage(error.into()),
        SessionError::Command(ref cause) => Failure::Command {
            code: session::command::start_failure_code(cause),
            error: anyhow!(
                "cannot start {}: {cause}",
                command
                    .first()
                    .map_or("the command".into(), |program| program.to_string_lossy())
            ),
        },
        SessionError::Load(_) | SessionError::Event { .. } | SessionError::System { .. } => {
            Failure::Host(error.into())
        }
    }
}

/// `sampler-<UTC time>`, without what a shell or another system would mind.
pub fn default_directory() -> PathBuf {
    let seconds = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    let time = humantime::format_rfc3339_seconds(from_unix_ns(seconds as i64 * 1_000_000_000));
    PathBuf::from(format!(
        "sampler-{}",
        time.to_string().replace([':', '-'], "")
    ))
}

/// The index, as far as it is known without the files.
pub fn index(recording: &Recording, facts: &HostFacts) -> Index {
    Index {
        sampler: env!("CARGO_PKG_VERSION"),
        host: HostIndex {
            name: host_name(),
            kernel: facts.kernel_release.clone(),
            cpus: facts.online_cpus.len() as u32,
            arch: env::consts::ARCH,
        },
        event: recording.event.name(),
        frequency_hz: recording.frequency_hz,
        start: rfc3339(recording.start),
        duration_ns: recording.duration_ns,
        ledger: LedgerIndex::new(&recording.ledger),
        stacks: recording.completeness().into(),
        frames: FrameIndex {
            named: 0,
            unnamed: 0,
        },
        lifecycle: recording.lifecycle.into(),
        cost: CostIndex::new(recording.cost(), 0),
        unwind_tables: recording.tables.into(),
        jit: JitIndex::new(recording.jit, recording.symbol_stats().jit),
        parsers: ParsersIndex::new(recording.symbol_stats(), recording.tables),
        verification: recording.verified.as_ref().map(Into::into),
        files: Vec::new(),
        unfinished: None,
    }
}

fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map_or_else(|_| "localhost".to_owned(), |name| name.trim().to_owned())
}

/// The width of a terminal; `None` if the descriptor is none.
pub fn columns(fd: libc::c_int) -> Option<usize> {
    // SAFETY: all zeros is a valid `winsize`, and the kernel writes one.
    let (status, size) = unsafe {
        let mut size = std::mem::zeroed::<libc::winsize>();
        (libc::ioctl(fd, libc::TIOCGWINSZ, &raw mut size), size)
    };
    (status == 0 && size.ws_col > 0).then(|| usize::from(size.ws_col))
}
