//! The sets, with kube-proxy's names as far as kube-proxy has them.

use std::collections::BTreeMap;

use ipnet::IpNet;
use podnet_model::{Family, Protocol};

use crate::ipvs::{Set, SetKind, SetName, SetType};

/// The names of the sets of one family.
#[derive(Clone, Debug)]
pub(super) struct Sets {
    /// Every virtual server of an address: how podnet knows its own.
    pub(super) servers: SetName,
    /// The same for virtual servers of marks: the frontend of each, with the mark.
    pub(super) marked: SetName,
    /// Frontends at ClusterIPs.
    pub(super) cluster_ip: SetName,
    /// ClusterIPs.
    pub(super) ips: SetName,
    /// Frontends at external addresses, and those of them that keep the source.
    pub(super) external: [SetName; 2],
    /// Frontends at load balancers' addresses, and those of them that keep the source.
    pub(super) load_balancer: [SetName; 2],
    /// Frontends that only some may come to.
    pub(super) guarded: SetName,
    /// Who may come to which of those.
    pub(super) sources: SetName,
    /// Addresses of external frontends and of load balancers.
    pub(super) elsewhere: SetName,
    /// NodePorts, and those of them that keep the source, by protocol.
    pub(super) node_ports: [[SetName; 2]; 3],
    /// Ports at which load balancers ask for Services.
    pub(super) health_checks: SetName,
    /// A local backend, its port, and itself.
    pub(super) loop_back: SetName,
    /// Frontends that nobody serves.
    pub(super) rejected: SetName,
    /// Frontends that others serve, and none for this node.
    pub(super) dropped: SetName,
    /// The same for all but this node and its pods.
    pub(super) dropped_outside: SetName,
    /// Frontends that have other backends for this node and its pods: with the mark of their virtual server.
    pub(super) inside: SetName,
    /// Ranges of pods.
    pub(super) pods: SetName,
    /// Pods of this node.
    pub(super) local_pods: SetName,
}

/// In the order of [`Sets::node_ports`].
pub(super) const PROTOCOLS: [Protocol; 3] = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];

/// The sets' names in one family: what an agent has to ask for.
#[must_use]
pub fn names(family: Family) -> Vec<SetName> {
    Sets::of(family).empty().into_keys().collect()
}

impl Sets {
    pub(super) fn of(family: Family) -> Self {
        let name = |rest: &str| named(family, rest);
        let of_ports = |protocol: &str| [format!("NODE-PORT-{protocol}"), format!("NODE-PORT-LOCAL-{protocol}")];
        Self {
            servers: name("VIRTUAL-SERVERS"),
            marked: name("MARKED-VIRTUAL-SERVERS"),
            cluster_ip: name("CLUSTER-IP"),
            ips: name("IPVS-IPS"),
            external: ["EXTERNAL-IP", "EXTERNAL-IP-LOCAL"].map(name),
            load_balancer: ["LOAD-BALANCER", "LOAD-BALANCER-LOCAL"].map(name),
            guarded: name("LOAD-BALANCER-FW"),
            sources: name("LOAD-BALANCER-SOURCE-CIDR"),
            elsewhere: name("EXTERNAL-ADDRESSES"),
            node_ports: ["TCP", "UDP", "SCTP-HASH"].map(of_ports).map(|names| names.map(|rest| name(&rest))),
            health_checks: name("HEALTH-CHECK-NODE-PORT"),
            loop_back: name("LOOP-BACK"),
            rejected: name("REJECT"),
            dropped: name("DROP"),
            dropped_outside: name("DROP-OUTSIDE"),
            inside: name("INSIDE"),
            pods: name("PODS"),
            local_pods: name("LOCAL-PODS"),
        }
    }

    /// Those that have no element of a frontend.
    pub(super) fn others(&self) -> [SetName; 3] {
        [self.pods.clone(), self.local_pods.clone(), self.health_checks.clone()]
    }

    /// All of them, with nothing in them.
    pub(super) fn empty(&self) -> BTreeMap<SetName, Set> {
        let plain = |of| move |name: &SetName| (name.clone(), Set::new(SetKind::plain(of)));
        let ports = [&self.servers, &self.cluster_ip, &self.guarded, &self.rejected, &self.dropped];
        let ports = ports.into_iter().chain([&self.dropped_outside]).chain(&self.external).chain(&self.load_balancer);
        let mut sets: BTreeMap<_, _> = ports.map(plain(SetType::Port)).collect();
        let [tcp, udp, sctp] = &self.node_ports;
        sets.extend(tcp.iter().chain(udp).chain([&self.health_checks]).map(plain(SetType::PortAlone)));
        sets.extend(sctp.iter().map(plain(SetType::Port)));
        sets.extend([&self.ips, &self.elsewhere, &self.local_pods].map(plain(SetType::Address)));
        sets.extend([
            plain(SetType::Range)(&self.pods),
            plain(SetType::PortFrom)(&self.loop_back),
            plain(SetType::PortFromRange)(&self.sources),
        ]);
        let with_marks = |name: &SetName| (name.clone(), Set::new(SetKind { of: SetType::Port, marks: true }));
        sets.extend([&self.inside, &self.marked].map(with_marks));
        sets
    }
}

/// `IPSET_MAXNAMELEN` less the terminator. One of kube-proxy's names is longer, and is cut off there by it too.
const LONGEST: usize = 31;

fn named(family: Family, rest: &str) -> SetName {
    let name = match family {
        Family::V4 => format!("KUBE-{rest}"),
        Family::V6 => format!("KUBE-6-{rest}"),
    };
    name.chars().take(LONGEST).collect::<String>().into()
}

/// The range, or both halves of everything: the kernel's sets take no range of everything.
pub(super) fn halves(range: IpNet) -> Vec<IpNet> {
    if range.prefix_len() > 0 {
        return vec![range];
    }
    range.subnets(1).map(Iterator::collect).unwrap_or_default()
}
