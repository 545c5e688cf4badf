//! How long to wait before trying again: kubelet's numbers.

use std::time::{Duration, Instant};

/// Doubles with each failure up to a limit, and forgets after a long time without one.
#[derive(Clone, Debug)]
pub(crate) struct Backoff {
    first: Duration,
    limit: Duration,
    forget: Duration,
    current: Option<(Duration, Instant)>,
}

impl Backoff {
    /// Between runs of a container: 10 s doubling to 5 min, forgotten after 10 min of running (kubelet's `MaxContainerBackOff`).
    pub(crate) fn of_crashes() -> Self {
        Self {
            first: Duration::from_secs(10),
            limit: Duration::from_secs(300),
            forget: Duration::from_secs(600),
            current: None,
        }
    }

    /// Between attempts to make a sandbox or volumes: short, because the network of a new node is there within seconds.
    pub(crate) fn of_setup() -> Self {
        Self {
            first: Duration::from_secs(1),
            limit: Duration::from_secs(60),
            forget: Duration::from_secs(600),
            current: None,
        }
    }

    /// Something failed that had been tried at `started`: from `now` on, how long to wait.
    pub(crate) fn failed(&mut self, started: Instant, now: Instant) -> Duration {
        let next = match self.current {
            Some((last, _)) if now.duration_since(started) < self.forget => (last * 2).min(self.limit),
            _ => self.first,
        };
        self.current = Some((next, now + next));
        next
    }

    /// When to try again; none where nothing keeps from trying.
    pub(crate) fn until(&self, now: Instant) -> Option<(Duration, Instant)> {
        self.current.filter(|(_, until)| *until > now)
    }

    /// It worked: what was before does not count.
    pub(crate) fn reset(&mut self) {
        self.current = None;
    }

    /// Resumes after a restart of the runtime: `failures` happened, the last one `ago`.
    pub(crate) fn resume(&mut self, failures: u32, ago: Duration, now: Instant) {
        if failures == 0 || ago >= self.forget {
            return;
        }
        let wait = self.first.saturating_mul(1 << (failures - 1).min(16)).min(self.limit);
        self.current = Some((wait, now + wait.saturating_sub(ago)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_five_minutes() {
        let (start, mut backoff) = (Instant::now(), Backoff::of_crashes());
        let waits: Vec<u64> = (0..7).map(|_| backoff.failed(start, start).as_secs()).collect();
        assert_eq!(waits, [10, 20, 40, 80, 160, 300, 300]);
    }

    #[test]
    fn ten_minutes_of_running_are_forgiveness() {
        let (start, mut backoff) = (Instant::now(), Backoff::of_crashes());
        backoff.failed(start, start);
        backoff.failed(start, start);
        assert_eq!(backoff.failed(start, start + Duration::from_secs(601)).as_secs(), 10);
    }

    #[test]
    fn a_wait_goes_on_after_a_restart() {
        let now = Instant::now();
        let mut backoff = Backoff::of_crashes();
        backoff.resume(3, Duration::from_secs(15), now);
        assert_eq!(backoff.until(now).map(|(wait, until)| (wait.as_secs(), (until - now).as_secs())), Some((40, 25)));
        assert_eq!(backoff.failed(now, now).as_secs(), 80);
    }
}
