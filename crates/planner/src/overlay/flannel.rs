//! What flannel's nodes, and programs made for flannel, are told of this node.

use std::{collections::BTreeMap, net::Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};
use podnet_model::{
    convert::flannel_annotation::{BACKEND_DATA, BACKEND_TYPE, PUBLIC_IP, SUBNET_MANAGER},
    flannel::{Backend, Lease},
};

use super::{IPIP_OVERHEAD, Overlay, UDP_OVERHEAD, VXLAN_OVERHEAD, WIREGUARD_OVERHEAD, vtep_mac};

/// flannel's annotations of this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlannelWords {
    /// What they should be.
    pub annotations: BTreeMap<&'static str, String>,
    /// This node's object shows them, as far as peers need them.
    pub shown: bool,
}

impl Overlay {
    /// flannel's annotations of this node, while flannel's configuration is there. With WireGuard they wait for the key.
    #[must_use]
    pub fn flannel_words(&self) -> Option<FlannelWords> {
        let (backend, local) = (self.net_conf()?.backend, self.local_v4()?);
        let mac = vtep_mac(&self.config.node);
        let (data, vtep_mac) = match backend {
            Backend::Vxlan { vni, .. } => (format!(r#"{{"VNI":{vni},"VtepMAC":"{mac}"}}"#), Some(mac)),
            Backend::WireGuard { .. } => (format!(r#"{{"PublicKey":"{}"}}"#, self.own_key()?.public), None),
            Backend::HostGw | Backend::Ipip { .. } | Backend::Udp { .. } | Backend::Alloc => ("null".to_owned(), None),
        };
        let lease = Lease { backend: backend.name().into(), public_ip: local, vtep_mac };
        let annotations = [
            (BACKEND_TYPE, backend.name().to_owned()),
            (BACKEND_DATA, data),
            (PUBLIC_IP, local.to_string()),
            (SUBNET_MANAGER, "true".to_owned()),
        ];
        let shown = self.own_node().and_then(|node| node.lease.as_ref()) == Some(&lease);
        Some(FlannelWords { annotations: annotations.into(), shown })
    }

    /// What flannel writes to `/run/flannel/subnet.env`, from which other plugins learn this node's part of the range and the MTU.
    #[must_use]
    pub fn subnet_env(&self) -> Option<String> {
        let conf = self.net_conf()?;
        let part = self.own_part()?;
        let first = part.hosts().next()?;
        let overhead = match conf.backend {
            Backend::Vxlan { .. } => VXLAN_OVERHEAD,
            Backend::Ipip { .. } => IPIP_OVERHEAD,
            Backend::WireGuard { .. } => WIREGUARD_OVERHEAD,
            Backend::Udp { .. } => UDP_OVERHEAD,
            Backend::HostGw | Backend::Alloc => 0,
        };
        Some(format!(
            "FLANNEL_NETWORK={}\nFLANNEL_SUBNET={first}/{}\nFLANNEL_MTU={}\nFLANNEL_IPMASQ=true\n",
            conf.network,
            part.prefix_len(),
            self.config.underlay.mtu.saturating_sub(overhead)
        ))
    }

    /// The first address of the node's part of flannel's range, which flannel gives to its devices.
    pub(super) fn flannel_addr(&self) -> Option<Ipv4Addr> {
        self.own_part().map(|part| part.network())
    }

    fn own_part(&self) -> Option<Ipv4Net> {
        self.by_owner.get(&self.config.node)?.iter().filter(|cidr| self.leases.contains_key(cidr)).find_map(|cidr| {
            match cidr.0 {
                IpNet::V4(part) => Some(part),
                IpNet::V6(_) => None,
            }
        })
    }
}
