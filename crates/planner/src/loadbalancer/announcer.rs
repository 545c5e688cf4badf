//! Which node answers for a load balancer's address on the nodes' own network.
//!
//! Every node works the same out for itself, from the cluster's state alone: a list of the nodes that may announce an address, the same
//! on each. The first one announces; the next ones stand by ([`super::posts`]). The order is a hash of node and address (rendezvous
//! hashing), so that addresses are spread over the nodes and few move when a node comes or goes.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
    net::IpAddr,
    sync::Arc,
};

use ipnet::IpNet;
use podnet_model::{
    Change, Endpoint, EndpointSlice, Node, NodeName, Service, ServiceKey, SliceKey,
    balancer::{AddressPool, Advertisement},
    labels::Labels,
    service::TrafficPolicy,
};

/// Nodes with this label take no part (Kubernetes' well-known labels).
const EXCLUDED: &str = "node.kubernetes.io/exclude-from-external-load-balancers";

/// What the announcements follow from.
#[derive(Debug, Default)]
pub struct Announcer {
    nodes: BTreeMap<NodeName, Facts>,
    /// By namespace and name: the last right state of each, as it is served by.
    pools: BTreeMap<ServiceKey, Arc<AddressPool>>,
    advertisements: Vec<Advertisement>,
    services: BTreeMap<ServiceKey, Balanced>,
    slices: HashMap<SliceKey, Places>,
    /// Every node that a slice ever named: a slice is small so, and there may be ten thousand.
    names: Vec<NodeName>,
    numbers: HashMap<NodeName, u32>,
}

/// What of a slice counts: on which nodes its endpoints are, as numbers of `names`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Places {
    service: ServiceKey,
    /// Where some are ready.
    ready: Box<[u32]>,
    /// Where some terminate and still serve: nodes fall back on those where they have no ready ones (KEP-1669).
    leaving: Box<[u32]>,
}

/// What of a node counts.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Facts {
    labels: Labels,
    subnets: Vec<IpNet>,
    is_lost: bool,
}

/// What of a Service counts.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Balanced {
    addresses: Vec<IpAddr>,
    is_local: bool,
}

/// One node's part in announcing an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Duty {
    /// The address.
    pub addr: IpAddr,
    /// How many nodes come before it: 0 announces.
    pub rank: usize,
    /// On which devices; none: on that of the underlay.
    pub interfaces: BTreeSet<Arc<str>>,
}

impl Announcer {
    /// Takes a change in. Answers whether duties may be others now.
    pub fn apply(&mut self, change: &Change) -> bool {
        match change {
            Change::Node(name, node) => {
                let facts = node.as_ref().map(facts);
                set(&mut self.nodes, name, facts)
            }
            Change::Service(key, service) => {
                let balanced = service.as_ref().map(balanced).filter(|balanced| !balanced.addresses.is_empty());
                set(&mut self.services, key, balanced)
            }
            Change::Slice(key, slice) => self.apply_slice(key, slice.as_ref()),
            Change::AddressPool(key, pool) => set(&mut self.pools, key, pool.clone()),
            _ => false,
        }
    }

    /// These are the advertisements from now on. Answers whether duties may be others now.
    pub fn set_advertisements(&mut self, advertisements: Vec<Advertisement>) -> bool {
        let changed = self.advertisements != advertisements;
        self.advertisements = advertisements;
        changed
    }

    /// How many nodes there are.
    #[must_use]
    pub fn nodes(&self) -> usize {
        self.nodes.len()
    }

    /// Whether the node is one of the two that tell people of a Service what all nodes see of it: a thousand nodes need not. Two, as one may
    /// have been lost of late.
    #[must_use]
    pub fn tells_of(&self, node: &NodeName, service: &ServiceKey) -> bool {
        const TELLERS: usize = 2;
        let place = |node: &NodeName| (weight(node, service), node.clone());
        let own = place(node);
        let others = self.nodes.iter().filter(|(_, facts)| !facts.is_lost);
        others.filter(|(name, _)| place(name) > own).take(TELLERS).count() < TELLERS
    }

    /// The node's part in announcing each address in which it has one.
    #[must_use]
    pub fn duties(&self, node: &NodeName) -> Vec<Duty> {
        let mut addresses: BTreeMap<IpAddr, Vec<(&ServiceKey, &Balanced)>> = BTreeMap::new();
        for (key, balanced) in &self.services {
            for addr in &balanced.addresses {
                addresses.entry(*addr).or_default().push((key, balanced));
            }
        }
        let duty = |(addr, services): (IpAddr, Vec<(&ServiceKey, &Balanced)>)| {
            let ranked = self.ranking(addr, &services);
            let rank = ranked.iter().position(|one| *one == node)?;
            Some(Duty { addr, rank, interfaces: self.interfaces(addr, node) })
        };
        addresses.into_iter().filter_map(duty).collect()
    }

    /// The nodes that may announce an address, the first one first.
    fn ranking(&self, addr: IpAddr, services: &[(&ServiceKey, &Balanced)]) -> Vec<&NodeName> {
        let advertisements: Vec<_> = self.about(addr).collect();
        let selected = |labels: &Labels| {
            let mut selectors = advertisements.iter().map(|advertisement| &advertisement.node_selectors);
            selectors.any(|selectors| selectors.is_empty() || selectors.iter().any(|selector| selector.matches(labels)))
        };
        let local = services.iter().filter(|(_, balanced)| balanced.is_local).map(|(key, _)| self.nodes_of(key));
        let local = local.reduce(|one, other| one.intersection(&other).copied().collect());
        let may = |(name, facts): &(&NodeName, &Facts)| {
            !facts.is_lost
                && !facts.labels.contains_key(EXCLUDED)
                && selected(&facts.labels)
                && local.as_ref().is_none_or(|local| local.contains(name))
        };
        // Who asks for an address of a node's own subnet asks there.
        let on_link = |facts: &Facts| facts.subnets.iter().any(|subnet| subnet.contains(&addr));
        let somewhere = self.nodes.values().any(on_link);
        let candidates = self.nodes.iter().filter(may).filter(|(_, facts)| !somewhere || on_link(facts));
        let mut ranked: Vec<_> = candidates.map(|(name, _)| (weight(name, &addr), name)).collect();
        ranked.sort_by(|one, other| other.cmp(one));
        ranked.into_iter().map(|(_, name)| name).collect()
    }

    /// The advertisements of the pool that an address is of.
    fn about(&self, addr: IpAddr) -> impl Iterator<Item = &Advertisement> {
        let pools = move || self.pools.values().filter(move |pool| pool.spans.iter().any(|span| span.contains(addr)));
        self.advertisements.iter().filter(move |advertisement| pools().any(|pool| advertisement.is_about(pool)))
    }

    /// The devices that the advertisements which choose the node name.
    fn interfaces(&self, addr: IpAddr, node: &NodeName) -> BTreeSet<Arc<str>> {
        let Some(facts) = self.nodes.get(node) else { return BTreeSet::new() };
        let chooses = |advertisement: &&Advertisement| {
            let selectors = &advertisement.node_selectors;
            selectors.is_empty() || selectors.iter().any(|selector| selector.matches(&facts.labels))
        };
        let choosing: Vec<_> = self.about(addr).filter(chooses).collect();
        if choosing.iter().any(|advertisement| advertisement.interfaces.is_empty()) {
            return BTreeSet::new();
        }
        choosing
            .iter()
            .flat_map(|advertisement| &advertisement.interfaces)
            .map(|name| Arc::from(name.as_str()))
            .collect()
    }

    /// Where the endpoints of a Service are: the ready ones, or, where there is none anywhere, those that terminate and still serve.
    fn nodes_of(&self, service: &ServiceKey) -> BTreeSet<&NodeName> {
        let named = |numbers: fn(&Places) -> &[u32]| -> BTreeSet<&NodeName> {
            let slices = self.slices.values().filter(|places| places.service == *service);
            let numbers = slices.flat_map(|places| numbers(places).iter());
            numbers.filter_map(|number| self.names.get(usize::try_from(*number).ok()?)).collect()
        };
        let ready = named(|places| &places.ready);
        if ready.is_empty() { named(|places| &places.leaving) } else { ready }
    }

    fn apply_slice(&mut self, key: &SliceKey, slice: Option<&EndpointSlice>) -> bool {
        let known = slice.map(|slice| self.places_of(slice));
        let before = match known.clone() {
            Some(known) => self.slices.insert(key.clone(), known),
            None => self.slices.remove(key),
        };
        if before == known {
            return false;
        }
        let matters = |places: &Places| self.services.get(&places.service).is_some_and(|balanced| balanced.is_local);
        before.iter().chain(&known).any(matters)
    }

    fn places_of(&mut self, slice: &EndpointSlice) -> Places {
        let mut numbers = |counts: fn(&Endpoint) -> bool| -> Box<[u32]> {
            let names = slice.endpoints.iter().filter(|endpoint| counts(endpoint));
            let numbers: BTreeSet<u32> =
                names.filter_map(|endpoint| endpoint.node.as_ref()).map(|name| self.number(name)).collect();
            numbers.into_iter().collect()
        };
        // As a node itself sees them: with publishNotReadyAddresses one that terminates is ready, too.
        let ready = numbers(|endpoint| endpoint.ready);
        let leaving = numbers(|endpoint| endpoint.terminating && endpoint.serving);
        Places { service: slice.service.clone(), ready, leaving }
    }

    fn number(&mut self, name: &NodeName) -> u32 {
        if let Some(number) = self.numbers.get(name) {
            return *number;
        }
        let number = u32::try_from(self.names.len()).unwrap_or(u32::MAX);
        self.names.push(name.clone());
        self.numbers.insert(name.clone(), number);
        number
    }
}

fn set<K: Ord + Clone, V: PartialEq>(map: &mut BTreeMap<K, V>, key: &K, value: Option<V>) -> bool {
    if map.get(key) == value.as_ref() {
        return false;
    }
    match value {
        Some(value) => map.insert(key.clone(), value),
        None => map.remove(key),
    };
    true
}

fn facts(node: &Node) -> Facts {
    let subnets = [node.subnet, node.subnet6].into_iter().flatten().collect();
    Facts { labels: node.labels.clone(), subnets, is_lost: node.lost }
}

fn balanced(service: &Service) -> Balanced {
    let own = service.proxy.is_none();
    let addresses = service.ingress.iter().filter(|ingress| own && !ingress.is_proxy).map(|ingress| ingress.addr);
    Balanced { addresses: addresses.collect(), is_local: service.external_policy == TrafficPolicy::Local }
}

/// The weight of a node for an address, or whatever else has such a text: FNV-1a of both, mixed (the finaliser of SplitMix64), since names
/// differ in one letter.
fn weight(node: &NodeName, what: &dyn fmt::Display) -> u64 {
    let text = format!("{node} {what}");
    let hash = text
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    let mixed = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests;
