//! `file`, `auto`, `secondary`: zones that this server is the authority of.
//!
//! All of a server block are one link, so that a zone's child answers for itself whatever plugin it comes from.

use std::sync::Arc;

use crate::{
    authority::{Found, Held, Kind},
    chain::Fallthrough,
    name::{Name, QueryName},
    server::{Answering, Failure, Given, Link, Look, Next, Pen, Query, Quick, Reply},
};

/// The type of a delegation's keys, which stands in the parent (RFC 4035 §3.1.4.1).
const DS: u16 = 43;

/// The link.
#[derive(Debug, Default)]
pub struct Zones(Vec<ServedZone>);

/// One of its zones.
#[derive(Debug)]
pub struct ServedZone {
    /// The zone.
    pub held: Arc<Held>,
    /// The names that go on to the next plugin when they do not exist.
    pub fallthrough: Fallthrough,
}

impl Zones {
    /// The link of these zones; of two with one name the first is served.
    #[must_use]
    pub fn new(zones: Vec<ServedZone>) -> Self {
        Self(zones)
    }

    /// The zone that answers for a name: the one with the longest name, but a zone's keys are its parent's to tell.
    fn zone(&self, name: &QueryName, qtype: u16) -> Option<&ServedZone> {
        let parents_say = |zone: &Name| qtype == DS && zone.labels() == name.labels() && zone.labels() > 0;
        let of = |parents: bool| {
            let zones = self.0.iter().rev().filter(|zone| name.within(zone.held.origin()).is_some());
            zones.filter(|zone| !parents || !parents_say(zone.held.origin())).max_by_key(|z| z.held.origin().labels())
        };
        of(true).or_else(|| of(false))
    }

    /// What there is to say; none: it is the next plugin's.
    fn find(&self, look: &Look<'_>) -> Result<Option<Found>, Failure> {
        let Some(served) = self.zone(look.name, look.qtype) else { return Ok(None) };
        let zone = served.held.zone().ok_or(Failure::NoZone)?;
        let found = zone.lookup(look.name, look.qtype, look.head.dnssec_ok());
        Ok(found.filter(|found| found.kind != Kind::NoName || !served.fallthrough.holds(look.name)))
    }
}

impl Link for Zones {
    fn quick(&self, look: &Look<'_>, pen: &mut Pen<'_>) -> Quick {
        match self.find(look) {
            Ok(None) => Quick::Pass,
            Ok(Some(Found { next: Some(_), .. })) => Quick::Slow,
            Ok(Some(found)) => pen.answer(&found.answer),
            Err(failure) => Quick::Fail(failure),
        }
    }

    fn serve<'a>(&'a self, query: &'a Query, next: Next<'a>) -> Answering<'a> {
        Box::pin(async move {
            let Some(found) = self.find(&query.look())? else { return next.run(query).await };
            let Some(target) = found.next.clone() else { return Ok(Reply::own(found.answer)) };
            Ok(match next.look_up(query, &target, query.qtype).await {
                Ok(further) => Reply {
                    answer: found.followed(&query.name, &target, &further.answer),
                    truncated: further.truncated,
                    fresh: true,
                },
                // The alias itself is known; where it leads to, the client may find out.
                Err(_) => Reply::own(found.answer),
            })
        })
    }

    fn transfers(&self, zone: &Name) -> Option<Given> {
        self.0.iter().find(|served| served.held.origin() == zone).map(|served| Given::Held(served.held.version()))
    }
}
