//! The addresses of the cluster's name servers: those of the Services that lead to this server.

use std::net::IpAddr;

use podnet_model::{Change, Protocol, service::ServiceKind};

use super::{NODATA, cluster, endpoint, frontend, port, service, slice};
use crate::{message::rtype, server::fixture::Rig};

const INSIDE: &str = "ns.dns.cluster.local";
const OUTSIDE: &str = "ns1.dns.example.org";

fn rig() -> Rig {
    let mut rig = Rig::new(". {\n kubernetes cluster.local\n k8s_external example.org\n}");
    cluster(&mut rig);
    let here: [IpAddr; 2] = ["10.244.0.53".parse().unwrap(), "fd00:244::53".parse().unwrap()];
    rig.cluster.stands_at(&here);
    rig
}

/// A Service whose one endpoint is the first address of this server.
fn leading(name: &str, kind: ServiceKind, protocol: Protocol) -> [Change; 2] {
    let ports = vec![port("dns", protocol, 53)];
    let endpoints = vec![endpoint("10.244.0.53", true, None), endpoint("10.244.9.53", true, None)];
    [service("infra", name, kind, ports), slice("infra", name, &[("dns", 53)], endpoints)]
}

#[test]
fn they_are_those_of_the_services_that_lead_to_this_server_whatever_they_are_called() {
    let mut rig = rig();
    assert_eq!(rig.ask(INSIDE, rtype::A), ["NOERROR", "A 10.233.0.10"], "none is known to lead here");
    for change in leading("resolver", frontend(&["10.233.0.53", "fd00::53"]), Protocol::Udp) {
        rig.apply(&change);
    }
    for name in [INSIDE, OUTSIDE] {
        assert_eq!(rig.ask(name, rtype::A), ["NOERROR", "A 10.233.0.53"], "{name}");
        assert_eq!(rig.ask(name, rtype::AAAA), ["NOERROR", "AAAA fd00::53"], "{name}");
        assert_eq!(rig.ask(name, rtype::TXT), NODATA, "{name}");
    }
    for (zone, server) in [("cluster.local", INSIDE), ("example.org", OUTSIDE)] {
        let name = format!("NS {server}");
        let told = ["NOERROR", name.as_str(), "+A 10.233.0.53", "+AAAA fd00::53"];
        assert_eq!(rig.ask(zone, rtype::NS), told, "their addresses come with their name");
    }
    let [Change::Service(key, Some(mut led)), _] = leading("resolver", frontend(&["10.233.0.53"]), Protocol::Udp)
    else {
        unreachable!()
    };
    led.external_ips.push([192, 0, 2, 53].into());
    rig.apply(&Change::Service(key, Some(led)));
    assert_eq!(rig.ask(OUTSIDE, rtype::A), ["NOERROR", "A 192.0.2.53"]);
    assert_eq!(rig.ask(INSIDE, rtype::A), ["NOERROR", "A 10.233.0.53"]);
    assert_eq!(rig.ask("example.org", rtype::NS)[2..], ["+A 192.0.2.53"]);
}

#[test]
fn a_headless_service_has_its_endpoints_and_one_that_takes_no_questions_does_not_count() {
    let mut rig = rig();
    for change in leading("metrics", frontend(&["10.233.0.54"]), Protocol::Tcp) {
        rig.apply(&change);
    }
    assert_eq!(rig.ask(INSIDE, rtype::A), ["NOERROR", "A 10.233.0.10"]);
    for change in leading("resolver", ServiceKind::Headless, Protocol::Udp) {
        rig.apply(&change);
    }
    assert_eq!(rig.ask(INSIDE, rtype::A), ["NOERROR", "A 10.244.0.53", "A 10.244.9.53"]);
}

#[test]
fn without_such_a_service_they_are_this_machine_s() {
    let mut rig = Rig::new(". {\n kubernetes cluster.local\n k8s_external example.org\n}");
    rig.server.set_synced();
    assert_eq!(rig.ask(INSIDE, rtype::A), NODATA);
    rig.cluster.stands_at(&["10.244.0.53".parse().unwrap()]);
    for name in [INSIDE, OUTSIDE] {
        assert_eq!(rig.ask(name, rtype::A), ["NOERROR", "A 10.244.0.53"], "{name}");
    }
}
