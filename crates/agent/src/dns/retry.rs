//! When a Corefile is tried again that was refused since a host that it names had no address: that may come to be known by itself, while
//! all else that is wrong with a Corefile stays wrong until somebody changes it.

use std::{
    hash::{BuildHasher, RandomState},
    time::Duration,
};

use podnet_dns::{CorefileError, corefile::Fault};
use tokio::time::Instant;

use super::DnsError;

/// The pause before it is tried again, doubling up to the longest. Of each at least the half, so that not all nodes ask at once.
const FIRST_PAUSE: Duration = if cfg!(test) { Duration::from_millis(20) } else { Duration::from_secs(5) };
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// Whether, and when, the Corefile that was refused last is tried again.
#[derive(Debug, Default)]
pub(super) struct Retry(Option<Wait>);

#[derive(Debug)]
struct Wait {
    pause: Duration,
    /// None while it is being tried.
    until: Option<Instant>,
}

impl Retry {
    /// Notes why the Corefile was refused, be it the first time or when it was tried again. Says whether that is to be told: not when it
    /// only waits for an address as before.
    pub(super) fn refused(&mut self, error: &DnsError) -> bool {
        if !lacks_address(error) {
            self.stop();
            return true;
        }
        let pause = self.0.as_ref().map_or(FIRST_PAUSE, |before| (before.pause * 2).min(LONGEST_PAUSE));
        let until = Some(Instant::now() + spread(pause, RandomState::new().hash_one(0) % 1000));
        self.0.replace(Wait { pause, until }).is_none()
    }

    /// It is loaded, or another one has taken its place.
    pub(super) fn stop(&mut self) {
        self.0 = None;
    }

    /// Whether it is tried again.
    pub(super) fn waits(&self) -> bool {
        self.0.is_some()
    }

    /// Waits until it is time, which is told once; for ever where nothing is tried again.
    pub(super) async fn due(&mut self) {
        let Some(wait) = &mut self.0 else { return std::future::pending().await };
        match wait.until {
            Some(until) => tokio::time::sleep_until(until).await,
            None => std::future::pending().await,
        }
        wait.until = None;
    }
}

/// Whether nothing is known to be wrong but that a host has no address.
pub(super) fn lacks_address(error: &DnsError) -> bool {
    matches!(error, DnsError::Corefile(CorefileError { fault: Fault::Unresolved { .. }, .. }))
}

/// Half of a pause, and so many thousandths of the other half.
fn spread(pause: Duration, share: u64) -> Duration {
    pause / 2 + (pause / 2).mul_f64(share as f64 / 1000.0)
}

#[cfg(test)]
mod tests {
    use podnet_dns::corefile::Place;

    use super::*;

    fn refusal(fault: Fault) -> DnsError {
        DnsError::Corefile(CorefileError { place: Place { file: "Corefile".into(), line: 1, column: 1 }, fault })
    }

    #[test]
    fn what_waits_for_an_address_is_told_once_and_tried_again_after_growing_pauses() {
        let unresolved =
            || refusal(Fault::Unresolved { host: "dns.example".to_owned(), reason: "it has none".to_owned() });
        let mut retry = Retry::default();
        let mut pauses = Vec::new();
        for round in 0..20 {
            assert_eq!(retry.refused(&unresolved()), round == 0);
            pauses.push(retry.0.as_ref().unwrap().pause);
        }
        assert_eq!(pauses[..3], [FIRST_PAUSE, FIRST_PAUSE * 2, FIRST_PAUSE * 4]);
        assert_eq!(pauses[19], LONGEST_PAUSE);
        // What else is wrong with it is told, and not tried again.
        assert!(retry.refused(&refusal(Fault::Empty)) && !retry.waits());
        assert!(retry.refused(&unresolved()) && retry.waits());
        assert_eq!(retry.0.as_ref().unwrap().pause, FIRST_PAUSE);
        retry.stop();
        assert!(!retry.waits() && retry.refused(&unresolved()));
    }

    #[test]
    fn pauses_are_spread_over_their_second_half() {
        let pause = Duration::from_secs(8);
        assert_eq!(spread(pause, 0), Duration::from_secs(4));
        assert_eq!(spread(pause, 500), Duration::from_secs(6));
        assert!(spread(pause, 999) < pause);
    }
}
