//! Which plugins there are, and in which order they act.

use super::refused;
use crate::chain::{PLUGINS, order::ELSEWHERE};

/// CoreDNS's own plugins in its order (`plugin.cfg`), after its 1.14.7: with `acl` behind `autopath` and before `cache`, and with
/// `tls` where its answers for ACME are signed.
const OF_COREDNS: &str = "\
    root metadata geoip cancel proxyproto quic grpc_server https https3 timeouts multisocket reload nsid \
    bufsize bind debug trace ready health pprof shed prometheus errors log dnstap local dns64 siit any \
    chaos loadbalance tsig rewrite autopath acl dynupdate cache header dnssec tls minimal template \
    transfer hosts route53 azure clouddns k8s_external kubernetes file auto secondary etcd loop forward \
    grpc erratic whoami on sign view nomad";

/// Those that CoreDNS does not come with.
const BESIDE: [&str; 3] = ["cookies", "rrl", "searchpath"];

#[test]
fn plugins_act_in_coredns_s_order_and_all_that_it_has_are_known() {
    let is_elsewhere = |name: &str| ELSEWHERE.iter().any(|(other, _)| *other == name);
    let expected: Vec<&str> = OF_COREDNS.split_whitespace().filter(|name| !is_elsewhere(name)).collect();
    let ours: Vec<&str> = PLUGINS.into_iter().filter(|name| !BESIDE.contains(name)).collect();
    assert_eq!(ours, expected);
}

#[test]
fn limits_of_clients_come_early_and_a_search_before_what_its_names_are_asked_of() {
    let place = |name: &str| PLUGINS.iter().position(|plugin| *plugin == name).unwrap();
    assert!(place("cookies") < place("any") && place("rrl") < place("any"));
    assert_eq!(place("searchpath") + 1, place("autopath"));
}

#[test]
fn a_plugin_that_is_no_part_of_this_server_is_refused_with_the_reason() {
    for (name, why) in ELSEWHERE {
        let expected = format!("2:1: plugin {name:?} is no part of this server: {why}");
        refused(&[(name, expected.as_str())]);
    }
}
