//! The requests that devices are made and changed by.

use std::{
    net::IpAddr,
    os::fd::{AsFd, AsRawFd},
};

use netlink_packet_core::{DefaultNla, NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{
        AfSpecInet, AfSpecInet6, AfSpecUnspec, BridgeBooleanOptionFlags, BridgeBooleanOptions, BridgeStpState,
        In6AddrGenMode, InfoBridge, InfoData, InfoIpTunnel, InfoKind, InfoVeth, InfoVxlan, LinkAttribute, LinkFlags,
        LinkInfo, LinkMessage,
    },
};
use podnet_model::{LinkName, Mac};
use podnet_planner::{
    overlay::IPV6_LEAST_MTU,
    step::{Ipip, Vxlan},
};
use rustix::io::Errno;

use super::{LinkRef, Veth};
use crate::{
    netlink::{Operation, Request, attribute::Writer},
    netns::NetNs,
    sysctl,
};

/// What is made must not be there.
const NEW: u16 = NLM_F_CREATE | NLM_F_EXCL;

pub(crate) fn list() -> Request {
    let message = RouteNetlinkMessage::GetLink(LinkMessage::default());
    Request::new(Operation::new("list", "devices"), message, 0)
}

/// Asks for one device; an unknown one is no error but no answer.
pub(crate) fn find(link: LinkRef<'_>) -> Request {
    let message = RouteNetlinkMessage::GetLink(naming(link));
    Request::new(Operation::new("look at device", link), message, 0).done_at(&[Errno::NODEV])
}

pub(crate) fn veth(veth: &Veth<'_>) -> Request {
    let mut peer = LinkMessage::default();
    peer.attributes = end(veth.peer.name, veth.peer.mac, veth.mtu);
    if let Some(netns) = veth.peer.netns {
        peer.attributes.push(LinkAttribute::NetNsFd(netns.as_fd().as_raw_fd()));
    }
    let mut message = LinkMessage::default();
    message.attributes = end(veth.name, veth.mac, veth.mtu);
    message.attributes.push(LinkAttribute::LinkInfo(vec![
        LinkInfo::Kind(InfoKind::Veth),
        LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
    ]));
    let operand = format_args!("{} with peer {}", veth.name, veth.peer.name).to_string();
    Request::new(Operation::new("make veth pair", operand), RouteNetlinkMessage::NewLink(message), NEW)
}

fn end(name: &str, mac: Option<Mac>, mtu: u32) -> Vec<LinkAttribute> {
    let mut attributes = vec![LinkAttribute::IfName(name.to_owned()), LinkAttribute::Mtu(mtu)];
    attributes.extend(mac.map(|mac| LinkAttribute::Address(mac.0.to_vec())));
    attributes
}

pub(crate) fn bridge(name: &str) -> Request {
    let mut message = naming(LinkRef::Name(name));
    message
        .attributes
        .push(of_bridge(vec![InfoBridge::StpState(BridgeStpState::Disabled), learns_from_no_link_local()]));
    Request::new(Operation::new("make bridge", name), RouteNetlinkMessage::NewLink(message), NEW)
}

/// As [`bridge`], with an Ethernet address and an MTU that do not follow its ports'.
pub(crate) fn bridge_with(name: &str, mac: Mac, mtu: u32) -> Request {
    let mut message = naming(LinkRef::Name(name));
    message.attributes.extend([
        LinkAttribute::Mtu(mtu),
        LinkAttribute::Address(mac.0.to_vec()),
        of_bridge(vec![InfoBridge::StpState(BridgeStpState::Disabled), learns_from_no_link_local()]),
    ]);
    Request::new(Operation::new("make bridge", name), RouteNetlinkMessage::NewLink(message), NEW)
}

/// A bridge that is there, made to learn nothing from what is sent to itself alone (01:80:c2:00:00:0x, IEEE 802.1D).
pub(crate) fn learn_from_no_link_local(link: LinkRef<'_>) -> Request {
    let mut message = naming(link);
    message.attributes.push(of_bridge(vec![learns_from_no_link_local()]));
    // What a device of a kind has is changed by the request that makes one.
    let operation = Operation::new("keep from learning by link-local frames bridge", link);
    Request::new(operation, RouteNetlinkMessage::NewLink(message), 0)
}

fn of_bridge(data: Vec<InfoBridge>) -> LinkAttribute {
    LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Bridge), LinkInfo::Data(InfoData::Bridge(data))])
}

/// Frames to the bridge itself pass no hook, so nobody checks their sender: what it learnt from them would lead a neighbour's packets
/// to whoever claims its Ethernet address. A kernel before 5.0 does not know of it, and passes it by.
fn learns_from_no_link_local() -> InfoBridge {
    let flag = BridgeBooleanOptionFlags::NoLinkLocalLearn;
    InfoBridge::MultiBoolOpt(BridgeBooleanOptions { value: flag, mask: flag })
}

pub(crate) fn vxlan(vxlan: &Vxlan) -> Request {
    let mut message = naming(LinkRef::from(&vxlan.name));
    let data = vec![
        InfoVxlan::Id(vxlan.vni),
        InfoVxlan::Port(vxlan.port),
        match vxlan.local {
            IpAddr::V4(local) => InfoVxlan::Local(local),
            IpAddr::V6(local) => InfoVxlan::Local6(local),
        },
        InfoVxlan::Learning(false),
    ];
    message.attributes.extend([
        LinkAttribute::Mtu(vxlan.mtu),
        LinkAttribute::Address(vxlan.mac.0.to_vec()),
        LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Vxlan), LinkInfo::Data(InfoData::Vxlan(data))]),
    ]);
    Request::new(Operation::new("make VXLAN device", &vxlan.name), RouteNetlinkMessage::NewLink(message), NEW)
}

/// An IPIP device that sends to its routes' next hops: it has no remote end of its own. The outer packet is not cut into pieces: the
/// device's MTU says what fits, and a narrower place on the way is learnt of (`ip-tunnel(8)`, `pmtudisc`).
pub(crate) fn ipip(ipip: &Ipip) -> Request {
    let mut message = naming(LinkRef::from(&ipip.name));
    let data = vec![InfoIpTunnel::Local(ipip.local.into()), InfoIpTunnel::PMtuDisc(true)];
    message.attributes.extend([
        LinkAttribute::Mtu(ipip.mtu),
        LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::IpIp), LinkInfo::Data(InfoData::IpTunnel(data))]),
    ]);
    Request::new(Operation::new("make IPIP device", &ipip.name), RouteNetlinkMessage::NewLink(message), NEW)
}

/// A device that sends nothing (`dummy`): it is there for its addresses.
pub(crate) fn dummy(name: &str) -> Request {
    let mut message = naming(LinkRef::Name(name));
    message.attributes.push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Dummy)]));
    Request::new(Operation::new("make dummy device", name), RouteNetlinkMessage::NewLink(message), NEW)
}

/// A WireGuard device; its key and peers are set through another family.
pub(crate) fn wireguard(name: &LinkName, mtu: u32) -> Request {
    let mut message = naming(LinkRef::from(name));
    let kind = LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Wireguard)]);
    message.attributes.extend([LinkAttribute::Mtu(mtu), kind]);
    Request::new(Operation::new("make WireGuard device", name), RouteNetlinkMessage::NewLink(message), NEW)
}

pub(crate) fn set_state(link: LinkRef<'_>, up: bool) -> Request {
    let mut message = naming(link);
    message.header.change_mask = LinkFlags::Up;
    if up {
        message.header.flags = LinkFlags::Up;
    }
    set(if up { "set up device" } else { "set down device" }, link, message)
}

/// What a pod interface's end needs besides being up, in the same message: no IPv6 link-local address of its own (so no router
/// solicitations, no duplicate address detection), and no reverse path filter, as requests and answers may take different devices.
/// A kernel that was started without IPv6 refuses its settings, and every kernel does for a device whose MTU is below that of IPv6: it has
/// none of it.
pub(crate) fn set_up_quietly(link: LinkRef<'_>, mtu: u32) -> Request {
    let mut message = naming(link);
    message.header.change_mask = LinkFlags::Up;
    message.header.flags = LinkFlags::Up;
    let settings = std::iter::once(no_reverse_path_filter())
        .chain((mtu >= IPV6_LEAST_MTU && sysctl::has_ipv6()).then(no_link_local));
    message.attributes.push(LinkAttribute::AfSpecUnspec(settings.collect()));
    set("set up device", link, message)
}

pub(crate) fn without_link_local(link: LinkRef<'_>) -> Request {
    let mut message = naming(link);
    message.attributes.push(LinkAttribute::AfSpecUnspec(vec![no_link_local()]));
    set("keep from IPv6 autoconfiguration device", link, message)
}

fn no_link_local() -> AfSpecUnspec {
    AfSpecUnspec::Inet6(vec![AfSpecInet6::AddrGenMode(In6AddrGenMode::None)])
}

/// `IFLA_INET_CONF` to set holds an attribute for each setting, its kind the setting's number (`linux/ip.h`), unlike the array that
/// the kernel shows.
fn no_reverse_path_filter() -> AfSpecUnspec {
    const IFLA_INET_CONF: u16 = 1;
    const NESTED: u16 = 1 << 15;
    const IPV4_DEVCONF_RP_FILTER: u16 = 8;
    let mut settings = Writer::default();
    settings.bytes(IPV4_DEVCONF_RP_FILTER, &0u32.to_ne_bytes());
    AfSpecUnspec::Inet(vec![AfSpecInet::Other(DefaultNla::new(IFLA_INET_CONF | NESTED, settings.into_bytes()))])
}

pub(crate) fn set_master(link: LinkRef<'_>, master: u32) -> Request {
    let mut message = naming(link);
    message.attributes.push(LinkAttribute::Controller(master));
    set("make a bridge port of device", link, message)
}

pub(crate) fn set_mtu(link: LinkRef<'_>, mtu: u32) -> Request {
    let mut message = naming(link);
    message.attributes.push(LinkAttribute::Mtu(mtu));
    set("change the MTU of device", link, message)
}

pub(crate) fn set_mac(link: LinkRef<'_>, mac: Mac) -> Request {
    let mut message = naming(link);
    message.attributes.push(LinkAttribute::Address(mac.0.to_vec()));
    set("change the Ethernet address of device", link, message)
}

pub(crate) fn rename(index: u32, to: &str) -> Request {
    let mut message = naming(LinkRef::Index(index));
    message.attributes.push(LinkAttribute::IfName(to.to_owned()));
    set("rename device", LinkRef::Name(to), message)
}

pub(crate) fn move_to(link: LinkRef<'_>, netns: &NetNs) -> Request {
    let mut message = naming(link);
    message.attributes.push(LinkAttribute::NetNsFd(netns.as_fd().as_raw_fd()));
    set("move to another namespace device", link, message)
}

pub(crate) fn delete(link: LinkRef<'_>) -> Request {
    let message = RouteNetlinkMessage::DelLink(naming(link));
    Request::new(Operation::new("remove device", link), message, 0).done_at(&[Errno::NODEV])
}

/// Puts a device into a group; done also where there is no such device.
pub(crate) fn set_group(link: LinkRef<'_>, group: u32) -> Request {
    let mut message = naming(link);
    message.attributes.push(LinkAttribute::Group(group));
    set("group device", link, message).done_at(&[Errno::NODEV])
}

/// Removes all devices of a group at once: the kernel waits only once for whoever still uses one of them.
pub(crate) fn delete_group(group: u32) -> Request {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::Group(group));
    let operation = Operation::new("remove the devices of group", group);
    Request::new(operation, RouteNetlinkMessage::DelLink(message), 0).done_at(&[Errno::NODEV])
}

fn set(action: &'static str, link: LinkRef<'_>, message: LinkMessage) -> Request {
    Request::new(Operation::new(action, link), RouteNetlinkMessage::SetLink(message), 0)
}

fn naming(link: LinkRef<'_>) -> LinkMessage {
    let mut message = LinkMessage::default();
    match link {
        LinkRef::Name(name) => message.attributes.push(LinkAttribute::IfName(name.to_owned())),
        LinkRef::Index(index) => message.header.index = index,
    }
    message
}
