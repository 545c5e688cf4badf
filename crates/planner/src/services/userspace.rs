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

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
};

use podnet_model::{NodeAddr, Protocol};

pub use choice::{Asked, Choice, Chooser};
pub use guard::Guard;

use super::{Backends, FrontendKind, Moved, Plan, Services, Serving};
use crate::ruleset::FrontendKey;

/// The names of devices that lead to namespaces apart begin so.
pub const DEVICE_PREFIX: &str = "podservices";

/// What is open for one frontend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Front {
    /// Where it is listened.
    pub place: Place,
    /// Who is let in; none where nobody listens.
    pub guard: Option<Guard>,
    /// What is done for who comes.
    pub serving: Arc<Serving>,
}

/// The namespace that a socket is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// The node's: the address is its own.
    Node,
    /// One beside it.
    Apart,
}

/// What is led to the namespace apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
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
#[derive(Clone, Debug, Default, PartialEq, Eq)]
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
    /// What whoever does the work knows of.
    known: Known,
    /// Frontends that may have changed since.
    pending: BTreeSet<FrontendKey>,
}

#[derive(Debug, Default)]
struct Known {
    fronts: HashMap<FrontendKey, Front>,
    ports: BTreeSet<Led>,
    cluster_ips: BTreeSet<IpAddr>,
    insiders: Option<BTreeSet<IpAddr>>,
    node_addrs: Vec<NodeAddr>,
}

impl Userspace {
    /// Of Services as they are now.
    #[must_use]
    pub fn new(services: &Services) -> Self {
        let mut new = Self::default();
        new.learn(&services.whole());
        new.cluster_ips = services.cluster_ips().collect();
        new.local_pods = services.local_pods.iter().collect();
        new
    }

    /// Takes a plan in.
    pub fn learn(&mut self, plan: &Plan) {
        for change in &plan.frontends {
            match &change.after {
                Some(serving) => drop(self.servings.insert(change.key, serving.clone())),
                None => drop(self.servings.remove(&change.key)),
            }
            self.pending.insert(change.key);
        }
        follow(&mut self.cluster_ips, &plan.cluster_ips);
        follow(&mut self.local_pods, &plan.local_pods);
    }

    /// What is to be done since the last time.
    pub fn work(&mut self, services: &Services) -> Work {
        let mut work = Work::default();
        if self.known.node_addrs != services.config().node_addrs {
            // Addresses may have become the node's own, or are not any more.
            self.known.node_addrs.clone_from(&services.config().node_addrs);
            self.pending.extend(self.servings.keys());
        }
        for addr in self.cluster_ips.symmetric_difference(&self.known.cluster_ips) {
            let side = if self.cluster_ips.contains(addr) { &mut work.more } else { &mut work.fewer };
            side.push(Led::Address(*addr));
        }
        if !work.more.is_empty() || !work.fewer.is_empty() {
            self.known.cluster_ips.clone_from(&self.cluster_ips);
        }
        for key in std::mem::take(&mut self.pending) {
            self.work_of(key, &mut work);
        }
        let nodes = services.config().node_addrs.iter().map(|addr| addr.0);
        let insiders: BTreeSet<IpAddr> = self.local_pods.iter().copied().chain(nodes).collect();
        if self.known.insiders.as_ref() != Some(&insiders) {
            self.known.insiders = Some(insiders.clone());
            work.insiders = Some(insiders);
        }
        work
    }

    fn work_of(&mut self, key: FrontendKey, work: &mut Work) {
        let after = self.servings.get(&key).and_then(|serving| self.front(key, serving));
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
        self.pending = self.servings.keys().copied().collect();
        self.work(services)
    }

    fn front(&self, key: FrontendKey, serving: &Arc<Serving>) -> Option<Front> {
        let is_own = self.known.node_addrs.iter().any(|addr| addr.0 == key.addr);
        let place = if is_own { Place::Node } else { Place::Apart };
        (key.protocol != Protocol::Sctp).then(|| Front { place, guard: guard(serving), serving: serving.clone() })
    }

    /// Frontends that cannot be served at all, and the Services that they are of.
    pub fn unserved(&self) -> impl Iterator<Item = (FrontendKey, &Serving)> {
        self.servings.iter().filter(|(key, _)| key.protocol == Protocol::Sctp).map(|(key, serving)| (*key, &**serving))
    }
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
