//! Services on one node: what is done for each frontend, and how that is rendered.
//!
//! [`Services`] keeps what it knows of each Service and what is done for each frontend, a [`Serving`]. A change replans its own Service alone
//! and answers with the difference, a [`Plan`], so it costs the same among ten Services and among ten thousand. The result depends on the
//! cluster's present state only, but for what no packet can tell: which slot a backend stands in.
//!
//! There is one renderer for each mode, a pure function from plans to what that mode writes: [`nftables`] makes a table's edits, [`iptables`] chains, [`ipvs`] virtual servers.
//!
//! A value is of one family of addresses: what is of the other one is nothing to it.

mod borders;
mod claims;
mod config;
mod conflicts;
pub mod ebpf;
mod endpoints;
mod given;
mod health;
pub mod iptables;
pub mod ipvs;
mod lives;
pub mod loopback;
mod narrowed;
pub mod nftables;
#[cfg(any(test, feature = "packet-table"))]
pub mod packet_table;
mod serving;
mod settle;
mod slots;
pub mod userspace;
mod zones;

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
};

use podnet_model::{
    Change, EndpointSlice, Family, NetConf, Node, NodeAddr, Pod, PodKey, Protocol, Service, ServiceKey, SliceKey,
};

pub use config::{NodePortAddresses, ServicesConfig};
pub use conflicts::Conflict;
pub use health::HealthCheck;
pub use serving::{Backend, Backends, FrontendChange, FrontendKind, Moved, Plan, Serving, Vanished};

use claims::{Claim, Frontend};
use endpoints::KnownSlice;
use given::Given;
use lives::Lives;
use settle::Draft;
use zones::Zones;

use crate::{
    border::{Ranges, Tunnels},
    counted::Counted,
    ruleset::FrontendKey,
};

/// The bit of the packet mark that asks for masquerading: the same as kube-proxy's (`masqueradeBit` 14), so that what avoids
/// that bit today avoids ours.
pub const MASQUERADE_MARK: u32 = 0x4000;

/// The label of a node's zone.
const ZONE: &str = "topology.kubernetes.io/zone";

/// What this node does for Services.
#[derive(Debug)]
pub struct Services {
    config: ServicesConfig,
    /// See [`ServicesConfig::node_port_addrs`].
    node_port_addrs: Vec<IpAddr>,
    services: HashMap<ServiceKey, Known>,
    slice_owners: HashMap<SliceKey, ServiceKey>,
    frontends: HashMap<FrontendKey, Frontend>,
    /// Frontends that more than one Service claims.
    contested: BTreeSet<FrontendKey>,
    /// How often who claims such a one may have changed.
    contested_moved: u64,
    /// How many frontends are served at loopback addresses.
    at_loopback: usize,
    /// Services with a port for health checks.
    health_checked: BTreeSet<ServiceKey>,
    pods: HashMap<PodKey, BTreeSet<IpAddr>>,
    cluster_ips: Counted,
    local_backends: Counted,
    local_pods: Counted,
    ranges: Ranges,
    tunnels: Tunnels,
    /// How often the ranges or the tunnels may have changed.
    borders_moved: u64,
    zones: Zones,
    given: Given,
    lives: Lives,
}

/// What is known of a Service, by its own key and by its slices'.
#[derive(Debug, Default)]
struct Known {
    service: Option<Service>,
    /// Sorted by key.
    slices: Vec<(SliceKey, KnownSlice)>,
    /// Sorted by frontend.
    claims: Vec<(FrontendKey, Claim)>,
    local_backends: BTreeSet<IpAddr>,
}

impl Services {
    /// Of a cluster of which nothing is known yet.
    #[must_use]
    pub fn new(config: ServicesConfig) -> Self {
        let ranges = Ranges::new(config.family, &config.pod_cidrs, []);
        Self {
            node_port_addrs: config.node_port_addrs(),
            config,
            services: HashMap::new(),
            slice_owners: HashMap::new(),
            frontends: HashMap::new(),
            contested: BTreeSet::new(),
            contested_moved: 0,
            at_loopback: 0,
            health_checked: BTreeSet::new(),
            pods: HashMap::new(),
            cluster_ips: Counted::default(),
            local_backends: Counted::default(),
            local_pods: Counted::default(),
            ranges,
            tunnels: Tunnels::default(),
            borders_moved: 0,
            zones: Zones::default(),
            given: Given::default(),
            lives: Lives::default(),
        }
    }

    /// What it was made for.
    #[must_use]
    pub const fn config(&self) -> &ServicesConfig {
        &self.config
    }

    /// Whether there is any frontend.
    #[must_use]
    pub fn is_needed(&self) -> bool {
        !self.frontends.is_empty()
    }

    /// Whether there is a frontend at a loopback address.
    #[must_use]
    pub const fn is_at_loopback(&self) -> bool {
        self.at_loopback > 0
    }

    /// Every frontend, and what is done for it, in no order.
    pub fn frontends(&self) -> impl Iterator<Item = (&FrontendKey, &Serving)> {
        self.frontends.iter().filter_map(|(key, frontend)| Some((key, &**frontend.serving.as_ref()?)))
    }

    /// All frontends as if they were new: what a renderer needs to know that comes later.
    #[must_use]
    pub fn whole(&self) -> Plan {
        let new = |(key, frontend): (&FrontendKey, &Frontend)| {
            let after = Some(frontend.serving.clone()?);
            Some(FrontendChange { key: *key, before: None, after })
        };
        Plan { frontends: self.frontends.iter().filter_map(new).collect(), ..Plan::default() }
    }

    /// What is done for a frontend.
    #[must_use]
    pub fn serving(&self, key: &FrontendKey) -> Option<&Serving> {
        self.frontends.get(key)?.serving.as_deref()
    }

    /// The ClusterIPs of all Services.
    pub fn cluster_ips(&self) -> impl Iterator<Item = IpAddr> {
        self.cluster_ips.iter()
    }

    /// Whether a UDP connection that was opened to a frontend leads where it must not lead any more. To an endpoint that answers it may go on,
    /// whether that ends, or policies and hints lead new connections elsewhere: so it is with kube-proxy (`CleanStaleEntries`) and with TCP.
    #[must_use]
    pub fn leads_astray(&self, (frontend, to): &Vanished) -> bool {
        let serving = self.serving(frontend).filter(|_| frontend.protocol == Protocol::Udp);
        serving.is_some_and(|serving| serving.answering().all(|backend| backend.at != *to))
    }

    /// Takes a change in and tells what it does. Changes of different objects may come in any order, and again.
    pub fn apply(&mut self, change: &Change) -> Plan {
        let mut draft = Draft::default();
        self.borders_moved += u64::from(self.tunnels.learn(change));
        self.lives.learn(change, self.config.family);
        match change {
            Change::Service(key, service) => self.apply_service(key, service.as_ref(), &mut draft),
            Change::Slice(key, slice) => self.apply_slice(key, slice.as_ref(), &mut draft),
            Change::Pod(key, pod) => self.apply_pod(key, pod.as_ref(), &mut draft.plan),
            Change::Node(name, node) if *name == self.config.node => self.apply_own_node(node.as_ref(), &mut draft),
            Change::Pool(name, pool) => self.apply_pool(name, pool.as_ref(), &mut draft.plan),
            Change::AddressPool(key, pool) => self.apply_address_pool(key, pool.clone(), &mut draft),
            Change::NetConf(namespace, conf) => {
                let pool = conf.and_then(|conf| conf.pool(namespace, self.config.family));
                let name = NetConf::pool_name(namespace, self.config.family);
                self.apply_pool(&name, pool.as_ref(), &mut draft.plan);
            }
            _ => {}
        }
        self.done(draft)
    }

    /// The node's own addresses changed: its NodePorts move.
    pub fn set_node_addrs(&mut self, addrs: Vec<NodeAddr>) -> Plan {
        let mut draft = Draft::default();
        self.config.node_addrs = addrs;
        let node_port_addrs = self.config.node_port_addrs();
        if std::mem::replace(&mut self.node_port_addrs, node_port_addrs) != self.node_port_addrs {
            self.replan_all(&mut draft);
        }
        self.done(draft)
    }

    /// The settings of kube-proxy's configuration changed: where NodePorts are, how is masqueraded, and whether what fits no connection is dropped.
    /// All but the first stand in rules and in no element: where they change, whoever renders has to begin anew.
    pub fn configure(
        &mut self,
        node_port_addresses: NodePortAddresses,
        loopback: Vec<IpAddr>,
        masquerade_mark: u32,
        masquerade_all: bool,
        drops_invalid: bool,
    ) -> Plan {
        let addrs = std::mem::take(&mut self.config.node_addrs);
        let config = self.config.clone();
        self.config =
            ServicesConfig { node_port_addresses, loopback, masquerade_mark, masquerade_all, drops_invalid, ..config };
        self.set_node_addrs(addrs)
    }

    /// Where NodePorts are.
    #[must_use]
    pub fn node_port_addrs(&self) -> &[IpAddr] {
        &self.node_port_addrs
    }

    fn done(&mut self, draft: Draft) -> Plan {
        let plan = draft.done();
        for change in plan.frontends.iter().filter(|change| change.key.addr.is_loopback()) {
            self.at_loopback += usize::from(change.after.is_some());
            self.at_loopback -= usize::from(change.before.is_some());
        }
        plan
    }

    fn apply_service(&mut self, key: &ServiceKey, service: Option<&Service>, draft: &mut Draft) {
        let family = self.config.family;
        let is_ours =
            |service: &&Service| service.proxy.is_none() && claims::cluster_ips(service, family).next().is_some();
        let service = service.filter(is_ours);
        if self.services.get(key).and_then(|known| known.service.as_ref()) == service {
            return;
        }
        match service.and_then(|service| service.health_check) {
            Some(_) => drop(self.health_checked.insert(key.clone())),
            None => drop(self.health_checked.remove(key)),
        }
        self.services.entry(key.clone()).or_default().service = service.cloned();
        self.given.forget(key);
        self.replan(key, draft);
    }

    fn apply_slice(&mut self, key: &SliceKey, slice: Option<&EndpointSlice>, draft: &mut Draft) {
        let (family, node) = (self.config.family, &self.config.node);
        let known = slice.and_then(|slice| {
            let known = KnownSlice::new(slice, family, node, &mut self.zones)?;
            Some((slice.service.clone(), known))
        });
        let before = match &known {
            Some((owner, _)) => self.slice_owners.insert(key.clone(), owner.clone()),
            None => self.slice_owners.remove(key),
        };
        let owner = known.as_ref().map(|(owner, _)| owner);
        if let Some(before) = before.filter(|before| Some(before) != owner) {
            if let Some(known) = self.services.get_mut(&before) {
                known.slices.retain(|(slice, _)| slice != key);
            }
            self.replan(&before, draft);
        }
        if let Some((owner, slice)) = known
            && self.services.entry(owner.clone()).or_default().put(key, slice)
        {
            self.replan(&owner, draft);
        }
    }

    fn apply_pod(&mut self, key: &PodKey, pod: Option<&Pod>, plan: &mut Plan) {
        let here = pod.filter(|pod| pod.node.as_ref() == Some(&self.config.node) && !pod.host_network && !pod.finished);
        let addrs = here.into_iter().flat_map(|pod| &pod.addrs).map(|addr| addr.0);
        let addrs: BTreeSet<_> = addrs.filter(|addr| Family::of(addr) == self.config.family).collect();
        let before =
            if addrs.is_empty() { self.pods.remove(key) } else { self.pods.insert(key.clone(), addrs.clone()) };
        plan.local_pods.then(self.local_pods.replace(&before.unwrap_or_default(), &addrs));
    }

    /// Only its zone counts here.
    fn apply_own_node(&mut self, node: Option<&Node>, draft: &mut Draft) {
        let zone = node.and_then(|node| node.labels.get(ZONE)).map(String::as_str);
        if self.zones.set_own(zone) {
            self.replan_all(draft);
        }
    }
}

impl Known {
    /// Takes a slice in; whether that is anything new.
    fn put(&mut self, key: &SliceKey, slice: KnownSlice) -> bool {
        match self.slices.binary_search_by(|(other, _)| other.cmp(key)) {
            Ok(place) if self.slices.get(place).is_some_and(|(_, known)| *known == slice) => return false,
            Ok(place) => self.slices[place].1 = slice,
            Err(place) => {
                self.slices.reserve_exact(1);
                self.slices.insert(place, (key.clone(), slice));
            }
        }
        true
    }
}

#[cfg(test)]
mod tests;
