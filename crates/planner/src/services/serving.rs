//! What a node does for a frontend, whatever renders it.

use std::{collections::BTreeSet, sync::Arc};

use ipnet::IpNet;
use podnet_model::{PortName, ServiceKey};
use serde::{Deserialize, Serialize};

pub use crate::counted::Moved;
use crate::ruleset::{BackendAddress, FrontendKey};

/// What a node does for one frontend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Serving {
    /// Whose frontend it is.
    pub service: ServiceKey,
    /// The Service's port behind it.
    pub port: PortName,
    /// What sort of address it is at.
    pub kind: FrontendKind,
    /// For this node and its pods: `internalTrafficPolicy` of a ClusterIP; all endpoints of everything else.
    pub inside: Backends,
    /// For everybody else: `externalTrafficPolicy`; of a ClusterIP as [`Serving::inside`].
    pub outside: Backends,
    /// Those keep their source address (`externalTrafficPolicy: Local`).
    pub keeps_source: bool,
    /// A client comes to the same backend for as many seconds after it last opened a connection (`sessionAffinity: ClientIP`).
    pub affinity: Option<u32>,
    /// Of UDP the endpoints that are no backends and answer still: they end while others are ready, or hints and policies lead elsewhere. No flow
    /// begins there. Those that lead there go on where one ends (in mode ipvs not with the scheduler `dh`). Where hints and policies change they go
    /// on in modes nftables, iptables and userspace, and in mode ebpf those of connected sockets. Sorted by address; none of other protocols.
    #[serde(default)]
    pub lasting: Arc<[Backend]>,
    /// Who alone may come (`loadBalancerSourceRanges` of the frontend's family, none inside another); of kind
    /// [`LoadBalancer`](FrontendKind::LoadBalancer) only.
    pub sources: Option<Arc<BTreeSet<IpNet>>>,
}

impl Serving {
    /// Whether others than the node and its pods are served in another way.
    #[must_use]
    pub fn differs_outside(&self) -> bool {
        self.keeps_source || self.outside != self.inside
    }

    /// All backends, those of both sides once or twice.
    pub fn backends(&self) -> impl Iterator<Item = &Backend> {
        let outside = if self.differs_outside() { self.outside.slots() } else { &[] };
        self.inside.slots().iter().chain(outside)
    }

    /// All that flows may lead to: the [backends](Serving::backends), and what [lasts](Serving::lasting).
    pub fn answering(&self) -> impl Iterator<Item = &Backend> {
        self.backends().chain(&*self.lasting)
    }

    /// Of UDP the endpoints that end and are no backends of the side, though they may be of the other one: flows of that side's clients that lead
    /// there go on. They are few, while policies and hints may leave out nearly all endpoints of a large Service. Of other protocols it does not
    /// count, as their connections are never led elsewhere.
    pub fn ending<'a>(&'a self, side: &'a Backends) -> impl Iterator<Item = &'a Backend> {
        let is_backend = move |at: BackendAddress| side.slots().iter().any(|backend| backend.at == at);
        self.answering().filter(move |one| one.terminating && !is_backend(one.at))
    }
}

/// What sort of address a frontend is at. Where two Services ask for one frontend, the first sort has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum FrontendKind {
    /// Of `spec.clusterIPs`.
    ClusterIp,
    /// A node's own.
    NodePort,
    /// A load balancer's.
    LoadBalancer,
    /// Of `spec.externalIPs`.
    ExternalIp,
}

/// Where connections to a frontend go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Backends {
    /// Nobody serves it: it is refused at once.
    Reject,
    /// Others serve it, but a policy `Local` leaves none on this node: it is dropped.
    Drop,
    /// To one of these, each as likely as the others; at least one, each in a slot of its own that it keeps while it stays. One that
    /// goes is followed by a newcomer or by the last one.
    Of(Arc<[Backend]>),
}

impl Backends {
    /// The backends by slot.
    #[must_use]
    pub fn slots(&self) -> &[Backend] {
        match self {
            Self::Of(slots) => slots,
            Self::Reject | Self::Drop => &[],
        }
    }
}

/// Where a connection can go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Backend {
    /// Address and port.
    pub at: BackendAddress,
    /// It is on this node.
    pub local: bool,
    /// It ends, and answers still.
    pub terminating: bool,
}

/// What a change does to one frontend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrontendChange {
    /// The frontend.
    pub key: FrontendKey,
    /// What was done for it; nothing where it is new.
    pub before: Option<Arc<Serving>>,
    /// What is done for it from now on; nothing where it goes.
    pub after: Option<Arc<Serving>>,
}

/// What a change of the cluster does to this node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The frontends that change, each once.
    pub frontends: Vec<FrontendChange>,
    /// ClusterIPs: a port that one has not is refused, and a ping is answered.
    pub cluster_ips: Moved,
    /// Pods of this node that are backends: one may come to itself.
    pub local_backends: Moved,
    /// Pods of this node.
    pub local_pods: Moved,
    /// Ranges of pods that are new.
    pub pods_more: BTreeSet<IpNet>,
    /// Ranges of pods that are gone.
    pub pods_fewer: BTreeSet<IpNet>,
    /// UDP connections that have to be forgotten once the change is in force; none to endpoints that answer still.
    pub vanished: Vec<Vanished>,
}

/// Connections of UDP that lead elsewhere than they have to. Connection tracking would go on sending their clients there as long as these
/// send: to an endpoint that the frontend lost and that answers no more, or, where the frontend is new, to what was there before under the
/// address itself.
pub type Vanished = (FrontendKey, BackendAddress);

impl Plan {
    /// Nothing is to be done.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}
