//! Both families of addresses.

use super::*;
use crate::Felix;

#[test]
fn a_node_has_an_address_of_each_family_and_ipv4_comes_first() {
    let node = |annotations: Value, addresses: &[&str]| {
        let addresses: Vec<_> =
            addresses.iter().map(|address| json!({"type": "InternalIP", "address": address})).collect();
        let metadata = json!({"name": "node1", "annotations": annotations});
        Node::try_from(&object::<core::Node>(json!({"metadata": metadata, "status": {"addresses": addresses}})))
            .unwrap()
    };
    let addrs = |node: &Node| {
        [Some(node.addr), node.addr6, node.internal, node.internal6].map(|addr| addr.map(|addr| addr.to_string()))
    };
    let some = |text: &str| Some(text.to_owned());
    let silent = node(json!({}), &["fd00::1", "192.0.2.1", "fd00::2"]);
    assert_eq!(addrs(&silent), [some("192.0.2.1"), some("fd00::1"), some("192.0.2.1"), some("fd00::1")]);
    let (v4, v6) = ("projectcalico.org/IPv4Address", "projectcalico.org/IPv6Address");
    let dual = node(json!({v4: "192.0.2.11/24", v6: "fd00::11/64"}), &["fd00::1", "192.0.2.1"]);
    assert_eq!(addrs(&dual), [some("192.0.2.11"), some("fd00::11"), some("192.0.2.1"), some("fd00::1")]);
    assert_eq!(dual.subnet6, Some("fd00::11/64".parse().unwrap()));
    let without = node(json!({v4: "192.0.2.11/24"}), &["fd00::1", "192.0.2.1"]);
    assert_eq!(addrs(&without), [some("192.0.2.11"), None, some("192.0.2.1"), some("fd00::1")]);
    let only = node(json!({}), &["fd00::1"]);
    assert_eq!(addrs(&only), [some("fd00::1"), some("fd00::1"), some("fd00::1"), some("fd00::1")]);
    assert_eq!((only.v4(), only.v6()), (None, Some("fd00::1".parse().unwrap())));
    let wrong = node(json!({"projectcalico.org/IPv6Address": "192.0.2.9/24"}), &["192.0.2.1"]);
    assert_eq!(addrs(&wrong), [some("192.0.2.1"), None, some("192.0.2.1"), None]);
    assert!(wrong.wrong.unwrap().contains("projectcalico.org/IPv6Address"));
}

#[test]
fn either_setting_of_wireguard_encrypts_both_families() {
    let felix = |spec: Value| {
        let felix: crd::FelixConfiguration = object(json!({
            "apiVersion": "crd.projectcalico.org/v1", "kind": "FelixConfiguration", "metadata": {"name": "default"}, "spec": spec
        }));
        Felix::try_from(&felix).unwrap().wireguard
    };
    for key in ["wireguardEnabled", "wireguardEnabledV6"] {
        assert!(felix(json!({key: true})), "{key}");
        assert!(!felix(json!({key: false})), "{key}");
    }
    assert!(!felix(json!({})));
}

#[test]
fn flannels_wish_for_ipv6_is_known() {
    for (keys, ipv6) in [("", false), (r#", "EnableIPv6": true, "IPv6Network": "fd00:10:244::/64""#, true)] {
        let conf = net_conf(&format!(r#"{{"Network": "10.244.0.0/16", "Backend": {{"Type": "vxlan"}}{keys}}}"#));
        assert_eq!(conf.unwrap().ipv6, ipv6, "{keys}");
    }
}
