//! The arithmetic of what was seen, what was lost and what never came.
//!
//! ```text
//! ticks          = counted + idle + out_of_scope + all lost
//! counted        = complete + all truncated + kernel_only
//! expected_ticks = enabled time of the events x frequency
//! not_delivered  = expected_ticks - ticks, never below zero
//! ```

use sampler_common::{Ending, Outcome};

use crate::probe::CpuCounters;

/// What one CPU did while the recording ran.
#[derive(Debug, Clone, Copy)]
pub struct CpuAccount {
    /// Its counters at the end.
    pub counters: CpuCounters,
    /// How long its events were enabled.
    pub enabled_ns: u64,
    /// How long it was idle, by `/proc/stat`.
    pub idle_ns: u64,
    /// How long the hypervisor ran something else, by `/proc/stat`.
    pub steal_ns: u64,
}

/// Ticks that an event with a rate should have brought.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Delivery {
    /// Enabled time times frequency.
    pub expected_ticks: u64,
    /// Expected, but the program never saw them.
    pub not_delivered: u64,
    /// Of those, what an idle CPU accounts for: a virtual CPU that sleeps
    /// gets no timer.
    pub not_delivered_idle: u64,
}

/// Where every tick went.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ledger {
    /// Counted first thing in the program.
    pub ticks: u64,
    /// By [`Outcome`].
    pub outcomes: [u64; Outcome::COUNT],
    /// For events with a rate.
    pub delivery: Option<Delivery>,
    /// Time that the hypervisor took from this host's CPUs.
    pub steal_ns: u64,
    /// The same, CPU by CPU.
    pub cpus: Vec<CpuLedger>,
}

/// One CPU's part of the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CpuLedger {
    /// Which.
    pub cpu: u32,
    /// Its ticks.
    pub ticks: u64,
    /// For events with a rate.
    pub delivery: Option<Delivery>,
    /// Time that the hypervisor took from it.
    pub steal_ns: u64,
}

impl Ledger {
    /// Adds up what the CPUs did. `frequency_hz` is `None` for an event
    /// without a rate.
    pub fn new(cpus: &[CpuAccount], frequency_hz: Option<u64>) -> Self {
        let mut ledger = Self {
            delivery: frequency_hz.map(|_| Delivery::default()),
            ..Self::default()
        };
        for (cpu, account) in (0..).zip(cpus) {
            let counters = &account.counters;
            ledger.ticks += counters.ticks;
            for (sum, ticks) in ledger.outcomes.iter_mut().zip(counters.outcomes) {
                *sum += ticks;
            }
            ledger.steal_ns += account.steal_ns;
            let delivery = frequency_hz.map(|hz| deliver(account, hz));
            if let (Some(sum), Some(cpu)) = (&mut ledger.delivery, delivery) {
                sum.expected_ticks += cpu.expected_ticks;
                sum.not_delivered += cpu.not_delivered;
                sum.not_delivered_idle += cpu.not_delivered_idle;
            }
            if counters.ticks > 0 || account.enabled_ns > 0 {
                ledger.cpus.push(CpuLedger {
                    cpu,
                    ticks: counters.ticks,
                    delivery,
                    steal_ns: account.steal_ns,
                });
            }
        }
        ledger
    }

    /// Ticks of one outcome.
    pub fn outcome(&self, outcome: Outcome) -> u64 {
        self.outcomes[outcome as usize]
    }

    /// Ticks that were lost, for whatever reason.
    pub fn lost(&self) -> u64 {
        Outcome::LOST
            .iter()
            .map(|reason| self.outcome(*reason))
            .sum()
    }
}

fn deliver(account: &CpuAccount, frequency_hz: u64) -> Delivery {
    let ticks_of = |ns: u64| (u128::from(ns) * u128::from(frequency_hz) / 1_000_000_000) as u64;
    let expected_ticks = ticks_of(account.enabled_ns);
    let not_delivered = expected_ticks.saturating_sub(account.counters.ticks);
    let idle_ticks = account.counters.outcomes[Outcome::Idle as usize];
    Delivery {
        expected_ticks,
        not_delivered,
        not_delivered_idle: not_delivered.min(ticks_of(account.idle_ns).saturating_sub(idle_ticks)),
    }
}

/// How completely the stacks of some samples were taken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Completeness {
    /// The outermost frame was reached.
    pub complete: u64,
    /// By position in [`Ending::TRUNCATED`].
    pub truncated: [u64; Ending::TRUNCATED.len()],
    /// There was no user half: kernel threads.
    pub kernel_only: u64,
}

/// The class of one stack trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// With a user half, or cut: the ending of its least complete half.
    Ended(Ending),
    /// Complete, without a user half.
    KernelOnly,
}

impl Class {
    /// The class of a stack trace with these halves. The user half says more
    /// about where the time goes, so its ending counts first.
    pub fn of(user: Option<Ending>, kernel: Option<Ending>) -> Self {
        match (user, kernel) {
            (Some(ending), _) | (_, Some(ending)) if ending != Ending::Complete => {
                Self::Ended(ending)
            }
            (Some(_), _) => Self::Ended(Ending::Complete),
            (None, _) => Self::KernelOnly,
        }
    }
}

impl Completeness {
    /// Adds samples of one class.
    pub fn add(&mut self, class: Class, samples: u64) {
        match class {
            Class::KernelOnly => self.kernel_only += samples,
            Class::Ended(ending) => {
                match Ending::TRUNCATED
                    .iter()
                    .position(|reason| *reason == ending)
                {
                    Some(reason) => self.truncated[reason] += samples,
                    None => self.complete += samples,
                }
            }
        }
    }

    /// Adds another tally.
    pub fn merge(&mut self, other: &Self) {
        self.complete += other.complete;
        self.kernel_only += other.kernel_only;
        for (sum, samples) in self.truncated.iter_mut().zip(other.truncated) {
            *sum += samples;
        }
    }

    /// All samples.
    pub fn total(&self) -> u64 {
        self.complete + self.kernel_only + self.truncated.iter().sum::<u64>()
    }

    /// Percentage of the samples with a user half whose stacks are complete;
    /// `None` if there are none.
    pub fn complete_percent(&self) -> Option<f64> {
        let with_user = self.total() - self.kernel_only;
        (with_user > 0).then(|| self.complete as f64 * 100.0 / with_user as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::RuleCounters;

    fn account(ticks: u64, idle: u64, enabled_ms: u64, idle_ms: u64) -> CpuAccount {
        let mut outcomes = [0; Outcome::COUNT];
        outcomes[Outcome::Idle as usize] = idle;
        outcomes[Outcome::Counted as usize] = ticks - idle;
        CpuAccount {
            counters: CpuCounters {
                ticks,
                outcomes,
                clocked_ticks: 0,
                clocked_ns: 0,
                scope_overflows: 0,
                rules: RuleCounters::default(),
            },
            enabled_ns: enabled_ms * 1_000_000,
            idle_ns: idle_ms * 1_000_000,
            steal_ns: 7,
        }
    }

    #[test]
    fn missing_ticks_are_split_cpu_by_cpu() {
        // CPU 0 slept for half of its ten seconds; CPU 1 was busy and lost 90.
        let ledger = Ledger::new(
            &[account(500, 3, 10_000, 5_000), account(900, 0, 10_000, 0)],
            Some(99),
        );
        let delivery = ledger.delivery.unwrap_or_default();
        assert_eq!(delivery.expected_ticks, 990 + 990);
        assert_eq!(delivery.not_delivered, 490 + 90);
        assert_eq!(delivery.not_delivered_idle, 490);
        assert_eq!(ledger.steal_ns, 14);
        assert_eq!(ledger.cpus.len(), 2);
    }

    #[test]
    fn idle_time_accounts_for_no_more_than_it_lasted() {
        let ledger = Ledger::new(&[account(0, 0, 10_000, 1_000)], Some(100));
        let delivery = ledger.delivery.unwrap_or_default();
        assert_eq!(delivery.not_delivered, 1000);
        assert_eq!(delivery.not_delivered_idle, 100);
        let seen = Ledger::new(&[account(60, 60, 10_000, 1_000)], Some(100));
        assert_eq!(seen.delivery.unwrap_or_default().not_delivered_idle, 40);
    }

    #[test]
    fn more_ticks_than_expected_are_not_negative_losses() {
        let ledger = Ledger::new(&[account(1000, 0, 9_999, 0)], Some(99));
        assert_eq!(ledger.delivery.unwrap_or_default().not_delivered, 0);
    }

    #[test]
    fn an_event_without_a_rate_expects_nothing() {
        assert_eq!(Ledger::new(&[account(5, 0, 1, 0)], None).delivery, None);
    }

    #[test]
    fn a_stack_is_as_complete_as_its_least_complete_half() {
        use Ending::{BrokenChain, Complete, KernelDepthLimit};
        let class = |user, kernel| Class::of(user, kernel);
        assert_eq!(class(Some(Complete), None), Class::Ended(Complete));
        assert_eq!(
            class(Some(Complete), Some(Complete)),
            Class::Ended(Complete)
        );
        assert_eq!(
            class(Some(Complete), Some(KernelDepthLimit)),
            Class::Ended(KernelDepthLimit)
        );
        assert_eq!(
            class(Some(BrokenChain), Some(KernelDepthLimit)),
            Class::Ended(BrokenChain)
        );
        assert_eq!(class(None, Some(Complete)), Class::KernelOnly);
        assert_eq!(class(None, None), Class::KernelOnly);
        assert_eq!(
            class(None, Some(KernelDepthLimit)),
            Class::Ended(KernelDepthLimit)
        );
    }

    #[test]
    fn completeness_adds_up() {
        let mut sum = Completeness::default();
        sum.add(Class::Ended(Ending::Complete), 3);
        sum.add(Class::Ended(Ending::BrokenChain), 1);
        sum.add(Class::KernelOnly, 5);
        let mut twice = sum;
        twice.merge(&sum);
        assert_eq!(twice.total(), 18);
        assert_eq!(twice.complete_percent(), Some(75.0));
        assert_eq!(Completeness::default().complete_percent(), None);
    }
}
