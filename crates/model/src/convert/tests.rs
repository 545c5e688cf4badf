#![allow(clippy::needless_pass_by_value, reason = "json! literals are passed as they are")]

mod dual;
mod imports;
mod services;

use std::error::Error as _;

use k8s_openapi::api::{core::v1 as core, discovery::v1 as discovery};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::{
    Block, Dual, EncapMode, EndpointSlice, NetConf, Node, Pod, PodKey, Pool, Protocol, Service, TargetPort,
    balancer::CLASS, crd, flannel::Backend, pod::AddressRequest, service::ServiceKind,
};

fn object<T: DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

fn pool(spec: Value) -> Result<Pool, String> {
    let pool: crd::IPPool = object(json!({
        "apiVersion": "crd.projectcalico.org/v1", "kind": "IPPool", "metadata": {"name": "default"}, "spec": spec
    }));
    Pool::try_from(&pool).map_err(|error| match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    })
}

fn pod(annotations: Value) -> Pod {
    let pod: core::Pod = object(json!({
        "metadata": {"name": "web", "namespace": "test", "uid": "u1", "annotations": annotations},
        "spec": {"nodeName": "node1", "containers": []},
        "status": {"phase": "Running", "podIPs": [{"ip": "10.233.64.1"}]}
    }));
    Pod::try_from(&pod).unwrap()
}

#[test]
fn a_pool_without_options_has_calicos_defaults() {
    let pool = pool(json!({"cidr": "10.233.64.0/18"})).unwrap();
    assert_eq!(pool.block_size, 26);
    assert_eq!(pool.vxlan, EncapMode::Never);
    assert!(!pool.nat_outgoing && !pool.disabled);
    assert!(pool.node_selector.matches(&Default::default()));
}

#[test]
fn a_wrong_pool_is_refused_with_object_field_value_and_what_is_allowed() {
    for (spec, message) in [
        (
            json!({"cidr": "1.32.239.0/24", "vxlanMode": "Neve"}),
            r#"IPPool default: spec.vxlanMode is "Neve"; it must be Always, CrossSubnet or Never"#,
        ),
        (
            json!({"cidr": "10.0.0.0"}),
            r#"IPPool default: spec.cidr is "10.0.0.0"; it must be a range, for example 10.233.64.0/18"#,
        ),
        (
            json!({"cidr": "fe80::/64"}),
            r#"IPPool default: spec.cidr is "fe80::/64"; it must be a range that shares no address with fe80::/10 (link-local)"#,
        ),
        (
            json!({"cidr": "169.254.1.0/26"}),
            r#"IPPool default: spec.cidr is "169.254.1.0/26"; it must be a range that shares no address with 169.254.0.0/16 (link-local)"#,
        ),
        (
            json!({"cidr": "::/0"}),
            r#"IPPool default: spec.cidr is "::/0"; it must be a range that shares no address with ::/127 (unspecified and loopback)"#,
        ),
        (
            json!({"cidr": "10.0.0.1/24"}),
            r#"IPPool default: spec.cidr is "10.0.0.1/24"; it must be a range whose address is its first: 10.0.0.0/24"#,
        ),
        (
            json!({"cidr": "10.0.0.0/24", "blockSize": 23}),
            r#"IPPool default: spec.blockSize is "23"; it must be 24 to 32 for a pool 10.0.0.0/24"#,
        ),
        (
            json!({"cidr": "10.0.0.0/8", "blockSize": 300}),
            r#"IPPool default: spec.blockSize is "300"; it must be 20 to 32 for a pool 10.0.0.0/8"#,
        ),
        (
            json!({"cidr": "10.0.0.0/24", "nodeSelector": "zone = 'a'"}),
            "IPPool default: spec.nodeSelector is \"zone = 'a'\", which is no selector: column 6: expected a label's name, \
             a value in quotes, an operator or a parenthesis, found =",
        ),
        (
            json!({"cidr": "10.0.0.0/24", "ipipMode": "Always", "vxlanMode": "Always"}),
            r#"IPPool default: spec.vxlanMode is "Always"; it must be Never where spec.ipipMode is not Never"#,
        ),
        (
            json!({"cidr": "10.0.0.0/24", "allowedUses": ["Pods"]}),
            r#"IPPool default: spec.allowedUses[] is "Pods"; it must be one of LoadBalancer, Tunnel, Workload"#,
        ),
    ] {
        assert_eq!(pool(spec).unwrap_err(), message);
    }
}

#[test]
fn a_pool_that_is_not_for_workloads_gives_no_pod_an_address() {
    assert!(pool(json!({"cidr": "10.0.0.0/24", "allowedUses": ["Tunnel"]})).unwrap().disabled);
    assert!(!pool(json!({"cidr": "10.0.0.0/24", "allowedUses": ["Tunnel", "Workload"]})).unwrap().disabled);
}

#[test]
fn a_pod_with_good_annotations_asks_for_what_they_say() {
    let pod = pod(json!({
        "cni.projectcalico.org/ipAddrs": r#"["10.233.65.177"]"#,
        "cni.projectcalico.org/ipv4pools": r#"["my.ippool-1", "10.200.0.0/24"]"#,
        "cni.projectcalico.org/ipv6pools": r#"["six", "fd00:10::/56"]"#,
    }));
    assert_eq!(pod.key, PodKey::new("test", "web"));
    assert_eq!(
        pod.request.unwrap(),
        AddressRequest {
            addrs_no_ipam: Vec::new(),
            sticky: None,
            addrs: vec!["10.233.65.177".parse().unwrap()],
            pools: Dual {
                v4: vec!["my.ippool-1".into(), "10.200.0.0/24".into()],
                v6: vec!["six".into(), "fd00:10::/56".into()],
            },
        }
    );
}

#[test]
fn a_pod_with_wrong_annotations_exists_and_says_what_is_wrong_with_them() {
    for (annotation, value, message) in [
        (
            "ipAddrs",
            r#"["10.233.65.177", "10.233.65.178"]"#,
            "there cannot be more than one IPv4 address in the annotation cni.projectcalico.org/ipAddrs",
        ),
        (
            "ipAddrs",
            r#"["10.233.65"]"#,
            r#"the annotation cni.projectcalico.org/ipAddrs lists "10.233.65", which is no IP address"#,
        ),
        (
            "ipAddrs",
            "10.0.0.1",
            "the annotation cni.projectcalico.org/ipAddrs is \"10.0.0.1\"; it must be a JSON list of strings: ",
        ),
        (
            "ipv4pools",
            r#"["10.0.0.0/33"]"#,
            "the annotation cni.projectcalico.org/ipv4pools lists \"10.0.0.0/33\", which is neither the name of a pool nor an \
             IPv4 range",
        ),
        (
            "ipv6pools",
            r#"["10.0.0.0/24"]"#,
            "the annotation cni.projectcalico.org/ipv6pools lists \"10.0.0.0/24\", which is neither the name of a pool nor an \
             IPv6 range",
        ),
        (
            "ipAddrs",
            r#"["10.0.0.1", "fd00::1", "fd00::2"]"#,
            "there cannot be more than one IPv6 address in the annotation cni.projectcalico.org/ipAddrs",
        ),
    ] {
        let mut annotations = serde_json::Map::new();
        annotations.insert(format!("cni.projectcalico.org/{annotation}"), json!(value));
        let pod = pod(Value::Object(annotations));
        let said = pod.request.unwrap_err().to_string();
        assert!(said.starts_with(message), "{said}");
    }
}

#[test]
fn an_address_of_each_family_may_be_asked_for() {
    let pod = pod(json!({"cni.projectcalico.org/ipAddrs": r#"["10.0.0.1", "fd00::1"]"#}));
    assert_eq!(pod.request.unwrap().addrs.len(), 2);
}

#[test]
fn a_nodes_subnet_comes_from_its_annotation() {
    let node: core::Node = object(json!({
        "metadata": {"name": "node1", "labels": {"zone": "a"},
                     "annotations": {"projectcalico.org/IPv4Address": "172.29.0.11/24"}},
        "status": {"addresses": [{"type": "Hostname", "address": "node1"}, {"type": "InternalIP", "address": "172.29.0.11"}]}
    }));
    let node = Node::try_from(&node).unwrap();
    assert_eq!(node.subnet, Some("172.29.0.11/24".parse().unwrap()));
    assert_eq!(node.addr.to_string(), "172.29.0.11");
    assert_eq!(node.labels["zone"], "a");
    assert_eq!(node.internal, Some(node.addr));
}

#[test]
fn the_address_that_a_node_published_is_believed_before_the_one_that_kubernetes_knows() {
    let node: core::Node = object(json!({
        "metadata": {"name": "node1", "annotations": {"projectcalico.org/IPv4Address": "192.0.2.11/24"}},
        "status": {"addresses": [{"type": "InternalIP", "address": "172.29.0.11"}]}
    }));
    let node = Node::try_from(&node).unwrap();
    assert_eq!(
        (node.addr.to_string().as_str(), node.internal.unwrap().to_string().as_str()),
        ("192.0.2.11", "172.29.0.11")
    );
}

#[test]
fn a_node_that_is_not_heard_from_is_lost() {
    for (status, lost) in [("True", false), ("False", false), ("Unknown", true)] {
        let node: core::Node = object(json!({
            "metadata": {"name": "node1"},
            "status": {"addresses": [{"type": "InternalIP", "address": "172.29.0.11"}],
                       "conditions": [{"type": "DiskPressure", "status": "Unknown"}, {"type": "Ready", "status": status}]}
        }));
        assert_eq!(Node::try_from(&node).unwrap().lost, lost, "{status}");
    }
}

#[test]
fn a_node_without_an_address_is_refused_and_told_what_is_missing() {
    let node: core::Node = object(json!({"metadata": {"name": "node1"}}));
    assert_eq!(
        Node::try_from(&node).unwrap_err().to_string(),
        "Node node1: status.addresses[type=InternalIP] is missing; it must be the node's address on the underlay"
    );
}

#[test]
fn a_block_belongs_to_the_node_of_its_affinity_until_it_is_given_up() {
    let block = |spec: Value| {
        let block: crd::IPAMBlock = object(json!({
            "apiVersion": "crd.projectcalico.org/v1", "kind": "IPAMBlock", "metadata": {"name": "b"}, "spec": spec
        }));
        Block::try_from(&block)
    };
    let owner = |spec: Value| block(spec).unwrap().owner;
    assert_eq!(owner(json!({"cidr": "10.0.0.0/26", "affinity": "host:node1"})), Some("node1".into()));
    assert_eq!(owner(json!({"cidr": "10.0.0.0/26", "affinity": "host:node1", "deleted": true})), None);
    assert_eq!(owner(json!({"cidr": "10.0.0.0/26"})), None);
    assert!(
        block(json!({"cidr": "10.0.0.0/26", "affinity": "node1"})).unwrap_err().to_string().contains("spec.affinity")
    );
    let given =
        block(json!({"cidr": "10.0.0.0/30", "allocations": [null, 0, null, 1], "attributes": [{}, {}]})).unwrap();
    assert_eq!(
        (given.free, [0, 1, 2, 3, 4].map(|place| given.held.has(place))),
        (2, [false, true, false, true, false])
    );
}

#[test]
fn services_are_virtual_headless_or_external() {
    let service = |spec: Value| {
        let service: core::Service = object(json!({"metadata": {"name": "web", "namespace": "test"}, "spec": spec}));
        Service::try_from(&service)
    };
    let web = service(json!({"clusterIP": "10.233.0.7", "clusterIPs": ["10.233.0.7"], "type": "NodePort",
                             "ports": [{"port": 80, "nodePort": 30080}, {"port": 53, "protocol": "UDP", "name": "dns"}]}));
    let web = web.unwrap();
    assert_eq!(web.kind, ServiceKind::Virtual { cluster_ips: vec!["10.233.0.7".parse().unwrap()] });
    assert_eq!(web.ports[0].node_port.unwrap().0, 30080);
    assert_eq!((web.ports[1].protocol, web.ports[1].name.as_str()), (Protocol::Udp, "dns"));
    assert_eq!(service(json!({"clusterIP": "None"})).unwrap().kind, ServiceKind::Headless);
    assert_eq!(
        service(json!({"type": "ExternalName", "externalName": "example.com."})).unwrap().kind,
        ServiceKind::External { name: "example.com".into() }
    );
    assert!(service(json!({})).unwrap_err().to_string().contains("spec.clusterIPs is missing"));
    assert_eq!(
        service(json!({"clusterIP": "None", "ports": [{"port": 70000}]})).unwrap_err().to_string(),
        r#"Service test/web: spec.ports[0].port is "70000"; it must be a port, 1 to 65535"#
    );
}

#[test]
fn what_names_a_service_outside_of_the_cluster_is_kept() {
    let service = |spec: Value| {
        let ingress = json!([{"hostname": "lb.example.net"}, {"ip": "192.0.2.8"}, {"hostname": ""}]);
        let service: core::Service = object(json!({
            "metadata": {"name": "web", "namespace": "test", "labels": {"app": "web"}},
            "spec": spec,
            "status": {"loadBalancer": {"ingress": ingress}}
        }));
        Service::try_from(&service).unwrap()
    };
    let balanced = service(json!({"clusterIPs": ["10.233.0.7"], "type": "LoadBalancer"}));
    assert_eq!(balanced.ingress_names, ["lb.example.net".into()]);
    let of_class = |class: &str| {
        service(json!({"clusterIPs": ["10.233.0.7"], "type": "LoadBalancer", "loadBalancerClass": class})).is_anothers
    };
    assert_eq!((balanced.is_anothers, of_class(CLASS), of_class("example.com/cloud")), (false, false, true));
    assert_eq!((balanced.ingress.len(), balanced.labels["app"].as_str()), (1, "web"));
    assert!(service(json!({"clusterIPs": ["10.233.0.7"]})).ingress_names.is_empty());
    let headless = service(json!({"clusterIP": "None", "externalIPs": ["192.0.2.7"]}));
    assert_eq!((headless.external_ips.len(), headless.labels.len()), (1, 1));
    assert_eq!(service(json!({"type": "ExternalName", "externalName": "a.org"})).labels.len(), 1);
}

#[test]
fn an_endpoint_without_conditions_is_ready_and_serving() {
    let slice: discovery::EndpointSlice = object(json!({
        "metadata": {"name": "web-1", "namespace": "test", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4",
        "ports": [{"name": "", "port": 8080}, {"name": "all"}],
        "endpoints": [
            {"addresses": ["10.0.0.1"], "nodeName": "node1", "targetRef": {"kind": "Pod", "name": "web-x"}},
            {"addresses": ["10.0.0.2"], "conditions": {"ready": false, "serving": true, "terminating": true}}
        ]
    }));
    let slice = EndpointSlice::try_from(&slice).unwrap();
    assert_eq!(slice.ports.len(), 1);
    assert_eq!(slice.ports[0].port, TargetPort(8080));
    let [first, second] = &slice.endpoints[..] else { panic!("two endpoints") };
    assert!(first.ready && first.serving && !first.terminating);
    assert_eq!(first.pod, Some(PodKey::new("test", "web-x")));
    assert!(!second.ready && second.serving && second.terminating);
}

#[test]
fn a_slice_of_no_service_is_refused() {
    let slice: discovery::EndpointSlice =
        object(json!({"metadata": {"name": "s", "namespace": "test"}, "addressType": "IPv4", "endpoints": []}));
    assert!(EndpointSlice::try_from(&slice).unwrap_err().to_string().contains("kubernetes.io/service-name"));
}

#[test]
fn a_pod_with_a_wrong_limit_is_there_and_keeps_the_error() {
    let limited = pod(json!({"kubernetes.io/ingress-bandwidth": "10M"}));
    assert_eq!(limited.limits.unwrap().ingress.bandwidth.unwrap().rate, 10_000_000);
    let wrong = pod(json!({"kubernetes.io/ingress-bandwidth": "10Q"}));
    assert!(wrong.limits.unwrap_err().to_string().contains("kubernetes.io/ingress-bandwidth is \"10Q\""));
    assert!(wrong.request.is_ok(), "its address is another matter");
}

fn node(annotations: Value, spec: Value) -> Result<Node, String> {
    let node: core::Node = object(json!({
        "metadata": {"name": "node1", "annotations": annotations}, "spec": spec,
        "status": {"addresses": [{"type": "InternalIP", "address": "172.29.0.11"}]}
    }));
    Node::try_from(&node).map_err(|error| error.to_string())
}

const KEY: &str = "AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA=";

#[test]
fn a_flannel_node_says_what_its_peers_need() {
    let annotations = json!({
        "flannel.alpha.coreos.com/backend-type": "vxlan", "flannel.alpha.coreos.com/public-ip": "172.29.0.99",
        "flannel.alpha.coreos.com/backend-data": r#"{"VNI":1,"VtepMAC":"8e:66:a0:11:22:33"}"#,
    });
    let node = node(annotations, json!({"podCIDR": "10.244.1.0/24"})).unwrap();
    let lease = node.lease.unwrap();
    assert_eq!((&*lease.backend, lease.public_ip.unwrap().to_string().as_str()), ("vxlan", "172.29.0.99"));
    assert_eq!(lease.vtep_macs.v4.unwrap().to_string(), "8e:66:a0:11:22:33");
    assert_eq!((lease.public_ipv6, lease.vtep_macs.v6), (None, None));
    assert_eq!(node.pod_cidrs, ["10.244.1.0/24".parse().unwrap()]);
}

#[test]
fn a_node_says_where_its_records_of_flows_go() {
    let recorded_to = |annotations| node(annotations, json!({})).unwrap().recorded_to;
    let said = json!({"flows.podnet.io/recorded-to": "1a2b3c4d,log"});
    assert_eq!(recorded_to(said).as_deref(), Some("1a2b3c4d,log"));
    assert_eq!(recorded_to(json!({"flows.podnet.io/recorded-to": ""})), None);
    assert_eq!(recorded_to(json!({})), None);
}

#[test]
fn a_wireguard_key_is_read_from_calicos_annotation_or_flannels() {
    let calico = json!({"projectcalico.org/WireguardPublicKey": KEY});
    assert_eq!(node(calico, json!({})).unwrap().wireguard_key.unwrap().to_string(), KEY);
    let flannel = json!({
        "flannel.alpha.coreos.com/backend-type": "wireguard", "flannel.alpha.coreos.com/public-ip": "172.29.0.11",
        "flannel.alpha.coreos.com/backend-data": format!(r#"{{"PublicKey":"{KEY}"}}"#),
    });
    assert_eq!(node(flannel, json!({})).unwrap().wireguard_key.unwrap().to_string(), KEY);
    let wrong = json!({"projectcalico.org/WireguardPublicKey": "x"});
    let message = "Node node1: metadata.annotations[projectcalico.org/WireguardPublicKey] is \"x\"; it must be a WireGuard \
                   key: 32 bytes in Base64";
    let node = node(wrong, json!({})).unwrap();
    assert_eq!((node.wireguard_key, node.wrong.as_deref()), (None, Some(message)), "the node is there all the same");
}

#[test]
fn a_node_with_wrong_words_for_flannels_nodes_is_there_without_them() {
    let annotations = json!({
        "flannel.alpha.coreos.com/backend-type": "vxlan", "flannel.alpha.coreos.com/public-ip": "172.29.0",
        "projectcalico.org/WireguardPublicKey": KEY,
    });
    let node = node(annotations, json!({"podCIDR": "10.244.1.0/24"})).unwrap();
    assert_eq!((node.lease, node.wireguard_key.unwrap().to_string().as_str()), (None, KEY));
    assert!(node.wrong.unwrap().contains("public-ip] is \"172.29.0\"; it must be an IPv4 address"));
}

#[test]
fn a_host_gw_node_has_null_as_its_data() {
    let annotations = json!({
        "flannel.alpha.coreos.com/backend-type": "host-gw", "flannel.alpha.coreos.com/public-ip": "172.29.0.11",
        "flannel.alpha.coreos.com/backend-data": "null",
    });
    assert_eq!(node(annotations, json!({})).unwrap().lease.unwrap().vtep_macs, Dual::default());
}

fn net_conf(document: &str) -> Result<NetConf, String> {
    let map: core::ConfigMap = object(json!({
        "metadata": {"name": "kube-flannel-cfg", "namespace": "kube-flannel"}, "data": {"net-conf.json": document}
    }));
    NetConf::try_from(&map).map_err(|error| error.to_string())
}

#[test]
fn net_conf_json_is_read_with_flannels_defaults() {
    for (backend, expected) in [
        (r#"{"Type": "vxlan"}"#, Backend::Vxlan { vni: 1, port: 8472, direct_routing: false }),
        (
            r#"{"Type": "vxlan", "VNI": 4096, "Port": 4789, "DirectRouting": true}"#,
            Backend::Vxlan { vni: 4096, port: 4789, direct_routing: true },
        ),
        (r#"{"Type": "host-gw"}"#, Backend::HostGw),
        (r#"{"Type": "ipip"}"#, Backend::Ipip { direct_routing: false }),
        (r#"{"Type": "wireguard", "ListenPort": 51821}"#, Backend::WireGuard { port: 51821 }),
        (r#"{"Type": "udp"}"#, Backend::Udp { port: 8285 }),
        (r#"{"Type": "alloc"}"#, Backend::Alloc),
        ("{}", Backend::Udp { port: 8285 }),
    ] {
        let conf = net_conf(&format!(r#"{{"Network": "10.244.0.0/16", "Backend": {backend}}}"#)).unwrap();
        assert_eq!((conf.networks.v4.unwrap().to_string().as_str(), conf.subnet_len), ("10.244.0.0/16", 24));
        assert_eq!(conf.backend, expected, "{backend}");
    }
    assert_eq!(net_conf(r#"{"Network": "10.244.0.0/25"}"#).unwrap().subnet_len, 26);
}

#[test]
fn a_wrong_net_conf_json_is_refused_with_field_value_and_what_is_allowed() {
    let prefix = "ConfigMap kube-flannel/kube-flannel-cfg: data[net-conf.json]";
    for (document, message) in [
        (r#"{"Network": "pods"}"#, r#".Network is "pods"; it must be an IPv4 range, for example 10.244.0.0/16"#),
        (
            r#"{"Network": "10.0.0.0/16", "EnableIPv6": true}"#,
            r#".IPv6Network is ""; it must be an IPv6 range where EnableIPv6 is true, for example fd00:10:244::/56"#,
        ),
        (
            r#"{"Network": "10.0.0.0/16", "EnableIPv6": true, "IPv6Network": "10.1.0.0/16"}"#,
            r#".IPv6Network is "10.1.0.0/16"; it must be an IPv6 range where EnableIPv6 is true, for example fd00:10:244::/56"#,
        ),
        (r#"{"EnableIPv4": false}"#, r#".EnableIPv4 is "false"; it must be true where EnableIPv6 is not"#),
        (r#"{"Network": "10.0.0.0/16", "SubnetLen": 8}"#, r#".SubnetLen is "8"; it must be 16 to 30 for a /16"#),
        (
            r#"{"Network": "10.0.0.0/16", "Backend": {"Type": "aws-vpc"}}"#,
            r#".Backend.Type is "aws-vpc"; it must be vxlan, host-gw, ipip, wireguard, udp, alloc or none"#,
        ),
        (
            r#"{"Network": "10.0.0.0/16", "Backend": {"Type": "vxlan", "VNI": 16777216}}"#,
            r#".Backend.VNI is "16777216"; it must be 1 to 16777215"#,
        ),
    ] {
        assert_eq!(net_conf(document).unwrap_err(), format!("{prefix}{message}"));
    }
    assert!(
        net_conf("{").unwrap_err().starts_with(&format!(r#"{prefix} is "{{"; it must be flannel's configuration"#))
    );
}

#[test]
fn an_address_is_kept_for_pods_of_a_stateful_set_only() {
    let pod = |sticky: &str, kind: &str| {
        let pod = serde_json::json!({
            "metadata": {"name": "db-0", "namespace": "test", "uid": "u", "annotations": {crd::STICKY: sticky},
                "ownerReferences": [{"apiVersion": "apps/v1", "kind": kind, "name": "db", "uid": "s"}]},
        });
        let pod: k8s_openapi::api::core::v1::Pod = serde_json::from_value(pod).unwrap();
        Pod::try_from(&pod).unwrap().request.map(|request| request.sticky.map(|owner| owner.name.to_string()))
    };
    assert_eq!(pod("true", "StatefulSet"), Ok(Some("db".to_owned())));
    assert_eq!(pod("false", "StatefulSet"), Ok(None));
    let error = pod("true", "ReplicaSet").unwrap_err().to_string();
    assert_eq!(error, "the annotation ipam.podnet.io/sticky is for pods of a StatefulSet, whose names come back");
    let error = pod("yes", "StatefulSet").unwrap_err().to_string();
    assert_eq!(error, "the annotation ipam.podnet.io/sticky is \"yes\"; it must be \"true\" or \"false\"");
}

#[test]
fn a_node_that_is_being_deleted_or_about_to_be_is_leaving() {
    let leaving = |metadata: Value, taints: Value| {
        let node: core::Node = object(json!({
            "metadata": metadata, "spec": {"taints": taints},
            "status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.1"}]},
        }));
        Node::try_from(&node).unwrap().leaving
    };
    let taint = |key: &str| json!([{"key": key, "effect": "NoSchedule"}]);
    assert!(!leaving(json!({"name": "node1"}), taint("node.kubernetes.io/unschedulable")));
    assert!(leaving(json!({"name": "node1"}), taint("ToBeDeletedByClusterAutoscaler")));
    assert!(leaving(json!({"name": "node1", "deletionTimestamp": "2026-01-01T00:00:00Z"}), json!([])));
}

#[test]
fn a_slice_tells_when_its_change_was_made() {
    let triggered = |time: Value| {
        let slice: discovery::EndpointSlice = object(json!({
            "metadata": {
                "name": "web-1", "namespace": "test", "labels": {"kubernetes.io/service-name": "web"},
                "annotations": {"endpoints.kubernetes.io/last-change-trigger-time": time},
            },
            "addressType": "IPv4", "endpoints": [],
        }));
        EndpointSlice::try_from(&slice).unwrap().triggered.map(|time| time.to_string())
    };
    assert_eq!(triggered(json!("2026-11-21T14:00:00.5Z")), Some("2026-11-21T14:00:00.5Z".to_owned()));
    assert_eq!(triggered(json!("lately")), None);
}
