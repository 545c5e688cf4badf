//! Records: one for each flow, told when it begins, from time to time while it lasts, and when it has ended.
//!
//! All of a flow's records have one id and say what passed since it began: who keeps the last one of each id has all, and none twice.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    str::FromStr,
    sync::Arc,
};

use jiff::Timestamp;
use podnet_model::{NodeName, ServiceKey};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub use crate::{
    drops::{Direction, Drops},
    gap::{Gap, GapAt, Interface},
    verdict::{Cause, Verdict},
};
use crate::{
    entry::{Entry, EntryKey, Transport, Way},
    names::{Holder, PodIdentity},
};

/// What is told: a flow, that flows are missing, or that packets were dropped of which it is not known whose they were.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Item {
    /// A flow.
    Flow(Arc<Record>),
    /// Flows are missing.
    Gap(Gap),
    /// Packets were dropped at an interface.
    Drops(Drops),
}

impl Item {
    /// When it was as it says.
    #[must_use]
    pub fn at(&self) -> Timestamp {
        match self {
            Self::Flow(record) => record.end,
            Self::Gap(gap) => gap.end,
            Self::Drops(drops) => drops.end,
        }
    }

    /// What kind of item it is, as its `type` in JSON has it.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Flow(_) => "flow",
            Self::Gap(_) => "gap",
            Self::Drops(_) => "drops",
        }
    }
}

/// What all records of a flow have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct FlowId(pub Uuid);

impl fmt::Display for FlowId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl From<FlowId> for String {
    fn from(id: FlowId) -> Self {
        id.to_string()
    }
}

impl TryFrom<String> for FlowId {
    type Error = uuid::Error;

    fn try_from(text: String) -> Result<Self, uuid::Error> {
        Uuid::parse_str(&text).map(Self)
    }
}

/// A flow as who began it sees it; of ICMP the source's port is the identifier and the destination's the type, at both ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// Who began it.
    pub source: SocketAddr,
    /// Whom it asked.
    pub destination: SocketAddr,
    /// The protocol.
    pub transport: Transport,
}

impl Key {
    /// The flow that an entry is of.
    #[must_use]
    pub fn of(entry: &Entry) -> Self {
        let EntryKey { local, remote, local_port, remote_port, transport, .. } = entry.key;
        let (local, remote) = (SocketAddr::new(local, local_port), SocketAddr::new(remote, remote_port));
        let (mut source, mut destination) = if entry.pod_began { (local, remote) } else { (remote, local) };
        if matches!(transport, Transport::ICMP | Transport::ICMP6) {
            source.set_port(local_port);
            destination.set_port(remote_port);
        }
        Self { source, destination, transport }
    }
}

/// Which record of a flow it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Report {
    /// It began.
    Start,
    /// It goes on.
    Update,
    /// It has ended.
    End,
    /// It has ended, as the source's node tells: this is what was counted at the destination's end, where that is another node's
    /// ([`Record::is_secondary`]). It is part of that flow's record, by the same ends (or the source that the destination sees, [`Record::seen_as`]) and
    /// nearly the same start, and no flow of its own.
    Part,
}

/// Whose end it was counted at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reporter {
    /// That of who began it.
    Source,
    /// That of whom it asked.
    Destination,
    /// Both; the counters are those of the source's end.
    Both,
}

/// What kinds of ends a flow has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    /// Between pods of one node.
    PodPodSameNode,
    /// Between pods of two nodes.
    PodPodOtherNode,
    /// A pod asked a Service, whoever answers.
    PodService,
    /// A pod asked a node.
    PodNode,
    /// A pod asked somebody outside.
    PodWorld,
    /// Somebody outside asked a pod.
    WorldPod,
    /// A node asked a pod.
    NodePod,
}

impl Class {
    const NAMED: [(Self, &'static str); 7] = [
        (Self::PodPodSameNode, "pod-pod-same-node"),
        (Self::PodPodOtherNode, "pod-pod-other-node"),
        (Self::PodService, "pod-service"),
        (Self::PodNode, "pod-node"),
        (Self::PodWorld, "pod-world"),
        (Self::WorldPod, "world-pod"),
        (Self::NodePod, "node-pod"),
    ];
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Self::NAMED.iter().find(|(class, _)| class == self).map_or("", |(_, name)| *name);
        f.write_str(name)
    }
}

impl FromStr for Class {
    type Err = UnknownName;

    fn from_str(text: &str) -> Result<Self, UnknownName> {
        named(&Self::NAMED, text)
    }
}

/// A text is none of the names there are.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{found:?} is none of {known}")]
pub struct UnknownName {
    found: String,
    known: String,
}

/// The one of these that a text names.
pub(crate) fn named<T: Copy>(names: &[(T, &str)], text: &str) -> Result<T, UnknownName> {
    let found = names.iter().find(|(_, name)| *name == text).map(|(value, _)| *value);
    found.ok_or_else(|| {
        let known = names.iter().map(|(_, name)| *name).collect::<Vec<_>>().join(", ");
        UnknownName { found: text.to_owned(), known }
    })
}

/// One end of a flow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct End {
    /// Its address.
    pub ip: IpAddr,
    /// Its port; of ICMP the identifier, and the type.
    pub port: u16,
    /// The pod that had the address when the flow began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<Arc<PodIdentity>>,
    /// The node, where it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeName>,
}

impl End {
    pub(crate) fn new(at: SocketAddr, holder: Holder) -> Self {
        let (pod, node) = match holder {
            Holder::Pod(pod) => (Some(pod), None),
            Holder::Node(node) => (None, Some(node)),
            Holder::World => (None, None),
        };
        Self { ip: at.ip(), port: at.port(), pod, node }
    }

    /// Address and port.
    #[must_use]
    pub fn at(&self) -> SocketAddr {
        SocketAddr::new(self.ip, self.port)
    }
}

/// The Service that was asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// Namespace and name.
    #[serde(flatten)]
    pub service: ServiceKey,
    /// The address that was asked, before translation.
    pub ip: IpAddr,
    /// The port.
    pub port: u16,
}

impl Asked {
    /// Address and port, before translation.
    #[must_use]
    pub fn at(&self) -> SocketAddr {
        SocketAddr::new(self.ip, self.port)
    }
}

/// A flow, as far as it went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// The same in all records of the flow, also those of an agent that began anew.
    pub id: FlowId,
    /// Which record it is.
    pub report: Report,
    /// The first packet.
    pub start: Timestamp,
    /// The last one so far.
    pub end: Timestamp,
    /// The protocol.
    pub protocol: Transport,
    /// Who began it.
    pub source: End,
    /// Who answers: where a Service was asked, the backend.
    pub destination: End,
    /// The address and port that the destination sees in the place of the source's, where the source's node put them there and the destination is
    /// not on that node: its own node tells the flow as one from there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen_as: Option<SocketAddr>,
    /// The Service that was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<Asked>,
    /// What kinds of ends it has.
    pub class: Class,
    /// What became of it.
    pub verdict: Verdict,
    /// What dropped or refused its packets, where something tells it: all of them, or where the verdict is [`Verdict::Forwarded`] those after the
    /// last answer, or of [`Cause::Limit`] some.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<Cause>,
    /// The node that tells it.
    pub node: NodeName,
    /// Whose end it was counted at.
    pub reporter: Reporter,
    /// From the source.
    pub sent: Way,
    /// To the source.
    pub received: Way,
    /// How long the handshake of TCP took, in microseconds: the smoothed time of a way there and back after its first measurement (RFC 6298, section 2.2).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handshake_micros: Option<u32>,
    /// What was counted at the other end, where that is on another node, and both nodes' records were put together; or on the same one, where something else
    /// was counted there by the end of the flow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination_counts: Option<Box<AtDestination>>,
}

/// What the destination's node counted of a flow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AtDestination {
    /// The node.
    pub node: NodeName,
    /// What came from the source.
    pub sent: Way,
    /// What left for the source.
    pub received: Way,
}

impl Record {
    /// The flow that it is of, by its ends as the source's node knows them: where the destination's translated what a Service was asked, these are
    /// whom it asked.
    #[must_use]
    pub fn key(&self) -> Key {
        let asked = self.service.as_ref().filter(|_| self.reporter == Reporter::Destination);
        let destination = asked.map_or_else(|| self.destination.at(), Asked::at);
        Key { source: self.source.at(), destination, transport: self.protocol }
    }

    /// The flow that the destination's node takes it for, where another source is seen there ([`Record::seen_as`]).
    #[must_use]
    pub fn seen_key(&self) -> Option<Key> {
        self.seen_as.map(|source| Key { source, ..self.key() })
    }

    /// The node of the other end tells it as well, and better: who reads all nodes leaves this one out. The class says
    /// so where the names are left out.
    #[must_use]
    pub fn is_secondary(&self) -> bool {
        self.reporter == Reporter::Destination && !matches!(self.class, Class::WorldPod | Class::NodePod)
    }

    /// A pod asked a port of a node that is not its own, which its own node did not translate: that one tells whom it asked, and this record who answers.
    #[must_use]
    pub fn names_who_answers(&self) -> bool {
        self.is_secondary() && self.service.is_some()
    }

    /// Both ends are pods.
    #[must_use]
    pub fn is_pod_to_pod(&self) -> bool {
        self.source.pod.is_some() && self.destination.pod.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        for (class, _) in Class::NAMED {
            assert_eq!(class.to_string().parse(), Ok(class));
            assert_eq!(serde_json::to_value(class).unwrap(), class.to_string());
        }
        assert!("pod".parse::<Class>().unwrap_err().to_string().contains("pod-world"));
    }
}
