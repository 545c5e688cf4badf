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
fn a_node_has_all_addresses_that_the_cluster_knows_it_by() {
    let addresses = [("InternalIP", "192.0.2.1"), ("Hostname", "192.0.2.7"), ("ExternalIP", "203.0.113.1")];
    let addresses = addresses.into_iter().chain([("InternalIP", "172.31.0.1"), ("ExternalIP", "none")]);
    let addresses: Vec<_> = addresses.map(|(kind, address)| json!({"type": kind, "address": address})).collect();
    let node = json!({"metadata": {"name": "node1"}, "status": {"addresses": addresses}});
    let node = Node::try_from(&object::<core::Node>(node)).unwrap();
    let told: Vec<String> = node.addresses.iter().map(ToString::to_string).collect();
    assert_eq!(told, ["192.0.2.1", "203.0.113.1", "172.31.0.1"]);
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
fn flannels_ranges_are_those_of_the_families_that_are_enabled() {
    let (v4, v6) = (r#""Network": "10.244.0.0/16""#, r#""IPv6Network": "fd00:10:244::1/56""#);
    let ranges = |keys: &str| {
        let conf = net_conf(&format!(r#"{{{keys}, "Backend": {{"Type": "vxlan"}}}}"#)).unwrap();
        conf.ranges().map(|range| range.to_string()).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(ranges(v4), "10.244.0.0/16");
    assert_eq!(ranges(&format!("{v4}, {v6}")), "10.244.0.0/16", "it is not enabled");
    assert_eq!(ranges(&format!(r#"{v4}, {v6}, "EnableIPv6": true"#)), "10.244.0.0/16 fd00:10:244::/56");
    assert_eq!(ranges(&format!(r#"{v6}, "EnableIPv4": false, "EnableIPv6": true"#)), "fd00:10:244::/56");
}

#[test]
fn what_a_node_says_of_ipv6_to_flannels_nodes_is_read() {
    let said = json!({
        "flannel.alpha.coreos.com/backend-type": "vxlan",
        "flannel.alpha.coreos.com/backend-v6-data": r#"{"VNI":1,"VtepMAC":"8e:66:a0:00:00:06"}"#,
        "flannel.alpha.coreos.com/public-ipv6": "fd00::99",
        "flannel.alpha.coreos.com/public-ipv6-overwrite": "fd00::77",
    });
    let found = node(said.clone(), json!({})).unwrap();
    let lease = found.lease.unwrap();
    assert_eq!((lease.public_ip, lease.public_ipv6), (None, "fd00::99".parse().ok()));
    assert_eq!(lease.vtep_macs, Dual { v4: None, v6: Some(crate::Mac([0x8e, 0x66, 0xa0, 0, 0, 6])) });
    assert_eq!(found.overwrites, Dual { v4: None, v6: "fd00::77".parse().ok() });
    let mut wrong = said;
    wrong["flannel.alpha.coreos.com/public-ipv6"] = json!("192.0.2.1");
    let found = node(wrong, json!({})).unwrap();
    let message = r#"public-ipv6] is "192.0.2.1"; it must be an IPv6 address"#;
    assert!(found.lease.is_none() && found.wrong.as_deref().is_some_and(|wrong| wrong.contains(message)));
}
