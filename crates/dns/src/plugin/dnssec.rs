//! `dnssec`: answers of those behind it are signed on their way to clients that want signatures (RFC 4035 §3).

use std::sync::Arc;

use crate::{
    authority::sign::Online,
    message::CLASS_IN,
    metrics::{ByListener, Counter, Counting, Family},
    name::{Name, QueryName},
    server::{Answering, Arrival, Failure, Link, Look, Next, Parts, Pen, Query, Quick, Reply},
};

/// The type of a zone's keys.
const DNSKEY: u16 = 48;

/// The plugin.
pub struct Dnssec {
    zones: Vec<Name>,
    online: Arc<Online>,
    /// How often a signature had to be made, and was there already.
    counts: ByListener<[Counter; 2]>,
    parts: Parts,
}

impl Dnssec {
    /// The plugin that signs the names of these zones.
    pub(crate) fn new(zones: Vec<Name>, online: Arc<Online>, counting: &Counting, parts: Parts) -> Self {
        let families = [Family::SignaturesMade, Family::SignaturesFound];
        let counts =
            counting.each(|spot| families.map(|family| spot.counter(family, &[("server", spot.server.as_str())])));
        Self { zones, online, counts, parts }
    }

    /// Counts whether a signature was there already.
    fn count(&self, arrival: &Arrival, found: bool) {
        if let Some(counts) = self.counts.at(arrival) {
            counts[usize::from(found)].count();
        }
    }

    /// The zone that signs for a name.
    fn zone(&self, name: &QueryName) -> Option<&Name> {
        self.zones.iter().filter(|zone| name.within(zone).is_some()).max_by_key(|zone| zone.labels())
    }

    fn now(&self) -> u32 {
        // Modulo 2^32, as signatures have it (RFC 4034 §3.1.5).
        self.parts.outside.unix() as u32
    }
}

impl Link for Dnssec {
    fn quick(&self, look: &Look<'_>, pen: &mut Pen<'_>) -> Quick {
        let Some(zone) = self.zone(look.name).filter(|_| look.qclass == CLASS_IN) else { return Quick::Pass };
        if look.qtype == DNSKEY && look.name.labels() == zone.labels() {
            let told = |found| self.count(look.arrival, found);
            return match self.online.keys(zone, look.head.dnssec_ok(), self.now(), &told) {
                Ok(answer) => pen.answer(&answer),
                Err(_) => Quick::Fail(Failure::NotSigned),
            };
        }
        if look.head.dnssec_ok() { Quick::Slow } else { Quick::Pass }
    }

    fn serve<'a>(&'a self, query: &'a Query, next: Next<'a>) -> Answering<'a> {
        let Some(zone) = self.zone(&query.name).filter(|_| query.qclass == CLASS_IN) else { return next.run(query) };
        Box::pin(async move {
            if query.qtype == DNSKEY && query.name.labels() == zone.labels() {
                let told = |found| self.count(&query.arrival, found);
                let keys = self.online.keys(zone, query.head.dnssec_ok(), self.now(), &told);
                return keys.map(Reply::own).map_err(|_| Failure::NotSigned);
            }
            let reply = next.run(query).await?;
            if !query.head.dnssec_ok() {
                return Ok(reply);
            }
            let told = |found| self.count(&query.arrival, found);
            let signed = self.online.sign(zone, &query.name, query.qtype, &reply.answer, self.now(), &told);
            Ok(Reply { answer: signed.map_err(|_| Failure::NotSigned)?, ..reply })
        })
    }
}
