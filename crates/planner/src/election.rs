//! Who of many does what only one may do: what one candidate for a Lease (`coordination.k8s.io/v1`) makes of what it sees.
//!
//! The clocks of others decide nothing: a Lease has expired when it was seen unchanged for as long as it lasts, by the time that
//! passes here. So candidates look in pairs: who sees it renewed looks once more when it would have expired, and then waits for long.

use std::{sync::Arc, time::Duration, time::Instant};

/// How long a Lease lasts, and how often it is renewed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// So long nobody else takes it after the holder fell silent.
    pub lasts: Duration,
    /// So long after its last renewal the holder has stopped its work; less than `lasts`, so that two never work at a time.
    pub give_up: Duration,
    /// Between two renewals, and between two looks of a candidate among few.
    pub pause: Duration,
    /// All candidates together look twice in this time, however many there are.
    pub between_looks: Duration,
    /// For giving it back at the end; what takes longer is left to expire.
    pub farewell: Duration,
}

impl Timing {
    /// Those of Kubernetes' own components (`--leader-elect-lease-duration`, `-renew-deadline`, `-retry-period`), and four looks a second at
    /// most: of three candidates each looks every two seconds, of 5,000 each twice in 42 minutes.
    pub const USUAL: Self = Self {
        lasts: Duration::from_secs(15),
        give_up: Duration::from_secs(10),
        pause: Duration::from_secs(2),
        between_looks: Duration::from_millis(500),
        farewell: Duration::from_secs(1),
    };

    /// How long a candidate waits between two pairs of looks. `chance` spreads candidates: any number, another one each time.
    #[must_use]
    pub fn wait(&self, candidates: usize, chance: u32) -> Duration {
        let all = self.between_looks.saturating_mul(u32::try_from(candidates).unwrap_or(u32::MAX));
        let spread = 0.75 + f64::from(chance) / f64::from(u32::MAX) / 2.0;
        all.max(self.pause).mul_f64(spread)
    }
}

/// What a Lease says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Who has it; none: nobody, as it was given back.
    pub holder: Option<Arc<str>>,
    /// Changes whenever it is written.
    pub version: Arc<str>,
    /// How long it lasts after it was written.
    pub lasts: Duration,
}

/// What a candidate does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// It takes the Lease, in the version that it saw.
    Take,
    /// It looks again after that time.
    LookAfter(Duration),
}

/// One that would have the Lease.
#[derive(Clone, Debug)]
pub struct Candidate {
    name: Arc<str>,
    /// The version that was seen last, and since when.
    watched: Option<(Arc<str>, Instant)>,
    /// The next look is the second one of a pair.
    again: bool,
}

impl Candidate {
    /// One that has not looked yet. No other has its name; it may be the name of one that is gone.
    #[must_use]
    pub const fn new(name: Arc<str>) -> Self {
        Self { name, watched: None, again: false }
    }

    /// It looked, and there was this Lease or none. `wait` is how long it waits where nothing is about to happen.
    pub fn saw(&mut self, seen: Option<&Seen>, wait: Duration, now: Instant) -> Act {
        let Some(Seen { holder: Some(holder), version, lasts }) = seen else {
            return Act::Take;
        };
        let Some((known, since)) = self.watched.as_ref().filter(|(known, _)| known == version) else {
            // Whoever had its name before it is gone. Later on that would be another one of the same name: it is left alone.
            let resumes = self.watched.is_none() && *holder == self.name;
            self.watched = Some((version.clone(), now));
            self.again = !self.again;
            let pause = if self.again { wait.min(*lasts) } else { wait };
            return if resumes { Act::Take } else { Act::LookAfter(pause) };
        };
        debug_assert_eq!(known, version, "the same one");
        match lasts.saturating_sub(now.saturating_duration_since(*since)) {
            Duration::ZERO => Act::Take,
            left => Act::LookAfter(wait.min(left)),
        }
    }

    /// It had the Lease, and somebody else wrote it, or it could not renew it: whatever it sees next is new to it, and nobody's of the past.
    pub fn lost(&mut self, now: Instant) {
        self.watched = Some(("".into(), now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WAIT: Duration = Duration::from_secs(2);
    const SELDOM: Duration = Duration::from_secs(600);
    const LASTS: Duration = Duration::from_secs(15);

    fn seen(holder: &str, version: &str) -> Seen {
        let holder = (!holder.is_empty()).then(|| holder.into());
        Seen { holder, version: version.into(), lasts: LASTS }
    }

    /// What a candidate does that looks at these seconds and sees these Leases.
    fn acts(looks: &[(u64, Option<Seen>)], wait: Duration) -> Vec<Act> {
        let (mut candidate, start) = (Candidate::new("me".into()), Instant::now());
        let look =
            |(at, seen): &(u64, Option<Seen>)| candidate.saw(seen.as_ref(), wait, start + Duration::from_secs(*at));
        looks.iter().map(look).collect()
    }

    #[test]
    fn what_nobody_has_is_taken_at_once() {
        assert_eq!(acts(&[(0, None)], WAIT), [Act::Take]);
        assert_eq!(acts(&[(0, Some(seen("", "7")))], WAIT), [Act::Take]);
    }

    #[test]
    fn a_lease_that_is_renewed_is_left_alone_and_looked_at_in_pairs() {
        for (wait, second) in [(WAIT, WAIT), (SELDOM, LASTS)] {
            let looks: Vec<_> = (0..30).map(|n| (n * 10, Some(seen("other", &n.to_string())))).collect();
            for (look, act) in acts(&looks, wait).into_iter().enumerate() {
                assert_eq!(act, Act::LookAfter(if look % 2 == 0 { second } else { wait }), "look {look}");
            }
        }
    }

    #[test]
    fn a_lease_that_stays_as_it_is_for_as_long_as_it_lasts_is_taken() {
        let looks: Vec<_> = [0, 8, 14, 15].map(|at| (at, Some(seen("other", "7")))).into();
        let second = Duration::from_secs(1);
        assert_eq!(acts(&looks, WAIT), [Act::LookAfter(WAIT), Act::LookAfter(WAIT), Act::LookAfter(second), Act::Take]);
    }

    #[test]
    fn one_of_many_who_looks_seldom_takes_what_is_silent_after_its_next_pair_of_looks() {
        let silent = Some(seen("other", "9"));
        let looks = [
            (0, Some(seen("other", "7"))),
            (15, Some(seen("other", "8"))),
            (615, silent.clone()),
            (620, silent.clone()),
            (630, silent),
        ];
        let wanted = [LASTS, SELDOM, LASTS, Duration::from_secs(10)].map(Act::LookAfter);
        let acts = acts(&looks, SELDOM);
        assert_eq!((&acts[..4], acts[4]), (&wanted[..], Act::Take));
    }

    #[test]
    fn what_one_of_the_same_name_had_is_taken_at_once_at_the_beginning_and_never_later() {
        assert_eq!(acts(&[(0, Some(seen("me", "7")))], WAIT), [Act::Take]);
        let looks = [(0, Some(seen("other", "7"))), (2, Some(seen("me", "8")))];
        assert_eq!(acts(&looks, WAIT), [Act::LookAfter(WAIT); 2]);

        let (mut candidate, now) = (Candidate::new("me".into()), Instant::now());
        candidate.lost(now);
        assert_eq!(candidate.saw(Some(&seen("me", "9")), WAIT, now), Act::LookAfter(WAIT));
        assert_eq!(candidate.saw(Some(&seen("me", "9")), WAIT, now + LASTS), Act::Take);
    }

    #[test]
    fn all_candidates_together_look_no_more_often_than_a_few() {
        let timing = Timing::USUAL;
        for candidates in [1, 3, 100, 5000] {
            let (least, most) = (timing.wait(candidates, 0), timing.wait(candidates, u32::MAX));
            assert!(least >= Duration::from_millis(1500) && most <= least * 2, "{candidates}: {least:?} {most:?}");
            let looks = f64::from(u32::try_from(candidates).unwrap()) / (least + most).as_secs_f64() * 2.0;
            assert!(looks <= 2.01, "{candidates} look {looks} times a second");
        }
        assert!(timing.give_up + timing.pause < timing.lasts);
    }
}
