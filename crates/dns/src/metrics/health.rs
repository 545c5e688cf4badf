//! How the process answers its own question for `/health`.

use std::{
    fmt::{self, Write as _},
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use super::{counts::Histogram, header};

/// Upper bounds of the time that an answer takes, in microseconds: CoreDNS's.
const BOUNDS: [u64; 5] = [250, 2_500, 25_000, 250_000, 2_500_000];

/// What became of the questions that `health` asks itself.
#[derive(Debug, Default)]
pub struct Health {
    durations: Histogram<{ BOUNDS.len() + 1 }>,
    failures: AtomicU64,
}

impl Health {
    /// A question was answered after a time, or was not.
    pub fn asked(&self, took: Option<Duration>) {
        match took {
            Some(took) => self.durations.add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), &BOUNDS),
            None => {
                self.failures.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    pub(super) fn render(&self, out: &mut String) -> fmt::Result {
        let name = "coredns_health_request_duration_seconds";
        header(out, name, "histogram", "Time until the process answered its own question for its health.")?;
        self.durations.render(name, "", &BOUNDS, 1e6, out)?;
        let name = "coredns_health_request_failures_total";
        header(out, name, "counter", "Such questions that were not answered.")?;
        writeln!(out, "{name} {}", self.failures.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_are_counted_by_how_long_they_took_and_apart_where_nobody_answered() {
        let health = Health::default();
        let told = || {
            let mut out = String::new();
            health.render(&mut out).unwrap();
            out
        };
        assert!(told().contains("\ncoredns_health_request_duration_seconds_count 0\n"), "{}", told());
        health.asked(Some(Duration::from_micros(300)));
        health.asked(Some(Duration::from_secs(9)));
        health.asked(None);
        for line in [
            "coredns_health_request_duration_seconds_bucket{le=\"0.00025\"} 0",
            "coredns_health_request_duration_seconds_bucket{le=\"0.0025\"} 1",
            "coredns_health_request_duration_seconds_bucket{le=\"2.5\"} 1",
            "coredns_health_request_duration_seconds_bucket{le=\"+Inf\"} 2",
            "coredns_health_request_duration_seconds_sum 9.0003",
            "coredns_health_request_duration_seconds_count 2",
            "coredns_health_request_failures_total 1",
        ] {
            assert!(told().lines().any(|told| told == line), "{line}: {}", told());
        }
    }
}
