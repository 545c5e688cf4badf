//! The Services of the table that ask for more than a ClusterIP and a NodePort.

use std::sync::Arc;

use podnet_model::{
    Change, ClusterIp, Endpoint, NodePort, PodAddr, Protocol, Service, ServiceKey,
    balancer::AddressPool,
    endpoints::Hints,
    service::{Ingress, Port, ServiceKind, TrafficPolicy},
};

use super::{
    cluster::{at_nodes, ending, known, model_service, port, range, ready, slice, starting, tcp, udp},
    six::{range_six, six},
};

const HTTP: [(&str, Protocol, u16); 1] = [("", Protocol::Tcp, 8080)];

pub(super) fn changes() -> Vec<Change> {
    let mut changes = vec![address_pool("203.0.113.0/24")];
    changes.extend(reached_from_outside());
    changes.extend(with_addresses_of_no_pool());
    changes.extend(of_datagrams());
    changes.extend(of_both_families());
    changes.extend(with_local_policies());
    changes.extend(with_hints());
    changes.extend(with_affinity());
    changes.extend(not_for_us());
    changes
}

fn of(service: Service, ports: &[(&str, Protocol, u16)], endpoints: &[Endpoint]) -> [Change; 2] {
    let name = service.key.name.clone();
    [Change::Service(service.key.clone(), Some(service)), slice(&name, "1", ports, endpoints)]
}

fn plain(name: &str, ports: &[Port]) -> Service {
    model_service(name, name, ports)
}

fn load_balanced(name: &str, node_port: u16) -> Service {
    Service { ingress: vec![vip(&format!("{name}-ip"))], ..plain(name, &[at_nodes(tcp("", 80), node_port)]) }
}

fn vip(name: &str) -> Ingress {
    Ingress { addr: known(name), is_proxy: false }
}

fn reached_from_outside() -> Vec<Change> {
    let two = ["web1", "web2"].map(ready);
    let ext = Service {
        external_ips: vec![known("ext-ip"), known("ext-ip2"), known("node2")],
        ..plain("ext", &[tcp("", 8088), port("signal", Protocol::Sctp, 3868)])
    };
    let lb = Service {
        source_ranges: vec![range("0.0.0.0/0"), range("::/0"), range("192.0.2.0/24")],
        ..load_balanced("lb", 30051)
    };
    let proxy =
        Service { ingress: vec![Ingress { is_proxy: true, ..vip("lbproxy-ip") }], ..load_balanced("lbproxy", 30052) };
    let ranges = Service {
        ingress: ["lbranges-ip", "lbranges-ip2"].map(vip).into(),
        source_ranges: vec![range("198.51.100.0/28"), range("198.51.100.7/32"), range("10.233.64.0/24")],
        ..load_balanced("lbranges", 30053)
    };
    let resolver = Service {
        ingress: vec![vip("resolver-ip")],
        ..plain("resolver", &[at_nodes(udp("dns", 53), 30075), tcp("dns-tcp", 53)])
    };
    let both = [("dns", Protocol::Udp, 5353), ("dns-tcp", Protocol::Tcp, 5353)];
    let mobile = Service {
        ingress: vec![vip("mobile-ip")],
        ..plain("mobile", &[at_nodes(port("", Protocol::Sctp, 3868), 30076)])
    };
    let all = ["web1", "web2", "web3"].map(ready);
    let signal = [("", Protocol::Tcp, 8080), ("signal", Protocol::Sctp, 3868)];
    [
        of(ext, &signal, &two),
        of(lb, &HTTP, &all),
        of(proxy, &HTTP, &two),
        of(ranges, &HTTP, &two),
        of(resolver, &both, &["dns1", "dns2"].map(ready)),
        of(mobile, &[("", Protocol::Sctp, 3868)], &["web1", "web3"].map(ready)),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Load balancers of UDP and SCTP: one that nobody serves, one that each node serves by itself, and one for some sources only.
fn of_datagrams() -> Vec<Change> {
    let of_ports = |name: &str, first: u16| {
        let ports = [at_nodes(udp("dns", 53), first), at_nodes(port("signal", Protocol::Sctp, 3868), first + 1)];
        Service { ingress: vec![vip(&format!("{name}-ip"))], ..plain(name, &ports) }
    };
    let mut vacant = Service { external_ips: vec![known("vacant-ext")], ..of_ports("vacant", 30042) };
    vacant.ports.push(at_nodes(tcp("http", 80), 30041));
    let talk = Service {
        external_policy: TrafficPolicy::Local,
        internal_policy: TrafficPolicy::Local,
        health_check: Some(NodePort(31081)),
        ..of_ports("talk", 30081)
    };
    // Of both families, of which each has to do with its own alone.
    let of_six = range_six(range("198.51.100.128/25"));
    let closed = Service {
        ingress: [known("closed-ip"), six(known("closed-ip"))].map(|addr| Ingress { addr, is_proxy: false }).into(),
        source_ranges: vec![range("198.51.100.0/28"), of_six, range("10.233.64.0/24")],
        ..of_ports("closed", 30084)
    };
    let both = [("dns", Protocol::Udp, 5353), ("signal", Protocol::Sctp, 3868)];
    [
        of(vacant, &both, &[]),
        of(talk, &both, &["dns1", "shop1", "web3"].map(ready)),
        of(closed, &both, &["dns1", "web2"].map(ready)),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// One Service with addresses and slices of both families: the pods behind it are not the same in both.
fn of_both_families() -> Vec<Change> {
    let both = |name: &str| [known(name), six(known(name))];
    let ingress = both("both-ip").map(|addr| Ingress { addr, is_proxy: false });
    let kind = ServiceKind::Virtual { cluster_ips: both("both").map(ClusterIp).into() };
    let service = Service { kind, ingress: ingress.into(), ..plain("both", &[at_nodes(tcp("", 80), 30086)]) };
    let by_six = |name: &str| Endpoint { addr: PodAddr(six(known(name))), ..ready(name) };
    let mut changes = of(service, &HTTP, &["web1", "web2"].map(ready)).to_vec();
    changes.push(slice("both", "2", &HTTP, &["shop1", "web2"].map(by_six)));
    changes
}

/// Of its addresses load balancers are given theirs.
fn address_pool(range: &str) -> Change {
    let pool = AddressPool::new("outside", vec![range.parse().expect("a range")]);
    Change::AddressPool(ServiceKey::new("kube-system", "outside"), Some(Arc::new(pool)))
}

/// One that anybody may have written, and one that another controller gave.
fn with_addresses_of_no_pool() -> Vec<Change> {
    let one = [ready("web1")];
    let strange = load_balanced("strange", 30177);
    let cloud = Service { is_anothers: true, ..load_balanced("cloud", 30178) };
    [of(strange, &HTTP, &one), of(cloud, &HTTP, &one)].into_iter().flatten().collect()
}

fn with_local_policies() -> Vec<Change> {
    let outside = |service: Service| {
        let health_check = service.ports[0].node_port.map(|port| NodePort(port.0 + 1000));
        Service { external_policy: TrafficPolicy::Local, health_check, ..service }
    };
    let inside = |service| Service { internal_policy: TrafficPolicy::Local, ..service };
    let local = outside(load_balanced("local", 30054));
    let inlocal = inside(plain("inlocal", &[at_nodes(tcp("", 80), 30055)]));
    let innone = inside(plain("innone", &[tcp("", 80)]));
    let interm = inside(plain("interm", &[tcp("", 80)]));
    let extnone = outside(load_balanced("extnone", 30058));
    let localterm = outside(load_balanced("localterm", 30059));
    // All three that decide by who comes, at an address that it has together with another Service.
    let guard = outside(Service {
        affinity: Some(600),
        ingress: vec![vip("lbranges-ip")],
        source_ranges: vec![range("198.51.100.0/28"), range("10.233.64.0/24")],
        ..plain("guard", &[at_nodes(tcp("", 8090), 30087)])
    });
    [
        of(local, &HTTP, &["web1", "shop1", "web3"].map(ready)),
        of(inlocal, &HTTP, &["web1", "web2"].map(ready)),
        of(innone, &HTTP, &[starting("web1")]),
        of(interm, &HTTP, &[ending("web1"), starting("shop1"), ready("web2")]),
        of(extnone, &HTTP, &[starting("web1")]),
        of(localterm, &HTTP, &[ending("web1"), ready("web2")]),
        of(guard, &HTTP, &["web1", "shop1", "web3"].map(ready)),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// An endpoint that is meant for these zones and nodes.
fn hinted(name: &str, zones: &[&str], nodes: &[&str]) -> Endpoint {
    let hints = Hints {
        zones: zones.iter().map(|zone| (*zone).into()).collect(),
        nodes: nodes.iter().map(|node| (*node).into()).collect(),
    };
    Endpoint { hints, ..ready(name) }
}

fn with_hints() -> Vec<Change> {
    let service = |name| plain(name, &[tcp("", 80)]);
    let unready = starting("shop2");
    [
        of(
            service("zonal"),
            &HTTP,
            &[hinted("web1", &["a"], &[]), hinted("web2", &["b", "c"], &[]), hinted("web3", &["b"], &[]), unready],
        ),
        of(service("halfzonal"), &HTTP, &[hinted("web1", &["a"], &[]), ready("web2")]),
        of(service("elsezone"), &HTTP, &[hinted("web1", &["c"], &[]), hinted("web2", &["c"], &[])]),
        of(service("samenode"), &HTTP, &[hinted("web1", &[], &["node1"]), hinted("web2", &[], &["node2", "node4"])]),
        of(
            service("nodezone"),
            &HTTP,
            &[
                hinted("web1", &["a"], &["node1"]),
                hinted("shop1", &["a"], &["node9"]),
                hinted("web2", &["b"], &["node2"]),
                hinted("shop2", &["b"], &["node8"]),
            ],
        ),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn with_affinity() -> Vec<Change> {
    let ports = [
        at_nodes(tcp("", 80), 30070),
        at_nodes(udp("dns", 53), 30072),
        at_nodes(port("signal", Protocol::Sctp, 3868), 30073),
    ];
    let sticky = Service { affinity: Some(10_800), external_ips: vec![known("sticky-ip")], ..plain("sticky", &ports) };
    let stickylocal = Service {
        affinity: Some(600),
        external_policy: TrafficPolicy::Local,
        ..plain("stickylocal", &[at_nodes(tcp("", 80), 30071)])
    };
    let ports = [("", Protocol::Tcp, 8080), ("dns", Protocol::Udp, 5353), ("signal", Protocol::Sctp, 3868)];
    let sticky = of(sticky, &ports, &["web1", "web2", "web3"].map(ready));
    let stickylocal = of(stickylocal, &HTTP, &["web1", "shop1", "web3"].map(ready));
    [sticky, stickylocal].into_iter().flatten().collect()
}

fn not_for_us() -> Vec<Change> {
    let others = Service { proxy: Some("somebody-else".into()), ..plain("others", &[at_nodes(tcp("", 80), 30077)]) };
    // A ClusterIP stays its Service's, whoever names it as an external address; and so do the ports of a node's own address.
    let thief = Service { external_ips: vec![known("web")], ..plain("thief", &[tcp("", 80)]) };
    let mut changes: Vec<Change> = [
        of(others, &HTTP, &[ready("web1")]),
        of(thief, &HTTP, &[ready("shop1")]),
        of(plain("unlisted", &[tcp("", 80)]), &HTTP, &[ready("web1")]),
    ]
    .into_iter()
    .flatten()
    .collect();
    if let Some(Change::Slice(_, Some(slice))) = changes.last_mut() {
        slice.unproxied = true;
    }
    changes
}
