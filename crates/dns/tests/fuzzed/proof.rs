//! What lies behind signatures that are right, and behind a transfer: denials that are validated and used, the walk from a zone up to
//! the key that is trusted, and catalogs with the zones that they list. The upstream signs what an input has for it ([`super::signing`]).
//!
//! An input is a byte (bits 5 to 7: it is for here; bit 2: a catalog; bit 0: TCP), a query, what the upstream answers questions for DS
//! records with, each behind two bytes with its length, and what it answers everything else with. Of answers the header's flags and
//! counts are taken; the question that was asked stands behind the header, in front of their records.

use std::{io, sync::Arc};

use podnet_dns::{
    Server, Transport,
    answer::{AnswerBuilder, Owner, Section},
    authority::{Record, zonefile},
    message::{HEADER, Rcode},
    name::{Name, QueryName},
};

use super::{
    check,
    outside::{Upstreams, asked, of_corefile},
    question_end,
    signing::Signing,
    split,
};

/// What upstreams prove is believed where a key leads there from that of `example`.
const PROVED: &str = ". {\n forward . 192.0.2.53 {\n nsec 100\n trust_anchors anchors\n }\n}";

/// Zones of others, of which one lists more, and one may do so too.
const CATALOGS: &str = ". {\n secondary catalog.example {\n transfer from 192.0.2.53\n catalog\n }\n \
                        secondary b.example {\n transfer from 192.0.2.54\n catalog example\n }\n forward . 192.0.2.53\n}";

/// The bits of a first byte that is for here.
const HERE: u8 = 0xe0;
/// The bit for [`CATALOGS`].
const CATALOG: u8 = 4;

/// Whether an input with this first byte is for here.
#[must_use]
pub fn takes(how: u8) -> bool {
    how & HERE == HERE
}

/// Asks an input's question, the same once more, and others that may be denied from what was proved.
pub fn run(how: u8, data: &[u8]) -> Arc<Server> {
    let (packet, rest) = split(data);
    let (delegations, answer) = split(rest);
    let transport = if how & 1 == 0 { Transport::Udp } else { Transport::Tcp };
    let catalog = how & CATALOG != 0;
    let upstreams = Upstreams {
        answer: answer.to_vec().into(),
        behind_question: true,
        signing: (!catalog).then(|| Signing::new(delegations)),
        ..Upstreams::default()
    };
    let server = of_corefile(if catalog { CATALOGS } else { PROVED }, upstreams);
    server.start(None, || {});
    for query in [packet.to_vec(), packet.to_vec()].into_iter().chain(others(packet)) {
        if let Some(response) = asked(&server, &query, transport) {
            check(&query, &response, transport);
        }
    }
    server
}

/// The same question for names around the one that it is for.
fn others(packet: &[u8]) -> Vec<Vec<u8>> {
    let Ok((name, end)) = QueryName::parse(packet, HEADER) else { return Vec::new() };
    let name = Name::from_query(&name);
    let above = name.parent();
    let beside = above.as_ref().and_then(|above| above.child("x").ok());
    let names = [name.child("x").ok(), beside, above].into_iter().flatten();
    names.map(|name| [&packet[..HEADER], name.wire(), &packet[end..]].concat()).collect()
}

/// An input that gets far, and what shows that it did.
#[derive(Debug)]
pub struct Seed {
    /// What it is.
    pub what: &'static str,
    /// The input.
    pub input: Vec<u8>,
    /// Numbers of the metrics that are not zero then.
    pub shows: &'static [&'static str],
}

/// Denials that were validated and used, …
const SECURE: &[&str] =
    &["podnet_dns_denials_validated_total{result=\"secure\"}", "podnet_dns_denials_synthesized_total"];
/// … those of zones that nobody vouches for, …
const INSECURE: &[&str] = &["podnet_dns_denials_validated_total{result=\"insecure\"}"];
/// … and zones that a catalog lists.
const MEMBERS: &[&str] = &["podnet_dns_catalog_bytes"];

/// The names of the zone `example`, `a.example` and `d.example`, each with the next one.
const NSEC: &str = "example. 300 SOA ns.example. host.example. 1 3600 600 86400 300\n\
                    example. 300 NSEC a.example. NS SOA RRSIG NSEC DNSKEY\n\
                    a.example. 300 NSEC d.example. A RRSIG NSEC\n";

/// The hashes of `example` and `a.example` without salt, each with the next one.
const NSEC3: &str = "example. 300 SOA ns.example. host.example. 1 3600 600 86400 300\n\
                     3MSEV9USMD4BR9S97V51R2TDVMR9IQO1.example. 300 NSEC3 1 0 0 - 6CD522290VMA0NR8LQU1IVTCOFJ94RGA NS SOA RRSIG DNSKEY NSEC3PARAM\n\
                     6CD522290VMA0NR8LQU1IVTCOFJ94RGA.example. 300 NSEC3 1 0 0 - 3MSEV9USMD4BR9S97V51R2TDVMR9IQO1 A RRSIG\n";

/// The same where unsigned delegations may be left out.
const OPT_OUT: &str = "example. 300 SOA ns.example. host.example. 1 3600 600 86400 300\n\
                       3MSEV9USMD4BR9S97V51R2TDVMR9IQO1.example. 300 NSEC3 1 1 0 - 6CD522290VMA0NR8LQU1IVTCOFJ94RGA NS SOA RRSIG DNSKEY NSEC3PARAM\n\
                       6CD522290VMA0NR8LQU1IVTCOFJ94RGA.example. 300 NSEC3 1 1 0 - 3MSEV9USMD4BR9S97V51R2TDVMR9IQO1 A RRSIG\n";

/// What a zone below says of its own names.
const BELOW: &str = "sub.example. 300 SOA ns.example. host.example. 1 3600 600 86400 300\n\
                     sub.example. 300 NSEC a.sub.example. NS SOA RRSIG NSEC DNSKEY\n\
                     a.sub.example. 300 NSEC sub.example. A RRSIG NSEC\n";

/// What says that nobody vouches for that zone.
const UNSIGNED: &str = "example. 300 SOA ns.example. host.example. 1 3600 600 86400 300\n\
                        sub.example. 300 NSEC example. NS RRSIG NSEC\n";

/// A catalog that lists two zones, one of which it gives to another catalog.
const LIST: &str = "catalog.example. 300 SOA ns.example. host.example. 1 3600 600 86400 300\n\
                    catalog.example. 300 NS invalid.\n\
                    version.catalog.example. 300 TXT 2\n\
                    1.zones.catalog.example. 300 PTR one.example.\n\
                    2.zones.catalog.example. 300 PTR two.example.\n\
                    coo.2.zones.catalog.example. 300 PTR b.example.\n\
                    catalog.example. 300 SOA ns.example. host.example. 1 3600 600 86400 300\n";

/// Inputs that get far.
#[must_use]
pub fn seeds() -> Vec<Seed> {
    let (authority, name) = (Section::Authority, |text: &str| Name::parse(text).expect("it is a name"));
    let denies = |text: &str| message(Rcode::NXDOMAIN, authority, &records(text));
    let (sub, below) = (name("sub.example"), denies(BELOW));
    let ds = Record { owner: sub.clone(), rtype: 43, ttl: 300, rdata: Signing::digest(&sub).into() };
    let vouches = message(Rcode::NOERROR, Section::Answer, &[ds]);
    let unsigned = |text: &str| message(Rcode::NOERROR, authority, &records(text));
    let (proof, catalog) = (HERE, HERE | CATALOG);
    // What was signed before stays as it is: its own signatures are right.
    let query = query(&name("b.example"));
    let whole = Signing::new(&[]).answer(&query, &denies(NSEC));
    let signed = [&whole[..HEADER], &whole[question_end(&whole)..]].concat();
    let list = message(Rcode::NOERROR, Section::Answer, &records(LIST));
    let seed = |what, how, asked: &str, delegations: &[u8], answer: &[u8], shows| Seed {
        what,
        input: input(how, &name(asked), delegations, answer),
        shows,
    };
    vec![
        seed("names", proof, "b.example", &[], &denies(NSEC), SECURE),
        seed("names with signatures", proof, "b.example", &[], &signed, SECURE),
        seed("hashes", proof, "b.example", &[], &denies(NSEC3), SECURE),
        seed("a zone below", proof, "b.sub.example", &vouches, &below, SECURE),
        seed("a zone that is not signed", proof, "b.sub.example", &unsigned(UNSIGNED), &below, INSECURE),
        seed("a zone that is left out", proof, "b.sub.example", &unsigned(OPT_OUT), &below, INSECURE),
        seed("a catalog", catalog, "www.one.example", &[], &list, MEMBERS),
    ]
}

fn input(how: u8, name: &Name, delegations: &[u8], answer: &[u8]) -> Vec<u8> {
    let framed = |part: &[u8]| [&(part.len() as u16).to_be_bytes()[..], part].concat();
    let (query, delegations) = (framed(&query(name)), framed(delegations));
    [&[how][..], query.as_slice(), delegations.as_slice(), answer].concat()
}

/// A question for a name's address.
fn query(name: &Name) -> Vec<u8> {
    [&[0x12_u8, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0][..], name.wire(), &[0, 1, 0, 1]].concat()
}

fn records(text: &str) -> Vec<Record> {
    let none = |_: &str| Err(io::ErrorKind::NotFound.into());
    zonefile::parse("seed", text, &Name::root(), &none).expect("it is a zone file").records
}

/// An answer of an authority without its question. The SOA record of a transfer is the question's own, whatever that is.
fn message(rcode: Rcode, section: Section, records: &[Record]) -> Vec<u8> {
    let mut builder = AnswerBuilder::for_any();
    for record in records {
        let own = section == Section::Answer && record.rtype == 6;
        let owner = if own { Owner::Question } else { Owner::Other(&record.owner) };
        builder.push(section, owner, record.rtype, record.ttl, &record.rdata);
    }
    let answer = builder.build();
    let counts = answer.counts.map(u16::to_be_bytes).concat();
    [&[0_u8, 0, 0x84, rcode.0 as u8, 0, 1][..], counts.as_slice(), &*answer.body].concat()
}
