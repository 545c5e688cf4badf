//! How long a watch waits before it asks again.

use std::time::Duration;

use kube::runtime::utils::Backoff;

/// The API server of `podnet up` starts together with its clients: the first retries come quickly.
const FIRST: Duration = Duration::from_millis(50);
/// Of a cluster whose API server is away for long, each node asks this often.
const LONGEST: Duration = Duration::from_secs(10);

/// Pauses that double from 50 ms to 10 s; after a success they begin anew.
#[derive(Debug, Default)]
pub struct Pauses {
    failures: u32,
}

impl Iterator for Pauses {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let pause = FIRST.saturating_mul(2_u32.saturating_pow(self.failures)).min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        Some(pause)
    }
}

impl Backoff for Pauses {
    fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_begin_anew() {
        let mut pauses = Pauses::default();
        let first: Vec<u128> = pauses.by_ref().take(9).map(|pause| pause.as_millis()).collect();
        assert_eq!(first, [50, 100, 200, 400, 800, 1600, 3200, 6400, 10_000]);
        pauses.reset();
        assert_eq!(pauses.next(), Some(FIRST));
    }
}
