//! flannel's configuration and what its nodes tell each other.

use std::{net::Ipv4Addr, sync::Arc};

use ipnet::Ipv4Net;

use crate::{EncapMode, Mac, Namespace, Pool, PoolName};

/// What `net-conf.json` in the ConfigMap `kube-flannel-cfg` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NetConf {
    /// `Network`: the range of all pods.
    pub network: Ipv4Net,
    /// `SubnetLen`: prefix length of a node's part; 24 where not given.
    pub subnet_len: u8,
    /// `Backend`.
    pub backend: Backend,
    /// `EnableIPv6`: pods shall have IPv6 too.
    pub ipv6: bool,
}

impl NetConf {
    /// The name that its range goes by among pools; no IPPool can have it.
    #[must_use]
    pub fn pool_name(namespace: &Namespace) -> PoolName {
        format!("{namespace}/kube-flannel-cfg").into()
    }

    /// Its range as a pool. As with flannel, what leaves the range leaves with the node's address.
    #[must_use]
    pub fn pool(&self, namespace: &Namespace) -> Pool {
        let mode = |direct: bool| if direct { EncapMode::CrossSubnet } else { EncapMode::Always };
        let (mut vxlan, mut ipip) = (EncapMode::Never, EncapMode::Never);
        match self.backend {
            Backend::Vxlan { direct_routing, .. } => vxlan = mode(direct_routing),
            Backend::Ipip { direct_routing } => ipip = mode(direct_routing),
            Backend::HostGw | Backend::WireGuard { .. } | Backend::Udp { .. } | Backend::Alloc => {}
        }
        let pool = Pool::new(Self::pool_name(namespace), self.network.into());
        Pool { block_size: self.subnet_len, vxlan, ipip, nat_outgoing: true, ..pool }
    }
}

/// The way between nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// VXLAN.
    Vxlan {
        /// `VNI`; 1 where not given.
        vni: u32,
        /// `Port`; 8472 (the kernel's own default) where not given.
        port: u16,
        /// `DirectRouting`: plain routes to nodes on the same subnet.
        direct_routing: bool,
    },
    /// Plain routes; all nodes are on one subnet.
    HostGw,
    /// IPIP.
    Ipip {
        /// `DirectRouting`: plain routes to nodes on the same subnet.
        direct_routing: bool,
    },
    /// WireGuard.
    WireGuard {
        /// `ListenPort`; 51820 where not given.
        port: u16,
    },
    /// Packets in UDP, by a program.
    Udp {
        /// `Port`; 8285 where not given.
        port: u16,
    },
    /// None: addresses are given, and somebody else carries the packets (`alloc`).
    Alloc,
}

impl Backend {
    /// The backend's `Type`, and the value of the annotation `backend-type`.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Vxlan { .. } => "vxlan",
            Self::HostGw => "host-gw",
            Self::Ipip { .. } => "ipip",
            Self::WireGuard { .. } => "wireguard",
            Self::Udp { .. } => "udp",
            Self::Alloc => "alloc",
        }
    }
}

/// What a node of flannel's says of itself in its annotations (`flannel.alpha.coreos.com/*`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// `backend-type`.
    pub backend: Arc<str>,
    /// `public-ip`: its peers send encapsulated packets there.
    pub public_ip: Ipv4Addr,
    /// `VtepMAC` of `backend-data`: the Ethernet address of its VXLAN device.
    pub vtep_mac: Option<Mac>,
}
