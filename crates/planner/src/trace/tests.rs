//! What is traced is what the rules and routes of the nodes say.

mod bridged;
mod limited;
mod ports;
mod rows;

use podnet_model::{
    Block, BlockCidr, Change, EncapMode, Felix, Mac, Node, NodeAddr, Pod, PodAddr, Pool, labels::Labels,
    limits::PodLimits, pod::AddressRequest, proxy::Mode, wireguard::PublicKey,
};

use super::*;
use crate::{
    overlay::vtep_mac,
    step::{Neighbour, Step},
};

fn block(cidr: &str, owner: &str) -> Change {
    let cidr = BlockCidr(cidr.parse().unwrap());
    Change::Block(cidr, Some(Block::new(cidr, Some(owner.into()))))
}

/// Two nodes on one subnet and one on another; a pod on each.
struct Lab {
    pool: Pool,
    more: Vec<Change>,
    keys: bool,
    without_wireguard: Option<&'static str>,
}

impl Lab {
    fn new(pool: Pool) -> Self {
        Self { pool, more: Vec::new(), keys: false, without_wireguard: None }
    }

    fn cluster(&self) -> Cluster {
        let mut changes = vec![Change::Pool(self.pool.name.clone(), Some(self.pool.clone()))];
        let places = [("node1", "192.0.2.11/24", 1), ("node2", "192.0.2.12/24", 2), ("node3", "198.51.100.13/24", 3)];
        for (name, net, number) in places {
            let net: ipnet::IpNet = net.parse().unwrap();
            let key = self.keys.then_some(PublicKey([number; 32]));
            let node = Node { subnet: Some(net), wireguard_key: key, ..Node::new(name.into(), NodeAddr(net.addr())) };
            changes.push(Change::Node(name.into(), Some(node)));
            changes.push(block(&format!("10.1.{number}.0/26"), name));
            changes.push(pod(&format!("p{number}"), name, &format!("10.1.{number}.5")));
        }
        changes.extend(self.more.clone());
        let facts = |node: &str| {
            let mut facts = Facts::new("eth0".into(), 1500, Mode::Nftables);
            facts.support.wireguard = self.without_wireguard != Some(node);
            let mac = Some(Mac([2; 6]));
            let link = Link { mac, ..Link::routed(format!("pn-{node}").into()) };
            facts.links.insert(format!("10.1.{}.5", &node[4..]).parse().unwrap(), link);
            (NodeName::from(node), facts)
        };
        Cluster::new(changes, ["node1", "node2", "node3"].map(facts).into())
    }

    fn to(&self, addr: &str) -> Path {
        let addr = addr.parse().unwrap();
        let from = Source::Pod(PodKey::new("default", "p1"));
        let trace = self.cluster().trace(&from, Target { addr, protocol: Protocol::Tcp, port: 80 }).unwrap();
        assert_eq!(trace.paths.len(), 1);
        trace.paths.into_iter().next().unwrap()
    }
}

fn with_wireguard() -> Lab {
    let felix = Change::Felix(Some(Felix { wireguard: true, ..Felix::default() }));
    Lab { keys: true, more: vec![felix], ..Lab::new(pool(EncapMode::Never, EncapMode::Never)) }
}

fn pool(vxlan: EncapMode, ipip: EncapMode) -> Pool {
    Pool { vxlan, ipip, nat_outgoing: true, ..Pool::new("pods".into(), "10.1.0.0/16".parse().unwrap()) }
}

fn pod(name: &str, node: &str, addr: &str) -> Change {
    let key = PodKey::new("default", name);
    let pod = Pod {
        key: key.clone(),
        uid: name.into(),
        static_uid: None,
        searches: None,
        ndots: None,
        node: Some(node.into()),
        labels: Labels::default(),
        host_network: false,
        addrs: vec![PodAddr(addr.parse().unwrap())],
        finished: false,
        request: Ok(AddressRequest::default()),
        limits: Ok(PodLimits::default()),
    };
    Change::Pod(key, Some(pod))
}

/// Where a path passes: place, what is done, device.
fn passed(path: &Path) -> Vec<String> {
    let device = |hop: &Hop| hop.device.as_ref().map_or("-".to_owned(), ToString::to_string);
    path.hops.iter().map(|hop| format!("{} {} {}", hop.place, hop.kind.name(), device(hop))).collect()
}

const SENT: [&str; 2] = ["pod default/p1 sent eth0", "node node1 received pn-node1"];

#[test]
fn a_pod_of_the_same_node_is_one_route_away() {
    let mut lab = Lab::new(pool(EncapMode::Always, EncapMode::Never));
    lab.more.push(pod("near", "node1", "10.1.1.6"));
    let path = lab.to("10.1.1.6");
    assert_eq!(passed(&path)[2..], ["node node1 routed -", "pod default/near delivered eth0"]);
    assert_eq!(path.end, End { verdict: Verdict::Arrives, why: "pod default/near on node node1".into() });
    assert_eq!(path.hops[0].mtu, Some(1450), "room for VXLAN");
    assert_eq!(path.hops[0].stands.len(), 2, "the pod's default route, and where its gateway is");
}

#[test]
fn each_way_between_nodes_is_followed_into_the_pod() {
    let tunnel = |device: &str, node: &str| {
        let to = format!("p{}", &node[4..]);
        vec![
            format!("node node1 routed {device}"),
            "node node1 encapsulated eth0".into(),
            format!("node {node} received eth0"),
            format!("node {node} decapsulated {device}"),
            format!("node {node} routed pn-{node}"),
            format!("pod default/{to} delivered eth0"),
        ]
    };
    let plain: Vec<String> = [
        "node node1 routed eth0",
        "node node2 received eth0",
        "node node2 routed pn-node2",
        "pod default/p2 delivered eth0",
    ]
    .map(Into::into)
    .into();
    use EncapMode::{Always, CrossSubnet, Never};
    let table = [
        (Lab::new(pool(Always, Never)), "10.1.2.5", tunnel("podnet.vxlan", "node2"), 1450),
        (Lab::new(pool(CrossSubnet, Never)), "10.1.2.5", plain.clone(), 1450),
        (Lab::new(pool(CrossSubnet, Never)), "10.1.3.5", tunnel("podnet.vxlan", "node3"), 1450),
        (Lab::new(pool(Never, Always)), "10.1.3.5", tunnel("podnet.ipip", "node3"), 1480),
        (Lab::new(pool(Never, Never)), "10.1.2.5", plain, 1500),
        (with_wireguard(), "10.1.3.5", tunnel("podnet.wg", "node3"), 1440),
    ];
    for (lab, to, wanted, mtu) in table {
        let path = lab.to(to);
        let way = passed(&path);
        assert_eq!((&way[..2], &way[2..]), (&SENT.map(str::to_owned)[..], &wanted[..]), "{to}");
        assert_eq!(path.end.verdict, Verdict::Arrives);
        assert_eq!(path.hops[0].mtu, Some(mtu), "{to}");
    }
}

#[test]
fn what_has_to_stand_for_vxlan_is_route_device_neighbour_and_fdb_entry() {
    let path = Lab::new(pool(EncapMode::Always, EncapMode::Never)).to("10.1.2.5");
    let rules: Vec<_> = path.hops[2..4].iter().filter_map(|hop| hop.rule.clone()).collect();
    let mac: Mac = vtep_mac(&"node2".into());
    let entries = format!("neighbour 192.0.2.12 lladdr {mac}, fdb {mac} dst 192.0.2.12");
    assert_eq!(rules, ["10.1.2.0/26 via 192.0.2.12 dev podnet.vxlan onlink".to_owned(), entries]);
    assert_eq!((path.hops[2].stands.len(), path.hops[3].stands.len()), (1, 3));
    assert_eq!(path.hops[2].object, Some(Object::global("ipamblock", "10-1-2-0-26")));
    assert_eq!(path.hops[3].cost.as_deref(), Some("50 bytes of headers"));
}

#[test]
fn what_has_to_stand_for_a_pod_is_its_route_and_its_neighbour() {
    let path = Lab::new(pool(EncapMode::Always, EncapMode::Never)).to("10.1.2.5");
    let routed = path.hops.iter().rfind(|hop| hop.kind == Kind::Routed).unwrap();
    let mac = Mac([2; 6]);
    let rule = format!("10.1.2.5 dev pn-node2 scope link, neighbour 10.1.2.5 lladdr {mac}");
    assert_eq!(routed.rule.as_deref(), Some(&*rule));
    let neighbour = Neighbour { device: "pn-node2".into(), addr: "10.1.2.5".parse().unwrap(), mac };
    assert_eq!((routed.stands.len(), routed.stands.last()), (2, Some(&Step::SetNeighbour(neighbour))));
}

#[test]
fn the_world_is_left_to_with_the_node_s_address_and_addresses_without_pods_lead_nowhere() {
    use EncapMode::{Always, Never};
    let lab = Lab::new(pool(Always, Never));
    let world = lab.to("203.0.113.9");
    assert_eq!((world.end.verdict, world.source.to_string().as_str()), (Verdict::Leaves, "192.0.2.11"));
    let masqueraded = world.hops.iter().find(|hop| hop.kind == Kind::Masqueraded).unwrap();
    assert_eq!(masqueraded.object, Some(Object::global("ippool", "pods")));
    let cost = "an entry of connection tracking; every packet and every answer is translated";
    assert_eq!(masqueraded.cost.as_deref(), Some(cost));
    let node = lab.to("192.0.2.12");
    assert_eq!((node.end.verdict, node.source.to_string().as_str()), (Verdict::Arrives, "10.1.1.5"), "nodes know pods");
    for (addr, verdict, why) in [
        ("10.1.1.9", Verdict::Lost, "no pod has 10.1.1.9, which is of a block of node node1"),
        ("10.1.2.9", Verdict::Lost, "no pod has 10.1.2.9, which is of a block of node node2"),
        (
            "10.1.77.9",
            Verdict::NoRoute,
            "no block holds 10.1.77.9: no node gave it to a pod, so node node1 has no route to it",
        ),
    ] {
        assert_eq!(lab.to(addr).end, End { verdict, why: why.into() });
    }
    let far = Lab::new(pool(Never, Never)).to("10.1.3.5");
    assert_eq!(far.end.verdict, Verdict::NoRoute);
    assert!(far.end.why.contains("block 10.1.3.0/26") && far.end.why.contains("vxlanMode"), "{}", far.end.why);
}

#[test]
fn each_hop_between_pods_names_what_it_is_from_and_what_it_costs() {
    use EncapMode::{Always, Never};
    let table = [
        (Lab::new(pool(Always, Never)), Some("50 bytes of headers")),
        (Lab::new(pool(Never, Always)), Some("20 bytes of headers")),
        (with_wireguard(), Some("60 bytes of headers; each packet is encrypted")),
        (Lab::new(pool(Never, Never)), None),
    ];
    for (lab, cost) in table {
        let path = lab.to("10.1.2.5");
        assert!(path.hops.iter().all(|hop| hop.object.is_some()), "{cost:?}: {:#?}", path.hops);
        let outer = path.hops.iter().find(|hop| hop.kind == Kind::Encapsulated);
        assert_eq!(outer.map(Hop::costs), cost);
        assert!(outer.is_none_or(|hop| hop.object == Some(Object::global("node", "node2"))), "{outer:?}");
        let is_decrypted = path.hops.iter().any(|hop| hop.costs() == "each packet is decrypted");
        assert_eq!(is_decrypted, cost.is_some_and(|cost| cost.contains("encrypted")));
        let routed = path.hops.iter().find(|hop| hop.kind == Kind::Routed).unwrap();
        assert_eq!((routed.cost.as_deref(), routed.costs()), (None, Kind::Routed.cost()), "what is but a look");
    }
}

#[test]
fn a_peer_without_the_tunnel_is_where_the_packet_is_lost() {
    // The peer publishes its key, and its kernel cannot use it.
    let path = Lab { without_wireguard: Some("node2"), ..with_wireguard() }.to("10.1.2.5");
    assert_eq!(path.end.verdict, Verdict::Lost);
    assert_eq!(path.end.why, "node node2 has no podnet.wg to take the packet out of its tunnel");
}

#[test]
fn nobody_sends_who_is_not_there_or_has_no_address_of_the_family() {
    let cluster = Lab::new(pool(EncapMode::Always, EncapMode::Never)).cluster();
    let asked = |name: &str, addr: &str| {
        let target = Target { addr: addr.parse().unwrap(), protocol: Protocol::Tcp, port: 80 };
        cluster.trace(&Source::Pod(PodKey::new("default", name)), target).unwrap_err().to_string()
    };
    assert_eq!(asked("nobody", "10.1.2.5"), "there is no pod default/nobody; see: kubectl get pods --all-namespaces");
    assert_eq!(
        asked("p1", "2001:db8::1"),
        "pod default/p1 has no IPv6 address (it has: 10.1.1.5); a destination of a family that it has can be reached"
    );
}
