//! How far a sampled share may lie from the true one.

/// One share: what the program measured of itself and what the samples say.
pub struct Share {
    pub name: String,
    /// CPU time as the program measured it, of `true_total_ns`.
    pub true_ns: u64,
    pub true_total_ns: u64,
    /// Samples, of `total_samples`.
    pub samples: u64,
    pub total_samples: u64,
}

impl Share {
    /// The true share.
    pub fn expected(&self) -> f64 {
        self.true_ns as f64 / self.true_total_ns as f64
    }

    /// The sampled share.
    pub fn observed(&self) -> f64 {
        self.samples as f64 / self.total_samples as f64
    }

    /// Distance in standard deviations of a binomial of that many samples.
    pub fn sigmas(&self) -> f64 {
        let p = self.expected();
        let deviation = (p * (1.0 - p) / self.total_samples as f64).sqrt();
        (self.observed() - p).abs() / deviation
    }
}

impl std::fmt::Display for Share {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{}: true {:.3} %, sampled {:.3} % of {} samples, {:.2} sigma",
            self.name,
            100.0 * self.expected(),
            100.0 * self.observed(),
            self.total_samples,
            self.sigmas()
        )
    }
}
