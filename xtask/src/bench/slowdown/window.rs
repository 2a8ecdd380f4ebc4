//! What the worker noted in one window, and the two figures made of it.

use anyhow::{Context, Result, ensure};
use std::io::Read;

/// Units to a block: some tens of milliseconds.
const BLOCK: usize = 256;
const HEADER_BYTES: usize = 7 * 8;

/// One thread's part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Noted {
    /// Where it ran.
    pub cpu: u64,
    /// From the first unit's start to the last one's end.
    pub elapsed_ns: u64,
    /// CPU time of the thread; it contains the interrupts that fell into it.
    pub cpu_ns: u64,
    /// Time that it could have run and another thread did.
    pub waited_ns: u64,
    /// Time that the hypervisor took from its CPU meanwhile.
    pub stolen_ns: u64,
    /// Wall time of each unit.
    pub units_ns: Vec<u32>,
}

/// A window's figures.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Figures {
    /// Wall time of a unit on average, without what the hypervisor took.
    pub unit_ns: f64,
    /// The same, as a multiple of the median unit of the same moments.
    pub in_medians: f64,
    /// Share of the time that the worker waited for other threads.
    pub waited: f64,
    /// Share of the time that the hypervisor took.
    pub stolen: f64,
}

/// Reads what `threads` threads answer; stolen time is not in it.
pub fn read(from: &mut impl Read, threads: usize) -> Result<Vec<Noted>> {
    (0..threads).map(|_| read_one(from)).collect()
}

fn read_one(from: &mut impl Read) -> Result<Noted> {
    let mut header = [0; HEADER_BYTES];
    from.read_exact(&mut header)
        .context("the worker's answer")?;
    let (words, _) = header.as_chunks::<8>();
    let &[cpu, start_ns, end_ns, cpu_ns, waited_ns, is_full, count] = words else {
        unreachable!("the header has seven words");
    };
    let word = u64::from_ne_bytes;
    ensure!(word(is_full) == 0, "too many units for the worker's memory");
    let mut bytes = vec![0; usize::try_from(word(count))? * 4];
    from.read_exact(&mut bytes).context("the worker's units")?;
    let (units, _) = bytes.as_chunks::<4>();
    Ok(Noted {
        cpu: word(cpu),
        elapsed_ns: word(end_ns).saturating_sub(word(start_ns)),
        cpu_ns: word(cpu_ns),
        waited_ns: word(waited_ns),
        stolen_ns: 0,
        units_ns: units.iter().map(|unit| u32::from_ne_bytes(*unit)).collect(),
    })
}

impl Figures {
    /// Of all threads together; `None` without a unit.
    pub fn of(threads: &[Noted]) -> Option<Self> {
        let sum = |field: fn(&Noted) -> u64| threads.iter().map(field).sum::<u64>() as f64;
        let elapsed_ns = sum(|noted| noted.elapsed_ns);
        let stolen_ns = sum(|noted| noted.stolen_ns);
        let units = sum(|noted| noted.units_ns.len() as u64);
        let medians_ns: f64 = threads
            .iter()
            .map(|noted| in_medians_ns(&noted.units_ns))
            .sum();
        let net_ns = elapsed_ns - stolen_ns;
        (units > 0.0 && medians_ns > 0.0).then(|| Self {
            unit_ns: net_ns / units,
            in_medians: net_ns / medians_ns,
            waited: sum(|noted| noted.waited_ns) / elapsed_ns,
            stolen: stolen_ns / elapsed_ns,
        })
    }
}

/// The time that all units would have taken, had each taken as long as the
/// median one of its block.
fn in_medians_ns(units: &[u32]) -> f64 {
    units
        .chunks(BLOCK)
        .map(|block| {
            let mut sorted = block.to_vec();
            let at = sorted.len() / 2;
            f64::from(*sorted.select_nth_unstable(at).1) * block.len() as f64
        })
        .sum()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail")]
    use super::*;

    fn noted(units_ns: Vec<u32>, stolen_ns: u64) -> Noted {
        Noted {
            cpu: 0,
            elapsed_ns: units_ns.iter().map(|unit| u64::from(*unit)).sum(),
            cpu_ns: 0,
            waited_ns: 0,
            stolen_ns,
            units_ns,
        }
    }

    #[test]
    fn an_answer_is_read_to_its_last_unit() {
        let mut bytes: Vec<u8> = [3_u64, 100, 700, 5, 6, 0, 2]
            .iter()
            .flat_map(|word| word.to_ne_bytes())
            .collect();
        bytes.extend([250_u32, 350].iter().flat_map(|unit| unit.to_ne_bytes()));
        let read_back = read(&mut &*bytes, 1).unwrap();
        let expected = Noted {
            cpu: 3,
            elapsed_ns: 600,
            cpu_ns: 5,
            waited_ns: 6,
            stolen_ns: 0,
            units_ns: vec![250, 350],
        };
        assert_eq!(read_back, [expected]);
        read(&mut &bytes[..bytes.len() - 1], 1).unwrap_err();
    }

    #[test]
    fn a_cost_in_every_tenth_unit_is_found_in_full_by_both_figures() {
        let alone = Figures::of(&[noted(vec![1_000; 5_000], 0)]).unwrap();
        let units = (0..5_000).map(|at| if at % 10 == 0 { 1_200 } else { 1_000 });
        let with = Figures::of(&[noted(units.collect(), 0)]).unwrap();
        assert!((with.unit_ns / alone.unit_ns - 1.02).abs() < 1e-9);
        assert!((with.in_medians / alone.in_medians - 1.02).abs() < 1e-9);
    }

    #[test]
    fn a_machine_that_becomes_slower_moves_the_first_figure_only() {
        let at_once = |at: u32| if at < 2_560 { 1_000 } else { 1_300 };
        let figures = Figures::of(&[noted((0..5_120).map(at_once).collect(), 0)]).unwrap();
        assert!((figures.unit_ns - 1_150.0).abs() < 1e-9);
        assert!((figures.in_medians - 1.0).abs() < 1e-9);
    }

    #[test]
    fn what_the_hypervisor_took_is_no_cost() {
        let mut units = vec![1_000; 999];
        units.push(101_000);
        let figures = Figures::of(&[noted(units, 100_000)]).unwrap();
        assert!((figures.unit_ns - 1_000.0).abs() < 1e-9);
        assert!((figures.in_medians - 1.0).abs() < 1e-9);
        assert!((figures.stolen - 100_000.0 / 1_100_000.0).abs() < 1e-9);
    }

    #[test]
    fn of_no_unit_there_is_no_figure() {
        assert_eq!(Figures::of(&[noted(Vec::new(), 0)]), None);
    }
}
