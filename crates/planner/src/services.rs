//! Services as rules: frontends and backends are elements, and a change of the cluster is a handful of edits.
//!
//! [`Services`] keeps what it knows of each Service and what it made of each frontend. A change replans its own Service alone
//! and answers with the difference, so it costs the same among ten Services and among ten thousand. The result depends on the
//! cluster's present state only, but for two things that no packet can tell: which slot a backend stands in, and `svc-N` chains
//! that nothing uses at the moment.
//!
//! What is done, by hook (`services/chains.rs` has the rules):
//! - prerouting and output: a frontend's connection is translated to one of its backends, each as likely as the others;
//! - input, forward and output: what is addressed to a frontend without backends, or to a ClusterIP at a port that it has not,
//!   is refused at once;
//! - input and forward: what a pod sends to a port of the nodes' tunnels is dropped (`services/tunnels.rs`);
//! - postrouting: marked connections, connections of a pod to itself through a Service, and pods' connections out of the cluster
//!   (pools with `natOutgoing`) get an address of this node as their source.
//!
//! A value is of one family of addresses, and makes the table of that family: what is of the other one is nothing to it.

mod chains;
mod conflicts;
mod counted;
pub mod ebpf;
mod endpoints;
mod frontends;
#[cfg(any(test, feature = "packet-table"))]
pub mod packet_table;
mod ranges;
mod settle;
mod slots;
mod tunnels;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
};

use ipnet::IpNet;
use podnet_model::{Change, EndpointSlice, Family, NetConf, NodeAddr, NodeName, PodKey, Service, ServiceKey, SliceKey};

use chains::Names;
pub use conflicts::Conflict;
use counted::Counted;
use frontends::{Claim, Frontend};
use ranges::Ranges;
use tunnels::Tunnels;

use crate::ruleset::{BackendAddress, Edit, FrontendKey, RuleSet};

/// The bit of the packet mark that asks for masquerading: the same as kube-proxy's (`masqueradeBit` 14), so that what avoids
/// that bit today avoids ours.
pub const MASQUERADE_MARK: u32 = 0x4000;

/// What the planning depends on that no change of the cluster tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicesConfig {
    /// The family of the addresses that are planned for.
    pub family: Family,
    /// The node that is planned for.
    pub node: NodeName,
    /// Its addresses: where its NodePorts are.
    pub node_addrs: Vec<NodeAddr>,
    /// Where pods' addresses come from, beside the pools.
    pub pod_cidrs: Vec<IpNet>,
    /// Destinations outside the pools to which pods keep their own address, in spite of `natOutgoing`.
    pub no_nat_cidrs: Vec<IpNet>,
    /// Where ClusterIPs come from; none where that is not known.
    pub service_cidr: Option<IpNet>,
    /// The bits of the packet mark that ask for masquerading, [`MASQUERADE_MARK`] as a rule.
    pub masquerade_mark: u32,
}

/// What a change does to this node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The edits, in order: one transaction.
    pub edits: Vec<Edit>,
    /// UDP backends that a frontend lost. Connection tracking would go on sending their clients there as long as these send, so
    /// its entries have to be deleted once the edits are in force.
    pub vanished: Vec<(FrontendKey, BackendAddress)>,
}

/// The rules of Services on one node.
#[derive(Debug)]
pub struct Services {
    config: ServicesConfig,
    names: Names,
    services: HashMap<ServiceKey, Known>,
    slice_owners: HashMap<SliceKey, ServiceKey>,
    frontends: HashMap<FrontendKey, Frontend>,
    /// Frontends that more than one Service claims.
    contested: BTreeSet<FrontendKey>,
    /// The chains for masquerade or not, and number of backends, that were made so far.
    chains: BTreeSet<(bool, u32)>,
    pods: HashMap<PodKey, BTreeSet<IpAddr>>,
    nodes: HashMap<NodeName, BTreeSet<IpAddr>>,
    cluster_ips: Counted,
    local_endpoints: Counted,
    local_pods: Counted,
    node_addrs: Counted,
    ranges: Ranges,
    tunnels: Tunnels,
}

/// What is known of a Service, by its own key and by its slices'.
#[derive(Debug, Default)]
struct Known {
    service: Option<Service>,
    slices: BTreeMap<SliceKey, EndpointSlice>,
    claims: BTreeMap<FrontendKey, Claim>,
    cluster_ips: BTreeSet<IpAddr>,
    local_endpoints: BTreeSet<IpAddr>,
}

impl Services {
    /// Of a cluster of which nothing is known yet.
    #[must_use]
    pub fn new(config: ServicesConfig) -> Self {
        let excluded = config.no_nat_cidrs.iter().copied().chain(config.service_cidr);
        let ranges = Ranges::new(config.family, &config.pod_cidrs, excluded);
        let mut node_addrs = Counted::default();
        node_addrs.replace(&BTreeSet::new(), &of_family(config.family, &config.node_addrs));
        Self {
            config,
            names: Names::default(),
            services: HashMap::new(),
            slice_owners: HashMap::new(),
            frontends: HashMap::new(),
            contested: BTreeSet::new(),
            chains: BTreeSet::new(),
            pods: HashMap::new(),
            nodes: HashMap::new(),
            cluster_ips: Counted::default(),
            local_endpoints: Counted::default(),
            local_pods: Counted::default(),
            node_addrs,
            ranges,
            tunnels: Tunnels::default(),
        }
    }

    /// The rules before any change: what the edits of the first [`Services::apply`] expect to be there.
    #[must_use]
    pub fn initial(&self) -> RuleSet {
        Self::new(self.config.clone()).desired()
    }

    /// Whether there is anything to do: a pod's range or a frontend. Where there is not, no table need be.
    #[must_use]
    pub fn is_needed(&self) -> bool {
        !self.ranges.is_empty() || !self.frontends.is_empty()
    }

    /// Takes a change in and tells what it does. Changes of different objects may come in any order, and again.
    pub fn apply(&mut self, change: &Change) -> Plan {
        let mut plan = Plan::default();
        match change {
            Change::Service(key, service) => self.apply_service(key, service.as_ref(), &mut plan),
            Change::Slice(key, slice) => self.apply_slice(key, slice.as_ref(), &mut plan),
            Change::Pod(key, pod) => self.apply_pod(key, pod.as_ref(), &mut plan),
            Change::Node(name, node) => self.apply_node(name, node.as_ref(), &mut plan),
            Change::Pool(name, pool) => {
                let edits = self.ranges.set_pool(&self.names, name, pool.as_ref());
                plan.edits.extend(edits);
            }
            Change::NetConf(namespace, conf) => {
                for family in Family::ALL {
                    let pool = conf.and_then(|conf| conf.pool(namespace, family));
                    let name = NetConf::pool_name(namespace, family);
                    plan.edits.extend(self.ranges.set_pool(&self.names, &name, pool.as_ref()));
                }
            }
            _ => {}
        }
        plan.edits.extend(self.tunnels.take(&self.names, change));
        plan
    }

    /// The node's own addresses changed: its NodePorts move.
    pub fn set_node_addrs(&mut self, addrs: Vec<NodeAddr>) -> Plan {
        let mut plan = Plan::default();
        let of = |addrs: &[NodeAddr]| of_family(self.config.family, addrs);
        let moved = self.node_addrs.replace(&of(&self.config.node_addrs), &of(&addrs));
        moved.edit_addresses(&self.names.nodes, &mut plan);
        self.config.node_addrs = addrs;
        let keys: Vec<ServiceKey> = self.services.keys().cloned().collect();
        for key in keys {
            self.replan(&key, &mut plan);
        }
        plan
    }

    fn apply_service(&mut self, key: &ServiceKey, service: Option<&Service>, plan: &mut Plan) {
        let family = self.config.family;
        let service = service.filter(|service| frontends::cluster_ips(service, family).next().is_some());
        if self.services.get(key).and_then(|known| known.service.as_ref()) == service {
            return;
        }
        if service.is_none() && !self.services.contains_key(key) {
            return;
        }
        self.services.entry(key.clone()).or_default().service = service.cloned();
        self.replan(key, plan);
    }

    fn apply_slice(&mut self, key: &SliceKey, slice: Option<&EndpointSlice>, plan: &mut Plan) {
        let own = |endpoint: &podnet_model::Endpoint| Family::of(&endpoint.addr.0) == self.config.family;
        let slice = slice.filter(|slice| slice.endpoints.iter().any(own));
        let owner = slice.map(|slice| slice.service.clone());
        let before = match &owner {
            Some(owner) => self.slice_owners.insert(key.clone(), owner.clone()),
            None => self.slice_owners.remove(key),
        };
        if let Some(before) = before.filter(|before| Some(before) != owner.as_ref()) {
            if let Some(known) = self.services.get_mut(&before) {
                known.slices.remove(key);
            }
            self.replan(&before, plan);
        }
        if let (Some(owner), Some(slice)) = (owner, slice) {
            let slices = &mut self.services.entry(owner.clone()).or_default().slices;
            if slices.get(key) != Some(slice) {
                slices.insert(key.clone(), slice.clone());
                self.replan(&owner, plan);
            }
        }
    }

    fn apply_pod(&mut self, key: &PodKey, pod: Option<&podnet_model::Pod>, plan: &mut Plan) {
        let here = pod.filter(|pod| pod.node.as_ref() == Some(&self.config.node) && !pod.host_network && !pod.finished);
        let addrs = here.into_iter().flat_map(|pod| &pod.addrs).map(|addr| addr.0);
        let addrs: BTreeSet<_> = addrs.filter(|addr| Family::of(addr) == self.config.family).collect();
        let before =
            if addrs.is_empty() { self.pods.remove(key) } else { self.pods.insert(key.clone(), addrs.clone()) };
        let moved = self.local_pods.replace(&before.unwrap_or_default(), &addrs);
        moved.edit_addresses(&self.names.local_pods, plan);
    }

    fn apply_node(&mut self, name: &NodeName, node: Option<&podnet_model::Node>, plan: &mut Plan) {
        let addrs =
            node.into_iter().flat_map(|node| [Some(node.addr), node.addr6, node.internal, node.internal6]).flatten();
        let addrs: BTreeSet<_> =
            addrs.map(|addr| addr.0).filter(|addr| Family::of(addr) == self.config.family).collect();
        let before = match addrs.is_empty() {
            true => self.nodes.remove(name),
            false => self.nodes.insert(name.clone(), addrs.clone()),
        };
        let moved = self.node_addrs.replace(&before.unwrap_or_default(), &addrs);
        moved.edit_addresses(&self.names.nodes, plan);
    }
}

fn of_family(family: Family, addrs: &[NodeAddr]) -> BTreeSet<IpAddr> {
    addrs.iter().map(|addr| addr.0).filter(|addr| Family::of(addr) == family).collect()
}

#[cfg(test)]
mod tests;
