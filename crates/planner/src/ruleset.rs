//! The typed rule set: what nftables (and later iptables, IPVS and eBPF) render, and what a virtual packet walks.
//!
//! A [`RuleSet`] is one table: base chains, whose rules are few and constant, and maps and sets, whose elements are the Services
//! and backends. A change of the cluster is a list of [`Edit`]s; applying them to the value and rendering them to the kernel in
//! one transaction keep the two equal.
//!
//! [`RuleSet::apply`] does edits all or none, [`RuleSet::validate`] tells what a kernel would refuse, [`diff()`] tells the edits
//! between two values, and [`walk`] sends a virtual packet through one.

mod apply;
mod diff;
mod elements;
mod validate;
pub mod walk;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::Ipv4Addr,
    sync::Arc,
};

use podnet_model::{LinkName, Mac, Protocol, limits::PacketRate};

pub use apply::EditError;
pub use diff::diff;
pub use validate::InvalidRuleSet;

/// A chain's, map's or set's name: at most 31 bytes are portable (`NFT_NAME_MAXLEN` of older kernels).
pub type RuleName = Arc<str>;

/// One nftables table of family `ip`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuleSet {
    /// Chains by name.
    pub chains: BTreeMap<RuleName, Chain>,
    /// Verdict maps: where a packet goes on.
    pub verdict_maps: BTreeMap<RuleName, VerdictMap>,
    /// Translation maps: which backend a slot is.
    pub backend_maps: BTreeMap<RuleName, BackendMap>,
    /// Sets.
    pub sets: BTreeMap<RuleName, Set>,
}

/// A chain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chain {
    /// Where the kernel enters it; none for a chain that others jump to.
    pub hook: Option<Hook>,
    /// Its rules, tried in order; the policy of a base chain is accept.
    pub rules: Vec<Rule>,
}

/// Where a base chain stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hook {
    /// `nat` or `filter`.
    pub kind: ChainKind,
    /// The netfilter hook.
    pub point: HookPoint,
    /// The priority: lower runs earlier (-100 is destination NAT, 0 filter, 100 source NAT).
    pub priority: i32,
}

/// Type of a base chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChainKind {
    /// Sees the first packet of each connection.
    Nat,
    /// Sees every packet.
    Filter,
}

/// A netfilter hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum HookPoint {
    /// Before routing, for what comes in.
    Prerouting,
    /// For this host.
    Input,
    /// Through this host.
    Forward,
    /// From this host.
    Output,
    /// After routing, for what goes out.
    Postrouting,
}

/// A rule: all matches must hold, then the action is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The conditions, all of which must hold.
    pub matches: Vec<Match>,
    /// What is done.
    pub action: Action,
    /// Why the rule is there: rendered as the rule's comment.
    pub comment: &'static str,
}

/// A condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Match {
    /// The first packet of a connection (`ct state new`).
    ConnectionNew,
    /// The connection was translated to another destination (`ct status dnat`).
    DestinationTranslated,
    /// The destination is an address of this host (`fib daddr type local`).
    DestinationLocal,
    /// The packet came in through a device whose name begins so (`iifname "…*"`).
    InputDevice {
        /// The first letters of the name.
        prefix: &'static str,
    },
    /// The way back to the packet's source does not lead through the device that it came in by (`fib saddr . iif oif missing`): the
    /// sender has not the address that it claims. For prerouting, input and forward.
    SourceElsewhere,
    /// The fields, concatenated, are an element of the set; of a set of limits, one whose limit this packet exceeds.
    InSet {
        /// What is looked up.
        fields: Vec<Field>,
        /// The set.
        set: RuleName,
    },
    /// As [`Match::InSet`], negated.
    NotInSet {
        /// What is looked up.
        fields: Vec<Field>,
        /// The set.
        set: RuleName,
    },
    /// All bits of the packet mark that `bits` names are set.
    Mark {
        /// The bits.
        bits: u32,
    },
}

/// A field of the packet that keys are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// `ip saddr`.
    SourceAddress,
    /// `ip daddr`.
    DestinationAddress,
    /// `meta l4proto`.
    Protocol,
    /// `th dport`.
    DestinationPort,
    /// `iifname`.
    InputDevice,
    /// `ether saddr`.
    SourceMac,
}

/// What a rule does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Stop here, the packet passes this chain's hook.
    Accept,
    /// Go on there and come back.
    Jump(RuleName),
    /// Go on where the map says for (destination address, protocol, destination port); fall through where it has no such key.
    Lookup(RuleName),
    /// Translate the destination to the map's value at (destination address, protocol, destination port, random slot below
    /// `slots`).
    Dnat {
        /// The backend map.
        map: RuleName,
        /// How many backends there are, at least 1.
        slots: u32,
    },
    /// As [`Action::Dnat`], but the key's address is 0.0.0.0 whatever the packet's is, and its slot is 0: for ports that are open
    /// on every address of the host.
    DnatAnyAddress {
        /// The backend map.
        map: RuleName,
    },
    /// Set these bits of the packet mark and go on.
    SetMark {
        /// The bits.
        bits: u32,
    },
    /// Translate the source to the address of the device that the packet leaves through, with a fully random port.
    Masquerade,
    /// Lose the packet, and tell nobody.
    Drop,
    /// Refuse at once: TCP reset, otherwise ICMP port unreachable.
    Reject,
}

/// What a frontend's key is: an address, protocol and port that clients connect to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FrontendKey {
    /// Destination address.
    pub addr: Ipv4Addr,
    /// Transport protocol.
    pub protocol: Protocol,
    /// Destination port.
    pub port: u16,
}

/// A backend's slot at a frontend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BackendKey {
    /// The frontend.
    pub frontend: FrontendKey,
    /// Slot, below the frontend's number of backends.
    pub slot: u32,
}

/// Where a translated connection goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BackendAddress {
    /// Address.
    pub addr: Ipv4Addr,
    /// Port.
    pub port: u16,
}

impl fmt::Display for FrontendKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}/{}", self.addr, self.port, self.protocol)
    }
}

impl fmt::Display for BackendKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} slot {}", self.frontend, self.slot)
    }
}

impl fmt::Display for BackendAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.addr, self.port)
    }
}

/// Frontend to chain (`goto`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VerdictMap {
    /// The elements: for each frontend the chain that the packet goes on in.
    pub elements: BTreeMap<FrontendKey, RuleName>,
}

/// Backend slot to address and port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BackendMap {
    /// The elements.
    pub elements: BTreeMap<BackendKey, BackendAddress>,
}

/// A set; its kind says how elements are compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Set {
    /// Single addresses.
    Addresses(BTreeSet<Ipv4Addr>),
    /// Ranges, none inside another (`flags interval`).
    Ranges(BTreeSet<ipnet::Ipv4Net>),
    /// Pairs of source and destination address.
    Pairs(BTreeSet<(Ipv4Addr, Ipv4Addr)>),
    /// Devices, each with the Ethernet address that comes in through it.
    Devices(BTreeSet<(LinkName, Mac)>),
    /// Addresses, each with how many packets of it may pass; what exceeds that is found.
    PacketRates(BTreeMap<Ipv4Addr, PacketRate>),
    /// Addresses, each with how many connections of it may be open at once; the packet that opens one more is found. To be asked once,
    /// and of packets that open connections only: each question counts.
    ConnectionLimits(BTreeMap<Ipv4Addr, u32>),
}

/// One change of a rule set. A list of edits is one transaction: all are in force, or none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Edit {
    /// Make the chain, or replace its rules.
    SetChain(RuleName, Chain),
    /// Remove a chain that nothing refers to any more.
    RemoveChain(RuleName),
    /// Make an empty verdict map.
    AddVerdictMap(RuleName),
    /// Make an empty backend map.
    AddBackendMap(RuleName),
    /// Make a set with the elements that it starts with.
    AddSet(RuleName, Set),
    /// Remove a map or set, with its elements, that no rule refers to any more (maps and sets share one name space, and the
    /// kernel removes both by the same message).
    RemoveSet(RuleName),
    /// Point a frontend at a chain, replacing where it pointed.
    SetVerdict {
        /// The verdict map.
        map: RuleName,
        /// The frontend.
        key: FrontendKey,
        /// The chain.
        chain: RuleName,
        /// Where it pointed before: the kernel removes an element by key, but the renderer needs no read back.
        replaces: bool,
    },
    /// Forget a frontend.
    RemoveVerdict {
        /// The verdict map.
        map: RuleName,
        /// The frontend.
        key: FrontendKey,
    },
    /// Fill a slot, replacing what it held.
    SetBackend {
        /// The backend map.
        map: RuleName,
        /// The slot.
        key: BackendKey,
        /// The backend.
        to: BackendAddress,
        /// The slot was filled before.
        replaces: bool,
    },
    /// Empty a slot.
    RemoveBackend {
        /// The backend map.
        map: RuleName,
        /// The slot.
        key: BackendKey,
    },
    /// Add an element to a set; the set given holds just the new elements, of the kind of the named set.
    AddElements(RuleName, Set),
    /// Remove elements from a set.
    RemoveElements(RuleName, Set),
}

#[cfg(test)]
mod tests;
