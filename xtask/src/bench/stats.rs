//! What a handful of repeats say: the mean and how far it can be trusted.

use serde::Serialize;

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
    let half = half_width(values, mean);
    Some(Estimate {
        mean,
        low: half.map(|half| mean - half),
        high: half.map(|half| mean + half),
    })
}

/// t × s / √n with n − 1 degrees of freedom.
fn half_width(values: &[f64], mean: f64) -> Option<f64> {
    let freedom = values.len().checked_sub(1)?;
    let t = t_quantile_975(freedom)?;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    let deviation = (squares / freedom as f64).sqrt();
    Some(t * deviation / (values.len() as f64).sqrt())
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
    fn one_value_has_a_mean_and_no_interval_and_none_has_nothing() {
        let one = estimate(&[7.0]).unwrap();
        assert_eq!((one.low, one.high), (None, None));
        assert_eq!(estimate(&[]), None);
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
