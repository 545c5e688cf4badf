//! `erratic`: a server that goes wrong on purpose, for tests of clients.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::atomic::{AtomicU32, Ordering},
};

use crate::{
    answer::{Answer, AnswerBuilder, Owner, Section},
    chain::ErraticOptions,
    message::{Rcode, rtype},
    name::Name,
    server::{Answering, Failure, Link, Look, Next, Parts, Pen, Query, Quick, Reply},
};

/// How often a large answer has its one address, as CoreDNS's: with any name that is more than a datagram without EDNS holds.
const LARGE: usize = 30;

/// The plugin.
pub struct Erratic {
    options: ErraticOptions,
    asked: AtomicU32,
    parts: Parts,
}

impl Erratic {
    /// A plugin that was asked nothing yet.
    #[must_use]
    pub fn new(options: ErraticOptions, parts: Parts) -> Self {
        Self { options, asked: AtomicU32::new(0), parts }
    }

    async fn answer(&self, query: &Query) -> Result<Reply, Failure> {
        let asked = self.asked.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        let each = |every: u32| every > 0 && asked.is_multiple_of(every);
        if each(self.options.drop) {
            return Err(Failure::Silent);
        }
        if each(self.options.delay) {
            self.parts.outside.sleep(self.options.delay_by).await;
        }
        let mut builder = AnswerBuilder::new(&Name::from_query(&query.name));
        let addr = match query.qtype {
            rtype::A => IpAddr::V4(Ipv4Addr::new(192, 0, 2, 53)),
            rtype::AAAA => IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x53)),
            // As CoreDNS: there is nothing to tell.
            _ => return Ok(Reply::own(Answer::code(Rcode::SERVFAIL))),
        };
        let count = if self.options.large && addr.is_ipv4() { LARGE } else { 1 };
        for _ in 0..count {
            builder.push_addr(Section::Answer, Owner::Question, 0, addr);
        }
        Ok(Reply { truncated: each(self.options.truncate), ..Reply::own(builder.build()) })
    }
}

impl Link for Erratic {
    fn readiness(&self) -> Option<(&'static str, bool)> {
        // As CoreDNS: for tests of those who ask for readiness.
        Some(("erratic", (3..5).contains(&self.asked.load(Ordering::Relaxed))))
    }

    fn quick(&self, _: &Look<'_>, _: &mut Pen<'_>) -> Quick {
        Quick::Slow
    }

    fn serve<'a>(&'a self, query: &'a Query, _: Next<'a>) -> Answering<'a> {
        Box::pin(self.answer(query))
    }
}
