//! Who is who: pods by address, nodes, Services; as the watches tell it.

mod identity;
mod kept;
mod served;
mod watches;

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    iter,
    net::IpAddr,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use ipnet::IpNet;
use k8s_openapi::{api::core::v1::Pod, jiff::Timestamp};
use kube::runtime::watcher::Event;
use podnet_flow::{Names, PodIdentity, names::Tenancy};
use podnet_kernel::pod_interface::{AGENT_V6, GATEWAY_V4};
use podnet_model::{Change, Namespace, Node, NodeName, PoolName, ServiceKey};
use tokio::sync::Notify;

pub(super) use self::watches::Watches;
use self::{
    identity::{began, identity},
    kept::Kept,
    served::{Place, Served, places},
};
use super::recorders::Recorders;

/// What is known of the cluster.
#[derive(Debug, Default)]
pub(super) struct Known {
    facts: Mutex<Facts>,
    kept: Mutex<Option<Kept>>,
    /// The ranges of those who may be asked changed.
    ranges_changed: Notify,
}

#[derive(Debug, Default)]
pub(super) struct Facts {
    pub(super) names: Names,
    nodes: HashMap<NodeName, NodeAddrs>,
    recorders: Arc<Recorders>,
    /// Which labels of pods are of interest; none: the ordinary ones.
    labels: Vec<String>,
    /// The node whose agent this is: its pods ask it at their gateway.
    own: Option<NodeName>,
    /// What the names say of nodes and Services is older than what was told of them.
    is_stale: bool,
    services: HashMap<ServiceKey, Vec<Place>>,
    served: Served,
    /// Addresses of the pods that are there, by their uids.
    pods: HashMap<Arc<str>, Vec<IpAddr>>,
    /// Who these are, by their uids, whether they have addresses yet or not, and when they began.
    who: HashMap<Arc<str>, (Arc<PodIdentity>, Timestamp)>,
    /// When it was last asked which pods of this node have which addresses ([`Known::attached`]).
    asked: Option<Timestamp>,
    /// The answer: whose they are, by uids, and when it was asked last before they were; none where that was not asked before.
    given: HashMap<IpAddr, (Arc<str>, Option<Timestamp>)>,
    /// Ranges of pods' addresses, by their pools.
    pools: HashMap<PoolName, IpNet>,
    /// The same of flannel, by the namespaces of its configurations.
    net_confs: HashMap<Namespace, Vec<IpNet>>,
    /// That of Services' addresses, where it is told.
    service_cidr: Option<IpNet>,
    /// Addresses have or had others than is written down.
    is_unwritten: bool,
}

impl Known {
    /// Of an agent of that node, in a cluster whose Services have addresses of that range; nothing else is known yet.
    pub(super) fn of_node(node: NodeName, service_cidr: Option<IpNet>) -> Arc<Self> {
        let facts = Facts { own: Some(node), is_stale: true, service_cidr, ..Facts::default() };
        Arc::new(Self { facts: Mutex::new(facts), ..Self::default() })
    }

    /// From now on pods are known with these labels alone (`AgentConfig::flow_labels`).
    pub(super) fn choose_labels(&self, labels: &[String]) {
        self.lock().labels = labels.to_vec();
    }

    /// Takes in what an earlier agent wrote down, before anything else is known; from now on it is written there
    /// ([`Known::write_down`]).
    pub(super) fn keep_at(&self, path: &Path) {
        let (kept, tenancies) = Kept::open(path);
        let mut facts = self.lock();
        for Tenancy { addr, pod, .. } in tenancies.iter().filter(|tenancy| tenancy.until.is_none()) {
            facts.pods.entry(pod.uid.clone()).or_default().push(*addr);
        }
        facts.names.restore(tenancies);
        drop(facts);
        *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = Some(kept);
    }

    /// Writes down who has and had which address, where that changed some time ago, or `is_last`.
    pub(super) fn write_down(&self, is_last: bool) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(kept) = kept.as_mut().filter(|kept| is_last || kept.is_due()) else { return };
        let mut facts = self.lock();
        if std::mem::take(&mut facts.is_unwritten) {
            let tenancies: Vec<Tenancy> = facts.names.tenancies().collect();
            drop(facts);
            if !kept.write(&tenancies) {
                self.lock().is_unwritten = true;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Facts> {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until [`Known::ranges`] may be others.
    pub(super) async fn ranges_changed(&self) {
        self.ranges_changed.notified().await;
    }

    /// Where pods may be, or Services behind which they are.
    pub(super) fn ranges(&self) -> BTreeSet<IpNet> {
        self.lock().ranges()
    }

    pub(super) fn facts(&self) -> MutexGuard<'_, Facts> {
        let mut facts = self.lock();
        if std::mem::take(&mut facts.is_stale) {
            facts.name();
        }
        facts
    }

    /// Where other nodes' agents record flows to.
    pub(super) fn recorders(&self) -> Arc<Recorders> {
        Arc::clone(&self.lock().recorders)
    }

    /// Where a node's agent answers; none where the node is not there.
    pub(super) fn address(&self, node: &NodeName) -> Option<IpAddr> {
        self.lock().nodes.get(node)?.own.first().copied()
    }

    /// Takes a change in.
    pub(super) fn learn(&self, change: &Change) {
        let mut facts = self.lock();
        if let Change::Node(name, node) = change {
            Recorders::learn(&mut facts.recorders, name, node.as_ref());
        }
        match change {
            Change::Node(name, Some(node)) => drop(facts.nodes.insert(name.clone(), NodeAddrs::from(node))),
            Change::Node(name, None) => drop(facts.nodes.remove(name)),
            Change::Service(key, Some(service)) => drop(facts.services.insert(key.clone(), places(service))),
            Change::Service(key, None) => drop(facts.services.remove(key)),
            Change::Slice(key, slice) => {
                let Facts { own, served, is_stale, .. } = &mut *facts;
                *is_stale |= served.learn(key, slice.as_ref(), own.as_ref());
                return;
            }
            Change::Pool(name, Some(pool)) => {
                facts.pools.insert(name.clone(), pool.cidr);
            }
            Change::Pool(name, None) => {
                facts.pools.remove(name);
            }
            Change::NetConf(namespace, Some(conf)) => {
                facts.net_confs.insert(namespace.clone(), conf.ranges().collect());
            }
            Change::NetConf(namespace, None) => drop(facts.net_confs.remove(namespace)),
            _ => return,
        }
        facts.is_stale = true;
        let moves_ranges = !matches!(change, Change::Node(..)) || facts.has_node_ports();
        drop(facts);
        if moves_ranges {
            self.ranges_changed.notify_one();
        }
    }

    /// Which addresses pods of this node have by now, by their uids, as who gave them knows: a pod may use them before its object shows them, and one
    /// that ends soon is shown with them when it is over.
    pub(super) fn attached(&self, held: Vec<(IpAddr, Arc<str>)>, now: Timestamp) {
        if self.lock().attached(held, now) {
            self.ranges_changed.notify_one();
        }
    }

    /// All nodes, Services and what serves these were told of.
    pub(super) fn listed(&self) {
        let mut facts = self.lock();
        facts.served.listed();
        facts.is_stale = true;
    }

    pub(super) fn event(&self, event: Event<Pod>, listed: &mut Vec<Arc<str>>) {
        let mut facts = self.lock();
        let now = Timestamp::now();
        match event {
            Event::Init => listed.clear(),
            Event::InitApply(pod) => {
                listed.extend(pod.metadata.uid.as_deref().map(Arc::from));
                facts.see(&pod, now);
            }
            Event::InitDone => {
                let there: HashSet<&str> = listed.iter().map(|uid| &**uid).collect();
                let gone: Vec<Arc<str>> = facts.pods.keys().filter(|uid| !there.contains(&***uid)).cloned().collect();
                gone.iter().for_each(|uid| facts.lose(uid, now));
            }
            Event::Apply(pod) => facts.see(&pod, now),
            Event::Delete(pod) => facts.lose(pod.metadata.uid.as_deref().unwrap_or_default(), now),
        }
        drop(facts);
        self.ranges_changed.notify_one();
    }
}

impl Facts {
    fn ranges(&self) -> BTreeSet<IpNet> {
        let pools = self.pools.values().chain(self.net_confs.values().flatten()).chain(&self.service_cidr);
        let pools: Vec<IpNet> = pools.copied().collect();
        let is_apart = |addr: &&IpAddr| !pools.iter().any(|pool| pool.contains(*addr));
        let pods = self.pods.values().flatten().filter(is_apart).map(|addr| IpNet::from(*addr));
        let services = self.services.values().flatten().map(|place| place.at.ip());
        let services = services.filter(|addr| !addr.is_unspecified()).map(IpNet::from);
        // At nodes' ports there are pods behind their addresses, and from there these see others masqueraded.
        let nodes = self.has_node_ports().then(|| self.nodes.values().flat_map(NodeAddrs::all).map(IpNet::from));
        pools.iter().copied().chain(pods).chain(services).chain(nodes.into_iter().flatten()).collect()
    }

    fn has_node_ports(&self) -> bool {
        self.services.values().flatten().any(|place| place.at.ip().is_unspecified())
    }

    fn name(&mut self) {
        let answers = [IpAddr::V4(GATEWAY_V4), IpAddr::V6(AGENT_V6)];
        let gateway = self.own.iter().flat_map(|own| answers.map(|addr| (addr, own.clone())));
        let own = self.nodes.iter().flat_map(|(name, addrs)| addrs.own.iter().map(|addr| (*addr, name.clone())));
        let parts = self.nodes.iter().flat_map(|(name, addrs)| addrs.parts.iter().map(move |part| (name, part)));
        let flannels = parts.filter(|(_, part)| self.is_flannels(part));
        let firsts = flannels.flat_map(|(name, part)| first_two(part).map(move |addr| (addr, name.clone())));
        let all = firsts.chain(self.unshared()).chain(own).chain(gateway).collect();
        self.names.set_nodes(all);
        let places = || self.services.iter().flat_map(|(key, places)| places.iter().map(move |place| (key, place)));
        let unserved = places().filter(|(key, place)| self.served.is_unserved(key, place));
        self.names.set_unserved(unserved.map(|(_, place)| (place.at, place.transport)).collect());
        self.names.set_services(places().map(|(key, place)| ((place.at, place.transport), key.clone())).collect());
    }

    /// What one node alone says that it has beside its own addresses: by what several say, none of them is known.
    fn unshared(&self) -> HashMap<IpAddr, NodeName> {
        let mut said: HashMap<IpAddr, Option<&NodeName>> = HashMap::new();
        for (name, addrs) in &self.nodes {
            for addr in &addrs.others {
                let by = said.entry(*addr).or_insert(Some(name));
                if *by != Some(name) {
                    *by = None;
                }
            }
        }
        said.into_iter().filter_map(|(addr, by)| Some((addr, by?.clone()))).collect()
    }

    /// Whether flannel's configuration has it: nodes' devices and bridges have addresses of their parts then.
    fn is_flannels(&self, part: &IpNet) -> bool {
        self.net_confs.values().flatten().any(|range| range.contains(part))
    }

    fn see(&mut self, pod: &Pod, now: Timestamp) {
        let Some((identity, addrs)) = identity(pod, &self.labels) else {
            return self.lose(pod.metadata.uid.as_deref().unwrap_or_default(), now);
        };
        let identity = Arc::new(identity);
        self.is_unwritten = true;
        let since = began(pod).unwrap_or(Timestamp::MIN);
        self.who.insert(identity.uid.clone(), (identity.clone(), since));
        // Objects show addresses of sandboxes that are gone until the kubelet has made others.
        let addrs: Vec<IpAddr> =
            addrs.into_iter().filter(|addr| !self.is_given_to_another(*addr, &identity.uid)).collect();
        // It may have some that its object does not show yet.
        let known = self.pods.remove(&identity.uid).unwrap_or_default().into_iter();
        let others = known.filter(|addr| !addrs.contains(addr) && self.names.is_held(*addr, &identity.uid));
        let all: Vec<IpAddr> = addrs.iter().copied().chain(others).collect();
        for addr in &all {
            // Before, it was another one's, or nobody's.
            let given = self.given.get(addr).filter(|(uid, _)| *uid == identity.uid).and_then(|(_, given)| *given);
            self.names.hold(*addr, &identity, given.map_or(since, |given| given.max(since)), now);
        }
        self.pods.insert(identity.uid.clone(), all);
    }

    /// Whether this node gave an address to another pod than that one. Of one that nobody knows it is not sure that it is another one: the kubelet
    /// calls a static pod by another uid than its object has.
    fn is_given_to_another(&self, addr: IpAddr, uid: &str) -> bool {
        self.given.get(&addr).is_some_and(|(given, _)| **given != *uid && self.who.contains_key(given))
    }

    /// Whether it was not known before.
    fn attached(&mut self, held: Vec<(IpAddr, Arc<str>)>, now: Timestamp) -> bool {
        let asked = self.asked.replace(now);
        let mut before = std::mem::take(&mut self.given);
        let mut is_new = false;
        for (addr, uid) in held {
            let given = before.remove(&addr).filter(|(had, _)| *had == uid).map_or(asked, |(_, given)| given);
            self.given.insert(addr, (uid.clone(), given));
            let Some((pod, began)) = self.who.get(&uid).filter(|_| !self.names.is_held(addr, &uid)) else { continue };
            // Before, it was another one's, or nobody's.
            let since = given.map_or(*began, |given| given.max(*began));
            self.names.hold(addr, pod, since, now);
            let addrs = self.pods.entry(uid).or_default();
            if !addrs.contains(&addr) {
                addrs.push(addr);
            }
            is_new = true;
        }
        self.is_unwritten |= is_new;
        is_new
    }

    fn lose(&mut self, uid: &str, now: Timestamp) {
        self.who.remove(uid);
        self.is_unwritten |= self.pods.contains_key(uid);
        for addr in self.pods.remove(uid).into_iter().flatten() {
            self.names.release(addr, uid, now);
        }
    }
}

/// All by which the cluster knows a node.
#[derive(Debug)]
struct NodeAddrs {
    /// Where its peers send.
    own: Vec<IpAddr>,
    /// What it says of itself beside: an `ExternalIP` is that of many where they are behind one NAT, and so is an `InternalIP` that each virtual
    /// machine has towards its host.
    others: Vec<IpAddr>,
    /// Its parts of the pods' range.
    parts: Vec<IpNet>,
}

impl NodeAddrs {
    /// Its own and the others: those of its parts are pods'.
    fn all(&self) -> impl Iterator<Item = IpAddr> {
        self.own.iter().chain(&self.others).copied()
    }
}

impl From<&Node> for NodeAddrs {
    fn from(node: &Node) -> Self {
        let own = [Some(node.addr), node.addr6].into_iter().flatten().map(|addr| addr.0);
        let internal = [node.internal, node.internal6].into_iter().flatten().map(|addr| addr.0);
        let others = internal.chain(node.addresses.iter().copied());
        Self { own: own.collect(), others: others.collect(), parts: node.pod_cidrs.clone() }
    }
}

/// What a node's devices have of its part of flannel's range, and what its bridge has: no pods have these (`planner::ipam::flannel`). From the first one
/// is what the node itself sends to pods of others through VXLAN.
fn first_two(part: &IpNet) -> impl Iterator<Item = IpAddr> + use<> {
    let device = part.network();
    let bridge = part.hosts().find(|addr| *addr != device);
    iter::once(device).chain(bridge)
}

#[cfg(test)]
mod tests;
