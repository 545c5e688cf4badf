//! Two nodes in namespaces with a pod each, and between them what the planner says.

use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;
use podnet_kernel::{
    carrier::RunningCarrier,
    executor,
    link::{self, Veth, VethPeer},
    netlink::RtSocket,
    pod_interface::PodInterface,
};
use podnet_model::{
    Block, BlockCidr, Change, Dual, EncapMode, Felix, Mac, NetConf, Node, NodeAddr, Pool, flannel::Backend,
    wireguard::KeyPair,
};
use podnet_planner::{
    overlay::{Overlay, OverlayConfig, Place},
    step::Step,
};

use crate::{
    namespace::Namespace,
    probes::{self, Connection},
};

/// How the nodes are joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Underlay {
    /// By a wire.
    OneSubnet,
    /// By a router between two subnets.
    Routed,
}

/// Of which families the nodes' addresses are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outside {
    V4,
    Both,
    V6,
    /// Both the first node's, and of IPv6 alone the second one's.
    Mixed,
}

impl Outside {
    /// The nodes' addresses, and those of the router next to each.
    fn addresses(self, underlay: Underlay, number: usize) -> Vec<(IpNet, IpAddr)> {
        let v4 = match underlay {
            Underlay::OneSubnet => (format!("192.0.2.{number}/24"), "192.0.2.254".to_owned()),
            Underlay::Routed => {
                (format!("192.0.2.{}/25", [1, 129][number - 1]), format!("192.0.2.{}", [126, 254][number - 1]))
            }
        };
        let v6 = match underlay {
            Underlay::OneSubnet => (format!("2001:db8::{number}/64"), "2001:db8::fe".to_owned()),
            Underlay::Routed => (format!("2001:db8:{number}::{number}/64"), format!("2001:db8:{number}::fe")),
        };
        let chosen = match self {
            Self::V4 => vec![v4],
            Self::Both => vec![v4, v6],
            Self::Mixed if number == 1 => vec![v4, v6],
            Self::V6 | Self::Mixed => vec![v6],
        };
        chosen.iter().map(|(own, router)| (own.parse().unwrap(), router.parse().unwrap())).collect()
    }
}

/// The pool with the blocks of IPv4.
pub(crate) fn pool(vxlan: EncapMode, ipip: EncapMode) -> Change {
    pool_of("default", "10.233.0.0/16", vxlan, ipip)
}

/// The pool with the blocks of IPv6.
pub(crate) fn pool6(vxlan: EncapMode) -> Change {
    pool_of("default6", "fd00:233::/48", vxlan, EncapMode::Never)
}

fn pool_of(name: &str, cidr: &str, vxlan: EncapMode, ipip: EncapMode) -> Change {
    let pool = Pool { vxlan, ipip, ..Pool::new(name.into(), cidr.parse().unwrap()) };
    Change::Pool(pool.name.clone(), Some(pool))
}

/// flannel's configuration for the same range, and no pool.
pub(crate) fn net_conf(backend: Backend) -> Change {
    let networks = Dual { v4: "10.233.0.0/16".parse().ok(), v6: None };
    let conf = NetConf { networks, subnet_len: 24, backend };
    Change::NetConf("kube-flannel".into(), Some(conf))
}

/// Encryption on, for all nodes.
pub(crate) fn felix() -> Change {
    Change::Felix(Some(Felix { wireguard: true, ..Felix::default() }))
}

/// The node's end of a pod's link.
pub(crate) const LINK: &str = "pnpod";

pub(crate) struct Lab {
    pub(crate) nodes: Vec<LabNode>,
    pub(crate) router: Option<Namespace>,
    /// All changes that the first node was told of.
    pub(crate) told: Vec<Change>,
    underlay: Underlay,
    outside: Outside,
}

pub(crate) struct LabNode {
    pub(crate) pod: Namespace,
    pub(crate) pod_address: IpAddr,
    pub(crate) pod_address6: IpAddr,
    pub(crate) socket: RtSocket,
    pub(crate) overlay: Overlay,
    pub(crate) carrier: Option<RunningCarrier>,
    pub(crate) namespace: Namespace,
}

impl Lab {
    /// Nodes and pods, and in force what the pool wants.
    pub(crate) fn new(tag: &str, underlay: Underlay, pool: &Change) -> Self {
        Self::with(tag, underlay, Outside::V4, 1500, &[pool])
    }

    /// The same with nodes' addresses of these families, and this MTU of pods: a node without an IPv6 address cannot tell a pod that a
    /// packet was too big.
    pub(crate) fn with(tag: &str, underlay: Underlay, outside: Outside, pod_mtu: u32, pools: &[&Change]) -> Self {
        let namespaces = [1, 2].map(|number| Namespace::new(&format!("{tag}-node{number}")));
        let router = join(tag, underlay, outside, &namespaces);
        let nodes = (1..).zip(namespaces).map(|(number, namespace)| {
            let mut node = LabNode::new(tag, number, namespace, pod_mtu);
            let addr6 = outside.addresses(underlay, number).into_iter().find_map(|(own, _)| v6(own));
            node.overlay.set_underlay(Place { addr6, ..node.overlay.config().underlay.clone() });
            node
        });
        let mut lab = Self { nodes: nodes.collect(), router, told: Vec::new(), underlay, outside };
        let changes: Vec<Change> = (1..=2).flat_map(|number| objects(number, underlay, outside)).collect();
        for node in 0..2 {
            for change in changes.iter().chain(pools.iter().copied()) {
                lab.apply(node, change);
            }
        }
        lab
    }

    /// Takes a change over on one node.
    pub(crate) fn apply(&mut self, node: usize, change: &Change) {
        if node == 0 {
            self.told.push(change.clone());
        }
        let node = &mut self.nodes[node];
        let steps = node.overlay.apply(change);
        let applied = executor::apply(&mut node.socket, &steps).unwrap_or_else(|error| panic!("{error}: {error:?}"));
        assert_eq!(applied.remade, []);
        node.carry();
    }

    /// Takes a change over on both nodes, one after the other.
    pub(crate) fn apply_everywhere(&mut self, change: &Change) {
        for node in 0..self.nodes.len() {
            self.apply(node, change);
        }
    }

    /// Both nodes learn that one of them shows this key. It has it already, with the next one of the same ten.
    pub(crate) fn publish_key(&mut self, number: usize, secret: u8) {
        let pair = |secret| KeyPair::of_secret([secret; 32]);
        let steps =
            self.nodes[number - 1].overlay.set_keys([0, 1].map(|index| pair(secret / 10 * 10 + index)).to_vec());
        assert_eq!(steps, []);
        let [node, ..] = objects(number, self.underlay, self.outside);
        let Change::Node(name, Some(node)) = node else { panic!("a node") };
        let node = Node { wireguard_key: Some(pair(secret).public), ..node };
        self.apply_everywhere(&Change::Node(name, Some(node)));
    }

    /// What the nodes would change in what is there.
    pub(crate) fn repairs(&mut self) -> Vec<Step> {
        let repairs = self.nodes.iter_mut().map(|node| {
            let observed = executor::observe(&mut node.socket, &node.overlay.config().vxlan_names()).unwrap();
            node.overlay.repair(&observed.into())
        });
        repairs.flatten().collect()
    }

    /// podnet's devices on the first node.
    pub(crate) fn devices(&mut self) -> Vec<String> {
        let links = link::list(&mut self.nodes[0].socket).unwrap();
        links.iter().map(|link| link.name.to_string()).filter(|name| name.starts_with("podnet.")).collect()
    }

    /// ICMP, UDP, TCP and fragments of each pass between the pods by IPv4, both ways; `mtu` is what fits unfragmented.
    pub(crate) fn everything_passes(&mut self, mtu: usize) {
        self.passes(|node| node.pod_address, mtu, matches!(self.outside, Outside::V4 | Outside::Both));
        self.connect().exchange();
    }

    /// The same by IPv6.
    pub(crate) fn everything_passes_by_ipv6(&mut self, mtu: usize) {
        self.passes(|node| node.pod_address6, mtu, self.outside != Outside::V4);
        self.connect_by_ipv6().exchange();
    }

    /// `from_node` says whether the nodes have addresses of the family.
    fn passes(&self, address: impl Fn(&LabNode) -> IpAddr, mtu: usize, from_node: bool) {
        let [first, second] = &self.nodes[..] else { panic!("two nodes") };
        for (from, to) in [(first, second), (second, first)] {
            let target = address(to);
            probes::ping(&from.pod, target, &["-s", "56"]);
            // The largest packet that is not cut into pieces: the header of IP and 8 bytes of ICMP or UDP are around it.
            let most = mtu - if target.is_ipv4() { 28 } else { 48 };
            probes::ping(&from.pod, target, &["-M", "do", "-s", &most.to_string()]);
            probes::ping(&from.pod, target, &["-s", "4000"]);
            probes::udp_echo(&from.pod, &to.pod, target, &[100, most, 4000, 20_000]);
            if from_node {
                probes::ping(&from.namespace, target, &["-s", "56"]);
            }
        }
    }

    /// A TCP connection from the first node's pod to the other's.
    pub(crate) fn connect(&self) -> Connection {
        Connection::open(&self.nodes[0].pod, &self.nodes[1].pod, self.nodes[1].pod_address)
    }

    pub(crate) fn connect_by_ipv6(&self) -> Connection {
        Connection::open(&self.nodes[0].pod, &self.nodes[1].pod, self.nodes[1].pod_address6)
    }
}

impl LabNode {
    /// As the agent does after each change.
    pub(crate) fn carry(&mut self) {
        let Some(wanted) = self.overlay.carrier() else {
            self.carrier = None;
            return;
        };
        if !self.carrier.as_mut().is_some_and(|carrier| carrier.follow(&wanted)) {
            self.carrier = None;
            self.carrier = Some(RunningCarrier::start(&self.namespace.netns, &wanted).unwrap());
        }
    }

    fn new(tag: &str, number: usize, namespace: Namespace, mtu: u32) -> Self {
        let name = format!("node{number}");
        let pod = Namespace::new(&format!("{tag}-pod{number}"));
        let mut socket = RtSocket::open_in(&namespace.netns).unwrap();
        let low = u8::try_from(number).unwrap();
        let pod_address: IpAddr = format!("10.233.{number}.5").parse().unwrap();
        let pod_address6: IpAddr = format!("fd00:233::{number}:5").parse().unwrap();
        let interface = PodInterface {
            netns: pod.netns.clone(),
            container_ifname: "eth0".into(),
            host_ifname: LINK.into(),
            addr: vec![pod_address, pod_address6],
            routes: Vec::new(),
            mtu,
            pod_mac: Mac([2, 0, 0, 0, 1, low]),
            host_mac: Mac([2, 0, 0, 0, 2, low]),
            bridge: None,
        };
        interface.create(&mut socket).unwrap();
        let overlay = Overlay::new(OverlayConfig::new(name.as_str().into(), "eth0".into(), 1500));
        Self { pod, pod_address, pod_address6, socket, overlay, carrier: None, namespace }
    }
}

fn objects(number: usize, underlay: Underlay, outside: Outside) -> [Change; 3] {
    let subnets = || outside.addresses(underlay, number).into_iter().map(|(own, _)| own);
    let name = format!("node{number}").as_str().into();
    let subnet6 = subnets().find(|own| v6(*own).is_some());
    let node = Node {
        subnet: subnets().find(|own| v6(*own).is_none()),
        addr6: subnet6.map(|own| NodeAddr(own.addr())),
        subnet6,
        ..Node::new(name, NodeAddr(subnets().next().unwrap().addr()))
    };
    let block = |cidr: String| {
        let cidr = BlockCidr(cidr.parse().unwrap());
        Change::Block(cidr, Some(Block::new(cidr, Some(node.name.clone()))))
    };
    let blocks = [block(format!("10.233.{number}.0/26")), block(format!("fd00:233::{number}:0/122"))];
    let [four, six] = blocks;
    [Change::Node(node.name.clone(), Some(node)), four, six]
}

fn v6(own: IpNet) -> Option<Ipv6Addr> {
    match own.addr() {
        IpAddr::V4(_) => None,
        IpAddr::V6(addr) => Some(addr),
    }
}

/// Joins the nodes' namespaces; the router's, where there is one.
fn join(tag: &str, underlay: Underlay, outside: Outside, nodes: &[Namespace; 2]) -> Option<Namespace> {
    let veth = |from: &Namespace, name: &str, to: &Namespace, peer: &str| {
        let mut socket = RtSocket::open_in(&from.netns).unwrap();
        let peer = VethPeer { name: peer, mac: None, netns: Some(&to.netns) };
        link::create_veth(&mut socket, &Veth { name, mac: None, peer, mtu: 1500 }).unwrap();
    };
    let router = (underlay == Underlay::Routed).then(|| Namespace::new(&format!("{tag}-router")));
    match &router {
        None => veth(&nodes[0], "eth0", &nodes[1], "eth0"),
        Some(router) => {
            for (number, node) in (1..).zip(nodes) {
                let name = format!("eth{number}");
                veth(node, "eth0", router, &name);
                router.command(&format!("ip link set {name} up"));
                for (own, gateway) in outside.addresses(underlay, number) {
                    let gateway = IpNet::new(gateway, own.prefix_len()).unwrap();
                    router.command(&format!("ip addr add {gateway} dev {name}"));
                }
            }
        }
    }
    for (number, node) in (1..).zip(nodes) {
        node.command("ip link set eth0 up");
        for (own, gateway) in outside.addresses(underlay, number) {
            node.command(&format!("ip addr add {own} dev eth0"));
            if router.is_some() {
                node.command(&format!("ip route add default via {gateway}"));
            }
        }
    }
    router
}
