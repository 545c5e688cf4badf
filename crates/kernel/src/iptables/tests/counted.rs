//! What rules have counted, by connections and by what programs say.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

use podnet_model::{
    Change, ClusterIp, Endpoint, EndpointSlice, NodeAddr, NodePort, PodAddr, Service, ServicePort, SliceKey,
    TargetPort,
    endpoints::EndpointPort,
    service::{Port, ServiceKind},
};
use podnet_planner::services::{
    Services, ServicesConfig,
    iptables::{Iptables as Chains, counts_from_loopback},
};

use super::*;

const NODE_PORT: u16 = 30_080;
/// A port of the node's that somebody else leads to the pod.
const HOST_PORT: u16 = 8081;
const CLUSTER_IP: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 96, 0, 10));
const POD: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
const NODE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

/// A Service with a NodePort, at the loopback too.
fn services() -> Services {
    let loopback = vec![Ipv4Addr::LOCALHOST.into()];
    let config = ServicesConfig { loopback, ..ServicesConfig::new(Family::V4, "node1".into(), vec![NodeAddr(NODE)]) };
    let mut services = Services::new(config);
    let key = ServiceKey::new("default", "web");
    let node_port = Some(NodePort(NODE_PORT));
    let port = Port { name: "".into(), protocol: Protocol::Tcp, port: ServicePort(80), node_port };
    let kind = ServiceKind::Virtual { cluster_ips: vec![ClusterIp(CLUSTER_IP)] };
    let slice = EndpointSlice {
        key: SliceKey::new("default", "web-1"),
        service: key.clone(),
        ports: vec![EndpointPort { name: "".into(), protocol: Protocol::Tcp, port: TargetPort(8080) }],
        endpoints: vec![Endpoint::new(PodAddr(POD))],
        triggered: None,
        unproxied: false,
    };
    services.apply(&Change::Service(key.clone(), Some(Service::new(key, kind, vec![port]))));
    services.apply(&Change::Slice(slice.key.clone(), Some(slice)));
    services
}

#[test]
fn connections_to_node_ports_of_the_loopback_are_counted_one_by_one_and_no_others() {
    for variant in [Variant::Legacy, Variant::Nft] {
        let ns = TestNs::new(&format!("ipt-loopback-{variant}"));
        ns.command("ip link set lo up");
        for addr in [NODE, POD] {
            ns.command(&format!("ip addr add {addr}/32 dev lo"));
        }
        ns.command(&format!("ip route add {CLUSTER_IP} dev lo src {NODE}"));
        for setting in ["route_localnet", "accept_local"] {
            ns.command(&format!("sysctl -qw net.ipv4.conf.all.{setting}=1"));
        }
        let _listener = ns.run(|| TcpListener::bind((POD, 8080))).unwrap().unwrap();
        let services = services();
        let mut iptables = Iptables::new(ns.clone(), Family::V4, variant).unwrap();
        iptables.put(&Chains::new(&services).desired(&services)).unwrap();
        let tool = program(iptables.variant(), Family::V4, "");
        let theirs = format!("-d 127.0.0.1/32 -p tcp --dport {HOST_PORT} -j DNAT --to-destination {POD}:8080");
        ns.command(&format!("{tool} -t nat -A OUTPUT {theirs}"));
        let rule = iptables.first_rule(counts_from_loopback(services.config()).unwrap());
        for (to, port, counted) in [
            (Ipv4Addr::LOCALHOST.into(), NODE_PORT, 1),
            (Ipv4Addr::LOCALHOST.into(), HOST_PORT, 1),
            (CLUSTER_IP, 80, 1),
            (NODE, NODE_PORT, 1),
            (Ipv4Addr::LOCALHOST.into(), NODE_PORT, 2),
        ] {
            let to = SocketAddr::new(to, port);
            let connected = ns.run(|| TcpStream::connect_timeout(&to, Duration::from_secs(1))).unwrap();
            // Whether answers to the loopback are taken is another matter.
            assert!(connected.is_ok() || to.ip().is_loopback(), "{variant}: {to}: {connected:?}");
            assert_eq!(rule.packets().unwrap(), Some(counted), "{variant}: {to}");
        }
    }
}

#[test]
fn what_the_first_rule_of_a_chain_has_counted_is_told_as_the_program_tells_it() {
    each("ipt-counts", |ns, iptables, family| {
        let rule = |name: &str| iptables.first_rule(ChainKey::new(Table::Nat, name));
        let [postrouting, ping, nowhere] = ["KUBE-POSTROUTING", "KUBE-PING", "KUBE-NOWHERE"].map(rule);
        assert_eq!(postrouting.packets().unwrap(), None, "there is no table");
        iptables.put(&rules(family)).unwrap();
        assert_eq!(postrouting.packets().unwrap(), Some(0));
        assert_eq!(ping.packets().unwrap(), None, "it has no rules");
        assert_eq!(nowhere.packets().unwrap(), None);
        if (iptables.variant(), family) == (Variant::Nft, Family::V6) {
            // This program writes no counts (1.8.9).
            return;
        }
        let tool = program(iptables.variant(), family, "");
        ns.command(&format!("{tool} -t nat -R KUBE-POSTROUTING 1 -c 7 420 -j RETURN"));
        ns.command(&format!("{tool} -t nat -A KUBE-PING -c 5 300"));
        assert_eq!([postrouting, ping].map(|rule| rule.packets().unwrap()), [Some(7), Some(5)]);
    });
}
