//! Signed zones below each other, for tests: the root, `test` and `sub.test`; and `island.test`, which is signed though nobody vouches
//! for its key.

use crate::{
    answer::Answer,
    authority::{
        Record, Zone, kind,
        sign::{SigningKey, Validity, sign},
        zone::tests::zone,
    },
    message::{Expanded, expand, u16_at},
    name::{Name, QueryName},
};

/// When they were signed, in seconds since 1970.
pub(crate) const NOW: u32 = 1_800_000_000;

/// What each of them has beside its other names.
pub(crate) const APEX: &str = "$TTL 3600\n@ SOA ns host 1 3600 600 86400 300\n@ NS ns\nns A 192.0.2.1\n";

macro_rules! key {
    ($name:literal) => {
        crate::authority::sign::SigningKey::from_bind(
            include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/", $name, ".key")),
            include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/", $name, ".private")),
        )
        .unwrap()
    };
}
pub(crate) use key;

/// A zone that is signed with a key.
pub(crate) fn signed(origin: &str, text: &str, key: &SigningKey, validity: Validity) -> Zone {
    let plain = zone(origin, text);
    let records = sign(&plain, std::slice::from_ref(key), validity, NOW).unwrap();
    Zone::from_records(plain.origin(), &records).unwrap().0
}

/// The line of the DS record for a zone's key.
pub(crate) fn ds(zone: &str, key: &SigningKey) -> String {
    let owner = Name::parse(zone).unwrap();
    let rdata = key.ds(&owner).into();
    format!("{}\n", Record { owner, rtype: kind::DS, ttl: 3600, rdata })
}

/// The zones.
pub(crate) struct Tree(pub(crate) Vec<Zone>);

impl Tree {
    /// All as it should be.
    pub(crate) fn new() -> Self {
        Self::of(&key!("rsa256"), Validity::of_zone(NOW, [0, 0]))
    }

    /// With another key of `sub.test` than its parent says, and signatures that hold at other times.
    pub(crate) fn of(sub: &SigningKey, validity: Validity) -> Self {
        let root = format!("{APEX}test NS ns.test\nns.test A 192.0.2.2\n{}", ds("test", &key!("p256")));
        let test = format!(
            "{APEX}a A 192.0.2.3\nm A 192.0.2.4\n*.w TXT x\nz A 192.0.2.5\nsub NS ns.sub\nns.sub A 192.0.2.6\n\
             island NS ns.island\nns.island A 192.0.2.7\n{}",
            ds("sub.test", &key!("rsa256"))
        );
        let below = format!("{APEX}b A 192.0.2.8\n");
        Self(vec![
            signed(".", &root, &key!("ed25519"), validity),
            signed("test", &test, &key!("p256"), validity),
            signed("sub.test", &below, sub, validity),
            signed("island.test", &below, &key!("p384"), validity),
        ])
    }

    /// What vouches for the root's key, as a zone file.
    pub(crate) fn anchors(&self) -> String {
        ds(".", &key!("ed25519"))
    }

    /// What their servers answer, signatures and proofs beside it.
    pub(crate) fn answer(&self, name: &Name, qtype: u16) -> Answer {
        // Of a zone's DS records its parent tells.
        let tells = |zone: &&Zone| name.within(zone.origin()) && (qtype != kind::DS || zone.origin() != name);
        let zone = self.0.iter().filter(tells).max_by_key(|zone| zone.origin().labels()).unwrap();
        zone.lookup(&QueryName::from(name), qtype, true).unwrap().answer
    }

    /// The same as records.
    pub(crate) fn records(&self, name: &Name, qtype: u16) -> Vec<Expanded> {
        expand(name, &self.answer(name, qtype))
    }

    /// The same as the response to a query.
    pub(crate) fn message(&self, query: &[u8]) -> Vec<u8> {
        let (asked, end) = QueryName::parse(query, 12).unwrap();
        let answer = self.answer(&Name::from_query(&asked), u16_at(query, end).unwrap());
        let mut message = query[..end + 4].to_vec();
        message[2..4].copy_from_slice(&(0x8180 | answer.rcode.0).to_be_bytes());
        message[6..12].copy_from_slice(&answer.counts.map(u16::to_be_bytes).concat());
        message.extend_from_slice(&answer.body);
        message
    }
}
