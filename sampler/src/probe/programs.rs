//! Loading the object: configured, verified, its maps mapped.

use std::ops::Range;
use std::os::fd::{AsFd as _, BorrowedFd};

use aya::maps::Map;
use aya::programs::{FEntry, PerfEvent, Program, ProgramError, RawTracePoint};
use aya::{Btf, Ebpf, EbpfLoader};
use object::{Object as _, ObjectSection as _};
use sampler_common::{CopyChunk, CpuState, Region, Settings};

use super::bpf_abi;
use super::drain::Drain;
use super::host::btf::Btf as Types;
use super::mapped::MappedArray;
use super::sizes::MapSizes;
use super::tables::Tables;

/// The compiled programs: built from `sampler-ebpf` by `cargo xtask ebpf`.
static OBJECT: &[u8] = aya::include_bytes_aligned!("../../ebpf/sampler.bpf.o");

/// Why the programs could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The kernel refused the object or a part of it.
    #[error("the kernel refused the eBPF programs: {0}")]
    Refused(#[from] aya::EbpfError),
    /// The kernel refused a program. The verifier's log is long: its last
    /// lines say why, the whole is logged.
    #[error("the kernel refused the eBPF program {program}: {error}: {verdict}")]
    Verifier {
        /// Which program.
        program: &'static str,
        /// The system call's error.
        error: std::io::Error,
        /// The end of the verifier's log.
        verdict: String,
    },
    /// A program could not be loaded or attached for another reason.
    #[error("cannot start an eBPF program: {0}")]
    Program(#[from] ProgramError),
    /// The embedded object lacks something: it does not belong to this source.
    #[error("the embedded eBPF object holds no {0}: rebuild it with `cargo xtask ebpf`")]
    Missing(&'static str),
    /// A system call on a map failed.
    #[error("cannot {action}: {error}")]
    Map {
        /// What was tried.
        action: &'static str,
        /// Why not.
        error: std::io::Error,
    },
}

fn map_error(action: &'static str) -> impl FnOnce(std::io::Error) -> LoadError {
    move |error| LoadError::Map { action, error }
}

/// Lines of the verifier's log that an error shows.
const VERDICT_LINES: usize = 3;

fn refusal(program: &'static str) -> impl FnOnce(ProgramError) -> LoadError {
    move |error| match error {
        ProgramError::LoadError {
            io_error,
            verifier_log,
        } => {
            let log = verifier_log.to_string();
            tracing::debug!("the verifier's log of {program}:\n{log}");
            let mut lines: Vec<&str> = log.lines().rev().take(VERDICT_LINES).collect();
            lines.reverse();
            LoadError::Verifier {
                program,
                error: io_error,
                verdict: lines.join("; "),
            }
        }
        other => LoadError::Program(other),
    }
}

/// The loaded programs.
#[derive(Debug)]
pub struct Programs {
    ebpf: Ebpf,
    sizes: MapSizes,
}

impl Programs {
    /// Loads them, with maps of these sizes.
    pub fn load(settings: &Settings, sizes: MapSizes) -> Result<Self, LoadError> {
        let mut ebpf = create(settings, &sizes)?;
        program::<PerfEvent>(&mut ebpf, "on_cpu")?
            .load()
            .map_err(refusal("on_cpu"))?;
        if settings.follow_forks != 0 {
            for (name, tracepoint) in [
                ("on_fork", "sched_process_fork"),
                ("on_free", "sched_process_free"),
            ] {
                let program = program::<RawTracePoint>(&mut ebpf, name)?;
                program.load().map_err(refusal(name))?;
                program.attach(tracepoint)?;
            }
        }
        if settings.departure_slots != 0 {
            keep_departures(&mut ebpf)?;
        }
        Ok(Self { ebpf, sizes })
    }

    /// The program that a timer runs.
    pub fn on_cpu(&self) -> Result<BorrowedFd<'_>, LoadError> {
        let program = self
            .ebpf
            .program("on_cpu")
            .ok_or(LoadError::Missing("on_cpu"))?;
        Ok(program.fd()?.as_fd())
    }

    /// The reading side of the tables.
    pub fn drain(&self) -> Result<Drain, LoadError> {
        let cpus = self.sizes.cpus as usize;
        // SAFETY: `maps` in `sampler-ebpf` declares these arrays of these
        // types, and `create` sized them; all are plain integers.
        unsafe {
            let generation = MappedArray::<u64>::new(self.map("GENERATION")?, 1);
            let states = MappedArray::<CpuState>::new(self.map("CPUS")?, 2 * cpus);
            let regions = MappedArray::<Region>::new(self.map("REGIONS")?, 2 * cpus);
            let copies =
                MappedArray::<CopyChunk>::new(self.map("COPIES")?, self.sizes.copies() as usize);
            Ok(Drain::new(
                generation.map_err(map_error("map the generation"))?,
                states.map_err(map_error("map the counters"))?,
                regions.map_err(map_error("map the tables"))?,
                copies.map_err(map_error("map the stack copies"))?,
            ))
        }
    }

    /// The writing side of the walk's arrays.
    pub fn tables(&self) -> Result<Tables, LoadError> {
        let action = "map the unwind tables";
        // SAFETY: `maps` in `sampler-ebpf` declares these arrays of these
        // types, and `create` sized them; all are plain integers.
        unsafe {
            Ok(Tables::new(
                MappedArray::new(self.map("PLACE_TABLE")?, 1).map_err(map_error(action))?,
                MappedArray::new(self.map("CHUNKS")?, self.sizes.chunks() as usize)
                    .map_err(map_error(action))?,
            ))
        }
    }

    /// Brings a process into scope.
    pub fn add_process(&self, pid: u32, start_clock_ticks: u64) -> Result<(), LoadError> {
        // SAFETY: the map is declared as u32 to u64.
        unsafe { bpf_abi::map_update(self.map("SCOPE")?, &pid, &start_clock_ticks) }
            .map_err(map_error("add a process to the scope"))
    }

    /// Says which cgroup is in scope.
    pub fn set_cgroup(&self, cgroup: BorrowedFd<'_>) -> Result<(), LoadError> {
        use std::os::fd::AsRawFd as _;
        // SAFETY: a cgroup array takes an index and a descriptor, u32 each.
        unsafe { bpf_abi::map_update(self.map("CGROUP")?, &0_u32, &(cgroup.as_raw_fd() as u32)) }
            .map_err(map_error("set the cgroup"))
    }

    /// Where the kernel runs the programs' functions, and what its symbol table calls
    /// them. Those that it does not show us are left out.
    pub fn code(&self) -> Vec<(Range<u64>, String)> {
        let object = object::File::parse(OBJECT).ok();
        let section = object.as_ref().and_then(|it| it.section_by_name(".BTF"));
        let types = section.and_then(|section| Types::parse(section.data().ok()?).ok());
        let name_of = |type_id| types.as_ref()?.function_name(type_id);
        let mut code = Vec::new();
        for (name, program) in self.ebpf.programs() {
            let functions = program.fd().ok().map(|fd| bpf_abi::functions(fd.as_fd()));
            let functions = functions.and_then(Result::ok).unwrap_or_default();
            for (at, function) in functions.into_iter().enumerate() {
                let main = (at == 0).then_some(name);
                if let Some(name) = name_of(function.type_id).or(main) {
                    let tag = u64::from_be_bytes(function.tag);
                    code.push((function.code, format!("bpf_prog_{tag:016x}_{name}")));
                }
            }
        }
        code
    }

    /// Bytes of kernel memory that the maps hold, as the kernel accounts them.
    pub fn map_bytes(&self) -> u64 {
        self.ebpf
            .maps()
            .filter_map(|(_, map)| map_fd(map))
            .map(memlock_bytes)
            .sum()
    }

    fn map(&self, name: &'static str) -> Result<BorrowedFd<'_>, LoadError> {
        self.ebpf
            .map(name)
            .and_then(map_fd)
            .ok_or(LoadError::Missing(name))
    }
}

/// A moment at which a program is about to end.
struct Departure {
    /// A tracepoint, on kernels that have it early enough: that of exec came with
    /// 6.10, that of exit tells what is asked of it from 6.16 on.
    tracepoint: &'static str,
    /// A function of the kernel that other kernels call then.
    function: (&'static str, &'static str),
}

/// The one program for both tracepoints.
const ON_DEPARTURE: &str = "on_departure";

const DEPARTURES: [Departure; 2] = [
    Departure {
        tracepoint: "sched_process_exit",
        function: ("on_exit_call", "acct_collect"),
    },
    Departure {
        tracepoint: "sched_prepare_exec",
        function: ("on_exec_call", "begin_new_exec"),
    },
];

/// Attaches what walks the stacks of programs that are about to end. Without it
/// the samples after that have no user half.
fn keep_departures(ebpf: &mut Ebpf) -> Result<(), LoadError> {
    program::<RawTracePoint>(ebpf, ON_DEPARTURE)?
        .load()
        .map_err(refusal(ON_DEPARTURE))?;
    for departure in &DEPARTURES {
        let by_tracepoint = program::<RawTracePoint>(ebpf, ON_DEPARTURE)?;
        let tracepoint = departure.tracepoint;
        let Err(no_tracepoint) = by_tracepoint.attach(tracepoint) else {
            continue;
        };
        let (name, function) = departure.function;
        let by_function = program::<FEntry>(ebpf, name)?;
        // The kernel's types are some MiB to read, and on most kernels not needed.
        let attached = Btf::from_sys_fs().map(|btf| {
            by_function.load(function, &btf)?;
            by_function.attach()
        });
        if let Ok(Err(error)) = attached {
            tracing::info!(
                %no_tracepoint, %error,
                "this kernel does not say in time when a program ends: {tracepoint}"
            );
        }
    }
    Ok(())
}

/// The pid namespace of this process, as the kernel's address of it, and its
/// level: 0 for the initial one.
pub fn own_pid_namespace(settings: &Settings) -> Result<(u64, u32), LoadError> {
    let mut ebpf = create(settings, &MapSizes::smallest())?;
    let whoami = program::<RawTracePoint>(&mut ebpf, "whoami")?;
    whoami.load().map_err(refusal("whoami"))?;
    bpf_abi::run_raw_tracepoint(whoami.fd()?.as_fd())
        .map_err(map_error("ask the kernel for this process's pid namespace"))?;
    let map = ebpf
        .map("WHOAMI")
        .and_then(map_fd)
        .ok_or(LoadError::Missing("WHOAMI"))?;
    // SAFETY: the map is declared as an array of two words.
    let answer = unsafe { MappedArray::<[u64; 2]>::new(map, 1) }
        .map_err(map_error("read this process's pid namespace"))?;
    // SAFETY: the entry lives as long as `answer`, and nobody writes it now.
    let [namespace, level] = unsafe { answer.entry(0).read_volatile() };
    Ok((namespace, level as u32))
}

fn create(settings: &Settings, sizes: &MapSizes) -> Result<Ebpf, LoadError> {
    // SAFETY: `Settings` is plain integers without padding (checked below).
    let bytes = unsafe {
        std::slice::from_raw_parts(
            std::ptr::from_ref(settings).cast::<u8>(),
            size_of::<Settings>(),
        )
    };
    Ok(EbpfLoader::new()
        .override_global("SETTINGS", bytes, true)
        .map_max_entries("CPUS", sizes.states())
        .map_max_entries("DEPARTURES", sizes.departures())
        .map_max_entries("CHUNKS", sizes.chunks())
        .map_max_entries("REGIONS", sizes.regions())
        .map_max_entries("COPIES", sizes.copies())
        .map_max_entries("SCOPE", sizes.scope())
        .map_max_entries("DESCENDANTS", sizes.descendants())
        .load(OBJECT)?)
}

fn program<'a, P>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut P, LoadError>
where
    &'a mut P: TryFrom<&'a mut Program, Error = ProgramError>,
{
    let program = ebpf.program_mut(name).ok_or(LoadError::Missing(name))?;
    Ok(program.try_into()?)
}

fn map_fd(map: &Map) -> Option<BorrowedFd<'_>> {
    match map {
        Map::Array(data) | Map::HashMap(data) | Map::CgroupArray(data) => Some(data.fd().as_fd()),
        _ => None,
    }
}

/// `memlock` of the descriptor's `fdinfo`; 0 if the kernel does not say.
fn memlock_bytes(fd: BorrowedFd<'_>) -> u64 {
    use std::os::fd::AsRawFd as _;
    std::fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd()))
        .ok()
        .and_then(|text| {
            text.lines()
                .find_map(|line| line.strip_prefix("memlock:")?.trim().parse().ok())
        })
        .unwrap_or(0)
}

const _: () = assert!(size_of::<Settings>().is_multiple_of(8));
