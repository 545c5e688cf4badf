//! `file`, `auto`, `secondary`: zones that this server is the authority of.
//!
//! All of a server block are one link, so that a zone's child answers for itself whatever plugin it comes from.

use std::sync::Arc;

use crate::{
    authority::{Found, Held, Kind},
    chain::Fallthrough,
    message::rtype,
    name::Name,
    server::{Answering, Failure, Given, Link, Look, Members, Next, Pen, Query, Quick, Reply},
};

/// The type of a delegation's keys, which stands in the parent (RFC 4035 §3.1.4.1).
const DS: u16 = 43;

/// The link.
#[derive(Debug, Default)]
pub struct Zones {
    own: Vec<ServedZone>,
    /// Those that catalogs list.
    members: Option<Arc<Members>>,
}

/// One of its zones.
#[derive(Debug)]
pub struct ServedZone {
    /// The zone.
    pub held: Arc<Held>,
    /// The names that go on to the next plugin when they do not exist.
    pub fallthrough: Fallthrough,
    /// It lists other zones, which is none of the clients' business: they get its SOA record alone, for the sake of other servers that
    /// may fetch it.
    pub catalog: bool,
}

impl Zones {
    /// The link of these zones, and of those that the catalogs among them list; of two with one name the first is served.
    #[must_use]
    pub fn new(own: Vec<ServedZone>, members: Option<Arc<Members>>) -> Self {
        Self { own, members }
    }

    /// What there is to say; none: it is the next plugin's. The zone with the longest name answers, but a zone's keys are its
    /// parent's to tell.
    fn find(&self, look: &Look<'_>) -> Result<Option<Found>, Failure> {
        let parent = usize::from(look.qtype == DS && look.name.labels() > 0);
        for skip in (0..=parent).rev() {
            let own = self.longest(look, skip);
            let member = self.members.as_ref().and_then(|members| members.above(look.name, skip));
            // None of them has the other's name.
            let labels = |zone: &&ServedZone| zone.held.origin().labels();
            if let Some(served) = own.into_iter().chain(member.as_deref()).max_by_key(labels) {
                return served.find(look);
            }
        }
        Ok(None)
    }

    /// The Corefile's own zone with the longest name, leaving `skip` of the question's labels out.
    fn longest(&self, look: &Look<'_>, skip: usize) -> Option<&ServedZone> {
        let zones = self.own.iter().rev().filter(|zone| zone.speaks(look));
        zones
            .filter(|zone| zone.held.origin().labels() + skip <= look.name.labels())
            .max_by_key(|z| z.held.origin().labels())
    }
}

impl ServedZone {
    /// Whether it has to do with a question.
    fn speaks(&self, look: &Look<'_>) -> bool {
        let below = look.name.within(self.held.origin());
        below.is_some_and(|below| !self.catalog || below == 0 && look.qtype == rtype::SOA)
    }

    fn find(&self, look: &Look<'_>) -> Result<Option<Found>, Failure> {
        let zone = self.held.zone().ok_or(Failure::NoZone)?;
        let found = zone.lookup(look.name, look.qtype, look.head.dnssec_ok());
        Ok(found.filter(|found| found.kind != Kind::NoName || !self.fallthrough.holds(look.name)))
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
        let own = self.own.iter().find(|served| served.held.origin() == zone).map(|served| served.held.version());
        let member = || Some(self.members.as_ref()?.held(zone)?.version());
        own.or_else(member).map(Given::Held)
    }
}
