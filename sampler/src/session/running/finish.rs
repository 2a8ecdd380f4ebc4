//! What happens once, when the timers have stopped.

use std::process::Child;
use std::time::{Duration, Instant};

use super::super::cost;
use super::super::ledger::{CpuAccount, Ledger};
use super::super::recording::{Lifecycle, Recording};
use super::super::unwinding::Unwinding;
use super::super::verification::Verification;
use super::Running;
use crate::probe::host::boot::Boot;
use crate::probe::host::cpus;
use crate::probe::{self, RuleCounters};
use crate::symbolize::Symbolizer;

/// How long a recording that is over waits for the last unwind tables.
const LAST_TABLES: Duration = Duration::from_secs(10);
impl Running {
    /// Stops the timers, drains what is left and names it.
    ///
    /// Returns the command too, which may still run.
    pub fn finish(mut self) -> (Recording, Option<Child>) {
        self.timers.stop();
        let stopped = Instant::now();
        let duration_ns = (stopped - self.started).as_nanos() as u64;
        let ledger = self.ledger();
        self.drain();
        self.drain();
        self.finish_unwinding();
        let verified = self.verification.take().map(Verification::finish);
        self.attribution.refresh_all(&mut self.table);
        let made = self.jit.finish(&mut self.attribution, &self.table);
        self.ask_for_names(made);
        cost::rss_bytes();
        let tables = self.unwinding.as_ref().map(Unwinding::counts);
        // Its threads and tables are not needed to name and to write.
        self.unwinding = None;
        if let Some(cache) = &self.cache {
            cache.trim();
        }
        let names = self.symbolizer.map(Symbolizer::finish);
        let counters = self.drain.counters();
        let (departures, departures_ns) = self.drain.departures();
        let sum = |of: fn(&probe::CpuCounters) -> u64| counters.iter().map(of).sum::<u64>();
        let scope_overflows = sum(|cpu| cpu.scope_overflows);
        if scope_overflows > 0 {
            tracing::warn!(
                scope_overflows,
                "children were not followed: too many processes are in scope at once"
            );
        }
        let table = self.table.counters();
        let recording = Recording {
            event: self.options.event,
            frequency_hz: self.options.frequency_hz,
            cpus: self.shares.maps.cpus,
            start: self.start,
            duration_ns,
            stopped,
            lifecycle: Lifecycle {
                records: table.records,
                lost_records: table.lost_records + self.sideband.malformed(),
                unpinned_files: table.unpinned_files,
                scope_overflows,
            },
            boot_unix_ns: crate::process::boot_unix_ns(),
            boot: Boot::read(),
            bpf_ns: cost::extrapolate_bpf_ns(
                sum(|cpu| cpu.clocked_ns),
                sum(|cpu| cpu.clocked_ticks),
                ledger.ticks,
            ) + departures_ns,
            departures,
            ledger,
            attribution: self.attribution,
            memory_budget_bytes: self.shares.budget_bytes,
            tables: tables.unwrap_or_default(),
            names,
            verified,
            jit: self.jit.counts(),
            jit_refusals: self.jit.into_refusals(),
            bpf_map_bytes: self.programs.map_bytes(),
            rules: RuleCounters {
                in_order: sum(|cpu| cpu.rules.in_order),
                by_index: sum(|cpu| cpu.rules.by_index),
                missed: sum(|cpu| cpu.rules.missed),
            },
        };
        (recording, self.command)
    }

    fn ledger(&self) -> Ledger {
        let counters = self.drain.counters();
        let enabled_ns = self.timers.enabled_ns(counters.len());
        let times = cpus::times().unwrap_or_default();
        let time_of = |times: &[cpus::CpuTime], cpu: usize| {
            let found = times.iter().find(|time| time.cpu as usize == cpu);
            found.map_or((0, 0), |time| {
                (time.idle_ns + time.iowait_ns, time.steal_ns)
            })
        };
        let accounts: Vec<_> = counters
            .into_iter()
            .zip(enabled_ns)
            .enumerate()
            .map(|(cpu, (counters, enabled_ns))| {
                let (idle_before, steal_before) = time_of(&self.times_at_start, cpu);
                let (idle_after, steal_after) = time_of(&times, cpu);
                CpuAccount {
                    counters,
                    enabled_ns,
                    idle_ns: idle_after.saturating_sub(idle_before),
                    steal_ns: steal_after.saturating_sub(steal_before),
                }
            })
            .collect();
        let rate = self.options.event.has_rate();
        Ledger::new(&accounts, rate.then_some(self.options.frequency_hz))
    }

    /// Waits a while for the tables that the last copies need.
    fn finish_unwinding(&mut self) {
        let deadline = Instant::now() + LAST_TABLES;
        while self.attribution.waits() && self.waits_for_tables() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
            self.load_tables();
        }
        let Some(unwinding) = &mut self.unwinding else {
            return;
        };
        self.attribution.give_up_waiting(unwinding);
        let counts = unwinding.counts();
        if counts.is_short() {
            tracing::warn!(
                not_loaded = counts.not_loaded,
                evicted = counts.evicted,
                dropped = counts.dropped,
                refused = counts.refused,
                "unwind tables found no room: stacks were copied instead, or cut; more `--memory` gives them room"
            );
        }
        self.ask_for_names(Vec::new());
    }
}
