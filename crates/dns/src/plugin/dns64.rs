//! `dns64`: names that have IPv4 addresses alone get IPv6 addresses that a translator leads there (RFC 6147).

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::Ipv6Net;

use crate::{
    answer::{Answer, Section, composed},
    chain::Dns64Options,
    message::{Expanded, Rcode, expand, rtype},
    metrics::{ByListener, Counter, Counting, Family},
    name::Name,
    server::{Answering, Failure, Link, Look, Next, Pen, Query, Quick, Reply},
};

/// The longest time to live of what is made up where nothing says otherwise, in seconds (RFC 6147 §5.1.7).
const MAX_TTL: u32 = 600;

/// The plugin.
#[derive(Clone, Debug)]
pub struct Dns64 {
    options: Dns64Options,
    translated: ByListener<Counter>,
}

impl Dns64 {
    /// The plugin with its options.
    pub(crate) fn new(options: Dns64Options, counting: &Counting) -> Self {
        let translated = counting.each(|spot| spot.counter(Family::Translated, &[("server", spot.server.as_str())]));
        Self { options, translated }
    }

    /// Who asks for IPv6 addresses, and does not check signatures itself (RFC 6147 §5.5), gets some.
    fn concerns(&self, look: &Look<'_>) -> bool {
        look.qtype == rtype::AAAA
            && (self.options.allow_ipv4 || look.arrival.from.ip().to_canonical().is_ipv6())
            && !(look.head.dnssec_ok() && look.head.checking_disabled())
    }

    async fn answer(&self, query: &Query, next: Next<'_>) -> Result<Reply, Failure> {
        let told = next.run(query).await;
        let name = Name::from_query(&query.name);
        let records = told.as_ref().map(|reply| expand(&name, &reply.answer)).unwrap_or_default();
        match &told {
            // RFC 6147 §5.1.2: a name that does not exist has no IPv4 addresses either.
            Ok(reply) if reply.answer.rcode == Rcode::NXDOMAIN => return told,
            Ok(_) if !self.options.translate_all && records.iter().any(is_ipv6) => return told,
            Err(Failure::Silent) => return told,
            _ => {}
        }
        let Ok(v4) = next.look_up(query, &name, rtype::A).await else { return told };
        let bound = records.iter().find(|record| record.rtype == rtype::SOA).map_or(MAX_TTL, |soa| soa.ttl);
        let mut made = expand(&name, &v4.answer);
        made.retain(|record| record.section == Section::Answer);
        for record in &mut made {
            if record.rtype == rtype::A
                && let Ok(octets) = <[u8; 4]>::try_from(record.rdata.as_slice())
            {
                record.rtype = rtype::AAAA;
                record.rdata = embedded(self.options.prefix, octets.into()).octets().to_vec();
                record.ttl = record.ttl.min(bound);
            }
        }
        if !made.iter().any(|record| record.rtype == rtype::AAAA) {
            return told;
        }
        if let Some(translated) = self.translated.at(&query.arrival) {
            translated.count();
        }
        let answer = Answer { authoritative: v4.answer.authoritative, ..composed(&name, v4.answer.rcode, &made) };
        Ok(Reply { answer, ..v4 })
    }
}

fn is_ipv6(record: &Expanded) -> bool {
    record.section == Section::Answer && record.rtype == rtype::AAAA
}

/// An IPv4 address behind a prefix of 32, 40, 48, 56, 64 or 96 bits; bits 64 to 71 stay zero (RFC 6052 §2.2).
fn embedded(prefix: Ipv6Net, v4: Ipv4Addr) -> Ipv6Addr {
    let mut octets = prefix.network().octets();
    let start = usize::from(prefix.prefix_len()) / 8;
    let places = (start..16).filter(|place| *place != 8);
    for (place, octet) in places.zip(v4.octets()) {
        octets[place] = octet;
    }
    octets.into()
}

impl Link for Dns64 {
    fn quick(&self, look: &Look<'_>, _: &mut Pen<'_>) -> Quick {
        if self.concerns(look) { Quick::Slow } else { Quick::Pass }
    }

    fn serve<'a>(&'a self, query: &'a Query, next: Next<'a>) -> Answering<'a> {
        if self.concerns(&query.look()) { Box::pin(self.answer(query, next)) } else { next.run(query) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc_6052_the_address_stands_behind_the_prefix_and_never_in_bits_64_to_71() {
        // RFC 6052 §2.4.
        for (prefix, expected) in [
            ("2001:db8::/32", "2001:db8:c000:221::"),
            ("2001:db8:100::/40", "2001:db8:1c0:2:21::"),
            ("2001:db8:122::/48", "2001:db8:122:c000:2:2100::"),
            ("2001:db8:122:300::/56", "2001:db8:122:3c0:0:221::"),
            ("2001:db8:122:344::/64", "2001:db8:122:344:c0:2:2100::"),
            ("2001:db8:122:344::/96", "2001:db8:122:344::c000:221"),
            ("64:ff9b::/96", "64:ff9b::c000:221"),
        ] {
            let made = embedded(prefix.parse().unwrap(), Ipv4Addr::new(192, 0, 2, 33));
            assert_eq!(made.to_string(), expected.parse::<Ipv6Addr>().unwrap().to_string(), "{prefix}");
        }
    }
}
