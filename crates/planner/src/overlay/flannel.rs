//! What flannel's nodes, and programs made for flannel, are told of this node.

use std::{
    collections::BTreeMap,
    fmt::Write,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::IpNet;
use podnet_model::{
    Dual, Family, Mac,
    convert::flannel_annotation::{
        BACKEND_DATA, BACKEND_TYPE, BACKEND_V6_DATA, PUBLIC_IP, PUBLIC_IPV6, SUBNET_MANAGER,
    },
    flannel::{Backend, Lease},
};

use super::{IPIP_OVERHEAD, IPV6_EXTRA, Overlay, UDP_OVERHEAD, VXLAN_OVERHEAD, WIREGUARD_OVERHEAD, vtep_mac};

/// flannel's annotations of this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlannelWords {
    /// What they should be; none where there should be no such.
    pub annotations: BTreeMap<&'static str, Option<String>>,
    /// This node's object shows them, as far as peers need them.
    pub shown: bool,
}

impl Overlay {
    /// flannel's annotations of this node, while flannel's configuration is there and the node has an address for it. With WireGuard they
    /// wait for the key.
    ///
    /// Of IPv6 there is something to tell with VXLAN and with plain routes. flannel's WireGuard has a device, a key and a port for each
    /// family, ours one for both: its nodes are not told to send there by IPv6.
    #[must_use]
    pub fn flannel_words(&self) -> Option<FlannelWords> {
        let conf = self.net_conf()?;
        let mac = vtep_mac(&self.config.node);
        let (data, data6, vtep_mac) = match conf.backend {
            Backend::Vxlan { vni, .. } => {
                let data = format!(r#"{{"VNI":{vni},"VtepMAC":"{mac}"}}"#);
                (data.clone(), Some(data), Some(mac))
            }
            Backend::WireGuard { .. } => (format!(r#"{{"PublicKey":"{}"}}"#, self.own_key()?.public), None, None),
            Backend::HostGw => ("null".to_owned(), Some("null".to_owned()), None),
            Backend::Ipip { .. } | Backend::Udp { .. } | Backend::Alloc => ("null".to_owned(), None, None),
        };
        let public_ip = self.public_v4().filter(|_| conf.networks.v4.is_some());
        let public_ipv6 = self.public_v6().filter(|_| conf.networks.v6.is_some() && data6.is_some());
        if public_ip.is_none() && public_ipv6.is_none() {
            return None;
        }
        let macs: Dual<Option<Mac>> =
            Dual { v4: vtep_mac.filter(|_| public_ip.is_some()), v6: vtep_mac.filter(|_| public_ipv6.is_some()) };
        let lease = Lease { backend: conf.backend.name().into(), public_ip, public_ipv6, vtep_macs: macs };
        let annotations = [
            (BACKEND_TYPE, Some(conf.backend.name().to_owned())),
            (BACKEND_DATA, public_ip.map(|_| data)),
            (BACKEND_V6_DATA, public_ipv6.and(data6)),
            (PUBLIC_IP, public_ip.map(|addr| addr.to_string())),
            (PUBLIC_IPV6, public_ipv6.map(|addr| addr.to_string())),
            (SUBNET_MANAGER, Some("true".to_owned())),
        ];
        let shown = self.own_node().and_then(|node| node.lease.as_ref()) == Some(&lease);
        Some(FlannelWords { annotations: annotations.into(), shown })
    }

    /// Where flannel's nodes shall send: what somebody wrote over it, or the address that peers know.
    fn public_v4(&self) -> Option<Ipv4Addr> {
        let own = self.own_node()?;
        match own.overwrites.v4.or(self.config.underlay.subnet.map(|subnet| subnet.addr())) {
            Some(IpAddr::V4(addr)) => Some(addr),
            _ => own.v4().or(self.config.underlay.addr),
        }
    }

    fn public_v6(&self) -> Option<Ipv6Addr> {
        let own = self.own_node()?;
        match own.overwrites.v6.or(self.config.underlay.subnet6.map(|subnet| subnet.addr())) {
            Some(IpAddr::V6(addr)) => Some(addr),
            _ => own.v6().or(self.config.underlay.addr6),
        }
    }

    /// What flannel writes to `/run/flannel/subnet.env`, from which other plugins learn this node's parts of the ranges and the MTU.
    #[must_use]
    pub fn subnet_env(&self) -> Option<String> {
        let conf = self.net_conf()?;
        let mut text = String::new();
        for (family, prefix) in [(Family::V4, "FLANNEL"), (Family::V6, "FLANNEL_IPV6")] {
            let (Some(network), Some(part)) = (conf.networks[family], self.own_part(family)) else { continue };
            let Some(first) = part.hosts().find(|addr| *addr != part.network()) else { continue };
            let length = part.prefix_len();
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{prefix}_NETWORK={network}\n{prefix}_SUBNET={first}/{length}");
        }
        if text.is_empty() {
            return None;
        }
        let extra = if conf.networks.v6.is_some() { IPV6_EXTRA } else { 0 };
        let overhead = match conf.backend {
            Backend::Vxlan { .. } => VXLAN_OVERHEAD + extra,
            Backend::Ipip { .. } => IPIP_OVERHEAD,
            Backend::WireGuard { .. } => WIREGUARD_OVERHEAD,
            Backend::Udp { .. } => UDP_OVERHEAD,
            Backend::HostGw | Backend::Alloc => 0,
        };
        let mtu = self.config.underlay.mtu.saturating_sub(overhead);
        Some(format!("{text}FLANNEL_MTU={mtu}\nFLANNEL_IPMASQ=true\n"))
    }

    /// The first address of the node's part of flannel's range, which flannel gives to its devices.
    pub(super) fn flannel_addr(&self, family: Family) -> Option<IpAddr> {
        self.own_part(family).map(|part| part.network())
    }

    fn own_part(&self, family: Family) -> Option<IpNet> {
        let own = self.by_owner.get(&self.config.node)?;
        let parts = own.iter().filter(|cidr| self.leases.contains_key(cidr) && cidr.family() == family);
        parts.map(|cidr| cidr.0).next()
    }
}
