//! Builders of unwind tables that do not behave: what it costs, and whom.

use std::fs::{self, File};
use std::io::Read as _;
use std::thread;
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use sampler::isolation::{Parent, Service};
use sampler::object::unwind::{Machine, Segment, Table, Tally};
use sampler::session::{TABLES_SERVICE, TableMaker};
use tempfile::TempDir;

use crate::fixture::pin;
use crate::tool::{Outcome, fail, trial};

pub fn trials() -> Vec<Trial> {
    vec![
        trial("a_builder_that_hangs_costs_the_file_it_is_at", || {
            costs_its_file(Act::Hang, Duration::from_millis(300))
        }),
        trial("a_builder_that_withholds_its_table_costs_the_file", || {
            costs_its_file(Act::Withhold, Duration::from_millis(300))
        }),
        trial("a_builder_that_answers_nonsense_is_not_believed", || {
            [Act::Unknown, Act::More, Act::Long]
                .into_iter()
                .try_for_each(at_once)
        }),
        trial("a_table_larger_than_allowed_is_not_taken", || {
            at_once(Act::Oversized)
        }),
        trial("a_table_that_a_look_up_could_leave_is_not_taken", || {
            [Act::Noise, Act::Counts, Act::BeyondRows, Act::Backwards]
                .into_iter()
                .try_for_each(at_once)
        }),
        trial("rows_out_of_order_are_harmless", out_of_order),
        trial("a_builder_that_talks_unasked_is_replaced", unasked),
    ]
}

/// What a table may take, in bytes.
const MAX_BYTES: u64 = 1 << 20;
/// Nobody waits for this.
const LONG: Duration = Duration::from_secs(60);
/// What is done at once takes less, on a machine with other things to do.
const AT_ONCE: Duration = Duration::from_secs(10);

/// Answers as the real service writes them: their number in its list.
const TABLE: u8 = 0;
const UNKNOWN: u8 = 9;

/// What a file has the child do: it holds the name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Act {
    /// Answer as it should.
    Behave,
    /// Never answer.
    Hang,
    /// Say that a table follows, and send none.
    Withhold,
    /// An answer that there is not.
    Unknown,
    /// An answer, and something behind it.
    More,
    /// An answer of a MiB.
    Long,
    /// A table of more bytes than were allowed.
    Oversized,
    /// Bytes that are no table.
    Noise,
    /// More of everything than there are bytes.
    Counts,
    /// An index that goes beyond the rows.
    BeyondRows,
    /// An index that goes back.
    Backwards,
    /// Rows that do not ascend.
    Unordered,
    /// A table, and another.
    Unasked,
}

const ACTS: [Act; 13] = [
    Act::Behave,
    Act::Hang,
    Act::Withhold,
    Act::Unknown,
    Act::More,
    Act::Long,
    Act::Oversized,
    Act::Noise,
    Act::Counts,
    Act::BeyondRows,
    Act::Backwards,
    Act::Unordered,
    Act::Unasked,
];

/// Stands in for the one that builds tables.
pub const SERVICE: Service = Service {
    name: TABLES_SERVICE.name,
    run: |parent| while serve(&parent).is_some() {},
};

fn serve(parent: &Parent) -> Option<()> {
    let (_max_bytes, file) = parent.receive::<u64>().ok()?;
    let mut name = String::new();
    File::from(file?).read_to_string(&mut name).ok()?;
    let act = ACTS.into_iter().find(|act| format!("{act:?}") == name)?;
    let send_table = |bytes: &[u8]| {
        parent.send(&TABLE).ok()?;
        parent.send_bytes(bytes).ok()
    };
    match act {
        Act::Behave => send_table(&table().encode()),
        Act::Hang => hang(),
        Act::Withhold => {
            parent.send(&TABLE).ok()?;
            hang()
        }
        Act::Unknown => parent.send(&UNKNOWN).ok(),
        Act::More => parent.send(&(TABLE, TABLE)).ok(),
        Act::Long => parent.send_bytes(&vec![TABLE; 1 << 20]).ok(),
        Act::Oversized => send_table(&vec![0; MAX_BYTES as usize + 1]),
        Act::Noise => send_table(&[0xff; 4096]),
        Act::Counts => {
            let mut bytes = table().encode();
            bytes[16..40].fill(0xff);
            send_table(&bytes)
        }
        Act::BeyondRows => send_table(&changed(|table| table.index[1] = 200)),
        Act::Backwards => send_table(&changed(|table| table.index = vec![0, 3, 1, 3])),
        Act::Unordered => send_table(&changed(|table| table.rows.swap(1, 2))),
        Act::Unasked => {
            send_table(&table().encode())?;
            send_table(&table().encode())
        }
    }
}

/// Until it is killed.
fn hang() -> Option<()> {
    loop {
        std::hint::spin_loop();
    }
}

/// A table of 256 bytes of code, with rows at 0, 4 and 9.
fn table() -> Table {
    Table {
        machine: Machine::X86_64,
        lowest: 0x1000,
        index: vec![0, 3],
        rows: vec![0x500, 0x704, 0x909],
        segments: vec![Segment {
            file_offset: 0x1000,
            address: 0x1000,
            size: 0x100,
        }],
        tally: Tally::default(),
    }
}

fn changed(change: fn(&mut Table)) -> Vec<u8> {
    let mut table = table();
    change(&mut table);
    table.encode()
}

/// Tables of files that each hold what to do.
struct Trials {
    dir: TempDir,
    maker: TableMaker,
}

impl Trials {
    fn start(file_deadline: Duration) -> std::io::Result<Self> {
        Ok(Self {
            dir: TempDir::new()?,
            maker: TableMaker::start_within(MAX_BYTES, file_deadline),
        })
    }

    /// The table of the file that says so, and how many children it cost.
    fn make(&mut self, act: Act) -> Result<(Option<Table>, u64), crate::tool::Stop> {
        let path = self.dir.path().join(format!("{act:?}"));
        fs::write(&path, format!("{act:?}"))?;
        let table = self.maker.table(&*pin(&path)?);
        Ok((table, self.maker.take_deaths()))
    }
}

/// The file is tried twice and has no table; the next one has, by a new child.
fn costs_its_file(act: Act, file_deadline: Duration) -> Outcome {
    let mut trials = Trials::start(file_deadline)?;
    let begun = Instant::now();
    for (act, expected) in [
        (Act::Behave, (Some(table()), 0)),
        (act, (None, 2)),
        (Act::Behave, (Some(table()), 0)),
        (act, (None, 0)),
    ] {
        let found = trials.make(act)?;
        if found != expected {
            return fail(format!("{act:?}: {found:?} is not {expected:?}"));
        }
    }
    if begun.elapsed() > AT_ONCE {
        return fail(format!("{act:?} took {:?}", begun.elapsed()));
    }
    Ok(())
}

/// As above, and nobody waits for the deadline.
fn at_once(act: Act) -> Outcome {
    costs_its_file(act, LONG)
}

/// Such a table is as good as one with wrong rules: it says of its own file what
/// is not so, and is read to the end.
fn out_of_order() -> Outcome {
    let mut trials = Trials::start(LONG)?;
    let (Some(table), 0) = trials.make(Act::Unordered)? else {
        return fail("no table");
    };
    for address in 0x1000..0x1100 {
        if table.rule_at(address).is_none() {
            return fail(format!("no rule at {address:#x}"));
        }
    }
    Ok(())
}

/// The table that was asked for is taken, the other one belongs to no file.
fn unasked() -> Outcome {
    let mut trials = Trials::start(LONG)?;
    let first = trials.make(Act::Unasked)?;
    // Until the second one is there.
    thread::sleep(Duration::from_millis(300));
    let second = trials.make(Act::Behave)?;
    if (&first, &second) != (&(Some(table()), 0), &(Some(table()), 1)) {
        return fail(format!("{first:?}, then {second:?}"));
    }
    Ok(())
}
