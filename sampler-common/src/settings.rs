//! What user space tells the programs before they are loaded.
//!
//! The kernel's verifier sees these as constants and drops the branches that
//! a recording does not take.

/// Which processes a recording is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum ScopeKind {
    /// All of them.
    Host = 0,
    /// Those whose thread-group ID is in the map of processes.
    Processes = 1,
    /// Those whose thread-group leader bears a name.
    Comm = 2,
    /// Those in a cgroup, or below it.
    Cgroup = 3,
}

/// Byte offsets of the members of the kernel's `task_struct`, `pid` and
/// `upid`, from the running kernel's BTF.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(C)]
pub struct TaskLayout {
    /// `task_struct.start_boottime`: nanoseconds of `CLOCK_BOOTTIME`.
    pub start_boottime: u32,
    /// `task_struct.group_leader`.
    pub group_leader: u32,
    /// `task_struct.self_exec_id`: changes at each exec.
    pub self_exec_id: u32,
    /// Bytes of `self_exec_id`: 8, or 4 before Linux 5.7.
    pub self_exec_id_bytes: u32,
    /// `task_struct.comm`.
    pub comm: u32,
    /// `task_struct.pid`: the thread ID.
    pub pid: u32,
    /// `task_struct.tgid`: the process ID.
    pub tgid: u32,
    /// `task_struct.mm`.
    pub mm: u32,
    /// `task_struct.flags`.
    pub flags: u32,
    /// `task_struct.thread_pid`.
    pub thread_pid: u32,
    /// `pid.level`.
    pub pid_level: u32,
    /// `pid.numbers`.
    pub pid_numbers: u32,
    /// Bytes of a `upid`.
    pub upid_bytes: u32,
    /// `upid.nr`.
    pub upid_nr: u32,
    /// `upid.ns`.
    pub upid_ns: u32,
}

/// Byte offsets of the members of the kernel's structures that lead from a
/// task to the mapping at an address, from the running kernel's BTF.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(C)]
pub struct MemoryLayout {
    /// 1 if the mappings can be found: all of the others are known, and the
    /// kernel keeps mappings as [`NodeReference`](crate::NodeReference) reads
    /// them.
    pub known: u32,
    /// The root of the tree in `mm_struct.mm_mt`.
    pub tree_root: u32,
    /// `mm_struct.mm_lock_seq`: changes when mappings do, and is odd meanwhile.
    /// 0 on kernels that do not count.
    pub lock_sequence: u32,
    /// `mm_struct.context.vdso`: where the vDSO is.
    pub vdso: u32,
    /// `mm_struct.start_stack`: where the first thread's stack began.
    pub start_stack: u32,
    /// `mm_struct.start_code`: where the program's code begins, and 0 until
    /// the program is about to start.
    pub start_code: u32,
    /// `vm_area_struct.vm_start`.
    pub area_start: u32,
    /// `vm_area_struct.vm_end`.
    pub area_end: u32,
    /// `vm_area_struct.vm_mm`.
    pub area_memory: u32,
    /// `vm_area_struct.vm_flags`.
    pub area_flags: u32,
    /// `vm_area_struct.vm_pgoff`, in pages.
    pub area_page_offset: u32,
    /// `vm_area_struct.vm_file`.
    pub area_file: u32,
    /// `file.f_inode`.
    pub file_inode: u32,
    /// `inode.i_ino`.
    pub inode_number: u32,
    /// log2 of the bytes of a page.
    pub page_shift: u32,
    /// Zero.
    pub reserved: u32,
}

/// Where an architecture's `pt_regs` keeps what a walk starts from, in words
/// of eight bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct RegisterLayout {
    /// Words in `pt_regs`.
    pub words: u32,
    /// The interrupted program counter.
    pub program_counter: u32,
    /// The frame pointer.
    pub frame_pointer: u32,
    /// The stack pointer.
    pub stack_pointer: u32,
    /// Zero.
    pub reserved: u32,
    /// The word that tells user from kernel mode, and 32-bit programs.
    pub mode: u32,
    /// The bits of that word which are looked at.
    pub mode_mask: u64,
    /// Their value in a 64-bit program.
    pub mode_user: u64,
    /// Their value in a 32-bit program.
    pub mode_user_narrow: u64,
}

impl RegisterLayout {
    /// `x86_64`: `rbp` is word 4, `rip` 16, `cs` 17, `rsp` 19
    /// of 21; user code runs with
    /// a `cs` of 0x33, or 0x23 when it is 32-bit.
    pub const X86_64: Self = Self {
        words: 21,
        program_counter: 16,
        frame_pointer: 4,
        stack_pointer: 19,
        reserved: 0,
        mode: 17,
        mode_mask: 0xffff,
        mode_user: 0x33,
        mode_user_narrow: 0x23,
    };

    /// `aarch64`: `x29` is word 29, `sp` 31, `pc` 32, `pstate` 33 of 34; the low bits of
    /// `pstate` are 0 at EL0, with bit 4 set for a 32-bit program.
    pub const AARCH64: Self = Self {
        words: 34,
        program_counter: 32,
        frame_pointer: 29,
        stack_pointer: 31,
        reserved: 0,
        mode: 33,
        mode_mask: 0x1f,
        mode_user: 0,
        mode_user_narrow: 0x10,
    };

    /// Words that any layout needs at most.
    pub const MAX_WORDS: usize = 34;
}

/// Limits, so that a test can provoke each loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Limits {
    /// Threads a region may hold.
    pub threads: u32,
    /// Counts a region may hold.
    pub counts: u32,
    /// Words of stack traces a region may hold.
    pub words: u32,
    /// User frames of a stack trace.
    pub user_frames: u32,
    /// Kernel frames of a stack trace.
    pub kernel_frames: u32,
    /// CPUs that have a region.
    pub regions: u32,
    /// Bytes of a stack that a copy holds.
    pub copy_bytes: u32,
    /// Chunks of copies that a CPU has for each generation.
    pub copy_chunks: u32,
}

/// The whole configuration of the programs.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct Settings {
    /// Random seed of the first lane of the stack hash.
    pub seed_low: u64,
    /// Of the second lane.
    pub seed_high: u64,
    /// The pid namespace of the caller, as the kernel's address of it.
    pub pid_namespace: u64,
    /// Its level; 0 is the initial one and needs no translation.
    pub pid_namespace_level: u32,
    /// A [`ScopeKind`].
    pub scope: u32,
    /// The name of [`ScopeKind::Comm`], zero-padded: its first eight bytes.
    pub comm_low: u64,
    /// Its last eight bytes.
    pub comm_high: u64,
    /// Start of the kernel's entry code: a return address in it lies between
    /// an interrupt and what it interrupted. Zero when hidden.
    pub entry_text_start: u64,
    /// Its end.
    pub entry_text_end: u64,
    /// Clock ticks of `/proc` are this many nanoseconds.
    pub clock_tick_ns: u64,
    /// Whether kernel frames are wanted.
    pub kernel_frames: u32,
    /// Whether user frames are wanted.
    pub user_frames: u32,
    /// For tests: behave as if the kernel refused its stack.
    pub fault_kernel_stack: u32,
    /// Whether children of processes in scope come into it.
    pub follow_forks: u32,
    /// Limits.
    pub limits: Limits,
    /// Registers.
    pub registers: RegisterLayout,
    /// Offsets in the kernel's structures.
    pub task: TaskLayout,
    /// Offsets in the kernel's structures of mappings.
    pub memory: MemoryLayout,
    /// Whether stacks are walked by tables, and copied where there are none.
    pub tables: u32,
    /// One walked stack in this many is copied too, to be checked; 0 for none.
    pub check_every: u32,
    /// Slots for departures, a power of two; 0 if they are not kept.
    pub departure_slots: u32,
    /// Position of the first CPU's state for departures.
    pub departing_states: u32,
    /// Zero.
    pub reserved: u32,
}
