//! All nodes of the cluster, planned when a packet comes to them.

use std::{cell::OnceCell, collections::BTreeMap, net::IpAddr, sync::Arc};

use podnet_model::{
    Block, BlockCidr, Change, EndpointSlice, Node, NodeName, Pod, PodKey, Pool, ProxyConfig, Service, ServiceKey,
};

use super::node::{Facts, Planned};

/// The cluster's objects, and what each node makes of them.
#[derive(Debug)]
pub struct Cluster {
    changes: Vec<Change>,
    proxy: Arc<ProxyConfig>,
    /// What is known of each node beside its object.
    facts: BTreeMap<NodeName, Facts>,
    planned: BTreeMap<NodeName, OnceCell<Planned>>,
    nodes: BTreeMap<NodeName, Node>,
    pub(super) pods: BTreeMap<PodKey, Pod>,
    pub(super) services: BTreeMap<ServiceKey, Service>,
    pub(super) slices: Vec<EndpointSlice>,
    pub(super) pools: Vec<Pool>,
    pub(super) blocks: BTreeMap<BlockCidr, Block>,
    /// Whose an address is on the underlay.
    node_addrs: BTreeMap<IpAddr, NodeName>,
    /// Of pods that have a network of their own.
    pod_addrs: BTreeMap<IpAddr, PodKey>,
}

impl Cluster {
    /// Of all objects of the cluster, each told once. A node without facts cannot be planned.
    #[must_use]
    pub fn new(changes: Vec<Change>, facts: BTreeMap<NodeName, Facts>) -> Self {
        let mut new = Self {
            changes: Vec::new(),
            proxy: Arc::default(),
            planned: facts.keys().map(|node| (node.clone(), OnceCell::new())).collect(),
            facts,
            nodes: BTreeMap::new(),
            pods: BTreeMap::new(),
            services: BTreeMap::new(),
            slices: Vec::new(),
            pools: Vec::new(),
            blocks: BTreeMap::new(),
            node_addrs: BTreeMap::new(),
            pod_addrs: BTreeMap::new(),
        };
        changes.iter().for_each(|change| new.index(change));
        new.changes = changes;
        new
    }

    fn index(&mut self, change: &Change) {
        match change {
            Change::Node(name, Some(node)) => {
                let outside = node.lease.iter().flat_map(|lease| {
                    [lease.public_ip.map(IpAddr::V4), lease.public_ipv6.map(IpAddr::V6)].into_iter().flatten()
                });
                for addr in node.own_addrs().chain(outside) {
                    self.node_addrs.entry(addr).or_insert_with(|| name.clone());
                }
                self.nodes.insert(name.clone(), node.clone());
            }
            Change::Pod(key, Some(pod)) => {
                if !pod.host_network && !pod.finished {
                    self.pod_addrs.extend(pod.addrs.iter().map(|addr| (addr.0, key.clone())));
                }
                self.pods.insert(key.clone(), pod.clone());
            }
            Change::Service(key, Some(service)) => drop(self.services.insert(key.clone(), service.clone())),
            Change::Slice(_, Some(slice)) => self.slices.push(slice.clone()),
            Change::Pool(_, Some(pool)) => self.pools.push(pool.clone()),
            Change::Block(cidr, Some(block)) => drop(self.blocks.insert(*cidr, block.clone())),
            Change::Proxy(Some(config)) => self.proxy = config.clone(),
            _ => {}
        }
    }

    /// The node as it is planned; none where it is not there, has no address, or nothing is known of it.
    #[must_use]
    pub fn planned(&self, name: &NodeName) -> Option<&Planned> {
        let (node, facts) = (self.nodes.get(name)?, self.facts.get(name)?);
        let plan = || Planned::new(node, facts.clone(), &self.proxy, &self.changes);
        Some(self.planned.get(name)?.get_or_init(plan))
    }

    /// kube-proxy's configuration.
    #[must_use]
    pub fn proxy(&self) -> &ProxyConfig {
        &self.proxy
    }

    /// The nodes by name.
    #[must_use]
    pub const fn nodes(&self) -> &BTreeMap<NodeName, Node> {
        &self.nodes
    }

    /// The pods by namespace and name.
    #[must_use]
    pub const fn pods(&self) -> &BTreeMap<PodKey, Pod> {
        &self.pods
    }

    /// The Services by namespace and name.
    #[must_use]
    pub const fn services(&self) -> &BTreeMap<ServiceKey, Service> {
        &self.services
    }

    /// The slices of a Service.
    pub fn slices_of<'a>(&'a self, service: &'a ServiceKey) -> impl Iterator<Item = &'a EndpointSlice> {
        self.slices.iter().filter(move |slice| slice.service == *service)
    }

    /// The node with this address on the underlay.
    #[must_use]
    pub fn node_of(&self, addr: IpAddr) -> Option<&NodeName> {
        self.node_addrs.get(&addr)
    }

    /// The pod with this address, of those that have a network of their own.
    #[must_use]
    pub fn pod_of(&self, addr: IpAddr) -> Option<&PodKey> {
        self.pod_addrs.get(&addr)
    }

    /// The smallest pool that an address is of.
    #[must_use]
    pub fn pool_of(&self, addr: IpAddr) -> Option<&Pool> {
        let around = self.pools.iter().filter(|pool| pool.cidr.contains(&addr));
        around.max_by_key(|pool| pool.cidr.prefix_len())
    }

    /// The smallest block that an address is of.
    #[must_use]
    pub fn block_of(&self, addr: IpAddr) -> Option<&Block> {
        let around = self.blocks.values().filter(|block| block.cidr.0.contains(&addr));
        around.max_by_key(|block| block.cidr.0.prefix_len())
    }
}
