//! Whole files: our rows and framehop, at every row and between.

use std::collections::BTreeMap;
use std::fs;

use libtest_mimic::Trial;
use sampler::object::unwind::{Table, build};
use sampler_common::unwind::x86_64::{Registers, Rule, step};
use sampler_common::unwind::{BUCKET_BYTES, Origin, Row, Stop as End};

use crate::peer::{Caller, Computed, Peer};
use crate::tool::{Outcome, Stop, fail, trial};

/// Addresses compared in each file, each as interrupted and as a caller's.
const ADDRESSES: usize = 20_000;

/// Where distributions put what every program here uses.
const LIBRARIES: &str = "/usr/lib/x86_64-linux-gnu";

pub fn trials() -> Vec<Trial> {
    vec![
        trial("framehop agrees on every rule: libc", || {
            agrees(&library("libc.so.6"))
        }),
        trial("framehop agrees on every rule: libcrypto", || {
            agrees(&library("libcrypto.so.3"))
        }),
        trial("framehop agrees on every rule: libstdc++", || {
            agrees(&library("libstdc++.so.6"))
        }),
        trial("framehop agrees on every rule: ld.so", || {
            agrees("/lib64/ld-linux-x86-64.so.2")
        }),
        trial("framehop agrees on every rule: bash", || {
            agrees("/bin/bash")
        }),
        trial("framehop agrees on every rule: dash", || {
            agrees("/bin/dash")
        }),
        trial("framehop agrees on every rule: node", || {
            agrees("/usr/bin/node")
        }),
        trial("framehop agrees on every rule: rustc", || agrees(&rustc()?)),
        trial("rows take six bytes or less, index included", sizes),
    ]
}

pub fn library(name: &str) -> String {
    format!("{LIBRARIES}/{name}")
}

/// The compiler's own library.
pub fn rustc() -> Result<String, Stop> {
    let root = crate::tool::run("rustc", ["--print", "sysroot"])?;
    let folder = format!("{}/lib", root.trim());
    fs::read_dir(&folder)?
        .filter_map(|entry| entry.ok()?.path().to_str().map(String::from))
        .find(|path| path.contains("librustc_driver-"))
        .ok_or_else(|| Stop::Missing(format!("{folder}/librustc_driver")))
}

pub fn read(path: &str) -> Result<Vec<u8>, Stop> {
    fs::read(path).map_err(|error| Stop::Missing(format!("{path}: {error}")))
}

fn table(path: &str) -> Result<Table, Stop> {
    build(&read(path)?).map_err(|error| Stop::Failed(format!("{path}: {error}")))
}

/// The addresses at which rows start.
pub fn row_addresses(table: &Table) -> Vec<u64> {
    let mut addresses = Vec::with_capacity(table.rows.len());
    for (bucket, pair) in table.index.windows(2).enumerate() {
        let start = table.lowest + bucket as u64 * BUCKET_BYTES;
        let rows = &table.rows[pair[0] as usize..pair[1] as usize];
        addresses.extend(rows.iter().map(|row| start + u64::from(Row(*row).offset())));
    }
    addresses
}

/// What a comparison found.
#[derive(Default)]
struct Found {
    same: u64,
    /// framehop followed the frame pointer because it cannot do better.
    fallback: u64,
    /// Gaps, rows without a rule, and rules that need a register which framehop
    /// does not take.
    not_compared: u64,
    differ: Vec<String>,
    by_kind: BTreeMap<String, u64>,
}

fn agrees(path: &str) -> Outcome {
    let file = read(path)?;
    let table = table(path)?;
    let peer = Peer::new(&file)?;
    let rows = row_addresses(&table);
    let mut found = Found::default();
    for at in picked(&rows) {
        for origin in [Origin::INTERRUPTED, Origin::CALLER] {
            compare(&table, &peer, at, origin, &mut found);
        }
    }
    if let Some(first) = found.differ.first() {
        return fail(format!(
            "{} of {} differ, such as\n{first}",
            found.differ.len(),
            found.same + found.differ.len() as u64
        ));
    }
    // A comparison that compares little proves little.
    if found.same < 9 * (found.fallback + found.not_compared) {
        return fail(format!(
            "{} the same, {} where framehop fell back, {} not compared: {:?}",
            found.same, found.fallback, found.not_compared, found.by_kind
        ));
    }
    Ok(())
}

/// Rows' own addresses, evenly from the whole file, and for each one between
/// it and the next.
fn picked(rows: &[u64]) -> impl Iterator<Item = u64> {
    let step = (rows.len() * 2 / ADDRESSES).max(1);
    let mut seed = 1_u64;
    rows.windows(2).step_by(step).flat_map(move |pair| {
        // A generator of its own (Knuth's MMIX constants), so that a failure repeats.
        seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let between = pair[0] + (seed >> 33) % (pair[1] - pair[0]).max(1);
        [pair[0], between]
    })
}

fn compare(table: &Table, peer: &Peer, at: u64, origin: Origin, found: &mut Found) {
    let ip = if origin == Origin::CALLER { at + 1 } else { at };
    let frame = Registers {
        ip,
        sp: 0x7000_0000_0000,
        bp: 0x7000_0000_4000,
        origin,
    };
    if !peer.describes(at) {
        return;
    }
    let Some(packed) = table.rule_at(at) else {
        found.not_compared += 1;
        return;
    };
    let rule = Rule::unpack(packed);
    if matches!(
        rule,
        Rule::Unsupported
            | Rule::GapStub
            | Rule::GapFramePointer
            | Rule::Register { .. }
            | Rule::Probe { .. }
            | Rule::ReturnAddressIn { .. }
    ) {
        let kind = format!("{rule:?}");
        *found
            .by_kind
            .entry(kind.chars().take_while(|c| c.is_alphabetic()).collect())
            .or_default() += 1;
        found.not_compared += 1;
        return;
    }
    let mut ours = frame;
    let ours: Result<Caller, End> = match step(packed, &mut ours, &mut Computed, &()) {
        Ok(()) => Ok(Some([ours.ip, ours.sp, ours.bp])),
        Err(End::EndOfStack) => Ok(None),
        Err(end) => Err(end),
    };
    let theirs = peer.caller(&frame);
    match (ours, theirs) {
        (Ok(ours), Ok(theirs)) if ours == theirs => found.same += 1,
        (_, Err(_)) => found.fallback += 1,
        (_, Ok(theirs)) if theirs == Some(Peer::fallback(&frame)) => found.fallback += 1,
        (ours, theirs) => found.differ.push(format!(
            "{at:x} {origin:?} {rule:?}\nours   {ours:x?}\ntheirs {theirs:x?}"
        )),
    }
}

fn sizes() -> Outcome {
    for path in [library("libc.so.6"), library("libcrypto.so.3"), rustc()?] {
        let table = table(&path)?;
        let rows = table.rows.len() as u64;
        if table.bytes() > rows * 6 {
            return fail(format!("{path}: {} bytes for {rows} rows", table.bytes()));
        }
    }
    Ok(())
}
