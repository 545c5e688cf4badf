//! The requests that devices on a segment are made by.

use std::os::fd::{AsFd, AsRawFd};

use netlink_packet_core::{DefaultNla, NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{
        AfSpecInet, AfSpecUnspec, InfoBridgePort, InfoData, InfoKind, InfoMacVlan, InfoPortData, InfoPortKind,
        LinkAttribute, LinkInfo, LinkMessage, MacVlanMode,
    },
};
use podnet_model::{LinkName, cni::MacvlanKind};

use super::SegmentInterface;
use crate::{
    link::{LinkRef, request},
    netlink::{Operation, Request, attribute::Writer},
};

/// A macvlan device, made in the container's namespace on top of a device of the socket's.
pub(super) fn macvlan(interface: &SegmentInterface, master: u32, kind: MacvlanKind) -> Request {
    let mode = match kind {
        MacvlanKind::Bridge => MacVlanMode::Bridge,
        MacvlanKind::Private => MacVlanMode::Private,
        MacvlanKind::Vepa => MacVlanMode::Vepa,
        MacvlanKind::Passthru => MacVlanMode::Passthrough,
    };
    let mut message = LinkMessage::default();
    message.attributes = vec![
        LinkAttribute::IfName(interface.container_ifname.to_string()),
        LinkAttribute::NetNsFd(interface.netns.as_fd().as_raw_fd()),
        LinkAttribute::Link(master),
        LinkAttribute::Mtu(interface.mtu),
        LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::MacVlan),
            LinkInfo::Data(InfoData::MacVlan(vec![InfoMacVlan::Mode(mode)])),
        ]),
    ];
    message.attributes.extend(interface.mac.map(|mac| LinkAttribute::Address(mac.0.to_vec())));
    let operation = Operation::new("make macvlan device", &interface.container_ifname);
    Request::new(operation, RouteNetlinkMessage::NewLink(message), NLM_F_CREATE | NLM_F_EXCL)
}

/// Makes a device a port of a bridge, and sets it up.
pub(crate) fn join(port: &LinkName, bridge: u32, hairpin: bool, mtu: u32) -> [Request; 3] {
    let name = LinkRef::from(port);
    let mut message = LinkMessage::default();
    message.attributes = vec![
        LinkAttribute::IfName(port.to_string()),
        LinkAttribute::LinkInfo(vec![
            LinkInfo::PortKind(InfoPortKind::Bridge),
            LinkInfo::PortData(InfoPortData::BridgePort(vec![InfoBridgePort::HairpinMode(hairpin)])),
        ]),
    ];
    // Unlike other changes, those of a port are heeded in this message alone (`rtnl_newlink`).
    let hairpin = Request::new(Operation::new("set hairpin of port", port), RouteNetlinkMessage::NewLink(message), 0);
    [request::set_master(name, bridge), hairpin, request::set_up_quietly(name, mtu)]
}

/// Makes a device tell its neighbours its addresses when it comes up (`arp_notify`): whoever had one of them before is forgotten.
pub(crate) fn announce(link: LinkRef<'_>) -> Request {
    // As in `link::request::no_reverse_path_filter`.
    const IFLA_INET_CONF: u16 = 1;
    const NESTED: u16 = 1 << 15;
    const IPV4_DEVCONF_ARP_NOTIFY: u16 = 22;
    let mut settings = Writer::default();
    settings.bytes(IPV4_DEVCONF_ARP_NOTIFY, &1u32.to_ne_bytes());
    let setting = AfSpecInet::Other(DefaultNla::new(IFLA_INET_CONF | NESTED, settings.into_bytes()));
    let mut message = LinkMessage::default();
    match link {
        LinkRef::Name(name) => message.attributes.push(LinkAttribute::IfName(name.to_owned())),
        LinkRef::Index(index) => message.header.index = index,
    }
    message.attributes.push(LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet(vec![setting])]));
    Request::new(Operation::new("announce the addresses of device", link), RouteNetlinkMessage::SetLink(message), 0)
}
