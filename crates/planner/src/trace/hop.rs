//! What is told of a packet's way.

use std::{fmt, net::IpAddr};

use podnet_model::{Family, LinkName, NodeName, PodKey};

use crate::{ruleset::BackendAddress, step::Step};

/// All that can become of a packet.
#[derive(Clone, Debug, PartialEq)]
pub struct Trace {
    /// Each way that it can go, the most frequent one first; at least one.
    pub paths: Vec<Path>,
}

impl Trace {
    /// How many hops all paths have in common from the first one on.
    #[must_use]
    pub fn common(&self) -> usize {
        let Some((first, others)) = self.paths.split_first() else { return 0 };
        if others.is_empty() {
            return first.hops.len();
        }
        let shared = |other: &Path| first.hops.iter().zip(&other.hops).take_while(|(one, two)| one == two).count();
        others.iter().map(shared).min().unwrap_or_default()
    }
}

/// One way that a packet can go.
#[derive(Clone, Debug, PartialEq)]
pub struct Path {
    /// The part of all connections that go this way, 0 to 1.
    pub share: f64,
    /// Where it passes, in order.
    pub hops: Vec<Hop>,
    /// What becomes of it.
    pub end: End,
    /// Where it is addressed to in the end.
    pub destination: BackendAddress,
    /// Its source in the end.
    pub source: IpAddr,
}

/// Somewhere that a packet passes, and what is done to it there.
#[derive(Clone, Debug, PartialEq)]
pub struct Hop {
    /// Whose network it is in.
    pub place: Place,
    /// What is done.
    pub kind: Kind,
    /// The device, where it is at one.
    pub device: Option<LinkName>,
    /// In words.
    pub what: String,
    /// The rule or route that says so, as the kernel has it.
    pub rule: Option<String>,
    /// The object of the cluster that it comes from.
    pub object: Option<Object>,
    /// The largest packet that the device takes, in bytes.
    pub mtu: Option<u32>,
    /// What it costs, where that is more than its kind costs anyway.
    pub cost: Option<String>,
    /// What has to stand in the kernel, in the place's own network, for it to be so.
    pub stands: Vec<Step>,
    /// What is asked there in the tables of pods and of limits.
    pub entries: Vec<Entry>,
}

/// What is asked in the tables of pods and of limits, in which all of a node's pods are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Entry {
    /// Who may send with this address.
    Sender(IpAddr),
    /// The same where that is asked at a port of a bridge.
    Port(IpAddr),
    /// Which ports of the node lead to pods.
    Ports(Family),
    /// How the pod with this address is limited.
    Limits(IpAddr),
    /// The same of its bandwidth alone, where rules are not passed.
    Bandwidth(IpAddr),
}

impl Hop {
    /// Where something is done, and nothing else is known of it.
    #[must_use]
    pub fn new(place: Place, kind: Kind, what: impl Into<String>) -> Self {
        Self {
            place,
            kind,
            device: None,
            what: what.into(),
            rule: None,
            object: None,
            mtu: None,
            cost: None,
            stands: Vec::new(),
            entries: Vec::new(),
        }
    }

    /// At a device, which takes packets of so many bytes.
    #[must_use]
    pub fn at(self, device: LinkName, mtu: u32) -> Self {
        Self { device: Some(device), mtu: Some(mtu), ..self }
    }

    /// By this rule or route.
    #[must_use]
    pub fn by(self, rule: impl Into<String>) -> Self {
        Self { rule: Some(rule.into()), ..self }
    }

    /// Because of this object.
    #[must_use]
    pub fn of(self, object: impl Into<Option<Object>>) -> Self {
        Self { object: object.into(), ..self }
    }

    /// It costs this.
    #[must_use]
    pub fn costing(self, cost: impl Into<String>) -> Self {
        Self { cost: Some(cost.into()), ..self }
    }

    /// What it costs in any case.
    #[must_use]
    pub fn costs(&self) -> &str {
        self.cost.as_deref().unwrap_or_else(|| self.kind.cost())
    }

    /// These have to stand in the kernel.
    #[must_use]
    pub fn standing(self, stands: Vec<Step>) -> Self {
        Self { stands, ..self }
    }

    /// These are asked there.
    #[must_use]
    pub fn asking(self, entries: impl IntoIterator<Item = Entry>) -> Self {
        Self { entries: entries.into_iter().collect(), ..self }
    }
}

/// Whose network a hop is in.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// A pod's own, on a node.
    Pod(PodKey, NodeName),
    /// A node's.
    Node(NodeName),
    /// That between the nodes, and beyond.
    Underlay,
}

impl Place {
    /// The node that it is on.
    #[must_use]
    pub const fn node(&self) -> Option<&NodeName> {
        match self {
            Self::Pod(_, node) | Self::Node(node) => Some(node),
            Self::Underlay => None,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pod(pod, _) => write!(f, "pod {pod}"),
            Self::Node(node) => write!(f, "node {node}"),
            Self::Underlay => f.write_str("underlay"),
        }
    }
}

/// What is done to a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It leaves its sender.
    Sent,
    /// It comes in.
    Received,
    /// A backend is chosen before there is a packet.
    Chosen,
    /// Its destination is translated.
    Translated,
    /// Its source is translated.
    Masqueraded,
    /// A rule judges it.
    Judged,
    /// A route is taken.
    Routed,
    /// It is put into another one.
    Encapsulated,
    /// It is taken out of another one.
    Decapsulated,
    /// It is there.
    Delivered,
}

impl Kind {
    /// In one word, for programs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sent => "sent",
            Self::Received => "received",
            Self::Chosen => "chosen",
            Self::Translated => "translated",
            Self::Masqueraded => "masqueraded",
            Self::Judged => "judged",
            Self::Routed => "routed",
            Self::Encapsulated => "encapsulated",
            Self::Decapsulated => "decapsulated",
            Self::Delivered => "delivered",
        }
    }

    /// What it costs where nothing else is told of it.
    #[must_use]
    pub const fn cost(self) -> &'static str {
        match self {
            Self::Sent | Self::Delivered => "nothing more than any packet",
            Self::Received => "nothing more than any packet; where a rule asks for the sender, a look for each",
            Self::Chosen => "once for each connection",
            Self::Translated | Self::Masqueraded => "every packet and every answer is translated",
            Self::Judged => "a look for each packet, which stays as it is",
            Self::Routed => "a look for each packet: where it goes",
            Self::Encapsulated => "headers around each packet",
            Self::Decapsulated => "the headers around each packet are taken off",
        }
    }
}

/// What becomes of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// In short.
    pub verdict: Verdict,
    /// In words: where it arrives, or why it does not.
    pub why: String,
}

/// What becomes of a packet, in short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It comes to who it is for.
    Arrives,
    /// It leaves the cluster.
    Leaves,
    /// It is refused at once.
    Refused,
    /// Nothing is heard of it.
    Lost,
    /// Nobody knows the way.
    NoRoute,
}

impl Verdict {
    /// In one word, for programs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Arrives => "arrives",
            Self::Leaves => "leaves",
            Self::Refused => "refused",
            Self::Lost => "lost",
            Self::NoRoute => "no-route",
        }
    }

    /// Whether it goes where it is sent.
    #[must_use]
    pub const fn is_well(self) -> bool {
        matches!(self, Self::Arrives | Self::Leaves)
    }
}

/// An object of the cluster as `kubectl get` takes it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Object {
    /// What kubectl calls its kind.
    pub kind: &'static str,
    /// Its namespace, where it has one.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
}

impl Object {
    /// In a namespace.
    #[must_use]
    pub fn namespaced(kind: &'static str, namespace: impl fmt::Display, name: impl fmt::Display) -> Self {
        Self { kind, namespace: Some(namespace.to_string()), name: name.to_string() }
    }

    /// Of the whole cluster.
    #[must_use]
    pub fn global(kind: &'static str, name: impl fmt::Display) -> Self {
        Self { kind, namespace: None, name: name.to_string() }
    }
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind, self.name)?;
        self.namespace.iter().try_for_each(|namespace| write!(f, " -n {namespace}"))
    }
}
