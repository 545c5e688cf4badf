//! Pods on a bridge of the node.

use std::net::IpAddr;

use ipnet::IpNet;
use podnet_kernel::{
    cni_wire::Failure,
    pod_interface::{GATEWAY_V4, GATEWAY_V6, OnBridge, PodBridgeError, cut_off},
};
use podnet_model::{Family, LinkName, cni::Bridge};
use tracing::warn;

use super::{Attachment, Attachments, chain};

impl Attachments {
    /// How a pod with these addresses is on a bridge. Its neighbours are the pods of the same block of IPv4, and of a range that is
    /// the node's as a whole (flannel's mode), in which the node has an address itself. It reaches all else by the node; so also other
    /// pods by IPv6, as nobody can answer there in place of those that have a borrowed address.
    pub(super) fn on_bridge(&self, bridge: &Bridge, addrs: &[IpAddr]) -> OnBridge {
        let (mut segments, mut gateways) = (Vec::new(), Vec::new());
        for addr in addrs {
            let range = self.addresses.own_range_of(*addr);
            let is_segment = |own: Option<IpAddr>| addr.is_ipv4() || own.is_some();
            segments.extend(range.filter(|(_, own)| is_segment(*own)).map(|(range, _)| range));
            let own = range.and_then(|(range, own)| IpNet::new(own?, range.prefix_len()).ok());
            gateways.push(own.unwrap_or_else(|| match Family::of(addr) {
                Family::V4 => IpNet::from(IpAddr::V4(GATEWAY_V4)),
                Family::V6 => IpNet::from(IpAddr::V6(GATEWAY_V6)),
            }));
        }
        OnBridge { bridge: bridge.name.clone(), hairpin: bridge.hairpin, segments, gateways }
    }

    /// Makes the bridge as the pods on it and this one need it.
    pub(super) fn prepare_bridge(&self, on: &OnBridge, addrs: &[IpAddr]) -> Result<(), Failure> {
        self.lending(PodBridgeError::from, |socket| self.pods.prepare_bridge(socket, on, addrs))
            .map_err(|error| Failure::new(Failure::INTERFACE, format!("no bridge {}: {}", on.bridge, chain(&error))))
    }

    /// Closes the node's ways to an attachment.
    pub(super) fn cut_off(&self, attachment: &Attachment, addrs: &[IpAddr]) {
        let bridge = self.bridge_of(attachment);
        for addr in addrs {
            if let Err(error) = self.lending(|error| error, |socket| cut_off(socket, *addr, bridge.as_ref())) {
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
