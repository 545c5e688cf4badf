//! flannel's configuration and what its nodes tell each other.

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use ipnet::IpNet;

use crate::{Dual, EncapMode, Family, Mac, Namespace, Pool, PoolName};

/// What `net-conf.json` in the ConfigMap `kube-flannel-cfg` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NetConf {
    /// The range of all pods: `Network`, and `IPv6Network` where `EnableIPv6` says so.
    pub networks: Dual<Option<IpNet>>,
    /// `SubnetLen`: prefix length of a node's part of IPv4; 24 where not given.
    pub subnet_len: u8,
    /// `Backend`.
    pub backend: Backend,
}

impl NetConf {
    /// Prefix length of the blocks that a node makes of its part of IPv6 (flannel's are of /64, of which nobody could keep account): that
    /// of IPPools.
    const BLOCK_LEN_V6: u8 = 122;

    /// The name that its range of a family goes by among pools; no IPPool can have it.
    #[must_use]
    pub fn pool_name(namespace: &Namespace, family: Family) -> PoolName {
        match family {
            Family::V4 => format!("{namespace}/kube-flannel-cfg").into(),
            Family::V6 => format!("{namespace}/kube-flannel-cfg/IPv6").into(),
        }
    }

    /// Its ranges.
    pub fn ranges(&self) -> impl Iterator<Item = IpNet> + use<> {
        self.networks.v4.into_iter().chain(self.networks.v6)
    }

    /// Its range of a family as a pool. As with flannel, what leaves the range leaves with the node's address.
    #[must_use]
    pub fn pool(&self, namespace: &Namespace, family: Family) -> Option<Pool> {
        let mode = |direct: bool| if direct { EncapMode::CrossSubnet } else { EncapMode::Always };
        let (mut vxlan, mut ipip) = (EncapMode::Never, EncapMode::Never);
        match self.backend {
            Backend::Vxlan { direct_routing, .. } => vxlan = mode(direct_routing),
            Backend::Ipip { direct_routing } => ipip = mode(direct_routing),
            Backend::HostGw | Backend::WireGuard { .. } | Backend::Udp { .. } | Backend::Alloc => {}
        }
        let block_size = match family {
            Family::V4 => self.subnet_len,
            Family::V6 => Self::BLOCK_LEN_V6,
        };
        let pool = |cidr| Pool::new(Self::pool_name(namespace, family), cidr);
        self.networks[family].map(|cidr| Pool { block_size, vxlan, ipip, nat_outgoing: true, ..pool(cidr) })
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
    pub public_ip: Option<Ipv4Addr>,
    /// `public-ipv6`: those that carry IPv6.
    pub public_ipv6: Option<Ipv6Addr>,
    /// `VtepMAC` of `backend-data` and `backend-v6-data`: the Ethernet addresses of its VXLAN devices.
    pub vtep_macs: Dual<Option<Mac>>,
}
