//! One change of the cluster's state.

use std::{net::IpAddr, sync::Arc};

use crate::{
    Block, BlockCidr, EndpointSlice, Felix, IpamSettings, Namespace, NamespaceScope, NetConf, Node, NodeName, Pod,
    PodKey, Pool, PoolName, ProxyConfig, Reservation, Service, ServiceKey, SliceKey, balancer::AddressPool,
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
    /// An IPAddressPool, by its namespace and name.
    AddressPool(ServiceKey, Option<Arc<AddressPool>>),
    /// An IPAMBlock.
    Block(BlockCidr, Option<Block>),
    /// A Namespace.
    Namespace(Namespace, Option<NamespaceScope>),
    /// An IPReservation, by its name.
    Reservation(Arc<str>, Option<Reservation>),
    /// A StickyAddress: the addresses that a pod of this name gets again, at most one of each family.
    Sticky(PodKey, Vec<IpAddr>),
    /// The IPAMConfig named `default`.
    IpamSettings(Option<IpamSettings>),
    /// The ConfigMap `kube-flannel-cfg` of a namespace.
    NetConf(Namespace, Option<NetConf>),
    /// The FelixConfiguration `default`.
    Felix(Option<Felix>),
    /// The KubeProxyConfiguration of the cluster, or this node's own.
    Proxy(Option<Arc<ProxyConfig>>),
}
