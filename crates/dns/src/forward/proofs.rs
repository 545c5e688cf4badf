//! From what upstreams say does not exist to what is known not to ([`Denials`]).
//!
//! An upstream's word that it has validated a denial (AD) counts where nobody can have spoken in its name: over TLS, or at a loopback
//! address. Everything else is validated here, while nobody waits: who asked has the upstream's answer by then, whatever comes of it. What
//! an answer claims is read before that, of few of its records.

use std::{
    sync::{Arc, Mutex, atomic::AtomicUsize},
    time::{Duration, Instant},
};

use super::{
    Crew,
    denials::{Claim, Denials},
    private,
    trust::{MOST_CUTS, Standing, Trust},
};
use crate::{
    cache::Key,
    chain::ForwardOptions,
    message::{Rcode, Upstream},
    metrics::Validated,
    name::{Name, QueryName},
    server::{PlaceInLine, lock},
};

/// How many denials are validated at once, at most: those beyond it are not used. Where there are so many, more follow.
const AT_ONCE: usize = 64;
/// How many are begun in a second, at most, so that signatures, up to 16 for each, never keep a processor busy.
const A_SECOND: usize = 50;

/// What is known not to exist, and whom to believe it.
pub(super) struct Proofs {
    pub(super) denials: Mutex<Denials>,
    pub(super) trust: Trust,
    /// Zones of which nothing is denied: the public ones above them prove that they do not exist.
    private: Vec<Name>,
    pace: Mutex<Pace>,
    /// Denials that are being validated.
    places: Arc<AtomicUsize>,
}

impl Proofs {
    /// Nothing is known yet.
    pub(super) fn new(options: &ForwardOptions) -> Self {
        let denials = Mutex::new(Denials::new(options.nsec));
        let private = private::zones().chain(options.insecure.iter().cloned()).collect();
        let trust = Trust::new(options.anchors.clone());
        Self { denials, trust, private, pace: Mutex::default(), places: Arc::default() }
    }

    /// Whether a name is only its own resolver's to deny.
    pub(super) fn is_private(&self, name: &QueryName) -> bool {
        self.private.iter().any(|zone| name.within(zone).is_some())
    }

    /// A place among what is being validated; none when there is too much.
    fn place(&self, now: Instant) -> Option<PlaceInLine> {
        let place = PlaceInLine::take(&self.places, AT_ONCE)?;
        lock(&self.pace).begin(now).then_some(place)
    }
}

/// How many were begun in a second.
#[derive(Debug, Default)]
struct Pace {
    /// When that began.
    since: Option<Instant>,
    begun: usize,
}

impl Pace {
    /// Counts one; false: there may be no more for now.
    fn begin(&mut self, now: Instant) -> bool {
        let second = Duration::from_secs(1);
        let goes_on = self.since.is_some_and(|since| now.saturating_duration_since(since) < second);
        if !goes_on {
            *self = Self { since: Some(now), begun: 0 };
        }
        let may = self.begun < A_SECOND;
        self.begun += usize::from(may);
        may
    }
}

impl Crew {
    /// Takes in what an answer proves not to exist, where that is to be used.
    pub(super) fn take_in(&self, key: &Key, upstream: &Upstream) {
        let Some(proofs) = self.proofs.as_ref().filter(|_| !upstream.truncated) else { return };
        let Ok((name, _)) = QueryName::parse(key.question(), 0) else { return };
        let now = self.parts.outside.now();
        let Some(claim) = Claim::read(&Name::from_query(&name), &upstream.answer, now) else { return };
        if upstream.vouched && upstream.answer.authentic {
            lock(&proofs.denials).learn(claim, now);
            return;
        }
        if upstream.answer.rcode == Rcode::NXDOMAIN && claim.opts_out() {
            return;
        }
        if let Some(place) = proofs.place(now) {
            let crew = self.clone();
            self.parts.outside.spawn(Box::pin(async move {
                crew.parts.apart("the validation of a denial", crew.prove(claim)).await;
                drop(place);
            }));
        }
    }

    /// Validates a denial, and takes it in where that succeeds.
    async fn prove(&self, claim: Claim) {
        let Some(proofs) = &self.proofs else { return };
        let zone = claim.zone().clone();
        let result = match self.standing(zone.clone(), MOST_CUTS).await.standing {
            Standing::Secure(keys) => match claim.verified(&keys, self.unix()) {
                Ok(claim) => {
                    lock(&proofs.denials).learn(claim, self.parts.outside.now());
                    Validated::Secure
                }
                Err(fault) => {
                    self.parts.debug.tell(|| format!("a denial by {zone} is not believed: {fault}"));
                    Validated::Bogus
                }
            },
            Standing::Insecure => Validated::Insecure,
            Standing::Bogus => Validated::Bogus,
            Standing::Indeterminate => Validated::Indeterminate,
        };
        self.parts.metrics.upstreams.validated(result);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_are_begun_in_a_second_and_no_more() {
        let (now, mut pace) = (Instant::now(), Pace::default());
        let begun = |pace: &mut Pace, now: Instant| (0..2 * A_SECOND).filter(|_| pace.begin(now)).count();
        assert_eq!(begun(&mut pace, now), A_SECOND);
        assert!(!pace.begin(now + Duration::from_millis(999)));
        assert_eq!(begun(&mut pace, now + Duration::from_secs(1)), A_SECOND);
    }
}
