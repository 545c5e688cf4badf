//! When rules that the kernel refused are tried again.

use std::time::{Duration, Instant};

/// The first pause, doubling with each refusal up to the longest.
const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(300);

/// What became of the rules of one family so far. Neither family waits for the other.
///
/// Rules that see sockets are tried first. Where the kernel refuses them, those without are the next best, and the first ones are tried
/// again after a pause: a refusal may be of the moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attempts {
    /// The pause after the last refusal, and its end.
    paused: Option<(Duration, Instant)>,
    /// Rules that do not see sockets are in force.
    blind: bool,
}

impl Attempts {
    /// Whether the rules that see sockets are to be tried now.
    #[must_use]
    pub fn sees(&self, now: Instant) -> bool {
        self.paused.is_none_or(|(_, end)| end <= now)
    }

    /// Whether rules that see no sockets are in force.
    #[must_use]
    pub const fn is_blind(&self) -> bool {
        self.blind
    }

    /// The rules that see sockets were refused.
    pub fn refused(&mut self, now: Instant) {
        let pause = self.paused.map_or(FIRST, |(pause, _)| (pause * 2).min(LONGEST));
        self.paused = Some((pause, now + pause));
    }

    /// Rules were taken; blind ones see no sockets.
    pub fn taken(&mut self, blind: bool) {
        self.blind = blind;
        if !blind {
            self.paused = None;
        }
    }

    /// Somebody else changed something: nothing is to be waited for.
    pub fn hasten(&mut self, now: Instant) {
        if let Some((_, end)) = &mut self.paused {
            *end = now.min(*end);
        }
    }

    /// When the rules that see sockets are to be tried next; none: they are in force, or were never refused.
    #[must_use]
    pub fn due(&self) -> Option<Instant> {
        self.paused.map(|(_, end)| end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_refused_is_tried_again_after_growing_pauses() {
        let mut attempts = Attempts::default();
        let mut now = Instant::now();
        assert!(attempts.sees(now) && attempts.due().is_none());
        let mut pauses = Vec::new();
        for _ in 0..11 {
            attempts.refused(now);
            attempts.taken(true);
            let due = attempts.due().unwrap();
            assert!(!attempts.sees(due - Duration::from_millis(1)) && attempts.sees(due) && attempts.is_blind());
            pauses.push((due - now).as_secs());
            now = due;
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
        attempts.taken(false);
        assert_eq!(attempts, Attempts::default(), "what was taken was never refused");
        attempts.refused(now);
        assert_eq!(attempts.due(), Some(now + FIRST));
    }
}
