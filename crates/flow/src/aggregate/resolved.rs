//! Who asked whom: the ends of a flow behind what is translated on its way.

use std::net::SocketAddr;

use podnet_model::{NodeName, ServiceKey};

use super::{Scene, flow::Side};
use crate::{
    entry::{Entry, Transport},
    names::Holder,
    record::{Asked, Key},
};

/// A flow, as far as an entry at one of its ends tells of it.
pub(super) struct Resolved {
    /// From who began it to who answers, whichever addresses these see of each other.
    pub(super) key: Key,
    /// What an entry at the other end has instead, where the translation was not known yet as that was read.
    pub(super) elsewhere: Option<Key>,
    /// The Service that was asked.
    pub(super) asked: Option<Asked>,
    /// The source that who answers sees, where that is another one.
    pub(super) seen_as: Option<SocketAddr>,
}

impl Resolved {
    pub(super) fn new(entry: &Entry, side: Side, node: &NodeName, scene: &mut Scene<'_>) -> Self {
        match side {
            Side::Source => Self::at_source(entry, node, scene),
            Side::Destination => Self::at_destination(entry, node, scene),
        }
    }

    fn at_source(entry: &Entry, node: &NodeName, scene: &mut Scene<'_>) -> Self {
        let (own, names) = (Key::of(entry), scene.names);
        let service = |at| names.service(at, own.transport).cloned();
        if let Some(at) = entry.asked {
            // The socket chose: nothing is translated on the way.
            return Self { key: own, elsewhere: None, asked: asked(service(at), at), seen_as: None };
        }
        let at = own.destination;
        let (known, node_port) = (service(at), names.node_port(at, own.transport));
        // What is addressed to the node itself may come to a pod by a port of the host.
        let is_asked = known.is_some() || node_port.is_some() || names.is_of_node(at.ip(), node);
        let onward = (is_asked && has_ports(own.transport)).then(|| scene.translations.onward(&own)).flatten();
        // Nodes have addresses besides those that all know of.
        let is_translated = onward.is_some_and(|onward| onward.destination != at);
        let service = known.or_else(|| node_port.filter(|_| is_translated).cloned());
        let key = Key { destination: onward.map_or(at, |onward| onward.destination), ..own };
        Self {
            key,
            elsewhere: onward.filter(|onward| *onward != key),
            asked: asked(service, at),
            seen_as: onward.map(|onward| onward.source).filter(|source| *source != own.source),
        }
    }

    fn at_destination(entry: &Entry, node: &NodeName, scene: &mut Scene<'_>) -> Self {
        let (own, names) = (Key::of(entry), scene.names);
        let is_asked = match names.holder(own.source.ip(), entry.first) {
            // The entry at its own interface tells.
            Holder::Pod(pod) if pod.node == *node => false,
            // Its node translates for it, all but what it asks at this one's ports.
            Holder::Pod(_) => names.has_node_ports(),
            Holder::Node(_) | Holder::World => true,
        };
        let origin = (is_asked && has_ports(own.transport)).then(|| scene.translations.origin(&own)).flatten();
        let Some(origin) = origin else {
            return Self { key: own, elsewhere: None, asked: None, seen_as: None };
        };
        let at = origin.destination;
        let at_node = names.node_port(at, own.transport).filter(|_| at != own.destination);
        let service = names.service(at, own.transport).or(at_node).cloned();
        // What is the node's own has no other address elsewhere.
        let is_own = origin.source.ip().is_loopback();
        let key = if is_own { own } else { Key { source: origin.source, ..own } };
        Self {
            key,
            elsewhere: Some(origin).filter(|origin| *origin != key),
            asked: asked(service, at),
            seen_as: Some(own.source).filter(|source| *source != key.source),
        }
    }
}

fn asked(service: Option<ServiceKey>, at: SocketAddr) -> Option<Asked> {
    service.map(|service| Asked { service, ip: at.ip(), port: at.port() })
}

/// Services are asked at ports.
const fn has_ports(transport: Transport) -> bool {
    matches!(transport, Transport::TCP | Transport::UDP | Transport::SCTP)
}
