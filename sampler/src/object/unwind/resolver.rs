//! The one caller whose CFA hangs on a register that its callee saved.
//!
//! ld.so's `_dl_runtime_resolve`, under every first call through a PLT, keeps
//! its frame in `rbx` because it makes room for all vector registers. While it
//! runs itself, `rbx` is at hand. While its callee runs, `rbx` is where the
//! callee put it, at a distance from the callee's CFA that the callee's own
//! entry says; and the callee's CFA is the stack pointer of the call:
//!
//! ```text
//! rbx = *(rsp + d)          d < 0
//! cfa = rbx + 8 o
//! ```
//!
//! A caller is looked up at the last byte of its call, and nothing else is: so
//! that byte gets a row of its own.

use std::collections::HashMap;

use sampler_common::unwind::PackedRule;
use sampler_common::unwind::x86_64::{Base, Rule};

use super::Machine;
use super::image::Image;
use super::parse::{Entry, Sections};
use super::rows::{Rows, RuleFrom};

/// DWARF numbers of the registers that a callee keeps: rbx, r12 to r15.
const KEPT: [u8; 5] = [3, 12, 13, 14, 15];
/// `call` with a displacement of four bytes.
const CALL: u8 = 0xe8;
const CALL_BYTES: usize = 5;
/// Code looked through in one file, in bytes: ld.so has a kilobyte of it.
const MAX_SCANNED_BYTES: usize = 64 << 10;

/// Puts a row on each call under a rule that counts from a kept register.
pub(super) fn patch(
    image: &Image<'_>,
    lowest: u64,
    sections: &Sections<'_>,
    entries: &[Entry],
    rows: &mut Rows,
) {
    if image.machine != Machine::X86_64 {
        return;
    }
    let mut patches = Vec::new();
    // Each callee is looked at once, however often it is called.
    let mut saved_at = HashMap::new();
    let mut scanned = 0;
    for pair in rows.as_slice().windows(2) {
        let [from, to] = pair else { continue };
        let Rule::Register {
            register,
            cfa_words,
            saved,
        } = Rule::unpack(from.rule)
        else {
            continue;
        };
        if !KEPT.contains(&register) {
            continue;
        }
        let bytes = (to.at - from.at) as usize;
        scanned += bytes;
        if scanned > MAX_SCANNED_BYTES {
            break;
        }
        let code = image.code(lowest + u64::from(from.at), bytes as u64);
        let Some(code) = code.filter(|code| code.len() == bytes) else {
            continue;
        };
        for (at, call) in code.windows(CALL_BYTES).enumerate() {
            let &[CALL, ref displacement @ ..] = call else {
                continue;
            };
            let Some(displacement) = displacement.first_chunk() else {
                continue;
            };
            let end = from.at + (at + CALL_BYTES) as u32;
            let target = end.wrapping_add_signed(i32::from_le_bytes(*displacement));
            let rule = saved_at
                .entry((target, register))
                .or_insert_with(|| {
                    sections.saved_at(entries, target, gimli::Register(register.into()))
                })
                .filter(|distance| distance % 8 == 0)
                .and_then(|distance| {
                    Rule::Dereferenced {
                        base: Base::StackPointer,
                        slot_words: i16::try_from(distance / 8).ok()?,
                        add_words: u8::try_from(cfa_words).ok()?,
                        saved,
                    }
                    .pack()
                });
            if let Some(rule) = rule {
                patches.push((end, from.rule, rule));
            }
        }
    }
    if !patches.is_empty() {
        *rows = patched(rows, &patches);
    }
}

/// The rows with one more for the last byte of each call: where it ends, the
/// rule around it, and the one for it.
fn patched(rows: &Rows, patches: &[(u32, PackedRule, PackedRule)]) -> Rows {
    let old = rows.as_slice();
    let mut all: Vec<RuleFrom> = old.to_vec();
    for &(end, around, rule) in patches {
        all.push(RuleFrom { at: end - 1, rule });
        if old.binary_search_by_key(&end, |row| row.at).is_err() {
            let rule = around;
            all.push(RuleFrom { at: end, rule });
        }
    }
    all.sort_by_key(|row| row.at);
    let first = all.first().map_or(Rule::UNSUPPORTED, |row| row.rule);
    let mut joined = Rows::at_most(rows.room(), first);
    for row in all {
        joined.push(row.at, row.rule);
    }
    joined
}
