//! Services as sockets of a program: for each frontend a socket that listens, and for each of its clients a choice.
//!
//! A frontend at an address of the node's own is listened at in the node's namespace ([`Place::Node`]), every other one in a namespace apart
//! ([`Place::Apart`]), to which its address is led ([`Led`]): a ClusterIP as a whole, so that it answers pings and refuses the ports that
//! it has not; of other addresses, which may be somebody's, single ports. Where nobody serves, nobody listens, and the kernel refuses. Who is
//! to hear nothing is not let in ([`Guard`]).
//!
//! All connections to backends have the node's address: that of the client is known to the program alone, which judges by it. SCTP is not
//! served.

mod choice;
mod guard;
mod left;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
    net::IpAddr,
    sync::Arc,
};

use podnet_model::{Family, NodeAddr, Protocol, ServiceKey};
use serde::{Deserialize, Serialize};

pub use choice::{Asked, Choice, Chooser, Memories, is_elsewhere};
pub use guard::Guard;

use super::{Backend, Backends, FrontendKind, Moved, Plan, Services, Serving, loopback};
use crate::ruleset::{BackendAddress, FrontendKey};

/// The names of devices that lead to namespaces apart begin so.
pub const DEVICE_PREFIX: &str = "podservices";

/// The node's end of the link to the namespace apart of a family: no pod's and no tunnel's name begins so.
#[must_use]
pub const fn device(family: Family) -> &'static str {
    match family {
        Family::V4 => "podservices4",
        Family::V6 => "podservices6",
    }
}

/// What is open for one frontend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Front {
    /// Where it is listened.
    pub place: Place,
    /// Who is let in; none where nobody listens.
    pub guard: Option<Guard>,
    /// What is done for who comes.
    pub serving: Arc<Serving>,
}

/// The namespace that a socket is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Place {
    /// The node's: the address is its own.
    Node,
    /// One beside it.
    Apart,
}

/// What is led to the namespace apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Led {
    /// All that goes to the address.
    Address(IpAddr),
    /// What goes to one port of it.
    Port {
        /// The address.
        addr: IpAddr,
        /// The protocol.
        protocol: Protocol,
        /// The port.
        port: u16,
    },
}

impl Led {
    /// The address.
    #[must_use]
    pub const fn addr(&self) -> IpAddr {
        match self {
            Self::Address(addr) | Self::Port { addr, .. } => *addr,
        }
    }
}

/// What has to be done to be as planned. Whoever does it leads what is more before it opens sockets, and leaves what is fewer at the end.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Work {
    /// Frontends that changed, each once; none where it is gone.
    pub fronts: Vec<(FrontendKey, Option<Front>)>,
    /// What is led apart from now on.
    pub more: Vec<Led>,
    /// What is not any more.
    pub fewer: Vec<Led>,
    /// Who is inside, where that changed: the node and its pods.
    pub insiders: Option<BTreeSet<IpAddr>>,
}

impl Work {
    /// Nothing is to be done.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// The rendering of one [`Services`] value, whose plans it is given from the first on.
#[derive(Debug, Default)]
pub struct Userspace {
    servings: HashMap<FrontendKey, Arc<Serving>>,
    cluster_ips: BTreeSet<IpAddr>,
    local_pods: BTreeSet<IpAddr>,
    own: BTreeSet<IpAddr>,
    /// See [`Userspace::leave_to_rules`].
    left: BTreeSet<IpAddr>,
    /// What of the frontends cannot be served.
    lacking: BTreeMap<FrontendKey, Lack>,
    /// Frontends whose backends are to see their clients' addresses, and the Services that they are of.
    hiding: BTreeMap<FrontendKey, ServiceKey>,
    /// What whoever does the work knows of.
    known: Known,
    /// What may have changed since.
    pending: Pending,
}

#[derive(Debug, Default)]
struct Known {
    fronts: HashMap<FrontendKey, Front>,
    ports: BTreeSet<Led>,
    cluster_ips: BTreeSet<IpAddr>,
    insiders: Option<BTreeSet<IpAddr>>,
    node_addrs: Vec<NodeAddr>,
    borders_moved: u64,
}

#[derive(Debug, Default)]
struct Pending {
    frontends: BTreeSet<FrontendKey>,
    cluster_ips: BTreeSet<IpAddr>,
    insiders: bool,
}

/// Why something is not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lack {
    /// Of the whole frontend: nothing passes on SCTP.
    Sctp,
    /// Of this backend: it may be a node's tunnel (see [`Services`]), and the program's datagrams are a node's own.
    Tunnel(BackendAddress),
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sctp => f.write_str("is not served: mode userspace has no SCTP; another mode has"),
            Self::Tunnel(at) => write!(
                f,
                "is not served by {at}: nodes have a tunnel at that port, into which no pod is to send; \
                 an endpoint has to be a pod, or to have another port"
            ),
        }
    }
}

impl Userspace {
    /// Of Services as they are now.
    #[must_use]
    pub fn new(services: &Services) -> Self {
        let mut new = Self::default();
        new.learn(&services.whole());
        new.cluster_ips = services.cluster_ips().collect();
        new.local_pods = services.local_pods.iter().collect();
        new.all_is_pending();
        new
    }

    /// Takes a plan in.
    pub fn learn(&mut self, plan: &Plan) {
        for change in &plan.frontends {
            match &change.after {
                Some(serving) => drop(self.servings.insert(change.key, serving.clone())),
                None => drop(self.servings.remove(&change.key)),
            }
            self.pending.frontends.insert(change.key);
        }
        follow(&mut self.cluster_ips, &plan.cluster_ips);
        self.pending.cluster_ips.extend(plan.cluster_ips.more.iter().chain(&plan.cluster_ips.fewer));
        follow(&mut self.local_pods, &plan.local_pods);
        self.pending.insiders |= !plan.local_pods.more.is_empty() || !plan.local_pods.fewer.is_empty();
    }

    /// Takes in which addresses the node has beside those that are planned with, on whatever device: what is at one of them is listened for
    /// in the node's namespace, and what comes from there is the node's.
    pub fn set_own(&mut self, addrs: BTreeSet<IpAddr>) {
        let moved: BTreeSet<IpAddr> = self.own.symmetric_difference(&addrs).copied().collect();
        if !moved.is_empty() {
            self.pending.frontends.extend(self.servings.keys().filter(|key| moved.contains(&key.addr)));
            self.pending.insiders = true;
            self.own = addrs;
        }
    }

    /// Whether it is a Service's ClusterIP.
    #[must_use]
    pub fn is_cluster_ip(&self, addr: &IpAddr) -> bool {
        self.cluster_ips.contains(addr)
    }

    /// What is to be done since the last time.
    pub fn work(&mut self, services: &Services) -> Work {
        let mut work = Work::default();
        if self.known.node_addrs != services.config().node_addrs {
            // Addresses may have become the node's own, or are not any more.
            self.known.node_addrs.clone_from(&services.config().node_addrs);
            self.pending.frontends.extend(self.servings.keys());
            self.pending.insiders = true;
        }
        if std::mem::replace(&mut self.known.borders_moved, services.borders_moved) != services.borders_moved {
            let datagrams = self.servings.keys().filter(|key| key.protocol == Protocol::Udp);
            self.pending.frontends.extend(datagrams);
        }
        for addr in std::mem::take(&mut self.pending.cluster_ips) {
            if !self.cluster_ips.contains(&addr) || self.left.contains(&addr) {
                work.fewer.extend(self.known.cluster_ips.remove(&addr).then_some(Led::Address(addr)));
            } else if self.known.cluster_ips.insert(addr) {
                work.more.push(Led::Address(addr));
            }
        }
        for key in std::mem::take(&mut self.pending.frontends) {
            self.work_of(key, services, &mut work);
        }
        if std::mem::take(&mut self.pending.insiders) {
            let nodes = services.config().node_addrs.iter().map(|addr| addr.0).chain(loopback::LOCALHOSTS);
            let insiders: BTreeSet<IpAddr> = self.local_pods.iter().chain(&self.own).copied().chain(nodes).collect();
            if self.known.insiders.as_ref() != Some(&insiders) {
                self.known.insiders = Some(insiders.clone());
                work.insiders = Some(insiders);
            }
        }
        work
    }

    fn work_of(&mut self, key: FrontendKey, services: &Services, work: &mut Work) {
        let serving = self.servings.get(&key).filter(|_| !self.left.contains(&key.addr));
        let after = serving.map(|serving| self.front(key, serving, services));
        let (after, lack) = after.unwrap_or_default();
        match lack {
            Some(lack) => drop(self.lacking.insert(key, lack)),
            None => drop(self.lacking.remove(&key)),
        }
        match after.as_ref().filter(|front| front.serving.keeps_source) {
            Some(front) => drop(self.hiding.insert(key, front.serving.service.clone())),
            None => drop(self.hiding.remove(&key)),
        }
        let port = Led::Port { addr: key.addr, protocol: key.protocol, port: key.port };
        let is_led = after
            .as_ref()
            .is_some_and(|front| front.place == Place::Apart && front.serving.kind != FrontendKind::ClusterIp);
        if is_led && self.known.ports.insert(port) {
            work.more.push(port);
        } else if !is_led && self.known.ports.remove(&port) {
            work.fewer.push(port);
        }
        let before = match &after {
            Some(front) => self.known.fronts.insert(key, front.clone()),
            None => self.known.fronts.remove(&key),
        };
        if before != after {
            work.fronts.push((key, after));
        }
    }

    /// Everything, for who knows of nothing.
    pub fn whole(&mut self, services: &Services) -> Work {
        self.known = Known::default();
        self.all_is_pending();
        self.work(services)
    }

    fn all_is_pending(&mut self) {
        let (frontends, cluster_ips) = (self.servings.keys().copied().collect(), self.cluster_ips.clone());
        self.pending = Pending { frontends, cluster_ips, insiders: true };
    }

    fn front(&self, key: FrontendKey, serving: &Arc<Serving>, services: &Services) -> (Option<Front>, Option<Lack>) {
        if key.protocol == Protocol::Sctp {
            return (None, Some(Lack::Sctp));
        }
        let is_own = key.addr.is_loopback()
            || self.known.node_addrs.iter().any(|addr| addr.0 == key.addr)
            || (serving.kind != FrontendKind::ClusterIp && self.own.contains(&key.addr));
        let place = if is_own { Place::Node } else { Place::Apart };
        let is_tunnel = |backend: &&Backend| key.protocol == Protocol::Udp && services.may_be_tunnel(backend.at);
        let left_out = serving.backends().find(is_tunnel).map(|backend| backend.at);
        let serving = match serving.answering().any(|backend| is_tunnel(&backend)) {
            false => serving.clone(),
            true => Arc::new(without(serving, |backend| is_tunnel(&backend))),
        };
        (Some(Front { place, guard: guard(&serving), serving }), left_out.map(Lack::Tunnel))
    }

    /// Services of a policy that keeps their clients' addresses (`externalTrafficPolicy: Local`): their backends see the node's all the same.
    #[must_use]
    pub fn hiding(&self) -> BTreeSet<&ServiceKey> {
        self.hiding.values().collect()
    }

    /// What cannot be served, and the Services that it is of.
    pub fn unserved(&self) -> impl Iterator<Item = (FrontendKey, Lack, &Serving)> {
        self.lacking.iter().filter_map(|(key, lack)| Some((*key, *lack, &**self.servings.get(key)?)))
    }
}

/// As it is said, but for some of the backends.
fn without(serving: &Serving, which: impl Fn(&Backend) -> bool) -> Serving {
    let side = |backends: &Backends| match backends {
        Backends::Of(slots) => {
            let left: Arc<[Backend]> = slots.iter().filter(|backend| !which(backend)).copied().collect();
            if left.is_empty() { Backends::Reject } else { Backends::Of(left) }
        }
        other => other.clone(),
    };
    let lasting = serving.lasting.iter().filter(|backend| !which(backend)).copied().collect();
    Serving { inside: side(&serving.inside), outside: side(&serving.outside), lasting, ..serving.clone() }
}

/// Who is let in. Where there are backends for the node and its pods only, nobody else is.
fn guard(serving: &Serving) -> Option<Guard> {
    let of = |backends: &Backends| matches!(backends, Backends::Of(_));
    let drops = |backends: &Backends| matches!(backends, Backends::Drop);
    let (inside, outside) = (&serving.inside, &serving.outside);
    let sources = serving.sources.clone();
    match () {
        () if of(inside) && drops(outside) => Some(Guard::Only { inside: true, sources }),
        () if of(inside) || of(outside) => Some(Guard::Only { inside: false, sources }),
        () if drops(inside) || drops(outside) => Some(Guard::Nobody),
        () => None,
    }
}

fn follow(addrs: &mut BTreeSet<IpAddr>, moved: &Moved) {
    addrs.retain(|addr| !moved.fewer.contains(addr));
    addrs.extend(&moved.more);
}

#[cfg(test)]
mod tests;
