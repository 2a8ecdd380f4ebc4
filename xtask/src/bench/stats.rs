//! What a handful of repeats say: the mean and how far it can be trusted.

use serde::Serialize;

/// Of a sorted list, so much is left out at each end of a trimmed mean.
const TRIMMED: f64 = 0.2;

/// A mean with its 95 % confidence interval by Student's t.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Estimate {
    /// The arithmetic mean.
    pub mean: f64,
    /// Lower end of the interval; `None` with fewer than two values.
    pub low: Option<f64>,
    /// Upper end of the interval; `None` with fewer than two values.
    pub high: Option<f64>,
}

/// How many percent longer than its partner in `base` each value of `with` is.
///
/// Partners come from the same round, so that a machine that is slower for a
/// while slows both.
pub fn slowdowns_percent(base: &[f64], with: &[f64]) -> Vec<f64> {
    base.iter()
        .zip(with)
        .map(|(base, with)| (with / base - 1.0) * 100.0)
        .collect()
}

/// The mean of `values`; `None` when there are none.
pub fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// The middle of `values`; `None` when there are none.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let upper = *sorted.get(sorted.len() / 2)?;
    let lower = sorted[(sorted.len() - 1) / 2];
    Some(f64::midpoint(lower, upper))
}

/// The mean of `values` with its interval; `None` when there are none.
pub fn estimate(values: &[f64]) -> Option<Estimate> {
    let mean = mean(values)?;
    let half = half_width(values);
    Some(Estimate {
        mean,
        low: half.map(|half| mean - half),
        high: half.map(|half| mean + half),
    })
}

/// The mean of the middle three fifths of `values`, with its interval by Tukey
/// and `McLaughlin`: s of the values with those beyond the middle drawn in to its
/// ends, and the middle's degrees of freedom. A few wild values move it little.
/// `None` when there are none.
pub fn trimmed(values: &[f64]) -> Option<Estimate> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let cut = (TRIMMED * sorted.len() as f64) as usize;
    let middle = sorted.get(cut..sorted.len() - cut)?;
    let (first, last) = (*middle.first()?, *middle.last()?);
    let mean = mean(middle)?;
    let drawn_in: Vec<f64> = sorted
        .iter()
        .map(|value| value.clamp(first, last))
        .collect();
    let half = middle
        .len()
        .checked_sub(1)
        .and_then(t_quantile_975)
        .zip(deviation(&drawn_in))
        .map(|(t, deviation)| {
            let share = middle.len() as f64 / sorted.len() as f64;
            t * deviation / (share * (sorted.len() as f64).sqrt())
        });
    Some(Estimate {
        mean,
        low: half.map(|half| mean - half),
        high: half.map(|half| mean + half),
    })
}

/// s, with n − 1 degrees of freedom; `None` with fewer than two values.
fn deviation(values: &[f64]) -> Option<f64> {
    let freedom = values.len().checked_sub(1).filter(|freedom| *freedom > 0)?;
    let mean = mean(values)?;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    Some((squares / freedom as f64).sqrt())
}

/// t × s / √n with n − 1 degrees of freedom.
fn half_width(values: &[f64]) -> Option<f64> {
    let t = t_quantile_975(values.len().checked_sub(1)?)?;
    Some(t * deviation(values)? / (values.len() as f64).sqrt())
}

/// The 97.5 % quantile of Student's t; `None` for 0 degrees of freedom. Above
/// 30 the next smaller entry of the usual table is taken, so that the interval
/// is rather too wide.
fn t_quantile_975(freedom: usize) -> Option<f64> {
    const FIRST_30: [f64; 30] = [
        12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160,
        2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056,
        2.052, 2.048, 2.045, 2.042,
    ];
    match freedom {
        0 => None,
        1..=30 => FIRST_30.get(freedom - 1).copied(),
        31..60 => Some(2.042),
        60..120 => Some(2.000),
        _ => Some(1.980),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail")]
    use super::*;

    #[test]
    fn the_interval_is_the_one_a_textbook_gives() {
        // n = 5, mean 3, s = √2.5, t(4) = 2.776: 3 ± 1.963
        let estimate = estimate(&[1.0, 2.0, 3.0, 4.0, 5.0]).unwrap();
        assert!((estimate.mean - 3.0).abs() < 1e-9);
        assert!((estimate.low.unwrap() - 1.037).abs() < 1e-3);
        assert!((estimate.high.unwrap() - 4.963).abs() < 1e-3);
    }

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median(&[]), None);
    }

    #[test]
    fn the_trimmed_mean_is_the_one_a_textbook_gives_and_wild_values_do_not_move_it() {
        // The middle 3 … 8 of 1 … 10: mean 5.5, s of 3,3,3,4,…,7,8,8,8 = 2.1731,
        // t(5) = 2.571: 5.5 ± 2.571 × 2.1731 / (0.6 × √10)
        let mut values: Vec<f64> = (1..=10).map(f64::from).collect();
        let tame = trimmed(&values).unwrap();
        assert!((tame.mean - 5.5).abs() < 1e-9);
        assert!((tame.high.unwrap() - 5.5 - 2.9446).abs() < 1e-3, "{tame:?}");
        values[9] = 1e6;
        assert_eq!(trimmed(&values), Some(tame));
    }

    #[test]
    fn an_interval_holds_the_truth_in_95_of_100_samples() {
        // Sums of twelve uniform numbers are as good as normal.
        let mut state = 1_u64;
        let mut uniform = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 11) as f64 / (1_u64 << 53) as f64
        };
        for interval in [estimate, trimmed] {
            let held = (0..4_000)
                .filter(|_| {
                    let values: Vec<f64> = (0..32)
                        .map(|_| (0..12).map(|_| uniform()).sum::<f64>() - 6.0)
                        .collect();
                    let found = interval(&values).unwrap();
                    found.low.unwrap() <= 0.0 && 0.0 <= found.high.unwrap()
                })
                .count();
            assert!((3_730..3_870).contains(&held), "{held} of 4000");
        }
    }

    #[test]
    fn one_value_has_a_mean_and_no_interval_and_none_has_nothing() {
        let one = estimate(&[7.0]).unwrap();
        assert_eq!((one.low, one.high), (None, None));
        assert_eq!(estimate(&[]), None);
        assert_eq!(trimmed(&[7.0]), Some(one));
        assert_eq!(trimmed(&[]), None);
    }

    #[test]
    fn a_machine_that_slows_both_partners_does_not_widen_the_interval() {
        let slowdowns = slowdowns_percent(&[1.0, 2.0, 4.0], &[1.1, 2.2, 4.4]);
        let estimate = estimate(&slowdowns).unwrap();
        assert!((estimate.mean - 10.0).abs() < 1e-9);
        assert!(estimate.high.unwrap() - estimate.low.unwrap() < 1e-9);
    }

    #[test]
    fn the_quantile_falls_towards_the_normal_distributions() {
        let quantiles: Vec<f64> = (1..200)
            .map(|freedom| t_quantile_975(freedom).unwrap())
            .collect();
        assert!(quantiles.is_sorted_by(|a, b| a >= b));
        assert!(quantiles.iter().all(|t| *t > 1.96));
        assert_eq!(t_quantile_975(0), None);
    }
}
