//! Shares of CPU time, as the programs measure them of themselves.

use std::collections::BTreeMap;

use libtest_mimic::Trial;

use crate::support::need;
use crate::support::pprof::{Profile, Sample};
use crate::support::run::record_fixture;
use crate::support::stat::Share;
use crate::support::verdict::{Verdict, ensure, trial};

pub fn trials() -> Vec<Trial> {
    vec![
        trial("split::three_leaves_have_their_shares", three_leaves),
        trial("split::eight_threads_have_their_shares", eight_threads),
    ]
}

/// Runs of a series: a short one always, the long one when asked for.
fn runs() -> Verdict<usize> {
    match std::env::var("SAMPLER_TEST_RUNS") {
        Ok(text) => Ok(text.parse()?),
        Err(_) => Ok(2),
    }
}

/// Each part's share: `of` tells which samples belong to a part.
fn shares(
    truth: &BTreeMap<String, u64>,
    profile: &Profile,
    of: impl Fn(&Sample, &str) -> bool,
) -> Vec<Share> {
    let samples: BTreeMap<&String, u64> = truth
        .keys()
        .map(|name| (name, profile.count(|sample| of(sample, name))))
        .collect();
    truth
        .iter()
        .map(|(name, true_ns)| Share {
            name: name.clone(),
            true_ns: *true_ns,
            true_total_ns: truth.values().sum(),
            samples: samples[name],
            total_samples: samples.values().sum(),
        })
        .collect()
}

/// Repeats a fixture and holds every share against the bounds.
fn series(
    fixture: &'static str,
    arguments: &[&str],
    of: impl Fn(&Sample, &str) -> bool,
) -> Verdict {
    need::root()?;
    let (mut all, mut inside, mut widest) = (0, 0, 0.0_f64);
    for _ in 0..runs()? {
        let (run, recording) = record_fixture(&["-F", "997"], fixture, arguments)?;
        let truth: BTreeMap<String, u64> = serde_json::from_slice(&run.stdout)?;
        let (_, profile) = recording.only(fixture)?;
        for share in shares(&truth, profile, &of) {
            ensure!(
                share.total_samples > 500,
                "too few samples to tell: {share}"
            );
            ensure!(share.sigmas() <= 5.0, "outside of 5 sigma: {share}");
            all += 1;
            inside += usize::from(share.sigmas() <= 3.0);
            widest = widest.max(share.sigmas());
        }
    }
    eprintln!("{fixture}: {inside} of {all} shares inside 3 sigma, the farthest {widest:.2}");
    // Of a few shares one may lie outside by chance; of hundreds, one in fifty.
    ensure!(
        all < 100 || inside * 100 >= all * 98,
        "{inside} of {all} shares inside 3 sigma"
    );
    Ok(())
}

fn three_leaves() -> Verdict {
    series("split", &["2500"], Sample::holds)
}

fn eight_threads() -> Verdict {
    series("threads", &["80"], |sample, name| {
        sample
            .strings
            .get("thread_name")
            .is_some_and(|thread| thread == name)
    })
}
