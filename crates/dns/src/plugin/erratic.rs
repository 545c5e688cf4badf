//! `erratic`: a server that goes wrong on purpose, for tests of clients.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use crate::{
    answer::{Answer, AnswerBuilder, Owner, Section},
    authority::{Zone, held::Version, zonefile},
    chain::ErraticOptions,
    message::{Rcode, rtype},
    name::Name,
    server::{Answering, Failure, Gift, Link, Look, Next, Parts, Pen, Query, Quick, Reply},
};

/// How often a large answer has its one address, as CoreDNS's: with any name that is more than a datagram without EDNS holds.
const LARGE: usize = 30;

/// What whoever asks for a whole zone gets, whatever its name is.
const ZONE: &str = "\
$TTL 0
@ SOA a nobody.invalid. 1 7200 3600 1209600 3600
@ NS a
@ NS b
a AAAA 2001:db8::53
b AAAA 2001:db8::54
";

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

    /// Counts a question; whether it is one of each so many.
    fn count(&self) -> Turn {
        Turn(self.asked.fetch_add(1, Ordering::Relaxed).wrapping_add(1))
    }

    async fn answer(&self, query: &Query) -> Result<Reply, Failure> {
        let turn = self.count();
        if turn.of(self.options.drop) {
            return Err(Failure::Silent);
        }
        if turn.of(self.options.delay) {
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
        Ok(Reply { truncated: turn.of(self.options.truncate), ..Reply::own(builder.build()) })
    }
}

/// The number of a question, from 1.
#[derive(Clone, Copy)]
struct Turn(u32);

impl Turn {
    /// Whether it is one of each `every`; of each 0 none is.
    fn of(self, every: u32) -> bool {
        every > 0 && self.0.is_multiple_of(every)
    }
}

/// The small zone under a name; none: with this name its own would be too long.
fn small(origin: &Name) -> Option<Zone> {
    let nothing = |_: &str| Err(std::io::ErrorKind::NotFound.into());
    let file = zonefile::parse("erratic", ZONE, origin, &nothing).ok()?;
    Zone::from_file(origin, &file, "erratic").ok().map(|(zone, _)| zone)
}

impl Link for Erratic {
    fn readiness(&self) -> Option<(&'static str, bool)> {
        // As CoreDNS: for tests of those who ask for readiness.
        Some(("erratic", (3..5).contains(&self.asked.load(Ordering::Relaxed))))
    }

    fn gives(&self, zone: &Name) -> Option<Gift> {
        let turn = self.count();
        if turn.of(self.options.drop) {
            return Some(Gift::Nothing);
        }
        let after = if turn.of(self.options.delay) { self.options.delay_by } else { Duration::ZERO };
        let version = small(zone).map(Version::alone)?;
        Some(Gift::Zone { version, after, unfinished: turn.of(self.options.truncate) })
    }

    fn quick(&self, _: &Look<'_>, _: &mut Pen<'_>) -> Quick {
        Quick::Slow
    }

    fn serve<'a>(&'a self, query: &'a Query, _: Next<'a>) -> Answering<'a> {
        Box::pin(self.answer(query))
    }
}
