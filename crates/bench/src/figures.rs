//! Times, summed up.

use std::{fmt, time::Duration};

use serde::Serialize;

/// Times of the same thing, done many times.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Times {
    pub(crate) count: usize,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) min_ms: f64,
    pub(crate) max_ms: f64,
}

impl Times {
    /// # Panics
    ///
    /// Without any time.
    pub(crate) fn of(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        let ms = |index: usize| times[index.min(times.len() - 1)].as_secs_f64() * 1e3;
        Self {
            count: times.len(),
            p50_ms: ms(times.len() / 2),
            // The nearest rank: of 100 times the 99th, of fewer the longest.
            p99_ms: ms((times.len() * 99).div_ceil(100).saturating_sub(1)),
            min_ms: ms(0),
            max_ms: ms(times.len() - 1),
        }
    }
}

impl fmt::Display for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "p50 {:8.2} ms   p99 {:8.2} ms   (n={}, {:.2}–{:.2})",
            self.p50_ms, self.p99_ms, self.count, self.min_ms, self.max_ms
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_99th_percentile_of_a_hundred_is_the_99th() {
        let times = Times::of((1..=100).rev().map(Duration::from_millis).collect());
        assert_eq!((times.p50_ms, times.p99_ms, times.max_ms), (51.0, 99.0, 100.0));
    }
}
