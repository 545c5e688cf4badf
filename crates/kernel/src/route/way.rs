//! Which way the kernel would send something, whatever tables and rules say so (`RTM_GETROUTE` of one address, rtnetlink(7)).

use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_route::{
    RouteNetlinkMessage,
    route::{RouteAddress, RouteAttribute, RouteMessage, RouteType},
};
use rustix::io::Errno;

use crate::{
    addr::family,
    netlink::{NetlinkError, Operation, Request, RtSocket},
};

/// What the kernel says of an address to which there is no way, or a route that says so: unreachable, prohibited, or dropped.
const NO_WAY: [Errno; 4] = [Errno::NETUNREACH, Errno::HOSTUNREACH, Errno::ACCESS, Errno::INVAL];

/// The way to an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// It is this host's own.
    Own,
    /// By the device of that index.
    Device(u32),
}

/// The way by which this host would send to an address; none where there is no way.
///
/// # Errors
/// Why the kernel refused.
pub fn towards(socket: &mut RtSocket, addr: IpAddr) -> Result<Option<Way>, NetlinkError> {
    let mut message = RouteMessage::default();
    message.header.address_family = family(addr);
    message.header.destination_prefix_length = IpNet::from(addr).prefix_len();
    message.attributes.push(RouteAttribute::Destination(RouteAddress::from(addr)));
    let request = Request::new(Operation::new("find the way to", addr), RouteNetlinkMessage::GetRoute(message), 0);
    let replies = socket.exchange(&[request.done_at(&NO_WAY)])?;
    Ok(replies.into_iter().flatten().find_map(way))
}

fn way(reply: RouteNetlinkMessage) -> Option<Way> {
    let RouteNetlinkMessage::NewRoute(route) = reply else { return None };
    if route.header.kind == RouteType::Local {
        return Some(Way::Own);
    }
    let device = |attribute| if let RouteAttribute::Oif(index) = attribute { Some(Way::Device(index)) } else { None };
    route.attributes.into_iter().find_map(device)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{addr, link, route, testing::TestNs};

    #[test]
    fn the_way_to_an_address_is_the_kernel_s_own() {
        let namespace = TestNs::new("way");
        let mut socket = RtSocket::open_in(&namespace).unwrap();
        link::create_bridge(&mut socket, "br0").unwrap();
        link::set_without_link_local(&mut socket, "br0").unwrap();
        link::set_up(&mut socket, "br0").unwrap();
        let index = link::index_of(&mut socket, "br0").unwrap();
        for net in ["192.0.2.1/24", "2001:db8::1/64"] {
            addr::add(&mut socket, index, net.parse().unwrap()).unwrap();
        }
        let blackhole = route::Route {
            dst: "10.3.0.0/24".parse().unwrap(),
            target: route::Target::Blackhole,
            protocol: route::PROTOCOL_STATIC,
            source: None,
        };
        route::replace(&mut socket, &blackhole).unwrap();
        for (to, way) in [
            ("192.0.2.1", Some(Way::Own)),
            ("192.0.2.7", Some(Way::Device(index))),
            ("2001:db8::7", Some(Way::Device(index))),
            ("10.3.0.1", None),
            ("198.51.100.1", None),
        ] {
            assert_eq!(towards(&mut socket, to.parse().unwrap()).unwrap(), way, "{to}");
        }
    }
}
