//! The cluster's zones as a whole: what those get who fetch them.

use super::{COREFILE, frontend, rig, service};
use crate::{
    authority::{
        Zone,
        transfer::{Incoming, Progress},
    },
    message::rtype,
    name::Name,
    server::{
        Arrival, Outcome, Transport,
        fixture::{ARRIVAL, Rig, query, told},
    },
};

const TCP: Arrival = Arrival { transport: Transport::Tcp, ..ARRIVAL };

fn given() -> Rig {
    let mut rig = rig();
    rig.reload(&COREFILE.replace("kubernetes", "transfer cluster.local 10.in-addr.arpa {\n to *\n }\n kubernetes"));
    rig
}

/// A zone as a secondary has it.
pub(super) fn fetched(rig: &Rig, zone: &str) -> Zone {
    let mut incoming = Incoming::whole(&Name::parse(zone).unwrap(), 7, 1 << 20);
    let (Outcome::Transfer(transfer), _) = rig.handle_from(&incoming.request(None), &TCP) else { panic!("refused") };
    let mut whole = None;
    transfer.send(|message| {
        if let Progress::Done(zone, _) = incoming.message(&message).unwrap() {
            whole = Some(*zone);
        }
        true
    });
    whole.expect("it ended early")
}

#[test]
fn the_zone_that_is_given_away_has_every_name_and_each_is_answered_alike() {
    let rig = given();
    let zone = fetched(&rig, "cluster.local");
    let lines: Vec<String> = zone.records().map(|record| record.to_string().replace('\t', " ")).collect();
    println!("{}", lines.join("\n"));
    for line in [
        "cluster.local. 30 IN NS ns.dns.cluster.local.",
        "dns-version.cluster.local. 30 IN TXT \"1.1.0\"",
        "ns.dns.cluster.local. 30 IN A 10.233.0.10",
        "web.web.svc.cluster.local. 30 IN AAAA fd00::7",
        "_http._tcp.web.web.svc.cluster.local. 30 IN SRV 0 100 80 web.web.svc.cluster.local.",
        "10-244-1-2.web.web.svc.cluster.local. 30 IN A 10.244.1.2",
        "headless.web.svc.cluster.local. 30 IN A 10.244.2.3",
        "db-0.headless.web.svc.cluster.local. 30 IN AAAA fd00:244::3",
        "inside.web.svc.cluster.local. 30 IN CNAME web.web.svc.cluster.local.",
        "10-244-1-2.web.pod.cluster.local. 30 IN A 10.244.1.2",
    ] {
        assert!(lines.iter().any(|found| found == line), "{line}");
    }
    for record in zone.records().filter(|record| record.rtype != rtype::SRV) {
        let answer = rig.ask(record.owner.to_string().trim_end_matches('.'), record.rtype);
        assert!(answer.len() > 1 && answer[0] == "NOERROR" || record.rtype == rtype::CNAME, "{record}: {answer:?}");
    }
    assert_eq!(lines.iter().filter(|line| line.contains(" SOA ")).count(), 1);
}

#[test]
fn reverse_zones_are_given_away_too_and_others_are_not() {
    let rig = given();
    let zone = fetched(&rig, "10.in-addr.arpa");
    let lines: Vec<String> = zone.records().map(|record| record.to_string().replace('\t', " ")).collect();
    let line = "7.0.233.10.in-addr.arpa. 30 IN PTR web.web.svc.cluster.local.";
    assert!(lines.iter().any(|found| found == line), "{lines:?}");
    assert_eq!(told(&rig.handle_from(&query("svc.cluster.local", rtype::AXFR), &TCP).1), ["NOTAUTH"]);
    assert_eq!(told(&rig.handle_from(&query("ip6.arpa", rtype::AXFR), &TCP).1), ["REFUSED"]);
}

#[test]
fn who_has_the_zone_as_it_is_gets_no_more_than_its_serial_number() {
    let mut rig = given();
    let zone = fetched(&rig, "cluster.local");
    let messages = |rig: &Rig| {
        let request = Incoming::since(&zone, 7, 1 << 20).request(Some(&zone.soa_record()));
        let (Outcome::Transfer(transfer), _) = rig.handle_from(&request, &TCP) else { panic!("refused") };
        let mut records = 0;
        transfer.send(|message| {
            records += u16::from_be_bytes([message[6], message[7]]);
            true
        });
        records
    };
    assert_eq!(messages(&rig), 1);
    rig.apply(&service("web", "new", frontend(&["10.233.0.77"]), vec![]));
    assert!(messages(&rig) > 10);
}
