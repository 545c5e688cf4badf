//! Durations, counted in buckets as Prometheus reads them.

use std::{fmt::Write as _, time::Duration};

use podnet_model::Family;

use super::facts::label;

/// Counts by upper bound.
#[derive(Clone, Debug)]
pub(super) struct Histogram {
    /// Upper bounds in seconds, ascending, and how many were within each and above the one before.
    buckets: Vec<(f64, u64)>,
    above: u64,
    sum: f64,
}

impl Histogram {
    pub(super) fn new(bounds: impl IntoIterator<Item = f64>) -> Self {
        Self { buckets: bounds.into_iter().map(|bound| (bound, 0)).collect(), above: 0, sum: 0.0 }
    }

    /// 1 ms, doubled 14 times: how long kube-proxy's rounds take.
    pub(super) fn of_rounds() -> Self {
        Self::new((0..15).map(|power| 0.001 * f64::from(1_u32 << power)))
    }

    /// Up to five minutes: how long it takes from a change in the cluster until it is in force on a node.
    pub(super) fn of_programming() -> Self {
        let steps = |first: u32, step: u32, count: u32| (0..count).map(move |number| f64::from(first + step * number));
        let bounds = [0.25, 0.5].into_iter().chain(steps(1, 1, 59)).chain(steps(60, 5, 12)).chain(steps(120, 30, 7));
        Self::new(bounds)
    }

    pub(super) fn observe(&mut self, duration: Duration) {
        let seconds = duration.as_secs_f64();
        self.sum += seconds;
        let place = self.buckets.partition_point(|(bound, _)| *bound < seconds);
        match self.buckets.get_mut(place) {
            Some((_, count)) => *count += 1,
            None => self.above += 1,
        }
    }

    /// Appends it in the text format of Prometheus, once for each family: what is counted is about both.
    pub(super) fn render(&self, text: &mut String, name: &str, help: &str) {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} histogram");
        for family in Family::ALL {
            self.render_series(text, name, &label(family));
        }
    }

    /// Appends the lines that have these labels.
    pub(super) fn render_series(&self, text: &mut String, name: &str, labels: &str) {
        let mut count = 0;
        for (bound, within) in &self.buckets {
            count += within;
            let _ = writeln!(text, "{name}_bucket{{{labels},le=\"{bound}\"}} {count}");
        }
        count += self.above;
        let _ = writeln!(text, "{name}_bucket{{{labels},le=\"+Inf\"}} {count}");
        let _ = writeln!(text, "{name}_sum{{{labels}}} {}\n{name}_count{{{labels}}} {count}", self.sum);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_those_of_kube_proxy_and_each_counts_what_is_within() {
        let mut rounds = Histogram::of_rounds();
        for millis in [1, 2, 3, 60_000] {
            rounds.observe(Duration::from_millis(millis));
        }
        let mut text = String::new();
        rounds.render(&mut text, "d", "Durations.");
        for line in [
            "# HELP d Durations.",
            "# TYPE d histogram",
            "d_bucket{ip_family=\"IPv6\",le=\"0.001\"} 1",
            "d_bucket{ip_family=\"IPv6\",le=\"0.002\"} 2",
            "d_bucket{ip_family=\"IPv6\",le=\"0.004\"} 3",
            "d_bucket{ip_family=\"IPv6\",le=\"16.384\"} 3",
            "d_bucket{ip_family=\"IPv6\",le=\"+Inf\"} 4",
            "d_sum{ip_family=\"IPv4\"} 60.006",
            "d_count{ip_family=\"IPv4\"} 4",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
        let bounds: Vec<f64> = Histogram::of_programming().buckets.into_iter().map(|(bound, _)| bound).collect();
        assert_eq!(bounds.len(), 2 + 59 + 12 + 7);
        assert_eq!((bounds[0], bounds[2], bounds[60], bounds[61], bounds[79]), (0.25, 1.0, 59.0, 60.0, 300.0));
        assert!(bounds.is_sorted());
    }
}
