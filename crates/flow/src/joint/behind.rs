//! Who is behind an address of another node that translated what they sent.

use std::{net::SocketAddr, sync::Arc};

use podnet_model::NodeName;

use crate::{
    aggregate::class,
    names::Names,
    record::{Asked, Class, End, Record},
};

/// Whom that node found as the one who began a flow.
#[derive(Clone, Debug)]
pub(super) struct Behind {
    source: End,
    service: Option<Asked>,
    class: Class,
}

impl Behind {
    /// Who began what is told as from a node, by the addresses that came to that one.
    pub(super) fn of(record: &Record, (source, asked): (SocketAddr, SocketAddr), names: &Names) -> Self {
        let service = names.service(asked, record.protocol).cloned();
        let service = service.map(|service| Asked { service, ip: asked.ip(), port: asked.port() });
        // What is that node's own has no other address elsewhere.
        let is_own = source.ip().is_loopback();
        let source = match is_own {
            true => record.source.clone(),
            false => End::new(source, names.holder(source.ip(), record.start)),
        };
        let class = class(&source, &record.destination, service.is_some());
        Self { source, service, class }
    }

    /// It is a pod of that node.
    pub(super) fn is_of(&self, node: &NodeName) -> bool {
        self.source.pod.as_ref().is_some_and(|pod| pod.node == *node)
    }

    /// As far as is known it is outside.
    pub(super) const fn has_no_name(&self) -> bool {
        self.source.pod.is_none() && self.source.node.is_none()
    }

    /// The flow can be told as from there. Where a pod asked something that is no Service nobody would know that its own node tells the same.
    pub(super) fn is_known(&self) -> bool {
        self.source.pod.is_none() || self.service.is_some()
    }

    /// Tells a flow as from there.
    pub(super) fn put_into(&self, record: &mut Arc<Record>) {
        let record = Arc::make_mut(record);
        record.source = self.source.clone();
        record.service = record.service.take().or_else(|| self.service.clone());
        record.class = self.class;
    }
}
