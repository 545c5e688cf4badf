//! When a changed Corefile is put in force: replicas see the change of a ConfigMap within moments of each other, and do not take it over
//! all at once.

use std::{
    hash::{BuildHasher, RandomState},
    time::Duration,
};

use tokio::time::{Instant, sleep_until};

/// The longest that a change that was seen waits, whatever `reload` says: who edits a ConfigMap sees it in force within seconds.
const LONGEST: Duration = if cfg!(test) { Duration::from_millis(20) } else { Duration::from_secs(5) };

/// A change that was seen and waits.
#[derive(Debug, Default)]
pub(super) struct Spread(Option<Instant>);

impl Spread {
    /// A change was seen: it waits for this share (0 to 1) of `reload`'s jitter. One that waits already waits no longer for that.
    pub(super) fn begin(&mut self, jitter: Duration, share: f64, now: Instant) {
        self.0.get_or_insert_with(|| now + jitter.min(LONGEST).mul_f64(share));
    }

    /// Nothing waits any more.
    pub(super) fn stop(&mut self) {
        self.0 = None;
    }

    /// Waits until it is time, which is told once; for ever where nothing waits.
    pub(super) async fn due(&mut self) {
        match self.0 {
            Some(until) => sleep_until(until).await,
            None => std::future::pending().await,
        }
        self.0 = None;
    }
}

/// A share by chance, from 0 to less than 1.
pub(in crate::dns) fn share() -> f64 {
    (RandomState::new().hash_one(0) % 1000) as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[test]
    fn a_change_waits_for_a_share_of_the_jitter_and_never_for_long() {
        let (now, jitter) = (Instant::now(), LONGEST / 2);
        let until = |jitter, share| {
            let mut spread = Spread::default();
            spread.begin(jitter, share, now);
            spread.0.unwrap() - now
        };
        assert_eq!(until(jitter, 0.0), Duration::ZERO);
        assert_eq!(until(jitter, 0.5), jitter / 2);
        assert_eq!(until(Duration::from_secs(3600), 0.5), LONGEST / 2);
        assert_eq!(until(Duration::ZERO, 0.9), Duration::ZERO, "without jitter at once");
        assert!((0..100).all(|_| (0.0..1.0).contains(&share())));
    }

    #[test]
    fn another_change_meanwhile_puts_nothing_off_and_what_is_over_is_told_once() {
        let now = Instant::now();
        let mut spread = Spread::default();
        assert_eq!(spread.due().now_or_never(), None);
        spread.begin(LONGEST, 0.5, now);
        spread.begin(LONGEST, 0.9, now + LONGEST / 4);
        assert_eq!(spread.0, Some(now + LONGEST / 2));
        spread.stop();
        assert_eq!(spread.0, None);
    }

    #[tokio::test]
    async fn who_waits_is_told_when_it_is_time() {
        let mut spread = Spread::default();
        spread.begin(LONGEST, 0.0, Instant::now());
        spread.due().await;
        assert_eq!(spread.due().now_or_never(), None, "it was told");
    }
}
