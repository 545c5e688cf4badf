//! `kubernetes` and `k8s_external`: the cluster's zones.

mod given;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures::future::ready;
use given::Giving;

use crate::{
    answer::{Alias, Answer, behind_aliases},
    message::{Rcode, rtype},
    name::Name,
    server::{Answering, Failure, Given, Link, Look, Next, Parts, Pen, Query, Quick, Reply},
    zone::{Found, Names},
};

/// How often those who wait look whether the cluster's state is known.
const LOOK: Duration = Duration::from_millis(20);

/// The plugin, with the zones that it serves.
pub struct Kubernetes<Z> {
    zone: Arc<Z>,
    /// Until when a name that is not there is waited for, while the cluster's state is not known.
    until: Instant,
    /// What is given away (`transfer`).
    giving: Giving,
    parts: Parts,
}

impl<Z: Names + Send + Sync> Kubernetes<Z> {
    /// The plugin with its zones; answers wait for the first whole state of the cluster for a time (`startup_timeout`).
    #[must_use]
    pub fn new(zone: Arc<Z>, startup: Duration, parts: Parts) -> Self {
        let now = parts.outside.now();
        Self { zone, until: now.checked_add(startup).unwrap_or(now), giving: Giving::default(), parts }
    }

    /// Whether a name is one of these zones', and is not there as far as is known yet.
    fn may_come(&self, query: &Query) -> bool {
        let synced = self.parts.synced();
        let may = |found: Option<Found<'_>>| match found {
            Some(Found::Unknown) => true,
            Some(Found::NoName(_)) => !synced,
            _ => false,
        };
        (!synced || self.zone.is_incomplete())
            && !self.zone.fallthrough().holds(&query.name)
            && self.zone.find(&query.name, query.qtype, may)
    }

    /// What is answered once the name is there, or is known not to be, or nobody waits for it any more.
    async fn later(&self, query: &Query, next: Next<'_>) -> Result<Reply, Failure> {
        while self.may_come(query) && self.parts.outside.now() < self.until {
            self.parts.outside.sleep(LOOK).await;
        }
        self.known(query, next).await
    }

    fn known<'a>(&'a self, query: &'a Query, next: Next<'a>) -> Answering<'a> {
        let (name, zone) = (&query.name, &self.zone);
        let own = |answer: Answer| Ok(Reply::own(answer));
        let said = zone.find(name, query.qtype, |found| match found {
            None => None,
            Some(Found::Records(answer)) => Some(Ok(own(answer.into_owned()))),
            Some(Found::Authority(authority)) => Some(Ok(own(authority.itself(name)))),
            Some(Found::NoData(authority)) => Some(Ok(own(authority.answer(name, Rcode::NOERROR)))),
            Some(Found::Alias(alias)) => Some(Err(alias)),
            Some(Found::Unknown | Found::NoName(_)) if zone.fallthrough().holds(name) => None,
            Some(Found::Unknown) => Some(Ok(Err(Failure::NotSynced))),
            Some(Found::NoName(_)) if !self.parts.synced() => Some(Ok(Err(Failure::NotSynced))),
            Some(Found::NoName(authority)) => Some(Ok(own(authority.answer(name, Rcode::NXDOMAIN)))),
        });
        match said {
            None => next.run(query),
            Some(Ok(reply)) => Box::pin(ready(reply)),
            Some(Err(alias)) => Box::pin(follow(query, next, alias)),
        }
    }
}

impl<Z: Names + Send + Sync + 'static> Link for Kubernetes<Z> {
    fn transfers(&self, zone: &Name) -> Option<Given> {
        if !self.zone.gives(zone) {
            return None;
        }
        if !self.parts.synced() {
            return Some(Given::Held(None));
        }
        Some(Given::Made(self.giving.made(Arc::clone(&self.zone), zone.clone(), Arc::clone(&self.parts.outside))))
    }

    fn ttl(&self) -> Option<u32> {
        Some(self.zone.ttl())
    }

    fn quick(&self, look: &Look<'_>, pen: &mut Pen<'_>) -> Quick {
        let (name, zone) = (look.name, &self.zone);
        zone.find(name, look.qtype, |found| match found {
            None => Quick::Pass,
            Some(Found::Records(answer)) => pen.answer(&answer),
            Some(Found::Authority(authority)) => pen.start_of_authority(&authority, name),
            Some(Found::NoData(authority)) => pen.nothing(&authority, name, Rcode::NOERROR),
            Some(Found::Alias(_)) => Quick::Slow,
            Some(Found::Unknown | Found::NoName(_)) if zone.fallthrough().holds(name) => Quick::Pass,
            Some(Found::NoName(authority)) if self.parts.synced() => pen.nothing(&authority, name, Rcode::NXDOMAIN),
            Some(Found::Unknown | Found::NoName(_)) => {
                if look.now < self.until {
                    Quick::Slow
                } else {
                    Quick::Fail(Failure::NotSynced)
                }
            }
        })
    }

    fn readiness(&self) -> Option<(&'static str, bool)> {
        Some(("kubernetes", self.parts.synced()))
    }

    fn label(&self, label: &str, look: &Look<'_>) -> Option<String> {
        self.zone.label(label, look.name, look.arrival.from.ip().to_canonical())
    }

    fn serve<'a>(&'a self, query: &'a Query, next: Next<'a>) -> Answering<'a> {
        if self.may_come(query) { Box::pin(self.later(query, next)) } else { self.known(query, next) }
    }
}

/// Has the whole server say what an alias points to, as CoreDNS does with an ExternalName, and puts the alias before it.
async fn follow(query: &Query, next: Next<'_>, alias: Alias) -> Result<Reply, Failure> {
    if query.qtype == rtype::CNAME {
        let nothing = Answer::code(Rcode::NOERROR);
        return Ok(Reply::own(behind_aliases(std::slice::from_ref(&alias), &alias.target, &nothing)));
    }
    let reply = next.look_up(query, &alias.target, query.qtype).await?;
    let answer = behind_aliases(std::slice::from_ref(&alias), &alias.target, &reply.answer);
    Ok(Reply { truncated: reply.truncated, ..Reply::own(answer) })
}
