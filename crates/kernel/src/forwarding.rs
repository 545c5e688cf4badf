//! Forwarding of IPv6, which takes from a node what it learnt by router advertisements, unless it is told to keep that.

use std::collections::BTreeSet;

use netlink_packet_route::address::AddressFlags;
use podnet_model::LinkName;

use crate::{
    addr, link,
    netlink::{NetlinkError, RtSocket},
    route::{self, Target},
    sysctl::{self, SysctlError},
};

/// Whether the namespace forwards IPv6.
pub const FORWARDING6: &str = "net/ipv6/conf/all/forwarding";
/// `RTPROT_RA`: learnt from a router advertisement.
pub const PROTOCOL_RA: u8 = 9;

/// Why a namespace does not forward.
#[derive(Debug, thiserror::Error)]
pub enum ForwardingError {
    /// What was learnt from routers cannot be listed.
    #[error("cannot look for what was learnt from router advertisements")]
    Netlink(#[from] NetlinkError),
    /// The setting cannot be made.
    #[error(transparent)]
    Setting(#[from] SysctlError),
}

/// The setting by which a device takes router advertisements: 1 is "unless the node forwards", 2 "all the same" (`ip-sysctl`).
#[must_use]
pub fn accept_ra(device: &str) -> String {
    format!("net/ipv6/conf/{device}/accept_ra")
}

/// Makes the calling thread's namespace, which is the socket's too, forward IPv6. Whoever forwards takes no router advertisements unless
/// told to take them all the same, and loses the default route that it learnt so. Devices with a default route or an address of that
/// kind go on, and so does `underlay` in any case: it may have been made anew, or not have heard its router yet. Others stay as they
/// are. Done also in a kernel without IPv6.
///
/// # Errors
/// Where devices cannot be listed or a setting not be made.
pub fn forward_ipv6(socket: &mut RtSocket, underlay: Option<&LinkName>) -> Result<(), ForwardingError> {
    if !sysctl::has_ipv6() {
        return Ok(());
    }
    let forwards = sysctl::read_here(FORWARDING6)? != "0";
    let learners = if forwards { BTreeSet::new() } else { learners(socket)? };
    for device in learners.iter().chain(underlay) {
        let key = accept_ra(device.as_str());
        // A device without IPv6, or that is gone, has no such setting.
        if sysctl::read_here(&key).is_ok_and(|value| value == "1") {
            sysctl::set_here(&key, "2")?;
        }
    }
    if !forwards {
        sysctl::set_here(FORWARDING6, "1")?;
    }
    Ok(())
}

/// The devices with a default route that a router advertised, or with an address that does not last for ever (of one's own choice by
/// an advertised prefix, or of DHCPv6, to which an advertisement points).
fn learners(socket: &mut RtSocket) -> Result<BTreeSet<LinkName>, NetlinkError> {
    let routes = route::list(socket, PROTOCOL_RA)?.into_iter().filter_map(|route| match route.target {
        Target::Gateway { device, .. } => device,
        Target::Device(device) => Some(device),
        Target::Blackhole => None,
    });
    let passing = addr::list_flagged(socket, |flags| !flags.contains(AddressFlags::Permanent))?;
    let passing = passing.into_iter().filter(|(_, addr)| addr.addr().is_ipv6()).map(|(device, _)| device);
    let indices: BTreeSet<u32> = routes.chain(passing).collect();
    let links = link::list(socket)?.into_iter();
    Ok(links.filter(|link| indices.contains(&link.index)).map(|link| link.name).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TestNs;

    #[test]
    fn who_learnt_something_from_a_router_goes_on_listening_to_it_and_nobody_else() {
        let namespace = TestNs::new("forward6");
        namespace.command("sysctl -qw net.ipv6.conf.default.accept_ra=1 net.ipv6.conf.all.forwarding=0");
        for device in ["routed", "slaac", "dhcp4", "under", "bare", "never"] {
            namespace.command(&format!("ip link add {device} type bridge"));
            namespace.command(&format!("ip link set {device} up"));
        }
        namespace.command("sysctl -qw net.ipv6.conf.never.accept_ra=0");
        namespace.command("ip -6 route add default via fe80::1 dev routed onlink proto ra");
        namespace.command("ip addr add 2001:db8::5/64 dev slaac nodad valid_lft 1800 preferred_lft 1800");
        namespace.command("ip addr add 2001:db8::6/64 dev never nodad valid_lft 1800 preferred_lft 1800");
        namespace.command("ip addr add 192.0.2.5/24 dev dhcp4 valid_lft 1800 preferred_lft 1800");
        namespace.command("ip addr add 2001:db8:1::5/64 dev bare nodad");
        let shown = |device: &str| sysctl::read(&namespace, &accept_ra(device)).unwrap();
        let forward = |underlay: Option<&str>| {
            let mut socket = RtSocket::open_in(&namespace).unwrap();
            let underlay = underlay.map(LinkName::from);
            namespace.run(|| forward_ipv6(&mut socket, underlay.as_ref())).unwrap().unwrap();
        };
        forward(Some("under"));
        let all = ["routed", "slaac", "under", "dhcp4", "bare", "never"].map(shown);
        assert_eq!(all, ["2", "2", "2", "1", "1", "0"]);
        assert_eq!(sysctl::read(&namespace, FORWARDING6).unwrap(), "1");
        // Made anew, a device is as all are at first.
        namespace.command("sysctl -qw net.ipv6.conf.under.accept_ra=1");
        forward(None);
        assert_eq!(shown("under"), "1");
        forward(Some("under"));
        assert_eq!(shown("under"), "2");
    }
}
