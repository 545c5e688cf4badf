//! One change of the cluster's state.

use std::{net::Ipv4Addr, sync::Arc};

use crate::{
    Block, BlockCidr, EndpointSlice, Felix, IpamSettings, Namespace, NamespaceScope, NetConf, Node, NodeName, Pod,
    PodKey, Pool, PoolName, Reservation, Service, ServiceKey, SliceKey,
};

/// An object that appeared or changed (`Some`) or vanished (`None`), by its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A Node.
    Node(NodeName, Option<Node>),
    /// A Pod.
    Pod(PodKey, Option<Pod>),
    /// A Service.
    Service(ServiceKey, Option<Service>),
    /// An EndpointSlice.
    Slice(SliceKey, Option<EndpointSlice>),
    /// An IPPool.
    Pool(PoolName, Option<Pool>),
    /// An IPAMBlock.
    Block(BlockCidr, Option<Block>),
    /// A Namespace.
    Namespace(Namespace, Option<NamespaceScope>),
    /// An IPReservation, by its name.
    Reservation(Arc<str>, Option<Reservation>),
    /// A StickyAddress: the address that a pod of this name gets again.
    Sticky(PodKey, Option<Ipv4Addr>),
    /// The IPAMConfig named `default`.
    IpamSettings(Option<IpamSettings>),
    /// The ConfigMap `kube-flannel-cfg` of a namespace.
    NetConf(Namespace, Option<NetConf>),
    /// The FelixConfiguration `default`.
    Felix(Option<Felix>),
}
