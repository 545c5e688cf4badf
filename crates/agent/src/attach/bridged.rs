//! Pods on a bridge of the node.

use std::net::IpAddr;

use ipnet::IpNet;
use podnet_kernel::{
    cni_wire::Failure,
    pod_interface::{GATEWAY_V4, GATEWAY_V6, OnBridge, PodBridgeError, cut_off},
};
use podnet_model::{Family, HOST_MAC, LinkName, Mac, cni::Bridge};
use podnet_planner::ipam::Handle;
use tracing::warn;

use super::{Attachment, Attachments, add::SETTLE_PATIENCE, chain, pod_mac};

impl Attachments {
    /// How a pod with these addresses is on a bridge.
    pub(super) fn on_bridge(&self, bridge: &Bridge, addrs: &[IpAddr]) -> OnBridge {
        placed(bridge, addrs.iter().map(|addr| (*addr, self.addresses.own_range_of(*addr))))
    }

    /// Refuses the Ethernet address of the bridge, or of somebody who is on it: the one would get packets of the other.
    pub(super) fn is_only_one(&self, attachment: &Attachment, on: &OnBridge, mac: Mac) -> Result<(), Failure> {
        let refused = |of: &dyn std::fmt::Display| {
            let what = format!("Ethernet address {mac} is that of {of} on bridge {} already", on.bridge);
            Failure::new(Failure::INVALID_CONFIG, what)
        };
        if mac == HOST_MAC {
            return Err(refused(&"the node"));
        }
        let same = || self.records.holder_of(&on.bridge, mac, &attachment.handle);
        // What is about to go has it for a moment more.
        let holds = |handle: &Handle| !self.addresses.of(handle).is_empty();
        match same().filter(holds) {
            None => Ok(()),
            Some(_) => {
                self.undertaker.settle(SETTLE_PATIENCE);
                same().filter(holds).map_or(Ok(()), |handle| Err(refused(&handle)))
            }
        }
    }

    /// Makes the bridge as the pods on it and this one need it.
    pub(super) fn prepare_bridge(&self, on: &OnBridge, addrs: &[IpAddr]) -> Result<(), Failure> {
        self.lending(PodBridgeError::from, |socket| self.pods.prepare_bridge(socket, on, addrs))
            .map_err(|error| Failure::new(Failure::INTERFACE, format!("no bridge {}: {}", on.bridge, chain(&error))))
    }

    /// Closes the node's ways to an attachment on this bridge, or on none.
    pub(super) fn cut_off(&self, bridge: Option<&LinkName>, addrs: &[IpAddr]) {
        for addr in addrs {
            if let Err(error) = self.lending(|error| error, |socket| cut_off(socket, *addr, bridge)) {
                let error = &error as &dyn std::error::Error;
                warn!(%addr, error, "the way to a pod is removed with its interface only");
            }
        }
    }

    /// The bridge that an attachment is on.
    pub(super) fn bridge_of(&self, attachment: &Attachment) -> Option<LinkName> {
        Some(self.records.of(&attachment.handle)?.bridge?.bridge)
    }
}

/// How a pod with these addresses is on a bridge; each comes with the node's range that it is in, and the node's own address there. Its
/// neighbours are the pods of the same range by IPv4. It reaches all else by the node; so also other pods by IPv6, as nobody can answer
/// there in place of those that are not on this bridge.
fn placed(bridge: &Bridge, addrs: impl Iterator<Item = (IpAddr, Option<(IpNet, Option<IpAddr>)>)>) -> OnBridge {
    let (mut segments, mut gateways) = (Vec::new(), Vec::new());
    for (addr, range) in addrs {
        segments.extend(range.filter(|_| addr.is_ipv4()).map(|(range, _)| range));
        let own = range.and_then(|(range, own)| IpNet::new(own?, range.prefix_len()).ok());
        gateways.push(own.unwrap_or_else(|| match Family::of(&addr) {
            Family::V4 => IpNet::from(IpAddr::V4(GATEWAY_V4)),
            Family::V6 => IpNet::from(IpAddr::V6(GATEWAY_V6)),
        }));
    }
    OnBridge { bridge: bridge.name.clone(), hairpin: bridge.hairpin, segments, gateways }
}

/// As [`pod_mac`], but for pods of IPv6 alone: blocks of several pools have the same low bits, and on a bridge no two may have one
/// Ethernet address. So all bits count (FNV-1a).
pub(super) fn bridged_mac(addrs: &[IpAddr]) -> Mac {
    let Some(IpAddr::V6(addr)) = addrs.first() else { return pod_mac(addrs) };
    let step = |hash: u32, byte: u8| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
    let [a, b, c, d] = addr.octets().into_iter().fold(0x811c_9dc5, step).to_be_bytes();
    Mac([0x0a, 0x58, a, b, c, d])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In flannel's mode the node has an address in its part of each family.
    #[test]
    fn neighbours_are_by_ipv4_alone_and_the_nodes_own_address_is_the_gateway() {
        let config = serde_json::json!({"mode": "bridge"});
        let bridge = podnet_model::cni::Mode::parse_with_agent(&config).unwrap().unwrap();
        let within = |addr: &str, range: &str, own: Option<&str>| {
            let own = own.map(|own| own.parse().unwrap());
            (addr.parse().unwrap(), Some((range.parse().unwrap(), own)))
        };
        let parts = |on: OnBridge| {
            let texts = |nets: &[IpNet]| nets.iter().map(ToString::to_string).collect::<Vec<_>>();
            (texts(&on.segments), texts(&on.gateways))
        };
        let flannel = [
            within("10.244.1.5", "10.244.1.0/24", Some("10.244.1.1")),
            within("fd00:1::5", "fd00:1::/64", Some("fd00:1::1")),
        ];
        let (segments, gateways) = parts(placed(&bridge, flannel.into_iter()));
        assert_eq!(segments, ["10.244.1.0/24"]);
        assert_eq!(gateways, ["10.244.1.1/24", "fd00:1::1/64"]);
        let pools = [within("10.9.0.5", "10.9.0.0/26", None), within("fd00:2::5", "fd00:2::/122", None)];
        let (segments, gateways) = parts(placed(&bridge, pools.into_iter()));
        assert_eq!(segments, ["10.9.0.0/26"]);
        assert_eq!(gateways, ["169.254.1.1/32", "fe80::1/128"]);
        let (segments, gateways) = parts(placed(&bridge, [("10.9.7.7".parse().unwrap(), None)].into_iter()));
        assert_eq!((segments.len(), gateways), (0, vec!["169.254.1.1/32".to_owned()]));
    }

    #[test]
    fn no_two_pods_on_a_bridge_have_one_ethernet_address() {
        let mac = |addr: &str| bridged_mac(&[addr.parse().unwrap()]);
        assert_eq!(mac("10.9.0.5").to_string(), "0a:58:0a:09:00:05");
        let all = ["fd00:a::10", "fd00:b::10", "fd00:a::11", "fd00:a:0:1::10"].map(mac);
        let different: std::collections::BTreeSet<[u8; 6]> = all.iter().map(|mac| mac.0).collect();
        assert_eq!(different.len(), all.len(), "{all:?}");
    }
}
