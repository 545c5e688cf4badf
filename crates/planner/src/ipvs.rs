//! The vocabulary of the kernel's virtual servers (IPVS): what is there, what ought to be, and the edits between the two.
//!
//! A [`State`] is of one family: virtual servers with their real servers, the addresses of the device `kube-ipvs0`, and sets of addresses
//! and ports (ipset) that rules of iptables ask. [`difference`] tells the [`Edit`]s from one to the other, in an order in which what is used
//! is there before and goes after.

mod difference;
mod drain;
mod sets;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
};

pub use difference::difference;
pub use drain::Drain;
pub use sets::{Element, Set, SetKind, SetName, SetType};

use crate::ruleset::{BackendAddress, FrontendKey};

/// The device that has the addresses of virtual servers: a dummy. It is kube-proxy's name, which other programs know and leave alone.
pub const DEVICE: &str = "kube-ipvs0";

/// The routing table that delivers on this host what virtual servers attract: one route for each address. Nothing else is in it.
pub const ROUTES: u32 = 28_783;
/// The priority of the routing rules that lead there: behind the host's own addresses, before everything else that is usual. The one before
/// is taken, too.
pub const PRIORITY: u32 = 100;

/// How the names end of the sets in which podnet notes its own virtual servers: what is in there is noted before it is made, and struck out
/// after it is gone. An element with a mark notes the virtual server of that mark.
pub const NOTES: &str = "-VIRTUAL-SERVERS";
/// How the names end of the sets of addresses that come to this node for the sake of virtual servers: those of [`DEVICE`], and those that are
/// attracted.
pub const PLACES: [&str; 2] = ["-IPVS-IPS", "-EXTERNAL-ADDRESSES"];

/// All that there is of one family.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// The virtual servers.
    pub servers: BTreeMap<ServerKey, Server>,
    /// The addresses of [`DEVICE`], each by itself (/32, /128).
    pub addrs: BTreeSet<IpAddr>,
    /// The sets.
    pub sets: BTreeMap<SetName, Set>,
}

/// Which packets are a virtual server's. Where both would do, the kernel takes the mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ServerKey {
    /// Those to this address, protocol and port.
    Address(FrontendKey),
    /// Those with this mark, all 32 bits of it: of the [`State`]'s family, whatever their protocol.
    Mark(u32),
}

/// A virtual server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// How it chooses.
    pub scheduling: Scheduling,
    /// The real servers and their weights: one of 0 gets no new connections. Connections are forwarded by translation (`masquerading` in
    /// the words of `ipvsadm`).
    pub reals: BTreeMap<BackendAddress, u32>,
}

/// How a virtual server chooses a real server for a new connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scheduling {
    /// Among those that a client has not been to.
    pub scheduler: Scheduler,
    /// `sh-fallback`, `mh-fallback` (`IP_VS_SVC_F_SCHED1`): where the one that was chosen has the weight 0, another is.
    pub fallback: bool,
    /// `sh-port`, `mh-port` (`IP_VS_SVC_F_SCHED2`): the client's port counts, too.
    pub port: bool,
    /// A client comes to the same one for as many seconds (`IP_VS_SVC_F_PERSISTENT`), each address by itself (netmask /32, /128).
    pub persistence: Option<u32>,
}

/// The kernel's schedulers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scheduler {
    /// One after the other.
    RoundRobin,
    /// As often as its weight says.
    WeightedRoundRobin,
    /// The one with the fewest connections.
    LeastConnection,
    /// The same by weight.
    WeightedLeastConnection,
    /// By locality: the one that the destination has, unless it is overloaded.
    LocalityLeastConnection,
    /// The same with a set for each destination.
    LocalityLeastConnectionReplicated,
    /// By a hash of the source address.
    SourceHash,
    /// By a hash of the destination address.
    DestinationHash,
    /// The one with the shortest expected delay.
    ShortestExpectedDelay,
    /// An idle one, else as the one before.
    NeverQueue,
    /// By Maglev's consistent hash of the source address.
    Maglev,
}

impl Scheduler {
    /// All of them, in the order of kube-proxy's documentation.
    pub const ALL: [Self; 11] = [
        Self::RoundRobin,
        Self::WeightedRoundRobin,
        Self::LeastConnection,
        Self::WeightedLeastConnection,
        Self::LocalityLeastConnection,
        Self::LocalityLeastConnectionReplicated,
        Self::SourceHash,
        Self::DestinationHash,
        Self::ShortestExpectedDelay,
        Self::NeverQueue,
        Self::Maglev,
    ];

    /// The kernel's name for it; its module is `ip_vs_` and this.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::RoundRobin => "rr",
            Self::WeightedRoundRobin => "wrr",
            Self::LeastConnection => "lc",
            Self::WeightedLeastConnection => "wlc",
            Self::LocalityLeastConnection => "lblc",
            Self::LocalityLeastConnectionReplicated => "lblcr",
            Self::SourceHash => "sh",
            Self::DestinationHash => "dh",
            Self::ShortestExpectedDelay => "sed",
            Self::NeverQueue => "nq",
            Self::Maglev => "mh",
        }
    }

    /// The one of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scheduler| scheduler.name() == name)
    }
}

impl fmt::Display for Scheduler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for ServerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(key) => write!(f, "virtual server {key}"),
            Self::Mark(mark) => write!(f, "virtual server of mark {mark:#x}"),
        }
    }
}

/// One step between two [`State`]s. What is made is not there before, and what goes is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Edit {
    /// Make a set, of the state's family, with nothing in it.
    MakeSet(SetName, SetKind),
    /// Put an element into a set; where it is there with another mark, change that.
    AddElement(SetName, Element, Option<u32>),
    /// Take an element out of a set.
    RemoveElement(SetName, Element),
    /// Remove a set, whatever is in it.
    DestroySet(SetName),
    /// Make a virtual server without real servers.
    AddServer(ServerKey, Scheduling),
    /// Change how a virtual server chooses.
    ChangeServer(ServerKey, Scheduling),
    /// Remove a virtual server and its real servers.
    RemoveServer(ServerKey),
    /// Give a virtual server a real server, with its weight.
    AddReal(ServerKey, BackendAddress, u32),
    /// Change a real server's weight.
    Weigh(ServerKey, BackendAddress, u32),
    /// Take a real server from a virtual server.
    RemoveReal(ServerKey, BackendAddress),
    /// Give [`DEVICE`] an address.
    AddAddress(IpAddr),
    /// Take an address from [`DEVICE`].
    RemoveAddress(IpAddr),
}

impl State {
    /// Does an edit to the value, as the kernel would.
    pub fn apply(&mut self, edit: &Edit) {
        match edit {
            Edit::MakeSet(name, kind) => drop(self.sets.insert(name.clone(), Set::new(*kind))),
            Edit::AddElement(name, element, mark) => {
                if let Some(set) = self.sets.get_mut(name) {
                    set.elements.insert(*element, *mark);
                }
            }
            Edit::RemoveElement(name, element) => {
                if let Some(set) = self.sets.get_mut(name) {
                    set.elements.remove(element);
                }
            }
            Edit::DestroySet(name) => drop(self.sets.remove(name)),
            Edit::AddServer(key, scheduling) => {
                self.servers.insert(*key, Server { scheduling: *scheduling, reals: BTreeMap::new() });
            }
            Edit::ChangeServer(key, scheduling) => {
                if let Some(server) = self.servers.get_mut(key) {
                    server.scheduling = *scheduling;
                }
            }
            Edit::RemoveServer(key) => drop(self.servers.remove(key)),
            Edit::AddReal(key, real, weight) | Edit::Weigh(key, real, weight) => {
                if let Some(server) = self.servers.get_mut(key) {
                    server.reals.insert(*real, *weight);
                }
            }
            Edit::RemoveReal(key, real) => {
                if let Some(server) = self.servers.get_mut(key) {
                    server.reals.remove(real);
                }
            }
            Edit::AddAddress(addr) => drop(self.addrs.insert(*addr)),
            Edit::RemoveAddress(addr) => drop(self.addrs.remove(addr)),
        }
    }
}

#[cfg(test)]
mod tests;
