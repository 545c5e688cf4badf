//! From the kernel's message to a [`Link`].

use std::net::{IpAddr, Ipv4Addr};

use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{
        BridgeBooleanOptionFlags, InfoBridge, InfoData, InfoIpTunnel, InfoVxlan, LinkAttribute, LinkFlags, LinkInfo,
    },
};
use podnet_model::Mac;

use super::{Link, VxlanParameters};

/// The link that a message shows; none where it shows something else.
pub(crate) fn link(message: RouteNetlinkMessage) -> Option<Link> {
    let RouteNetlinkMessage::NewLink(message) = message else { return None };
    let mut link = Link {
        index: message.header.index,
        name: "".into(),
        mac: None,
        mtu: 0,
        is_up: message.header.flags.contains(LinkFlags::Up),
        kind: None,
        master: None,
        peer: None,
        vxlan: None,
        ipip_local: None,
        learns_link_local: false,
    };
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name.into(),
            LinkAttribute::Address(bytes) => link.mac = <[u8; 6]>::try_from(bytes).ok().map(Mac),
            LinkAttribute::Mtu(mtu) => link.mtu = mtu,
            LinkAttribute::Controller(index) => link.master = Some(index),
            LinkAttribute::Link(index) => link.peer = Some(index),
            LinkAttribute::LinkInfo(infos) => infos.into_iter().for_each(|info| read_info(info, &mut link)),
            _ => {}
        }
    }
    Some(link)
}

fn read_info(info: LinkInfo, link: &mut Link) {
    match info {
        LinkInfo::Kind(kind) => link.kind = Some(kind.to_string()),
        LinkInfo::Data(InfoData::Vxlan(parameters)) => link.vxlan = Some(vxlan(parameters)),
        LinkInfo::Data(InfoData::Bridge(parameters)) => link.learns_link_local = learns_link_local(&parameters),
        LinkInfo::Data(InfoData::IpTunnel(parameters)) => {
            link.ipip_local = Some(ipip_local(&parameters)).filter(|_| link.kind.as_deref() == Some("ipip")).flatten();
        }
        _ => {}
    }
}

/// A kernel that does not say so cannot do otherwise.
fn learns_link_local(parameters: &[InfoBridge]) -> bool {
    let flag = BridgeBooleanOptionFlags::NoLinkLocalLearn;
    parameters
        .iter()
        .any(|parameter| matches!(parameter, InfoBridge::MultiBoolOpt(options) if options.mask.contains(flag) && !options.value.contains(flag)))
}

/// The local end of a tunnel without a remote one.
fn ipip_local(parameters: &[InfoIpTunnel]) -> Option<Ipv4Addr> {
    let is_set = |addr: &IpAddr| !addr.is_unspecified();
    if parameters.iter().any(|parameter| matches!(parameter, InfoIpTunnel::Remote(remote) if is_set(remote))) {
        return None;
    }
    parameters.iter().find_map(|parameter| match parameter {
        InfoIpTunnel::Local(IpAddr::V4(local)) if !local.is_unspecified() => Some(*local),
        _ => None,
    })
}

fn vxlan(parameters: Vec<InfoVxlan>) -> VxlanParameters {
    let mut vxlan = VxlanParameters { vni: 0, port: 0, local: None, learning: false };
    for parameter in parameters {
        match parameter {
            InfoVxlan::Id(vni) => vxlan.vni = vni,
            InfoVxlan::Port(port) => vxlan.port = port,
            InfoVxlan::Local(local) => vxlan.local = Some(local.into()),
            InfoVxlan::Local6(local) => vxlan.local = Some(local.into()),
            InfoVxlan::Learning(learning) => vxlan.learning = learning,
            _ => {}
        }
    }
    vxlan
}
