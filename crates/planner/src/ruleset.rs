//! The typed rule set: what nftables (and later iptables, IPVS and eBPF) render, and what a virtual packet walks.
//!
//! A [`RuleSet`] is one table of one family: base chains, whose rules are few and constant, and maps and sets, whose elements are the
//! Services and backends. A change of the cluster is a list of [`Edit`]s; applying them to the value and rendering them to the kernel in
//! one transaction keep the two equal.
//!
//! [`RuleSet::apply`] does edits all or none, [`RuleSet::validate`] tells what a kernel would refuse, [`diff()`] tells the edits
//! between two values, and [`walk`] sends a virtual packet through one.

mod apply;
mod diff;
mod edit;
mod elements;
mod validate;
pub mod walk;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use ipnet::IpNet;
use podnet_model::{Family, LinkName, Mac, Protocol, limits::PacketRate};
use serde::{Deserialize, Serialize};

pub use apply::EditError;
pub use diff::diff;
pub use edit::Edit;
pub(crate) use elements::{not_in, rule, within};
pub use validate::InvalidRuleSet;

/// A chain's, map's or set's name: at most 31 bytes are portable (`NFT_NAME_MAXLEN` of older kernels).
pub type RuleName = Arc<str>;

/// One nftables table, of family `ip` or `ip6`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleSet {
    /// Whose packets it sees: all addresses and ranges in it are of this family.
    pub family: Family,
    /// Chains by name.
    pub chains: BTreeMap<RuleName, Chain>,
    /// Verdict maps: where a packet goes on.
    pub verdict_maps: BTreeMap<RuleName, VerdictMap>,
    /// Translation maps: which backend a slot is.
    pub backend_maps: BTreeMap<RuleName, BackendMap>,
    /// Sets.
    pub sets: BTreeMap<RuleName, Set>,
    /// Maps that the rules fill themselves: from (source address, destination address, protocol, destination port) to the number of the
    /// backend that this client of this frontend had last. What is in them is no part of the value.
    pub memories: BTreeSet<RuleName>,
}

impl RuleSet {
    /// A table with nothing in it.
    #[must_use]
    pub const fn empty(family: Family) -> Self {
        Self {
            family,
            chains: BTreeMap::new(),
            verdict_maps: BTreeMap::new(),
            backend_maps: BTreeMap::new(),
            sets: BTreeMap::new(),
            memories: BTreeSet::new(),
        }
    }
}

/// The address that stands for every address of the host.
#[must_use]
pub const fn unspecified(family: Family) -> IpAddr {
    match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        Family::V6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    }
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
    /// The packet came in through a device whose name does not begin so (`iifname != "…*"`).
    OtherInputDevice {
        /// The first letters of the name.
        prefix: Arc<str>,
    },
    /// The packet leaves through a device whose name does not begin so (`oifname != "…*"`).
    OtherOutputDevice {
        /// The first letters of the name.
        prefix: &'static str,
    },
    /// The packet came in, and not by the loopback (`iifname != "lo"`).
    FromElsewhere,
    /// The address is one of the loopback's: of 127.0.0.0/8, or ::1.
    Loopback(Field),
    /// The field is this address.
    Address(Field, IpAddr),
    /// More connections than so many that came to this rule are open, this one included (`ct count over`). To be asked of packets that open
    /// connections only: each question counts.
    ConnectionsOver(u32),
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
    /// The packet is of this transport protocol (`meta l4proto`, a number of IANA's).
    Protocol(u8),
    /// It asks for an echo (ICMP or ICMPv6).
    EchoRequest,
    /// A socket of this host is there for the packet, and not one that takes others' packets (`socket transparent 0`).
    SocketHere,
    /// All bits of the packet mark that `bits` names are set.
    Mark {
        /// The bits.
        bits: u32,
    },
}

/// A field of the packet that keys are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// `ip saddr`, `ip6 saddr`.
    SourceAddress,
    /// `ip daddr`, `ip6 daddr`.
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

/// The slot in a map of numbers that holds the number of a frontend's group: all frontends with the same number have a client's backend in common.
pub const GROUP: u32 = u32::MAX;

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
    /// Translate the destination to the backend whose number is at (destination address, protocol, destination port, random slot below
    /// `slots`), and hold that number in the memory for this client of the frontend's group ([`GROUP`]) for so many seconds; fall through where
    /// it is full.
    DnatRemembered {
        /// The numbers of backends, by slot.
        numbers: RuleName,
        /// The backend map whose slots are those numbers.
        numbered: RuleName,
        /// How many backends there are, at least 1.
        slots: u32,
        /// The memory.
        memory: RuleName,
        /// For how long.
        seconds: u32,
    },
    /// Translate the destination to what the memory holds for this client of the frontend's group ([`GROUP`]), if that is one of the
    /// frontend's backends, and hold it for so many seconds from now on; fall through otherwise.
    DnatAgain {
        /// The memory.
        memory: RuleName,
        /// The numbers of groups, at the slot [`GROUP`].
        numbers: RuleName,
        /// The backend map whose slots are the numbers of backends.
        numbered: RuleName,
        /// For how long.
        seconds: u32,
    },
    /// Translate the destination to this address; the port stays, where there is one.
    DnatTo(IpAddr),
    /// As [`Action::Dnat`], but the key's address is [`unspecified`] whatever the packet's is, and its slot is 0: for ports that are
    /// open on every address of the host.
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
    /// Keep the packet from connection tracking, and so from translation, and go on.
    NoTrack,
    /// Put the packet's flow in the set for so many seconds, or, where it is there, for so many from now on, and go on; also where the set is full.
    NoteFlow {
        /// The set ([`Set::Flows`]).
        set: RuleName,
        /// What of the packet it is known by.
        by: FlowFields,
        /// For how long.
        seconds: u32,
    },
    /// Lose the packet, and tell nobody.
    Drop,
    /// Refuse at once: TCP reset, otherwise ICMP (ICMPv6) port unreachable.
    Reject,
}

/// By what of a packet its flow is known, beside its source address, which is as it is here, and its protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlowFields {
    /// Both ports and the destination address, as they are here.
    Ports,
    /// The source port, and the destination address and port that it had before they were translated here (`ct original`).
    Asked,
    /// The destination address, and of ICMP the identifier of an echo in place of the source port, and type and code in place of the other one.
    Identifier,
}

/// What a frontend's key is: an address, protocol and port that clients connect to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FrontendKey {
    /// Destination address.
    pub addr: IpAddr,
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct BackendAddress {
    /// Address.
    pub addr: IpAddr,
    /// Port.
    pub port: u16,
}

impl fmt::Display for FrontendKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", SocketAddr::from((self.addr, self.port)), self.protocol)
    }
}

impl fmt::Display for BackendKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} slot {}", self.frontend, self.slot)
    }
}

impl fmt::Display for BackendAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        SocketAddr::from((self.addr, self.port)).fmt(f)
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
    Addresses(BTreeSet<IpAddr>),
    /// Ranges, none inside another (`flags interval`).
    Ranges(BTreeSet<IpNet>),
    /// Pairs of source and destination address.
    Pairs(BTreeSet<(IpAddr, IpAddr)>),
    /// Destination ports; to be asked of packets that have ports.
    Ports(BTreeSet<u16>),
    /// Slots of frontends, each with the number of the backend that is in it, which stays wherever the backend stands.
    Numbers(BTreeMap<BackendKey, u32>),
    /// Frontends, each with the ranges of those who may come to it, none inside another.
    Sources(BTreeSet<(FrontendKey, IpNet)>),
    /// Who sends: the device that it comes in by, its Ethernet address, its source address.
    Senders(BTreeSet<Sender>),
    /// Addresses, each with how many packets of it may pass; what exceeds that is found.
    PacketRates(BTreeMap<IpAddr, PacketRate>),
    /// Addresses, each of which counts how many packets asked for it.
    Counters(BTreeSet<IpAddr>),
    /// Flows that rules put there ([`Action::NoteFlow`]) and that go by themselves. What is in it is no part of the value.
    Flows,
}

/// A device, an Ethernet address and a source address that belong together.
pub type Sender = (LinkName, Mac, IpAddr);

#[cfg(test)]
mod tests;
