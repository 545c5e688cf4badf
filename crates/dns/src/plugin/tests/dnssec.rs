//! `dnssec` over a whole chain.

use super::{
    zones::{served, zone},
    *,
};
use crate::server::fixture::with_edns;

const CHAIN: &str = ". {\n dnssec example {\n key file Kexample\n }\n file db example other\n errors\n}\n";

fn rig() -> Rig {
    let key = include_str!("../../../testdata/p256.key").to_owned();
    let private = include_str!("../../../testdata/p256.private").to_owned();
    let records = zone(1, "www A 192.0.2.2\nout CNAME www.other.\n");
    served(CHAIN, &[("db", records), ("Kexample.key", key), ("Kexample.private", private)])
}

/// The types of the records that one gets who wants signatures, after the code.
fn signed(rig: &Rig, name: &str, qtype: u16) -> Vec<String> {
    let response = rig.answer(&with_edns(query(name, qtype), 1232, 0, true));
    told(&response).into_iter().map(|record| record.split(' ').next().unwrap().to_owned()).collect()
}

#[test]
fn dnssec_signs_the_names_of_its_zones_for_those_who_want_signatures() {
    let rig = rig();
    assert_eq!(rig.ask("www.example", rtype::A), ["NOERROR", "A 192.0.2.2"]);
    assert_eq!(signed(&rig, "www.example", rtype::A), ["NOERROR", "A", "RRSIG"]);
    assert_eq!(signed(&rig, "www.example", rtype::AAAA), ["NOERROR", "SOA", "RRSIG", "NSEC", "RRSIG"]);
    // What does not exist is said to be there and to be nothing.
    assert_eq!(rig.ask("no.example", rtype::A), ["NXDOMAIN", "SOA"]);
    assert_eq!(signed(&rig, "no.example", rtype::A), ["NOERROR", "SOA", "RRSIG", "NSEC", "RRSIG"]);
    // An alias is signed, and what it leads to elsewhere is not.
    assert_eq!(signed(&rig, "out.example", rtype::A), ["NOERROR", "CNAME", "RRSIG", "A"]);
    assert_eq!(signed(&rig, "www.other", rtype::A), ["NOERROR", "A"]);
}

#[test]
fn dnssec_tells_the_keys_that_it_signs_with() {
    let rig = rig();
    assert_eq!(signed(&rig, "example", 48), ["NOERROR", "DNSKEY", "RRSIG"]);
    assert_eq!(rig.ask("example", 48).len(), 2, "without signatures for those who do not want them");
    assert_eq!(signed(&rig, "www.example", 48), ["NOERROR", "SOA", "RRSIG", "NSEC", "RRSIG"]);
}

#[test]
fn a_signature_is_made_once_and_that_is_counted() {
    let rig = rig();
    for _ in 0..3 {
        signed(&rig, "www.example", rtype::A);
    }
    let text = rig.server.metrics().render(&rig.server.gauges());
    for line in [
        "coredns_dnssec_cache_entries{server=\"dns://:53\",type=\"signature\"} 1",
        "coredns_dnssec_cache_hits_total{server=\"dns://:53\"} 2",
        "coredns_dnssec_cache_misses_total{server=\"dns://:53\"} 1",
    ] {
        assert!(text.contains(line), "{line}\nin\n{text}");
    }
}
