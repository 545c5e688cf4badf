//! Who an address belonged to, by time.
//!
//! Addresses go from pod to pod, and what is read of the kernel is read later than it happened: so earlier holders are remembered for a while.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use jiff::{SignedDuration, Timestamp};
use podnet_model::{NodeName, ServiceKey};
use serde::{Deserialize, Serialize};

use crate::{
    beyond::Beyond,
    entry::{Entry, Transport},
    record::Key,
};

/// How long an earlier holder of an address is remembered: longer than a flow waits to be read.
const REMEMBERED: SignedDuration = SignedDuration::from_mins(10);

/// What a record says of a pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodIdentity {
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
    /// `metadata.uid`.
    pub uid: Arc<str>,
    /// Its node.
    pub node: NodeName,
    /// Its labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<Arc<str>, Arc<str>>,
    /// What it is of: the kind and name of its controller, of a ReplicaSet that of the Deployment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<Owner>,
    /// Its service account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_account: Option<Arc<str>>,
}

/// What pods are of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// `Deployment`, `StatefulSet`, …
    pub kind: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
}

/// Who has an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Holder {
    /// A pod.
    Pod(Arc<PodIdentity>),
    /// A node.
    Node(NodeName),
    /// Nobody of the cluster.
    World,
}

/// A pod may send a little before it is written down that it began, and its node's clock may be another one.
const NEARLY: SignedDuration = SignedDuration::from_secs(5);

#[derive(Debug)]
struct Held {
    since: Timestamp,
    until: Option<Timestamp>,
    pod: Arc<PodIdentity>,
}

/// That a pod has or had an address: for whoever begins anew, and has to name flows that began before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tenancy {
    /// The address.
    pub addr: IpAddr,
    /// The pod.
    pub pod: Arc<PodIdentity>,
    /// When the pod began.
    pub since: Timestamp,
    /// When it had the address no more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
}

/// Who has which address, and which Service is where.
#[derive(Debug, Default)]
pub struct Names {
    pods: HashMap<IpAddr, Vec<Held>>,
    senders: HashMap<u32, Vec<IpAddr>>,
    nodes: HashMap<IpAddr, NodeName>,
    services: HashMap<(SocketAddr, Transport), ServiceKey>,
    unserved: HashSet<(SocketAddr, Transport)>,
    beyond: Arc<Beyond>,
    /// Some of them are at unspecified addresses.
    has_node_ports: bool,
}

impl Names {
    /// A pod that began at a time has this address; what it is called may have changed. An earlier holder has it no more, since then if not
    /// before.
    pub fn hold(&mut self, addr: IpAddr, pod: &Arc<PodIdentity>, since: Timestamp, now: Timestamp) {
        let held = self.pods.entry(addr).or_default();
        match held.last_mut() {
            Some(last) if last.pod.uid == pod.uid && last.until.is_none() => last.pod = pod.clone(),
            last => {
                if let Some(last) = last.filter(|last| last.until.is_none()) {
                    last.until = Some(since.max(last.since).min(now));
                }
                held.push(Held { since, until: None, pod: pod.clone() });
            }
        }
    }

    /// Whether the pod with that uid has this address.
    #[must_use]
    pub fn is_held(&self, addr: IpAddr, uid: &str) -> bool {
        let last = self.pods.get(&addr).and_then(|held| held.last());
        last.is_some_and(|last| last.until.is_none() && *last.pod.uid == *uid)
    }

    /// Who has and had addresses, as far as it is remembered.
    pub fn tenancies(&self) -> impl Iterator<Item = Tenancy> {
        self.pods.iter().flat_map(|(addr, held)| {
            held.iter().map(|Held { since, until, pod }| Tenancy {
                addr: *addr,
                pod: pod.clone(),
                since: *since,
                until: *until,
            })
        })
    }

    /// Takes in who had addresses as somebody else knew it, before anything else is.
    pub fn restore(&mut self, tenancies: impl IntoIterator<Item = Tenancy>) {
        for Tenancy { addr, pod, since, until } in tenancies {
            self.pods.entry(addr).or_default().push(Held { since, until, pod });
        }
    }

    /// A pod has this address no more.
    pub fn release(&mut self, addr: IpAddr, uid: &str, now: Timestamp) {
        let held = self.pods.get_mut(&addr).into_iter().flatten();
        held.filter(|held| *held.pod.uid == *uid && held.until.is_none()).for_each(|held| held.until = Some(now));
    }

    /// The addresses of pods by the indices of their interfaces' ends on this node, in place of what was before: they may send with no others.
    pub fn set_senders(&mut self, senders: HashMap<u32, Vec<IpAddr>>) {
        self.senders = senders;
    }

    /// The addresses of the pod behind an interface; none where that is not known.
    #[must_use]
    pub fn senders(&self, device: u32) -> Option<&[IpAddr]> {
        self.senders.get(&device).map(Vec::as_slice)
    }

    /// Whether a pod sent it with an address that it does not have. What comes to a pod may be for a group.
    pub(crate) fn is_spoofed(&self, entry: &Entry) -> bool {
        let is_sent = entry.out.packets > 0 && entry.into.packets == 0;
        is_sent && self.senders(entry.key.device).is_some_and(|own| !own.contains(&entry.key.local))
    }

    /// What limits lost or refused just now, in place of what was before.
    pub fn set_beyond(&mut self, beyond: Beyond) {
        self.beyond = Arc::new(beyond);
    }

    /// What limits lost or refused just now.
    #[must_use]
    pub fn beyond(&self) -> Arc<Beyond> {
        Arc::clone(&self.beyond)
    }

    /// Whether a packet of the flow of that key was beyond a pod's limit since this entry of it began.
    pub(crate) fn is_beyond_limit(&self, entry: &Entry, key: &Key) -> bool {
        self.beyond.has(entry, key)
    }

    /// The addresses of nodes, in place of those of before.
    pub fn set_nodes(&mut self, nodes: HashMap<IpAddr, NodeName>) {
        self.nodes = nodes;
    }

    /// Where Services are, in place of what was before. What is at an unspecified address is at all those that nodes have, of the family.
    pub fn set_services(&mut self, services: HashMap<(SocketAddr, Transport), ServiceKey>) {
        self.has_node_ports = services.keys().any(|(at, _)| at.ip().is_unspecified());
        self.services = services;
    }

    /// Where those of them are that have nobody to answer this node's pods, in place of what was before.
    pub fn set_unserved(&mut self, unserved: HashSet<(SocketAddr, Transport)>) {
        self.unserved = unserved;
    }

    /// Whether any Service is at a port of all nodes.
    #[must_use]
    pub const fn has_node_ports(&self) -> bool {
        self.has_node_ports
    }

    /// The Service at this port of all nodes, if the address is one of a node.
    #[must_use]
    pub fn node_port(&self, at: SocketAddr, transport: Transport) -> Option<&ServiceKey> {
        self.services.get(&(at_all_nodes(at), transport))
    }

    /// Whether that node has the address.
    #[must_use]
    pub fn is_of_node(&self, addr: IpAddr, node: &NodeName) -> bool {
        self.nodes.get(&addr) == Some(node)
    }

    /// Whether the Service at an address and port has nobody to answer this node's pods.
    #[must_use]
    pub fn is_unserved(&self, at: SocketAddr, transport: Transport) -> bool {
        self.unserved.contains(&(self.place(at, transport), transport))
    }

    /// Where the Service is that has an address and port, if any: at just these, or at all nodes.
    fn place(&self, at: SocketAddr, transport: Transport) -> SocketAddr {
        let is_own = !self.has_node_ports || self.services.contains_key(&(at, transport));
        if !is_own && self.nodes.contains_key(&at.ip()) { at_all_nodes(at) } else { at }
    }

    /// Who had an address at a time.
    #[must_use]
    pub fn holder(&self, addr: IpAddr, at: Timestamp) -> Holder {
        if let Some(node) = self.nodes.get(&addr) {
            return Holder::Node(node.clone());
        }
        let held = self.pods.get(&addr).into_iter().flatten();
        held.into_iter()
            .find(|held| held.until.is_none_or(|until| at < until))
            .filter(|held| at.duration_since(held.since) >= -NEARLY)
            .map_or(Holder::World, |held| Holder::Pod(held.pod.clone()))
    }

    /// The Service at an address and port, which may be a node's.
    #[must_use]
    pub fn service(&self, at: SocketAddr, transport: Transport) -> Option<&ServiceKey> {
        self.services.get(&(self.place(at, transport), transport))
    }

    /// Forgets who had an address long ago.
    pub fn forget(&mut self, now: Timestamp) {
        let is_recent = |held: &Held| held.until.is_none_or(|until| now.duration_since(until) < REMEMBERED);
        self.pods.retain(|_, held| {
            held.retain(is_recent);
            !held.is_empty()
        });
    }
}

/// The port at an unspecified address of the family.
const fn at_all_nodes(at: SocketAddr) -> SocketAddr {
    let unspecified = match at {
        SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    SocketAddr::new(unspecified, at.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str) -> Arc<PodIdentity> {
        Arc::new(PodIdentity {
            namespace: "default".into(),
            name: name.into(),
            uid: format!("uid-{name}").into(),
            node: "node1".into(),
            labels: BTreeMap::new(),
            owner: None,
            service_account: None,
        })
    }

    #[test]
    fn a_port_of_all_nodes_is_a_services_at_their_addresses_alone_unless_another_one_is_just_there() {
        let (cart, till) = (ServiceKey::new("shop", "cart"), ServiceKey::new("shop", "till"));
        let at = |text: &str| text.parse::<SocketAddr>().unwrap();
        let mut names = Names::default();
        names.set_nodes([("172.16.0.1".parse().unwrap(), "node1".into())].into());
        let places = [("0.0.0.0:30080", &cart), ("172.16.0.1:443", &till), ("0.0.0.0:443", &cart)];
        names.set_services(places.map(|(place, key)| ((at(place), Transport::TCP), key.clone())).into());
        names.set_unserved([(at("0.0.0.0:30080"), Transport::TCP)].into());
        let rows = [
            ("172.16.0.1:30080", Some(&cart), true),
            ("172.16.0.1:443", Some(&till), false),
            ("172.16.0.1:80", None, false),
            ("10.0.0.1:30080", None, false),
            ("[fd00::1]:30080", None, false),
        ];
        for (place, service, is_unserved) in rows {
            let place = at(place);
            let found = (names.service(place, Transport::TCP), names.is_unserved(place, Transport::TCP));
            assert_eq!(found, (service, is_unserved), "{place}");
            assert_eq!(names.service(place, Transport::UDP), None);
        }
        assert_eq!(names.node_port(at("10.0.0.1:30080"), Transport::TCP), Some(&cart));
        assert!(names.has_node_ports());
    }

    #[test]
    fn an_address_is_whose_it_was_when_asked_for() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let addr: IpAddr = "10.0.0.1".parse().unwrap();
        let mut names = Names::default();
        let hold = |names: &mut Names, name, since, now| names.hold(addr, &pod(name), at(since), at(now));
        hold(&mut names, "first", 10, 11);
        names.release(addr, "uid-first", at(20));
        hold(&mut names, "second", 30, 32);
        let is = |names: &Names, second| match names.holder(addr, at(second)) {
            Holder::Pod(pod) => pod.name.to_string(),
            other => format!("{other:?}"),
        };
        assert_eq!(
            [4, 5, 15, 24, 25, 35].map(|second| is(&names, second)),
            ["World", "first", "first", "World", "second", "second"]
        );
        // Who did not let go before has it no more either.
        hold(&mut names, "third", 40, 42);
        assert_eq!([35, 40].map(|second| is(&names, second)), ["second", "third"]);
        names.release(addr, "uid-second", at(50));
        assert_eq!(is(&names, 60), "third", "it is not the second's to release");
        assert_eq!(["uid-second", "uid-third"].map(|uid| names.is_held(addr, uid)), [false, true]);
        let mut anew = Names::default();
        anew.restore(names.tenancies());
        hold(&mut anew, "third", 40, 90);
        assert_eq!([15, 35, 60].map(|second| is(&anew, second)), ["first", "second", "third"]);
        names.forget(at(20 + 600));
        assert_eq!(is(&names, 15), "World", "long ago");
        names.release(addr, "uid-third", at(700));
        assert_eq!((is(&names, 800).as_str(), names.is_held(addr, "uid-third")), ("World", false));
    }
}
