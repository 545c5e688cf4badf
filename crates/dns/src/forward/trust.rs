//! Which keys a zone has, and whether to believe it: from the zone up to an anchor, and down again ([`crate::validate`]).
//!
//! For DS and DNSKEY records the same upstreams are asked as for everything else, with DO, and with CD since they are checked here. What
//! is found out of a zone is kept for as long as its records say, and found out once for all who want to know.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use futures::future::BoxFuture;

use super::{
    Crew, MAX_FLIGHTS,
    flights::{Flights, Full},
};
use crate::{
    authority::kind,
    cache::Key as Asked,
    message::{Expanded, Rcode, expand, question},
    name::Name,
    server::lock,
    validate::{Anchors, Delegation, Digest, Fault, Key, delegation, keys_of, parent},
};

/// How many delegations lie between a zone and its anchor, at most. Each costs two questions, and whoever owns a zone can make as many
/// of them below it as a name has labels.
pub(super) const MOST_CUTS: usize = 10;
/// How many zones are found out about at once, at most.
const MOST_WALKS: usize = 100;
/// Of how many zones it is kept what was found out.
const MOST_ZONES: usize = 1000;
/// How long that is kept at least, in seconds: as often as this, and no more, upstreams are asked for the keys of a zone that says that
/// they may not be kept.
const LEAST: u32 = 30;
/// How long it is kept at most, in seconds: as long as keys usually say.
const LONGEST: u32 = 2 * 86_400;
/// How long a zone is not asked for again whose keys are not to be believed, in seconds.
const BOGUS: u32 = 60;

/// How far what a zone says is to be believed (RFC 4033 §5).
#[derive(Clone, Debug)]
pub(super) enum Standing {
    /// What one of these keys has signed.
    Secure(Arc<[Key]>),
    /// Nobody vouches for its keys, which is proved.
    Insecure,
    /// Its keys are not those that are vouched for.
    Bogus,
    /// Nobody has told.
    Indeterminate,
}

/// What was found out of a zone.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) standing: Standing,
    /// That holds until then.
    until: Instant,
}

/// What was found out of zones.
pub(super) struct Trust {
    anchors: Anchors,
    kept: Mutex<Kept>,
    walks: Arc<Flights<Name, Known>>,
}

#[derive(Default)]
struct Kept {
    zones: HashMap<Name, Known>,
    /// In the order in which they came: the first goes when there are too many.
    order: VecDeque<Name>,
}

impl Trust {
    /// Nothing is known but the anchors.
    pub(super) fn new(anchors: Anchors) -> Self {
        Self { anchors, kept: Mutex::default(), walks: Arc::default() }
    }

    fn known(&self, zone: &Name, now: Instant) -> Option<Known> {
        lock(&self.kept).zones.get(zone).filter(|known| known.until > now).cloned()
    }

    fn keep(&self, zone: Name, known: Known) {
        let mut kept = lock(&self.kept);
        if kept.zones.insert(zone.clone(), known).is_none() {
            kept.order.push_back(zone);
        }
        while kept.order.len() > MOST_ZONES {
            let Some(first) = kept.order.pop_front() else { break };
            kept.zones.remove(&first);
        }
    }
}

/// Why no keys of a zone are known, for how many seconds, and what is wrong with those that it says.
struct Unknown(Standing, u32, Option<Fault>);

impl From<Fault> for Unknown {
    fn from(fault: Fault) -> Self {
        Self(Standing::Bogus, BOGUS, Some(fault))
    }
}

/// Nobody has told.
const UNTOLD: Unknown = Unknown(Standing::Indeterminate, LEAST, None);
/// Nobody was asked, as too many delegations lie on the way, or too much is being found out. That says something of the zone only that
/// it was begun with.
const UNASKED: Unknown = Unknown(Standing::Indeterminate, 0, None);

impl Crew {
    /// How far a zone is to be believed that at most so many delegations lie above of.
    pub(super) fn standing(&self, zone: Name, cuts: usize) -> BoxFuture<'static, Known> {
        let crew = self.clone();
        Box::pin(async move {
            let now = crew.parts.outside.now();
            let untold = Known { standing: Standing::Indeterminate, until: now };
            let Some(proofs) = crew.proofs.clone() else { return untold };
            if let Some(known) = proofs.trust.known(&zone, now) {
                return known;
            }
            let walk = || -> BoxFuture<'static, Known> { Box::pin(crew.clone().walk(zone.clone(), cuts)) };
            match proofs.trust.walks.join(&zone, MOST_WALKS, walk) {
                Ok(flight) => flight.await,
                Err(Full) => untold,
            }
        })
    }

    /// The time of the day in seconds since 1970, modulo 2^32, as signatures have it.
    pub(super) fn unix(&self) -> u32 {
        self.parts.outside.unix() as u32
    }

    /// Finds out, and keeps it.
    async fn walk(self, zone: Name, cuts: usize) -> Known {
        let (standing, seconds) = match self.keys(&zone, cuts).await {
            Ok((keys, seconds)) => (Standing::Secure(keys.into()), seconds),
            Err(Unknown(standing, seconds, fault)) => {
                if let Some(fault) = fault {
                    self.parts.debug.tell(|| format!("the keys of {zone} are not believed: {fault}"));
                }
                (standing, seconds)
            }
        };
        // Otherwise whoever has a zone deep enough would take what is known from those above it.
        if matches!(standing, Standing::Indeterminate) && seconds == 0 && cuts < MOST_CUTS {
            return Known { standing, until: self.parts.outside.now() };
        }
        let lasts = Duration::from_secs(seconds.clamp(LEAST, LONGEST).into());
        let known = Known { standing, until: self.parts.outside.now() + lasts };
        if let Some(proofs) = &self.proofs {
            proofs.trust.keep(zone, known.clone());
        }
        known
    }

    /// The keys of a zone, and the seconds for which they may be kept.
    async fn keys(&self, zone: &Name, cuts: usize) -> Result<(Vec<Key>, u32), Unknown> {
        let anchors = self.proofs.as_ref().and_then(|proofs| proofs.trust.anchors.of(zone));
        let (digests, left) = match anchors {
            Some(digests) => (digests.to_vec(), LONGEST),
            None => self.digests(zone, cuts).await?,
        };
        let records = self.told(zone, kind::DNSKEY).await.ok_or(UNTOLD)?;
        let (keys, seconds) = keys_of(zone, &digests, &records, self.unix())?;
        Ok((keys, seconds.min(left)))
    }

    /// What a zone's parent vouches for, and the seconds for which that may be kept.
    async fn digests(&self, zone: &Name, cuts: usize) -> Result<(Vec<Digest>, u32), Unknown> {
        let cuts = cuts.checked_sub(1).ok_or(UNASKED)?;
        let records = self.told(zone, kind::DS).await.ok_or(UNTOLD)?;
        let above = parent(zone, &records).ok_or(UNTOLD)?;
        let Known { standing, until } = self.standing(above.clone(), cuts).await;
        let left = until.saturating_duration_since(self.parts.outside.now()).as_secs() as u32;
        let Standing::Secure(keys) = standing else { return Err(Unknown(standing, left, None)) };
        match delegation(zone, &above, &keys, &records, self.unix())? {
            (Delegation::Signed(digests), seconds) => Ok((digests, seconds.min(left))),
            (Delegation::Unsigned, seconds) => Err(Unknown(Standing::Insecure, seconds.min(left), None)),
        }
    }

    /// The records that upstreams tell of a name and type; none where nobody tells anything, and where clients ask so much that half of
    /// what may be asked is theirs: they come first.
    async fn told(&self, name: &Name, qtype: u16) -> Option<Vec<Expanded>> {
        let most = self.upstreams.options().max_concurrent.unwrap_or(MAX_FLIGHTS);
        if self.flights.len() * 2 >= most {
            return None;
        }
        let key = Asked::new(&question(name.wire(), qtype), true, true);
        let upstream = self.fly(&key, self.upstreams.options().force_tcp).ok()?.await.ok()?;
        let is_told = matches!(upstream.answer.rcode, Rcode::NOERROR | Rcode::NXDOMAIN) && !upstream.truncated;
        is_told.then(|| expand(name, &upstream.answer))
    }
}
