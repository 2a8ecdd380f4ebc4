//! Which BPF programs and helpers this kernel has for this caller.
//!
//! Asked of the kernel itself: tiny programs are offered to the verifier and
//! its answer is read. Vendors carry features to older kernels, so a version
//! number would answer less.

use std::io;
use std::os::fd::{FromRawFd as _, OwnedFd, RawFd};

/// `BPF_PROG_LOAD`.
const PROG_LOAD: u32 = 5;
const PROG_TYPE_PERF_EVENT: u32 = 7;
const PROG_TYPE_RAW_TRACEPOINT: u32 = 17;
/// Some helpers are for programs under the GPL only.
const LICENCE: &[u8] = b"GPL\0";
/// The verifier writes less than this about two instructions.
const LOG_BYTES: usize = 64 << 10;

/// Helpers that the programs call; the value is the kernel's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub enum Helper {
    /// The kernel stack of the interrupted task.
    GetStack = 67,
    /// The current task, with its type.
    GetCurrentTaskBtf = 158,
    /// A task's user registers.
    TaskPtRegs = 175,
    /// A loop of many rounds.
    Loop = 181,
}

impl Helper {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::GetStack,
        Self::GetCurrentTaskBtf,
        Self::TaskPtRegs,
        Self::Loop,
    ];

    /// Its name as in bpf-helpers(7).
    pub fn name(self) -> &'static str {
        match self {
            Self::GetStack => "bpf_get_stack",
            Self::GetCurrentTaskBtf => "bpf_get_current_task_btf",
            Self::TaskPtRegs => "bpf_task_pt_regs",
            Self::Loop => "bpf_loop",
        }
    }
}

/// What became of an attempt to load a program that does nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProgramState {
    /// It loaded.
    Works,
    /// The caller may not.
    NotPermitted,
    /// Refused, by the errno.
    Failed(i32),
}

/// What BPF offers here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BpfFeatures {
    /// Programs that run at each tick.
    pub perf_event: ProgramState,
    /// Programs that run when a thread is made, execs or ends.
    pub raw_tracepoint: ProgramState,
    /// Helpers that the kernel does not have in such a program; None when the
    /// caller may not ask.
    pub missing_helpers: Option<Vec<Helper>>,
}

impl BpfFeatures {
    /// Offers the programs to the kernel.
    pub fn probe() -> Self {
        let nothing = [MOV_R0_0, EXIT];
        let load = |kind| match load(kind, &nothing, &mut []) {
            Ok(_) => ProgramState::Works,
            Err(error) => match error.raw_os_error().unwrap_or_default() {
                libc::EPERM | libc::EACCES => ProgramState::NotPermitted,
                errno => ProgramState::Failed(errno),
            },
        };
        let perf_event = load(PROG_TYPE_PERF_EVENT);
        let absent = |&helper: &Helper| !helper_exists(helper);
        Self {
            perf_event,
            raw_tracepoint: load(PROG_TYPE_RAW_TRACEPOINT),
            missing_helpers: (perf_event == ProgramState::Works)
                .then(|| Helper::ALL.into_iter().filter(absent).collect()),
        }
    }
}

/// Calls the helper with arguments that nobody set: the verifier either does
/// not know it, or complains about those.
fn helper_exists(helper: Helper) -> bool {
    let program = [call(helper as i32), MOV_R0_0, EXIT];
    let mut log = vec![0; LOG_BYTES];
    match load(PROG_TYPE_PERF_EVENT, &program, &mut log) {
        Ok(_) => true,
        Err(_) => !denies_helper(&log),
    }
}

/// The words with which verifiers, old and new, refuse a helper as such.
fn denies_helper(log: &[u8]) -> bool {
    let log = String::from_utf8_lossy(log);
    ["unknown func", "invalid func", "cannot use helper"]
        .iter()
        .any(|refusal| log.contains(refusal))
}

/// `struct bpf_insn`: code, registers, offset, immediate.
type Instruction = (u8, i32);
const MOV_R0_0: Instruction = (0xb7, 0);
const EXIT: Instruction = (0x95, 0);

const fn call(helper: i32) -> Instruction {
    (0x85, helper)
}

fn encode(program: &[Instruction]) -> Vec<u64> {
    let words = program.iter().map(|&(code, immediate)| {
        let mut bytes = [0; 8];
        bytes[0] = code;
        bytes[4..].copy_from_slice(&immediate.to_ne_bytes());
        u64::from_ne_bytes(bytes)
    });
    words.collect()
}

/// The first fields of `union bpf_attr` for `BPF_PROG_LOAD`; the kernel takes
/// the rest as zero.
#[repr(C)]
struct ProgramLoad {
    program_type: u32,
    instructions: u32,
    program: u64,
    licence: u64,
    log_level: u32,
    log_bytes: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
}

/// Loads a program; the verifier's words go to `log` unless that is empty.
fn load(program_type: u32, program: &[Instruction], log: &mut [u8]) -> io::Result<OwnedFd> {
    let program = encode(program);
    let attr = ProgramLoad {
        program_type,
        instructions: program.len() as u32,
        program: program.as_ptr() as u64,
        licence: LICENCE.as_ptr() as u64,
        log_level: u32::from(!log.is_empty()),
        log_bytes: log.len() as u32,
        log: if log.is_empty() {
            0
        } else {
            log.as_mut_ptr() as u64
        },
        kernel_version: 0,
        flags: 0,
    };
    // SAFETY: `attr`, the program, the zero-terminated licence and the log are
    // alive for the call; the lengths given are theirs, so the kernel reads
    // and writes inside them.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            PROG_LOAD,
            &raw const attr,
            size_of::<ProgramLoad>(),
        )
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor (close-on-exec, as all
    // of BPF's are) and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verifiers_refusals_of_a_helper_are_known() {
        // Linux 5.x and 6.x; the third since 6.14.
        assert!(denies_helper(b"unknown func bpf_loop#181\nprocessed 0"));
        assert!(denies_helper(b"invalid func unknown#999\n"));
        assert!(denies_helper(
            b"program of this type cannot use helper bpf_find_vma#180\n"
        ));
        assert!(!denies_helper(b"R1 !read_ok\nprocessed 1 insns"));
        assert!(!denies_helper(&[0; 64]));
    }

    #[test]
    fn a_helper_that_no_kernel_has_is_refused() {
        let program = [call(99_999), MOV_R0_0, EXIT];
        let mut log = vec![0; LOG_BYTES];
        let result = load(PROG_TYPE_PERF_EVENT, &program, &mut log);
        match result {
            Err(error) if error.raw_os_error() == Some(libc::EPERM) => {
                eprintln!("skipped: this caller may not load BPF programs");
            }
            result => {
                assert!(result.is_err());
                assert!(denies_helper(&log), "{}", String::from_utf8_lossy(&log));
            }
        }
    }

    #[test]
    fn a_kernel_that_is_new_enough_has_every_helper() {
        let features = BpfFeatures::probe();
        if features.perf_event == ProgramState::NotPermitted {
            eprintln!("skipped: this caller may not load BPF programs");
            return;
        }
        assert_eq!(features.perf_event, ProgramState::Works);
        assert_eq!(features.raw_tracepoint, ProgramState::Works);
        assert_eq!(features.missing_helpers, Some(vec![]));
    }
}
