//! Which records somebody wants to see.

mod drops;

use std::{collections::BTreeMap, fmt, net::IpAddr, str::FromStr};

use ipnet::IpNet;

use crate::{
    entry::{Transport, UnknownTransport},
    names::{Owner, PodIdentity},
    record::{Cause, Class, End, Record, UnknownName, Verdict},
};

/// One end of a flow, by what it is. As text: `pod/NAMESPACE/NAME`, `namespace/NAME`, `label/KEY=VALUE`, `pods/NAMESPACE/KEY=VALUE,KEY=VALUE`,
/// `service/NAMESPACE/NAME`, `workload/NAMESPACE/NAME`, `workload/NAMESPACE/KIND/NAME`, `node/NAME`, `world`, an address or a range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A pod.
    Pod(String, String),
    /// All pods of a namespace.
    Namespace(String),
    /// Pods with a label.
    Label(String, String),
    /// Pods of a namespace that have all of these labels, as a Service selects them.
    Selected(String, BTreeMap<String, String>),
    /// Who answers for a Service that was asked. As a source it is nobody: a record says which Service was asked, and not behind which ones the
    /// source is ([`InvalidTerm::Service`]).
    Service(String, String),
    /// Pods of a Deployment, StatefulSet or the like: its namespace, its kind, in small or large letters, or any where none is said, and its name.
    Workload(String, Option<String>, String),
    /// A node.
    Node(String),
    /// Whoever is neither pod nor node.
    World,
    /// Addresses; also that which was asked before translation.
    Range(IpNet),
}

/// A text names no end of flows.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no end of a flow; it must be pod/NAMESPACE/NAME, namespace/NAME, label/KEY=VALUE, pods/NAMESPACE/KEY=VALUE,KEY=VALUE, \
     service/NAMESPACE/NAME, workload/NAMESPACE/NAME, workload/NAMESPACE/KIND/NAME, node/NAME, world, an address or a range (10.0.0.0/8)"
)]
pub struct UnknownPlace(String);

impl FromStr for Place {
    type Err = UnknownPlace;

    fn from_str(text: &str) -> Result<Self, UnknownPlace> {
        let unknown = || UnknownPlace(text.to_owned());
        if let Ok(range) = text.parse() {
            return Ok(Self::Range(range));
        }
        if let Ok(addr) = text.parse::<IpAddr>() {
            return Ok(Self::Range(addr.into()));
        }
        if text == "world" {
            return Ok(Self::World);
        }
        let (kind, rest) = text.split_once('/').filter(|(_, rest)| !rest.is_empty()).ok_or_else(unknown)?;
        let named = || {
            let named = rest.split_once('/').filter(|(namespace, name)| !namespace.is_empty() && !name.is_empty());
            named.map(|(namespace, name)| (namespace.to_owned(), name.to_owned())).ok_or_else(unknown)
        };
        match kind {
            "pod" => named().map(|(namespace, name)| Self::Pod(namespace, name)),
            "service" | "svc" => named().map(|(namespace, name)| Self::Service(namespace, name)),
            "workload" => {
                let (namespace, workload) = named()?;
                match workload.split_once('/') {
                    None => Ok(Self::Workload(namespace, None, workload)),
                    Some((kind, name)) if !kind.is_empty() && !name.is_empty() && !name.contains('/') => {
                        Ok(Self::Workload(namespace, Some(kind.to_owned()), name.to_owned()))
                    }
                    Some(_) => Err(unknown()),
                }
            }
            "namespace" | "ns" => Ok(Self::Namespace(rest.to_owned())),
            "node" => Ok(Self::Node(rest.to_owned())),
            "pods" => {
                let (namespace, labels) =
                    rest.split_once('/').filter(|(namespace, _)| !namespace.is_empty()).ok_or_else(unknown)?;
                let label = |label: &str| label.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned()));
                let labels: Option<BTreeMap<_, _>> = labels.split(',').map(label).collect();
                Ok(Self::Selected(namespace.to_owned(), labels.ok_or_else(unknown)?))
            }
            "label" => {
                let (key, value) = rest.split_once('=').ok_or_else(unknown)?;
                Ok(Self::Label(key.to_owned(), value.to_owned()))
            }
            _ => Err(unknown()),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pod(namespace, name) => write!(f, "pod/{namespace}/{name}"),
            Self::Namespace(name) => write!(f, "namespace/{name}"),
            Self::Label(key, value) => write!(f, "label/{key}={value}"),
            Self::Selected(namespace, labels) => {
                write!(f, "pods/{namespace}/")?;
                let mut between = "";
                labels
                    .iter()
                    .try_for_each(|(key, value)| write!(f, "{}{key}={value}", std::mem::replace(&mut between, ",")))
            }
            Self::Service(namespace, name) => write!(f, "service/{namespace}/{name}"),
            Self::Workload(namespace, None, name) => write!(f, "workload/{namespace}/{name}"),
            Self::Workload(namespace, Some(kind), name) => write!(f, "workload/{namespace}/{kind}/{name}"),
            Self::Node(name) => write!(f, "node/{name}"),
            Self::World => f.write_str("world"),
            Self::Range(range) => write!(f, "{range}"),
        }
    }
}

impl Place {
    /// The namespace that it is in, where it is in one.
    #[must_use]
    pub fn namespace(&self) -> Option<&str> {
        match self {
            Self::Pod(namespace, _)
            | Self::Namespace(namespace)
            | Self::Selected(namespace, _)
            | Self::Service(namespace, _)
            | Self::Workload(namespace, ..) => Some(namespace),
            Self::Label(..) | Self::Node(_) | Self::World | Self::Range(_) => None,
        }
    }

    fn is_pod(&self, end: &End, is: impl Fn(&PodIdentity) -> bool) -> bool {
        end.pod.as_deref().is_some_and(is)
    }

    fn is(&self, end: &End) -> bool {
        match self {
            Self::Pod(namespace, name) => self.is_pod(end, |pod| *pod.namespace == **namespace && *pod.name == **name),
            Self::Namespace(namespace) => self.is_pod(end, |pod| *pod.namespace == **namespace),
            Self::Label(key, value) => self.is_pod(end, |pod| has_label(pod, key, value)),
            Self::Selected(namespace, labels) => self.is_pod(end, |pod| {
                *pod.namespace == **namespace && labels.iter().all(|(key, value)| has_label(pod, key, value))
            }),
            Self::Workload(namespace, kind, name) => self.is_pod(end, |pod| {
                let is_kind = |of: &str| kind.as_ref().is_none_or(|kind| of.eq_ignore_ascii_case(kind));
                let is_owner = |owner: &Owner| *owner.name == **name && is_kind(&owner.kind);
                *pod.namespace == **namespace && pod.owner.as_ref().is_some_and(is_owner)
            }),
            Self::Node(name) => end.node.as_ref().is_some_and(|node| node.as_str() == name),
            Self::World => end.pod.is_none() && end.node.is_none(),
            Self::Range(range) => range.contains(&end.ip),
            Self::Service(..) => false,
        }
    }

    fn is_source(&self, record: &Record) -> bool {
        self.is(&record.source)
    }

    fn is_destination(&self, record: &Record) -> bool {
        let asked = record.service.as_ref();
        self.is(&record.destination)
            || match self {
                Self::Service(namespace, name) => asked.is_some_and(|asked| {
                    asked.service.namespace.as_str() == namespace && *asked.service.name == **name
                }),
                Self::Range(range) => asked.is_some_and(|asked| range.contains(&asked.ip)),
                _ => false,
            }
    }
}

/// The label by which a Service selects one pod of a StatefulSet.
const POD_NAME: &str = "statefulset.kubernetes.io/pod-name";

fn has_label(pod: &PodIdentity, key: &str, value: &str) -> bool {
    // Records leave it out, since it is the pod's name.
    pod.labels.get(key).map_or(key == POD_NAME && *pod.name == *value, |of| **of == *value)
}

/// One thing that is asked of a record. As text: `from=PLACE`, `to=PLACE`, `port=NUMBER`, `protocol=NAME`, `verdict=NAME`, `cause=NAME`, `class=NAME`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Term {
    /// Who began it.
    From(Place),
    /// Who was asked, or answers.
    To(Place),
    /// The port that was asked, or that answers.
    Port(u16),
    /// The protocol.
    Protocol(Transport),
    /// What became of it.
    Verdict(Verdict),
    /// What dropped or refused it.
    Cause(Cause),
    /// What kinds of ends it has.
    Class(Class),
}

/// A text asks nothing of records.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTerm {
    /// Its form is another.
    #[error("{0:?} must be NAME=VALUE with one of the names from, to, port, protocol, verdict, cause, class")]
    Form(String),
    /// The port is none.
    #[error("the port {0:?} is none; it must be a number from 0 to 65535")]
    Port(String),
    /// A Service as source.
    #[error(
        "from=service/{0}/{1}: a Service begins no flows, and no record says behind which Services its source is; name the pods that it selects: \
         from=pods/{0}/KEY=VALUE,KEY=VALUE"
    )]
    Service(String, String),
    /// The end of flows is none.
    #[error(transparent)]
    Place(#[from] UnknownPlace),
    /// The protocol is none.
    #[error(transparent)]
    Protocol(#[from] UnknownTransport),
    /// The verdict, cause or class is none.
    #[error(transparent)]
    Name(#[from] UnknownName),
}

impl FromStr for Term {
    type Err = InvalidTerm;

    fn from_str(text: &str) -> Result<Self, InvalidTerm> {
        let form = || InvalidTerm::Form(text.to_owned());
        let (name, value) = text.split_once('=').ok_or_else(form)?;
        Ok(match name {
            "from" => Self::From(value.parse()?),
            "to" => Self::To(value.parse()?),
            "port" => Self::Port(value.parse().map_err(|_| InvalidTerm::Port(value.to_owned()))?),
            "protocol" => Self::Protocol(value.parse()?),
            "verdict" => Self::Verdict(value.parse()?),
            "cause" => Self::Cause(value.parse()?),
            "class" => Self::Class(value.parse()?),
            _ => return Err(form()),
        })
    }
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::From(place) => write!(f, "from={place}"),
            Self::To(place) => write!(f, "to={place}"),
            Self::Port(port) => write!(f, "port={port}"),
            Self::Protocol(transport) => write!(f, "protocol={transport}"),
            Self::Verdict(verdict) => write!(f, "verdict={verdict}"),
            Self::Cause(cause) => write!(f, "cause={cause}"),
            Self::Class(class) => write!(f, "class={class}"),
        }
    }
}

impl Term {
    fn is_met(&self, record: &Record) -> bool {
        match self {
            Self::From(place) => place.is_source(record),
            Self::To(place) => place.is_destination(record),
            Self::Port(port) => {
                record.destination.port == *port || record.service.as_ref().is_some_and(|asked| asked.port == *port)
            }
            Self::Protocol(transport) => record.protocol == *transport,
            Self::Verdict(verdict) => record.verdict == *verdict,
            Self::Cause(cause) => record.cause == Some(*cause),
            Self::Class(class) => record.class == *class,
        }
    }

    /// Whether records tell if it is met.
    ///
    /// # Errors
    /// Where they do not: [`InvalidTerm::Service`].
    pub fn check(&self) -> Result<(), InvalidTerm> {
        match self {
            Self::From(Place::Service(namespace, name)) => Err(InvalidTerm::Service(namespace.clone(), name.clone())),
            _ => Ok(()),
        }
    }

    /// Terms of one kind are choices.
    const fn kind(&self) -> u8 {
        match self {
            Self::From(_) => 0,
            Self::To(_) => 1,
            Self::Port(_) => 2,
            Self::Protocol(_) => 3,
            Self::Verdict(_) => 4,
            Self::Class(_) => 5,
            Self::Cause(_) => 6,
        }
    }

    /// Whether it asks what became of a flow: of that the nodes of both ends may each know a part, so that it has to be asked of records that were
    /// joined ([`crate::ends`]).
    #[must_use]
    pub const fn is_of_outcome(&self) -> bool {
        matches!(self, Self::Verdict(_) | Self::Cause(_))
    }
}

/// Which records are wanted: of each kind of term that is there one has to be met, and none of those that are not wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// What is wanted.
    pub wanted: Vec<Term>,
    /// What is not.
    pub unwanted: Vec<Term>,
    /// Both ends have to be pods.
    pub pod_to_pod: bool,
}

impl Filter {
    /// Whether a record is wanted.
    #[must_use]
    pub fn wants(&self, record: &Record) -> bool {
        let is_chosen = |term: &Term| {
            self.wanted.iter().filter(|other| other.kind() == term.kind()).any(|other| other.is_met(record))
        };
        (!self.pod_to_pod || record.is_pod_to_pod())
            && self.wanted.iter().all(is_chosen)
            && !self.unwanted.iter().any(|term| term.is_met(record))
    }
}

#[cfg(test)]
pub(crate) mod tests;
