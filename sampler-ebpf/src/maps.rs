//! The maps, each with who writes it.

use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, CgroupArray, HashMap};
use sampler_common::{CHUNK_WORDS, CopyChunk, CpuState, Departure, PLACES, Region, TablePlace};

/// `BPF_F_MMAPABLE`: user space reads the map as memory, without a system call.
const MMAPABLE: u32 = 1 << 10;

/// The generation that ticks write to, 0 or 1. Written by user space.
#[map]
pub static GENERATION: Array<u64> = Array::with_max_entries(1, MMAPABLE);

/// One entry for the ticks of each possible CPU, then one for the departures on
/// each. Written by that CPU.
#[map]
pub static CPUS: Array<CpuState> = Array::with_max_entries(1, MMAPABLE);

/// Two for each CPU, one a generation: written by that CPU while its
/// generation is on, read and cleared by user space while it is off.
#[map]
pub static REGIONS: Array<Region> = Array::with_max_entries(2, MMAPABLE);

/// As many for each region as the settings say, written and read with it.
#[map]
pub static COPIES: Array<CopyChunk> = Array::with_max_entries(1, MMAPABLE);

/// The last user halves of tasks, by a hash of their address. Written by
/// `departure`.
#[map]
pub static DEPARTURES: Array<Departure> = Array::with_max_entries(1, 0);

/// The processes that were asked for: process ID, as the caller's pid namespace
/// has it, to start time in clock ticks of `/proc`. Written by user space at
/// the start.
#[map]
pub static SCOPE: HashMap<u32, u64> = HashMap::with_max_entries(1, 0);

/// Their descendants: process ID, as the initial pid namespace has it, to start
/// time. Written by `lifecycle`.
#[map]
pub static DESCENDANTS: HashMap<u32, u64> = HashMap::with_max_entries(1, 0);

/// The cgroup in scope.
#[map]
pub static CGROUP: CgroupArray = CgroupArray::with_max_entries(1, 0);

/// What `whoami` found: the caller's pid namespace and its level.
#[map]
pub static WHOAMI: Array<[u64; 2]> = Array::with_max_entries(1, MMAPABLE);

/// Where the unwind table of each file lies. Written by user space.
#[map]
pub static PLACE_TABLE: Array<[TablePlace; PLACES]> = Array::with_max_entries(1, MMAPABLE);

/// The unwind tables themselves. Written by user space.
#[map]
pub static CHUNKS: Array<[u32; CHUNK_WORDS]> = Array::with_max_entries(1, MMAPABLE);
