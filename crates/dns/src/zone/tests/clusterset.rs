//! The DNS specification of the Multi-Cluster Services API (KEP-1645, version 1.0.0) as a table, section by section: question, and what has
//! to be answered; and what is not known yet.

use podnet_model::{
    Change, Protocol, Service, ServiceKey, SliceKey, endpoints::ImportedSlice, labels::Labels, service::ServiceKind,
};

use super::{NODATA, NXDOMAIN, cluster, endpoint, frontend, port, service, slice};
use crate::{
    message::rtype,
    server::fixture::{self, Rig},
    zone::Cluster,
};

const COREFILE: &str = "
. {
    kubernetes cluster.local clusterset.local 10.0.0.0/8 ip6.arpa {
        multicluster clusterset.local
    }
}
";

fn import(cluster: &mut Cluster, change: Change) {
    let Change::Service(key, service) = change else { unreachable!() };
    cluster.import(&key, service.as_ref());
}

fn slice_from(cluster: &mut Cluster, id: &str, change: Change) {
    let Change::Slice(key, Some(mut slice)) = change else { unreachable!() };
    slice.key = SliceKey::new(key.namespace.as_str(), &format!("{}-{id}", key.name));
    cluster.imported_slice(&slice.key.clone(), Some(&ImportedSlice { cluster: id.into(), slice }));
}

/// What a cluster imports: a Service with addresses, one with endpoints of two clusters, one without any, one that has the name of the
/// cluster's own.
pub(super) fn imports(cluster: &mut Cluster) {
    let ports = || vec![port("https", Protocol::Tcp, 443), port("dns", Protocol::Udp, 53)];
    for change in [
        service("test", "shared", frontend(&["10.42.42.42", "fd00:42::42"]), ports()),
        service("test", "bare", frontend(&[]), vec![port("", Protocol::Tcp, 80)]),
        service("test", "headless", ServiceKind::Headless, ports()),
        service("test", "nobody", ServiceKind::Headless, ports()),
        service("web", "web", frontend(&["10.233.0.7"]), ports()),
    ] {
        import(cluster, change);
    }
    let https = &[("https", 443)];
    let north = vec![endpoint("10.3.0.100", true, Some("my-pet")), endpoint("10.3.0.101", false, Some("my-cat"))];
    let south = vec![endpoint("10.4.0.100", true, Some("my-pet")), endpoint("fd00:4::1", true, None)];
    slice_from(cluster, "clusterA", slice("test", "headless", https, north));
    slice_from(cluster, "clusterb", slice("test", "headless", https, south));
    slice_from(cluster, "clusterA", slice("test", "shared", https, vec![endpoint("10.3.0.7", true, Some("one"))]));
    slice_from(cluster, "clusterA", slice("test", "nobody", https, vec![endpoint("10.3.0.9", false, None)]));
    cluster.imports_listed();
}

fn rig() -> Rig {
    let mut rig = Rig::new(COREFILE);
    cluster(&mut rig);
    rig
}

#[test]
fn every_record_of_the_specification_is_answered_and_nothing_else() {
    let rig = rig();
    let cases: &[(&str, u16, &[&str])] = &[
        // 2.2 schema version
        ("dns-version.clusterset.local", rtype::TXT, &["NOERROR", "TXT \"1.0.0\""]),
        ("dns-version.clusterset.local", rtype::A, NODATA),
        ("dns-version.cluster.local", rtype::TXT, &["NOERROR", "TXT \"1.1.0\""]),
        // 2.3.1 addresses of a ClusterSetIP
        ("shared.test.svc.clusterset.local", rtype::A, &["NOERROR", "A 10.42.42.42"]),
        ("shared.test.svc.clusterset.local", rtype::AAAA, &["NOERROR", "AAAA fd00:42::42"]),
        ("shared.test.svc.clusterset.local", rtype::TXT, NODATA),
        ("bare.test.svc.clusterset.local", rtype::A, NODATA),
        ("test.svc.clusterset.local", rtype::A, NODATA),
        ("web.svc.clusterset.local", rtype::A, NODATA),
        ("none.svc.clusterset.local", rtype::A, NXDOMAIN),
        ("svc.clusterset.local", rtype::A, NODATA),
        // 2.3.2 its ports
        (
            "_https._tcp.shared.test.svc.clusterset.local",
            rtype::SRV,
            &["NOERROR", "SRV 0 100 443 shared.test.svc.clusterset.local", "+A 10.42.42.42", "+AAAA fd00:42::42"],
        ),
        ("_https._tcp.shared.test.svc.clusterset.local", rtype::A, NODATA),
        ("_tcp.shared.test.svc.clusterset.local", rtype::SRV, NODATA),
        ("_https._udp.shared.test.svc.clusterset.local", rtype::SRV, NXDOMAIN),
        ("_tcp.bare.test.svc.clusterset.local", rtype::SRV, NXDOMAIN),
        // 2.3.3 its address, but for one that has a name in the cluster's own zone
        ("42.42.42.10.in-addr.arpa", rtype::PTR, &["NOERROR", "PTR shared.test.svc.clusterset.local"]),
        ("42.42.42.10.in-addr.arpa", rtype::A, NODATA),
        ("43.42.42.10.in-addr.arpa", rtype::PTR, NXDOMAIN),
        ("7.0.233.10.in-addr.arpa", rtype::PTR, &["NOERROR", "PTR web.web.svc.cluster.local"]),
        // 2.3.4 what must not exist
        ("clustera.shared.test.svc.clusterset.local", rtype::A, NXDOMAIN),
        ("one.clustera.shared.test.svc.clusterset.local", rtype::A, NXDOMAIN),
        ("7.0.3.10.in-addr.arpa", rtype::PTR, NXDOMAIN),
        // 2.4.1 addresses of a headless Service, of all clusters and of each endpoint
        ("headless.test.svc.clusterset.local", rtype::A, &["NOERROR", "A 10.3.0.100", "A 10.4.0.100"]),
        ("headless.test.svc.clusterset.local", rtype::AAAA, &["NOERROR", "AAAA fd00:4::1"]),
        ("my-pet.clusterA.headless.test.svc.clusterset.local", rtype::A, &["NOERROR", "A 10.3.0.100"]),
        ("my-pet.clusterb.headless.test.svc.clusterset.local", rtype::A, &["NOERROR", "A 10.4.0.100"]),
        ("fd00-4--1.clusterb.headless.test.svc.clusterset.local", rtype::AAAA, &["NOERROR", "AAAA fd00:4::1"]),
        ("fd00-4--1.clustera.headless.test.svc.clusterset.local", rtype::AAAA, NXDOMAIN),
        ("my-cat.clustera.headless.test.svc.clusterset.local", rtype::A, NXDOMAIN),
        ("my-pet.headless.test.svc.clusterset.local", rtype::A, NXDOMAIN),
        ("nobody.test.svc.clusterset.local", rtype::A, NXDOMAIN),
        // 2.4.2 their ports
        (
            "_https._tcp.headless.test.svc.clusterset.local",
            rtype::SRV,
            &[
                "NOERROR",
                "SRV 0 33 443 fd00-4--1.clusterb.headless.test.svc.clusterset.local",
                "SRV 0 33 443 my-pet.clustera.headless.test.svc.clusterset.local",
                "SRV 0 33 443 my-pet.clusterb.headless.test.svc.clusterset.local",
                "+AAAA fd00:4::1",
                "+A 10.3.0.100",
                "+A 10.4.0.100",
            ],
        ),
        ("_dns._udp.headless.test.svc.clusterset.local", rtype::SRV, NXDOMAIN),
        // 2.4.3 their addresses
        ("100.0.3.10.in-addr.arpa", rtype::PTR, &["NOERROR", "PTR my-pet.clustera.headless.test.svc.clusterset.local"]),
        ("101.0.3.10.in-addr.arpa", rtype::PTR, NXDOMAIN),
        // 2.4.4 a cluster has no records of its own; names stand below it
        ("clustera.headless.test.svc.clusterset.local", rtype::A, NODATA),
        ("clusterc.headless.test.svc.clusterset.local", rtype::A, NXDOMAIN),
        // The zones are apart.
        ("shared.test.svc.cluster.local", rtype::A, NXDOMAIN),
        ("plain.web.svc.clusterset.local", rtype::A, NXDOMAIN),
        ("web.web.svc.clusterset.local", rtype::A, &["NOERROR", "A 10.233.0.7"]),
        ("10-244-1-2.web.pod.clusterset.local", rtype::A, NXDOMAIN),
        ("pod.clusterset.local", rtype::A, NXDOMAIN),
        ("ns.dns.clusterset.local", rtype::A, &["NOERROR", "A 10.233.0.10"]),
        ("clusterset.local", rtype::NS, &["NOERROR", "NS ns.dns.clusterset.local", "+A 10.233.0.10"]),
    ];
    let mut wrong = Vec::new();
    for (name, qtype, expected) in cases {
        let mut answer = rig.ask(name, *qtype);
        let mut expected: Vec<String> = expected.iter().map(|record| (*record).to_owned()).collect();
        answer.sort();
        expected.sort();
        if answer != expected {
            wrong.push(format!("{name} {}: {answer:?} instead of {expected:?}", rtype::mnemonic(*qtype)));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_name_is_not_denied_before_all_that_is_imported_was_listed_and_the_cluster_s_own_are() {
    let mut rig = Rig::new(COREFILE);
    rig.server.set_synced();
    rig.at(5);
    let shared = "shared.test.svc.clusterset.local";
    assert_eq!(rig.ask(shared, rtype::A), ["SERVFAIL"]);
    assert_eq!(rig.ask("web.web.svc.cluster.local", rtype::A), NXDOMAIN);
    import(&mut rig.cluster, service("test", "shared", frontend(&["10.42.42.42"]), vec![]));
    assert_eq!(rig.ask(shared, rtype::A), ["NOERROR", "A 10.42.42.42"], "what is known is told");
    rig.cluster.imports_listed();
    assert_eq!(rig.ask("other.test.svc.clusterset.local", rtype::A), NXDOMAIN);
}

#[test]
fn who_asks_at_the_start_waits_for_what_is_imported() {
    let mut rig = Rig::new(COREFILE);
    rig.server.set_synced();
    let mut waiting = rig.wait(&fixture::query("shared.test.svc.clusterset.local", rtype::A));
    assert_eq!(waiting.response(), None);
    imports(&mut rig.cluster);
    rig.wake();
    assert_eq!(waiting.told(), ["NOERROR", "A 10.42.42.42"]);
}

#[test]
fn what_is_imported_changes_and_vanishes() {
    let mut rig = rig();
    let asks = |rig: &Rig| rig.ask("headless.test.svc.clusterset.local", rtype::A);
    rig.cluster.imported_slice(&SliceKey::new("test", "headless-abcde-clusterA"), None);
    assert_eq!(asks(&rig), ["NOERROR", "A 10.4.0.100"]);
    assert_eq!(rig.ask("clustera.headless.test.svc.clusterset.local", rtype::A), NXDOMAIN);
    import(&mut rig.cluster, service("test", "headless", frontend(&["10.42.42.43"]), vec![]));
    assert_eq!(asks(&rig), ["NOERROR", "A 10.42.42.43"]);
    rig.cluster.import(&ServiceKey::new("test", "headless"), None);
    assert_eq!(asks(&rig), NXDOMAIN);
}

#[test]
fn what_is_followed_no_more_is_forgotten_and_nothing_is_denied_until_it_is_listed_again() {
    let mut rig = Rig::new(COREFILE);
    rig.server.set_synced();
    rig.at(5);
    imports(&mut rig.cluster);
    let serial = |rig: &Rig| rig.ask("clusterset.local", rtype::SOA)[1].clone();
    let (shared, before) = ("shared.test.svc.clusterset.local", serial(&rig));
    assert_eq!(rig.ask(shared, rtype::A), ["NOERROR", "A 10.42.42.42"]);
    rig.cluster.forget_imports();
    assert!(rig.cluster.is_empty(), "it is kept in memory");
    assert_eq!(rig.ask(shared, rtype::A), ["SERVFAIL"]);
    assert_ne!(serial(&rig), before);
    rig.cluster.imports_listed();
    assert_eq!(rig.ask(shared, rtype::A), NXDOMAIN);
    assert_eq!(rig.ask("42.42.42.10.in-addr.arpa", rtype::PTR), NXDOMAIN);
    imports(&mut rig.cluster);
    assert_eq!(rig.ask(shared, rtype::A), ["NOERROR", "A 10.42.42.42"]);
}

#[test]
fn the_options_of_the_plugin_choose_among_what_is_imported_too() {
    let asks = |options: &str, name: &str| {
        let zones = "cluster.local clusterset.local";
        let options = format!("multicluster clusterset.local\n {options}");
        let mut rig = Rig::new(&format!(". {{\n kubernetes {zones} {{\n {options}\n }}\n}}"));
        cluster(&mut rig);
        let labels = Labels::new([("tier".to_owned(), "front".to_owned())].into());
        let Change::Service(key, Some(chosen)) = service("test", "chosen", frontend(&["10.42.42.44"]), vec![]) else {
            unreachable!()
        };
        rig.cluster.import(&key, Some(&Service { labels, ..chosen }));
        rig.ask(&format!("{name}.svc.clusterset.local"), rtype::A)[0].clone()
    };
    assert_eq!(asks("labels tier=front", "shared.test"), "NXDOMAIN");
    assert_eq!(asks("labels tier=front", "chosen.test"), "NOERROR");
    assert_eq!(asks("namespaces web", "shared.test"), "NXDOMAIN");
    assert_eq!(asks("namespaces web", "web.web"), "NOERROR");
    assert_eq!(asks("noendpoints", "headless.test"), "NXDOMAIN");
    assert_eq!(asks("noendpoints", "shared.test"), "NOERROR");
    assert_eq!(asks("ignore empty_service", "bare.test"), "NXDOMAIN");
    assert_eq!(asks("ignore empty_service", "shared.test"), "NOERROR");
    assert_eq!(asks("zonal", "east._zone.headless.test"), "NXDOMAIN");
}

#[test]
fn the_zone_of_the_set_is_given_away_as_a_whole() {
    let mut rig = rig();
    let transfer = "transfer clusterset.local 10.in-addr.arpa {\n to *\n }\n kubernetes";
    rig.reload(&COREFILE.replace("kubernetes", transfer));
    let lines = |zone: &str| {
        let zone = super::whole::fetched(&rig, zone);
        zone.records().map(|record| record.to_string().replace('\t', " ")).collect::<Vec<String>>()
    };
    let forward = lines("clusterset.local");
    for line in [
        "dns-version.clusterset.local. 5 IN TXT \"1.0.0\"",
        "shared.test.svc.clusterset.local. 5 IN A 10.42.42.42",
        "_dns._udp.shared.test.svc.clusterset.local. 5 IN SRV 0 100 53 shared.test.svc.clusterset.local.",
        "headless.test.svc.clusterset.local. 5 IN AAAA fd00:4::1",
        "my-pet.clustera.headless.test.svc.clusterset.local. 5 IN A 10.3.0.100",
    ] {
        assert!(forward.iter().any(|found| found == line), "{line}: {forward:?}");
    }
    assert!(!forward.iter().any(|line| line.contains("plain.") || line.contains("one.clustera")), "{forward:?}");
    let line = "42.42.42.10.in-addr.arpa. 5 IN PTR shared.test.svc.clusterset.local.";
    assert!(lines("10.in-addr.arpa").iter().any(|found| found == line));
}
