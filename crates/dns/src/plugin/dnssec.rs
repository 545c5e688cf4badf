//! `dnssec`: answers of those behind it are signed on their way to clients that want signatures (RFC 4035 §3).

use std::sync::Arc;

use crate::{
    authority::sign::Online,
    message::CLASS_IN,
    name::{Name, QueryName},
    server::{Answering, Failure, Link, Look, Next, Parts, Pen, Query, Quick, Reply},
};

/// The type of a zone's keys.
const DNSKEY: u16 = 48;

/// The plugin.
pub struct Dnssec {
    zones: Vec<Name>,
    online: Arc<Online>,
    parts: Parts,
}

impl Dnssec {
    /// The plugin that signs the names of these zones.
    #[must_use]
    pub fn new(zones: Vec<Name>, online: Arc<Online>, parts: Parts) -> Self {
        Self { zones, online, parts }
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
            return match self.online.keys(zone, look.head.dnssec_ok(), self.now()) {
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
                let keys = self.online.keys(zone, query.head.dnssec_ok(), self.now());
                return keys.map(Reply::own).map_err(|_| Failure::NotSigned);
            }
            let reply = next.run(query).await?;
            if !query.head.dnssec_ok() {
                return Ok(reply);
            }
            let signed = self.online.sign(zone, &query.name, query.qtype, &reply.answer, self.now());
            Ok(Reply { answer: signed.map_err(|_| Failure::NotSigned)?, ..reply })
        })
    }
}
