//! What is answered depends on the cluster as it is, and not on how it came to be so.

use std::collections::BTreeMap;

use podnet_model::{Change, Namespace, ServiceKey, SliceKey, labels::Labels, service::ServiceKind};
use proptest::prelude::*;

use super::{NXDOMAIN, endpoint, frontend, pod, port, service, slice};
use crate::{
    message::rtype,
    server::fixture::{Rig, query},
    zone::Cluster,
};

const COREFILE: &str = ". {\n kubernetes cluster.local 10.0.0.0/8 {\n pods verified\n }\n k8s_external example.org 10.1.0.0/16 {\n headless\n }\n}";

/// A change of one of few objects, so that they meet often.
fn change() -> impl Strategy<Value = Change> {
    let name = |number: u8| ["a", "b", "c"][usize::from(number % 3)];
    let of_service = (any::<u8>(), 0..5_u8).prop_map(move |(number, kind)| {
        let ports = vec![port("http", podnet_model::Protocol::Tcp, 80)];
        let key = ServiceKey::new("web", name(number));
        match kind {
            0 => Change::Service(key, None),
            1 => service("web", name(number), ServiceKind::Headless, ports),
            2 => service("web", name(number), ServiceKind::External { name: "www.example.com".into() }, ports),
            _ => service("web", name(number), frontend(&[["10.0.0.1", "10.0.0.2"][usize::from(kind - 3)]]), ports),
        }
    });
    let one = (1..6_u8, any::<bool>(), 0..3_u8).prop_map(|(addr, ready, host)| {
        endpoint(&format!("10.0.0.{addr}"), ready, [None, Some("db-0"), Some("db-1")][usize::from(host)])
    });
    let of_slice = (any::<u8>(), any::<u8>(), any::<bool>(), prop::collection::vec(one, 0..4)).prop_map(
        move |(slice_number, number, gone, endpoints)| {
            let Change::Slice(_, Some(mut slice)) = slice("web", name(number), &[("http", 8080)], endpoints) else {
                unreachable!()
            };
            slice.key = SliceKey::new("web", name(slice_number));
            Change::Slice(slice.key.clone(), (!gone).then_some(slice))
        },
    );
    let of_pod = (any::<u8>(), prop::collection::vec(1..4_u8, 0..3)).prop_map(move |(number, addrs)| {
        let addrs: Vec<String> = addrs.iter().map(|addr| format!("10.0.0.{addr}")).collect();
        pod("web", name(number), &addrs.iter().map(String::as_str).collect::<Vec<_>>())
    });
    prop_oneof![of_service, of_slice, of_pod]
}

fn key(change: &Change) -> String {
    match change {
        Change::Service(key, _) => format!("1 {key}"),
        Change::Slice(key, _) => format!("2 {key}"),
        Change::Pod(key, _) => format!("3 {key}"),
        _ => unreachable!(),
    }
}

fn gone(change: &Change) -> Change {
    match change {
        Change::Service(key, _) => Change::Service(key.clone(), None),
        Change::Slice(key, _) => Change::Slice(key.clone(), None),
        Change::Pod(key, _) => Change::Pod(key.clone(), None),
        _ => unreachable!(),
    }
}

/// Everything that can be asked for, answered.
fn told(rig: &Rig) -> Vec<Vec<String>> {
    let mut names = vec!["web.svc.cluster.local".to_owned(), "web.example.org".to_owned()];
    for service in ["a", "b", "c"] {
        for below in ["", "_tcp.", "_http._tcp.", "db-0.", "db-1.", "10-0-0-3.", "10-0-0-4."] {
            names.push(format!("{below}{service}.web.svc.cluster.local"));
            names.push(format!("{below}{service}.web.example.org"));
        }
    }
    for addr in 1..6 {
        names.push(format!("{addr}.0.0.10.in-addr.arpa"));
        names.push(format!("10-0-0-{addr}.web.pod.cluster.local"));
    }
    let types = [rtype::A, rtype::SRV, rtype::PTR, rtype::CNAME];
    let asked = names.iter().flat_map(|name| types.map(|qtype| (name, qtype)));
    let answer = |(name, qtype): (&String, u16)| {
        // What is behind an alias would have to be asked for elsewhere.
        match rig.handle(&query(name, qtype)) {
            (crate::Outcome::Answer, response) => {
                let mut told = crate::server::fixture::told(&response);
                told[1..].sort();
                told
            }
            _ => vec!["later".to_owned()],
        }
    };
    asked.map(answer).collect()
}

fn rig() -> Rig {
    let rig = Rig::new(COREFILE);
    rig.server.set_synced();
    rig
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(debug_assertions) { 150 } else { 1500 }))]

    #[test]
    fn whichever_way_the_cluster_took_the_same_names_are_answered(changes in prop::collection::vec(change(), 1..25)) {
        let mut there = rig();
        let mut last = BTreeMap::new();
        for change in &changes {
            there.apply(change);
            // Asked in between: what was kept of an answer must not outlive the change.
            let _ = there.ask("a.web.svc.cluster.local", rtype::A);
            last.insert(key(change), change.clone());
        }
        let mut fresh = rig();
        last.values().rev().for_each(|change| fresh.apply(change));
        prop_assert_eq!(told(&there), told(&fresh));
        last.values().for_each(|change| there.apply(&gone(change)));
        prop_assert!(there.cluster.is_empty(), "something is left: {:?}", there.cluster);
    }

    #[test]
    fn after_other_watches_listed_all_only_what_they_told_is_answered(
        before in prop::collection::vec(change(), 0..15),
        told_anew in prop::collection::vec(change(), 0..15),
    ) {
        let (mut there, mut fresh) = (rig(), rig());
        before.iter().for_each(|change| there.apply(change));
        there.cluster.succeed(false);
        for change in &told_anew {
            there.apply(change);
            fresh.apply(change);
        }
        there.cluster.listed();
        prop_assert_eq!(told(&there), told(&fresh));
        told_anew.iter().for_each(|change| there.apply(&gone(change)));
        prop_assert!(there.cluster.is_empty(), "something is left: {:?}", there.cluster);
    }
}

#[test]
fn an_endpoint_that_is_in_two_slices_stays_until_it_is_in_none() {
    let mut rig = rig();
    rig.apply(&service("web", "a", ServiceKind::Headless, vec![]));
    let put = |name: &str, addrs: &[&str]| {
        let endpoints = addrs.iter().map(|addr| endpoint(addr, true, None)).collect();
        let Change::Slice(_, Some(mut slice)) = slice("web", "a", &[("http", 80)], endpoints) else { unreachable!() };
        slice.key = SliceKey::new("web", name);
        Change::Slice(slice.key.clone(), Some(slice))
    };
    rig.apply(&put("one", &["10.0.0.3", "10.0.0.4"]));
    rig.apply(&put("two", &["10.0.0.4"]));
    assert_eq!(rig.ask("a.web.svc.cluster.local", rtype::A), ["NOERROR", "A 10.0.0.3", "A 10.0.0.4"]);
    rig.apply(&put("one", &["10.0.0.3"]));
    assert_eq!(rig.ask("4.0.0.10.in-addr.arpa", rtype::PTR), ["NOERROR", "PTR 10-0-0-4.a.web.svc.cluster.local"]);
    rig.apply(&put("two", &[]));
    assert_eq!(rig.ask("4.0.0.10.in-addr.arpa", rtype::PTR), NXDOMAIN);
    assert_eq!(rig.ask("a.web.svc.cluster.local", rtype::A), ["NOERROR", "A 10.0.0.3"]);
}

#[test]
fn an_address_of_several_services_has_the_name_of_each() {
    let mut rig = rig();
    for name in ["a", "b", "c"] {
        rig.apply(&service("web", name, ServiceKind::Headless, vec![]));
        rig.apply(&slice("web", name, &[("http", 80)], vec![endpoint("10.0.0.3", true, None)]));
    }
    let names = |rig: &Rig| rig.ask("3.0.0.10.in-addr.arpa", rtype::PTR).len() - 1;
    assert_eq!(names(&rig), 3);
    rig.apply(&Change::Service(ServiceKey::new("web", "b"), None));
    assert_eq!(names(&rig), 2);
    rig.apply(&slice("web", "c", &[("http", 80)], vec![endpoint("10.0.0.3", false, None)]));
    assert_eq!(rig.ask("3.0.0.10.in-addr.arpa", rtype::PTR), ["NOERROR", "PTR 10-0-0-3.a.web.svc.cluster.local"]);
}

#[test]
fn blocks_with_other_options_show_the_same_cluster_in_their_own_way() {
    let mut rig = Rig::new(
        ". {\n kubernetes one.local {\n ttl 7\n }\n}\ntwo.local {\n kubernetes two.local {\n ttl 9\n endpoint_pod_names\n }\n}",
    );
    super::cluster(&mut rig);
    for (zone, ttl) in [("one.local", 7), ("two.local", 9), ("one.local", 7)] {
        let packet = query(&format!("headless.web.svc.{zone}"), rtype::A);
        assert_eq!(rig.answer(&packet)[packet.len() + 6..][..4], [0, 0, 0, ttl], "{zone}");
    }
    assert_eq!(rig.ask("pod-10x244x2x3.headless.web.svc.two.local", rtype::A), ["NOERROR", "A 10.244.2.3"]);
    assert_eq!(rig.ask("pod-10x244x2x3.headless.web.svc.one.local", rtype::A), NXDOMAIN);
    assert_eq!(rig.ask("10-244-2-3.headless.web.svc.two.local", rtype::A), NXDOMAIN);
}

#[test]
fn a_service_of_more_endpoints_than_a_message_holds_is_answered_all_the_same() {
    let mut rig = rig();
    rig.apply(&service("web", "a", ServiceKind::Headless, vec![]));
    for part in 0..50_u8 {
        let endpoints = (0..100_u8).map(|at| endpoint(&format!("10.9.{part}.{at}"), true, None)).collect();
        let Change::Slice(_, Some(mut slice)) = slice("web", "a", &[("http", 80)], endpoints) else { unreachable!() };
        slice.key = SliceKey::new("web", &format!("part-{part}"));
        rig.apply(&Change::Slice(slice.key.clone(), Some(slice)));
    }
    for (name, qtype) in [("a.web.svc.cluster.local", rtype::A), ("_http._tcp.a.web.svc.cluster.local", rtype::SRV)] {
        let response = rig.answer(&query(name, qtype));
        assert!(response.len() <= 512 && response[2] & 2 != 0, "cut, as a datagram has to be: {}", response.len());
    }
    assert_eq!(rig.ask("10-9-49-99.a.web.svc.cluster.local", rtype::A), ["NOERROR", "A 10.9.49.99"]);
}

#[test]
fn whether_a_service_is_headless_is_known() {
    let mut cluster = Cluster::default();
    let is = |cluster: &Cluster| cluster.is_headless(&ServiceKey::new("web", "a"));
    assert!(!is(&cluster));
    cluster.apply(&service("web", "a", ServiceKind::Headless, vec![]));
    assert!(is(&cluster));
    cluster.apply(&service("web", "a", frontend(&["10.0.0.1"]), vec![]));
    assert!(!is(&cluster));
    cluster.namespace(&Namespace::from("web"), Some(&Labels::default()));
    assert!(!cluster.is_empty());
}
