//! A stopped process, walked with our step over tables of the files it maps.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::sync::{Arc, Mutex, OnceLock};

use sampler::object::unwind::{Table, build};
use sampler_common::Memory;
use sampler_common::unwind::x86_64::{Registers, Rule, step};
use sampler_common::unwind::{Interrupted, PackedRule, Stop as End};

use crate::tool::Stop;

/// Frames after which a walk is given up.
const MAX_FRAMES: usize = 2048;

/// An executable mapping, and the table of what it maps.
struct Mapping {
    start: u64,
    end: u64,
    offset: u64,
    name: String,
    table: Option<Arc<Table>>,
}

/// The memory of a process.
struct ProcessMemory(File);

impl Memory for ProcessMemory {
    fn read_word(&mut self, address: u64) -> Option<u64> {
        let mut bytes = [0; 8];
        self.0.read_exact_at(&mut bytes, address).ok()?;
        Some(u64::from_le_bytes(bytes))
    }

    fn read_pair(&mut self, address: u64) -> Option<[u64; 2]> {
        Some([
            self.read_word(address)?,
            self.read_word(address.checked_add(8)?)?,
        ])
    }
}

/// What the interrupted code had in its registers.
struct Held(libc::user_regs_struct);

impl Interrupted for Held {
    fn register(&self, dwarf_number: u32) -> Option<u64> {
        let held = &self.0;
        Some(match dwarf_number {
            0 => held.rax,
            1 => held.rdx,
            2 => held.rcx,
            3 => held.rbx,
            4 => held.rsi,
            5 => held.rdi,
            8 => held.r8,
            9 => held.r9,
            10 => held.r10,
            11 => held.r11,
            12 => held.r12,
            13 => held.r13,
            14 => held.r14,
            15 => held.r15,
            _ => return None,
        })
    }
}

/// A walk, done.
pub struct Walk {
    /// The interrupted address and the return addresses after it.
    pub frames: Vec<u64>,
    /// The rule that each frame was left by, in words.
    pub rules: Vec<String>,
    /// How it ended.
    pub end: Option<End>,
}

/// Walks a process that is stopped, by a signal or by nobody's leave.
pub fn walk(pid: libc::pid_t) -> Result<Walk, Stop> {
    let held = registers(pid)?;
    let mappings = mappings(pid)?;
    let mut memory = ProcessMemory(File::open(format!("/proc/{pid}/mem"))?);
    let mut frame = Registers::interrupted(held.rip, held.rsp, held.rbp);
    let held = Held(held);
    let mut walk = Walk {
        frames: vec![frame.ip],
        rules: Vec::new(),
        end: None,
    };
    while walk.frames.len() < MAX_FRAMES {
        let (rule, place) = rule_for(&mappings, frame.lookup_address());
        walk.rules.push(format!("{place} {:?}", Rule::unpack(rule)));
        match step(rule, &mut frame, &mut memory, &held) {
            Ok(()) => walk.frames.push(frame.ip),
            Err(end) => {
                walk.end = Some(end);
                break;
            }
        }
    }
    Ok(walk)
}

fn rule_for(mappings: &[Mapping], address: u64) -> (PackedRule, String) {
    let Some(mapping) = mappings
        .iter()
        .find(|mapping| (mapping.start..mapping.end).contains(&address))
    else {
        return (Rule::GAP_FRAME_POINTER, format!("{address:x} nowhere"));
    };
    let offset = address - mapping.start + mapping.offset;
    let place = format!("{}+{offset:x}", mapping.name);
    let found = mapping.table.as_ref().and_then(|table| {
        let segment = table.segments.iter().find(|segment| {
            (segment.file_offset..segment.file_offset + segment.size).contains(&offset)
        })?;
        table.rule_at(offset - segment.file_offset + segment.address)
    });
    (found.unwrap_or(Rule::GAP_FRAME_POINTER), place)
}

/// The general registers of a stopped process.
fn registers(pid: libc::pid_t) -> Result<libc::user_regs_struct, Stop> {
    // SAFETY: plain old data, which the kernel fills below.
    let mut registers: libc::user_regs_struct = unsafe { std::mem::zeroed() };
    // SAFETY: attaching stops the process, which is ours; the registers have
    // the room that the request writes to; detaching lets it be.
    let read = unsafe {
        if libc::ptrace(libc::PTRACE_SEIZE, pid, 0, 0) != 0
            || libc::ptrace(libc::PTRACE_INTERRUPT, pid, 0, 0) != 0
        {
            return Err(std::io::Error::last_os_error().into());
        }
        libc::waitpid(pid, std::ptr::null_mut(), libc::__WALL);
        let read = libc::ptrace(libc::PTRACE_GETREGS, pid, 0, &raw mut registers);
        libc::ptrace(libc::PTRACE_DETACH, pid, 0, 0);
        read
    };
    if read == 0 {
        Ok(registers)
    } else {
        Err(std::io::Error::last_os_error().into())
    }
}

fn mappings(pid: libc::pid_t) -> Result<Vec<Mapping>, Stop> {
    let text = fs::read_to_string(format!("/proc/{pid}/maps"))?;
    let mut mappings = Vec::new();
    for line in text.lines() {
        let mut fields = line.split_whitespace();
        let (range, rights, offset) = (fields.next(), fields.next(), fields.next());
        let name = fields.nth(2).unwrap_or_default();
        let (Some(range), Some(rights), Some(offset)) = (range, rights, offset) else {
            continue;
        };
        let Some((start, end)) = range.split_once('-') else {
            continue;
        };
        if !rights.contains('x') {
            continue;
        }
        let [start, end, offset] = [start, end, offset].map(|hex| u64::from_str_radix(hex, 16));
        let (start, end, offset) = (start?, end?, offset?);
        let table = match name {
            "[vdso]" => {
                let mut image = vec![0; (end - start) as usize];
                File::open(format!("/proc/{pid}/mem"))?.read_exact_at(&mut image, start)?;
                build(&image).ok().map(Arc::new)
            }
            path if path.starts_with('/') => table_of(path),
            _ => None,
        };
        mappings.push(Mapping {
            start,
            end,
            offset,
            name: name.into(),
            table,
        });
    }
    Ok(mappings)
}

/// The table of a file, built once.
fn table_of(path: &str) -> Option<Arc<Table>> {
    static TABLES: OnceLock<Mutex<BTreeMap<String, Option<Arc<Table>>>>> = OnceLock::new();
    let mut tables = TABLES.get_or_init(Mutex::default).lock().ok()?;
    tables
        .entry(path.into())
        .or_insert_with(|| build(&fs::read(path).ok()?).ok().map(Arc::new))
        .clone()
}
