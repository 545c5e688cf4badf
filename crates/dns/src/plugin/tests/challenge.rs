//! `tls { acme … }`: what authorities are told that ask whether a domain is this server's.

use crate::{
    message::rtype,
    name::Name,
    server::fixture::{Rig, query, upstream_answer},
};

const ASKED: &str = "_ACME-challenge.dns.example.org";

#[test]
fn a_challenge_is_answered_by_any_block_while_it_lasts_and_only_at_its_name() {
    let rig = Rig::new("tls://. {\n tls {\n  acme dns.example.org\n }\n whoami\n}\n.:53 {\n cache\n whoami\n}\n");
    let domain = Name::parse("dns.example.org").unwrap();
    assert_eq!(rig.ask(ASKED, rtype::TXT).len(), 3, "it is a name like others");
    let one = rig.outside.challenges.answer(&domain, "one").unwrap();
    // Of the wildcard below it, which is asked for at the same name.
    let two = rig.outside.challenges.answer(&domain, "two").unwrap();
    assert_eq!(rig.ask(ASKED, rtype::TXT), ["NOERROR", "TXT \"one\"", "TXT \"two\""]);
    assert_eq!(rig.ask(ASKED, rtype::A).len(), 3);
    assert_eq!(rig.ask("_acme-challenge.example.org", rtype::TXT).len(), 3);
    drop(one);
    assert_eq!(rig.ask(ASKED, rtype::TXT), ["NOERROR", "TXT \"two\""], "it is not kept");
    drop(two);
    assert_eq!(rig.ask(ASKED, rtype::TXT).len(), 3);
}

#[test]
fn what_an_upstream_denied_before_hides_no_challenge() {
    let rig = Rig::new(
        "tls://. {\n tls {\n  acme dns.example.org\n }\n whoami\n}\n\
         .:53 {\n rewrite name exact alias.example.org _acme-challenge.dns.example.org\n cache\n forward . 192.0.2.1\n}\n",
    );
    let (mut waiting, sent) = rig.forward(&query(ASKED, rtype::TXT));
    let mut denial = upstream_answer(&sent.message, 3, &[]);
    // The root's SOA record, so that it is kept for a minute.
    denial[9] = 1;
    denial.extend_from_slice(&[0, 0, 6, 0, 1, 0, 0, 0, 60, 0, 22, 0, 0]);
    denial.extend_from_slice(&[1, 2, 3, 4, 60].map(u32::to_be_bytes).concat());
    sent.answered(denial);
    assert_eq!(waiting.told(), ["NXDOMAIN", "SOA"]);
    // The first is answered at once, the other one on the way of what takes time.
    let ask = || [ASKED, "alias.example.org"].map(|name| rig.ask(name, rtype::TXT));
    assert_eq!(ask(), [["NXDOMAIN", "SOA"]; 2]);
    let _proved = rig.outside.challenges.answer(&Name::parse("dns.example.org").unwrap(), "one").unwrap();
    assert_eq!(ask(), [["NOERROR", "TXT \"one\""]; 2]);
    assert!(rig.sent().is_empty());
}

#[test]
fn where_no_certificate_is_to_be_issued_nothing_is_proved() {
    let rig = Rig::new("tls://. {\n tls /cert /key\n whoami\n}\n.:53 {\n whoami\n}\n");
    let _proved = rig.outside.challenges.answer(&Name::parse("dns.example.org").unwrap(), "one").unwrap();
    assert_eq!(rig.ask(ASKED, rtype::TXT).len(), 3);
}
