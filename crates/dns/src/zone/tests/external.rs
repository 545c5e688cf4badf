//! `k8s_external`: what its documentation says, as tables.

use podnet_model::{
    Change, Namespace, Protocol, Service, ServiceKey,
    labels::Labels,
    service::{Ingress, ServiceKind},
};

use super::{NODATA, NXDOMAIN, SOA, cluster, endpoint, frontend, port, service, slice};
use crate::{
    Config, Environment,
    message::rtype,
    server::fixture::{Rig, query},
};

/// A Service of the namespace shop, with addresses that somebody leads there, and what a load balancer gave it.
fn outside(name: &str, kind: ServiceKind, external: &[&str], balancer: &[&str]) -> Change {
    let Change::Service(key, Some(plain)) = service("shop", name, kind, vec![port("http", Protocol::Tcp, 80)]) else {
        unreachable!()
    };
    let mut service = Service { external_ips: external.iter().map(|addr| addr.parse().unwrap()).collect(), ..plain };
    for given in balancer {
        match given.parse() {
            Ok(addr) => service.ingress.push(Ingress { addr, is_proxy: false }),
            Err(_) => service.ingress_names.push((*given).into()),
        }
    }
    Change::Service(key, Some(service))
}

fn virtual_one() -> ServiceKind {
    frontend(&["10.233.1.1"])
}

fn rig(options: &str) -> Rig {
    let mut rig = Rig::new(&format!(
        ". {{\n kubernetes cluster.local 10.0.0.0/8\n k8s_external example.org 192.0.2.0/24 10.244.0.0/16 {{\n {options}\n \
         }}\n forward . 198.51.100.1\n}}"
    ));
    cluster(&mut rig);
    for change in [
        outside("led", virtual_one(), &["192.0.2.7", "2001:db8::7"], &[]),
        outside("balanced", virtual_one(), &["192.0.2.9"], &["192.0.2.8"]),
        outside("named", virtual_one(), &[], &["lb.example.net"]),
        outside("both", virtual_one(), &[], &["lb.example.net", "192.0.2.10"]),
        outside("inner", virtual_one(), &[], &[]),
        outside("bare", ServiceKind::Headless, &[], &[]),
        slice(
            "shop",
            "bare",
            &[("http", 8080)],
            vec![endpoint("10.244.3.1", true, Some("db-0")), endpoint("10.244.3.2", true, None)],
        ),
        outside("bare-led", ServiceKind::Headless, &["192.0.2.11"], &[]),
        slice("shop", "bare-led", &[("http", 8080)], vec![endpoint("10.244.3.9", true, None)]),
    ] {
        rig.apply(&change);
    }
    rig.namespace(&Namespace::from("vacant"), Some(&Labels::default()));
    rig
}

fn check(rig: &Rig, cases: &[(&str, u16, &[&str])]) {
    for (name, qtype, expected) in cases {
        assert_eq!(rig.ask(name, *qtype), *expected, "{name} {}", rtype::mnemonic(*qtype));
    }
}

#[test]
fn addresses_outside_of_the_cluster_have_names_and_nothing_else_has() {
    let rig = rig("");
    check(
        &rig,
        &[
            ("led.shop.example.org", rtype::A, &["NOERROR", "A 192.0.2.7"]),
            ("LED.Shop.example.org", rtype::AAAA, &["NOERROR", "AAAA 2001:db8::7"]),
            ("led.shop.example.org", rtype::TXT, NODATA),
            ("balanced.shop.example.org", rtype::A, &["NOERROR", "A 192.0.2.8", "A 192.0.2.9"]),
            ("balanced.shop.example.org", rtype::AAAA, NODATA),
            // An alias cannot stand beside addresses.
            ("both.shop.example.org", rtype::A, &["NOERROR", "A 192.0.2.10"]),
            ("bare-led.shop.example.org", rtype::A, &["NOERROR", "A 192.0.2.11"]),
            (
                "led.shop.example.org",
                rtype::SRV,
                &["NOERROR", "SRV 0 100 80 led.shop.example.org", "+A 192.0.2.7", "+AAAA 2001:db8::7"],
            ),
            (
                "_http._tcp.led.shop.example.org",
                rtype::SRV,
                &["NOERROR", "SRV 0 100 80 led.shop.example.org", "+A 192.0.2.7", "+AAAA 2001:db8::7"],
            ),
            ("_http._tcp.led.shop.example.org", rtype::A, NODATA),
            ("_tcp.led.shop.example.org", rtype::SRV, NODATA),
            ("_http._udp.led.shop.example.org", rtype::SRV, NXDOMAIN),
            ("_http._tcp.named.shop.example.org", rtype::SRV, &["NOERROR", "SRV 0 100 80 lb.example.net"]),
            ("named.shop.example.org", rtype::CNAME, &["NOERROR", "CNAME lb.example.net"]),
            // without addresses outside of the cluster
            ("inner.shop.example.org", rtype::A, NXDOMAIN),
            ("bare.shop.example.org", rtype::A, NXDOMAIN),
            ("web.web.example.org", rtype::A, NXDOMAIN),
            ("none.shop.example.org", rtype::A, NXDOMAIN),
            ("led.none.example.org", rtype::A, NXDOMAIN),
            // namespaces
            ("shop.example.org", rtype::A, NODATA),
            ("vacant.example.org", rtype::A, NODATA),
            ("none.example.org", rtype::A, NXDOMAIN),
            // the zone itself
            ("example.org", rtype::NS, &["NOERROR", "NS ns1.dns.example.org", "+A 10.233.0.10"]),
            ("example.org", rtype::A, NODATA),
            ("dns.example.org", rtype::A, NODATA),
            ("ns1.dns.example.org", rtype::A, &["NOERROR", "A 10.233.0.10"]),
            ("ns1.dns.example.org", rtype::AAAA, NODATA),
            ("ns2.dns.example.org", rtype::A, NXDOMAIN),
            // reverse
            ("7.2.0.192.in-addr.arpa", rtype::PTR, &["NOERROR", "PTR led.shop.example.org"]),
            ("7.2.0.192.in-addr.arpa", rtype::A, NODATA),
            ("99.2.0.192.in-addr.arpa", rtype::PTR, NXDOMAIN),
            ("1.3.244.10.in-addr.arpa", rtype::PTR, NXDOMAIN),
            // what is inside stays with the other plugin
            ("web.web.svc.cluster.local", rtype::A, &["NOERROR", "A 10.233.0.7"]),
            ("7.0.233.10.in-addr.arpa", rtype::PTR, &["NOERROR", "PTR web.web.svc.cluster.local"]),
        ],
    );
    let soa = rig.ask("example.org", rtype::SOA);
    assert!(soa[1].starts_with("SOA ns1.dns.example.org hostmaster.example.org "), "{soa:?}");
    assert!(soa[1].ends_with(" 14400 3600 604800 5"), "{soa:?}");
}

#[test]
fn headless_services_have_names_where_the_corefile_says_so() {
    check(
        &rig("headless"),
        &[
            ("bare.shop.example.org", rtype::A, &["NOERROR", "A 10.244.3.1", "A 10.244.3.2"]),
            ("db-0.bare.shop.example.org", rtype::A, &["NOERROR", "A 10.244.3.1"]),
            ("10-244-3-2.bare.shop.example.org", rtype::A, &["NOERROR", "A 10.244.3.2"]),
            ("10-244-3-9.bare.shop.example.org", rtype::A, NXDOMAIN),
            (
                "_http._tcp.bare.shop.example.org",
                rtype::SRV,
                &[
                    "NOERROR",
                    "SRV 0 50 8080 db-0.bare.shop.example.org",
                    "SRV 0 50 8080 10-244-3-2.bare.shop.example.org",
                    "+A 10.244.3.1",
                    "+A 10.244.3.2",
                ],
            ),
            ("1.3.244.10.in-addr.arpa", rtype::PTR, &["NOERROR", "PTR db-0.bare.shop.example.org"]),
            // Its own addresses count more than its endpoints'.
            ("bare-led.shop.example.org", rtype::A, &["NOERROR", "A 192.0.2.11"]),
            ("led.shop.example.org", rtype::A, &["NOERROR", "A 192.0.2.7"]),
        ],
    );
}

#[test]
fn the_name_of_a_load_balancer_is_followed() {
    let rig = rig("");
    let (mut waiting, sent) = rig.forward(&query("named.shop.example.org", rtype::A));
    sent.tells(0, &[[203, 0, 113, 5]]);
    assert_eq!(waiting.told(), ["NOERROR", "CNAME lb.example.net", "A 203.0.113.5"]);
}

#[test]
fn the_apex_and_the_time_to_live_are_as_the_corefile_says() {
    let mut rig = rig("apex server\n ttl 77");
    check(
        &rig,
        &[
            ("example.org", rtype::NS, &["NOERROR", "NS ns1.server.example.org", "+A 10.233.0.10"]),
            ("ns1.server.example.org", rtype::A, &["NOERROR", "A 10.233.0.10"]),
            ("server.example.org", rtype::A, NODATA),
            ("dns.example.org", rtype::A, NXDOMAIN),
        ],
    );
    let packet = query("led.shop.example.org", rtype::A);
    assert_eq!(rig.answer(&packet)[packet.len() + 6..][..4], [0, 0, 0, 77]);
    let soa = rig.ask("example.org", rtype::SOA);
    assert!(soa[1].ends_with(" 77"), "{soa:?}");
    // What its DNS Service is reached by from outside counts more than its ClusterIP.
    let Change::Service(key, Some(mut dns)) = service("kube-system", "kube-dns", virtual_one(), vec![]) else {
        unreachable!()
    };
    dns.external_ips.push([192, 0, 2, 53].into());
    rig.apply(&Change::Service(key, Some(dns)));
    assert_eq!(rig.ask("ns1.server.example.org", rtype::A), ["NOERROR", "A 192.0.2.53"]);
    assert_ne!(rig.ask("example.org", rtype::SOA), soa, "the serial number rises with changes");
}

#[test]
fn names_that_do_not_exist_fall_through_where_the_corefile_says_so() {
    let rig = rig("fallthrough example.org");
    let (_waiting, sent) = rig.forward(&query("none.shop.example.org", rtype::A));
    assert!(sent.upstream.to_string().ends_with(":53"));
    check(
        &rig,
        &[("led.shop.example.org", rtype::TXT, NODATA), ("99.2.0.192.in-addr.arpa", rtype::PTR, &["NXDOMAIN", SOA])],
    );
}

#[test]
fn addresses_come_and_go() {
    let mut rig = rig("");
    rig.apply(&outside("led", virtual_one(), &[], &["192.0.2.20"]));
    assert_eq!(rig.ask("led.shop.example.org", rtype::A), ["NOERROR", "A 192.0.2.20"]);
    assert_eq!(rig.ask("7.2.0.192.in-addr.arpa", rtype::PTR), NXDOMAIN);
    assert_eq!(rig.ask("20.2.0.192.in-addr.arpa", rtype::PTR), ["NOERROR", "PTR led.shop.example.org"]);
    rig.apply(&Change::Service(ServiceKey::new("shop", "led"), None));
    assert_eq!(rig.ask("led.shop.example.org", rtype::A), NXDOMAIN);
    assert_eq!(rig.ask("_tcp.led.shop.example.org", rtype::A), NXDOMAIN);
}

#[test]
fn the_zones_are_given_away_with_every_name_that_has_records() {
    let mut rig = rig("headless");
    rig.reload(
        ". {\n kubernetes cluster.local 10.0.0.0/8\n k8s_external example.org 192.0.2.0/24 {\n headless\n }\n \
         transfer example.org 2.0.192.in-addr.arpa {\n to *\n }\n}",
    );
    rig.server.set_synced();
    for (zone, expected) in [
        (
            "example.org",
            &[
                "example.org. 5 IN NS ns1.dns.example.org.",
                "ns1.dns.example.org. 5 IN A 10.233.0.10",
                "led.shop.example.org. 5 IN A 192.0.2.7",
                "led.shop.example.org. 5 IN AAAA 2001:db8::7",
                "_http._tcp.led.shop.example.org. 5 IN SRV 0 100 80 led.shop.example.org.",
                "named.shop.example.org. 5 IN CNAME lb.example.net.",
                "db-0.bare.shop.example.org. 5 IN A 10.244.3.1",
            ][..],
        ),
        ("2.0.192.in-addr.arpa", &["7.2.0.192.in-addr.arpa. 5 IN PTR led.shop.example.org."][..]),
    ] {
        let given = super::whole::fetched(&rig, zone);
        let lines: Vec<String> = given.records().map(|record| record.to_string().replace('\t', " ")).collect();
        for line in expected {
            assert!(lines.iter().any(|found| found == line), "{line}: {lines:?}");
        }
        assert!(!lines.iter().any(|line| line.starts_with("inner.")), "what is not reached from outside: {lines:?}");
    }
}

#[test]
fn what_kubernetes_does_not_show_is_not_shown_outside_either() {
    let mut rig = Rig::new(". {\n kubernetes cluster.local {\n namespaces web\n }\n k8s_external example.org\n}");
    rig.apply(&outside("led", virtual_one(), &["192.0.2.7"], &[]));
    rig.at(5);
    assert_eq!(rig.ask("led.shop.example.org", rtype::A), ["SERVFAIL"], "nothing is denied before the first sync");
    rig.server.set_synced();
    assert_eq!(rig.ask("led.shop.example.org", rtype::A), NXDOMAIN);
}

#[test]
fn without_the_plugin_kubernetes_it_warns_and_without_a_zone_it_is_an_error() {
    let load = |text: &str| Config::load("Corefile", text, &Environment::EMPTY);
    let alone = load(". {\n k8s_external example.org\n}").unwrap().warnings;
    assert!(alone[0].starts_with("Corefile:2:2: k8s_external has no effect without"), "{alone:?}");
    assert!(load(". {\n kubernetes cluster.local\n k8s_external example.org\n}").unwrap().warnings.is_empty());
    let reverse = load(". {\n kubernetes cluster.local\n k8s_external 10.0.0.0/8\n}").unwrap_err().to_string();
    assert!(reverse.contains("a zone for Services"), "{reverse}");
}
