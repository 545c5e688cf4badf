//! Packets that a node takes for its own although they are for somebody else (`ip-rule(8)`): those to certain addresses that rules of
//! netfilter have marked, and those to certain ports of addresses. What was marked and then translated goes where it is translated to.

mod rules;

use std::{collections::BTreeSet, net::IpAddr};

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType},
};
use podnet_model::Family;
use podnet_planner::{ruleset::FrontendKey, step::ROUTE_PROTOCOL};
use rustix::io::Errno;

use crate::{
    netlink::{NetlinkError, Operation, Request, RtSocket},
    netns::NetNs,
};

/// The loopback's index, in every namespace.
const LOOPBACK: u32 = 1;

/// Which packets, and by what they are led.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attraction {
    /// The table that leads them; nothing else may be in it.
    pub table: u32,
    /// The place of the rules that ask the table, at least 2; the place before it is taken, too. The table of the node's own addresses is asked
    /// before (0), the main one after (32766).
    pub priority: u32,
    /// The bits of the mark that they all have; none (0) where no mark attracts anything.
    pub bits: u32,
    /// Where what has the mark is for.
    pub addrs: BTreeSet<IpAddr>,
    /// What is attracted without a mark: what comes in for these (Linux 4.17). What the node sends there itself goes by the main table.
    pub frontends: BTreeSet<FrontendKey>,
}

impl Attraction {
    /// What attracts nothing.
    #[must_use]
    pub const fn nothing(table: u32, priority: u32) -> Self {
        Self { table, priority, bits: 0, addrs: BTreeSet::new(), frontends: BTreeSet::new() }
    }
}

/// Makes a namespace take these packets of a family for its own, and no others. Answers how many rules and routes were made and removed for
/// that; none where it does already.
///
/// # Errors
/// Where the namespace cannot be entered, its loopback is down, or the kernel has no such rules.
pub fn attract(netns: &NetNs, family: Family, what: &Attraction) -> Result<usize, NetlinkError> {
    let mut socket = RtSocket::open_in(netns)?;
    let (more, fewer) = edits(&mut socket, family, what)?;
    let requests: Vec<_> = more.into_iter().chain(fewer).collect();
    socket.perform_all(&requests)?;
    Ok(requests.len())
}

/// As [`attract`], and what it takes already it goes on to take.
///
/// # Errors
/// As [`attract`].
pub fn attract_too(netns: &NetNs, family: Family, what: &Attraction) -> Result<usize, NetlinkError> {
    let mut socket = RtSocket::open_in(netns)?;
    let (more, _) = edits(&mut socket, family, what)?;
    socket.perform_all(&more)?;
    Ok(more.len())
}

/// The addresses that a table leads to a namespace itself, as [`attract`] made it do, or others did.
///
/// # Errors
/// As [`attract`].
pub fn attracted_by(netns: &NetNs, family: Family, table: u32) -> Result<BTreeSet<IpAddr>, NetlinkError> {
    attracted(&mut RtSocket::open_in(netns)?, family, table)
}

/// What there has to be more and what fewer, in the order in which it is done.
fn edits(
    socket: &mut RtSocket,
    family: Family,
    what: &Attraction,
) -> Result<(Vec<Request>, Vec<Request>), NetlinkError> {
    let there = attracted(socket, family, what.table)?;
    let addrs = what.frontends.iter().map(|frontend| frontend.addr).chain(what.addrs.iter().copied()).collect();
    let more = there_after(&addrs, &there).map(|addr| {
        let operation = Operation::new("take for the node's own packets to", addr);
        Request::new(operation, RouteNetlinkMessage::NewRoute(route(addr, what)), NLM_F_CREATE | NLM_F_REPLACE)
    });
    let fewer = there_after(&there, &addrs).map(|addr| no_more(addr, what));
    let (made, gone) = rules::edits(socket, family, what)?;
    Ok((more.chain(made).collect(), gone.into_iter().chain(fewer).collect()))
}

fn there_after<'a>(these: &'a BTreeSet<IpAddr>, before: &'a BTreeSet<IpAddr>) -> impl Iterator<Item = IpAddr> + 'a {
    these.difference(before).copied()
}

/// The addresses that the table has.
fn attracted(socket: &mut RtSocket, family: Family, table: u32) -> Result<BTreeSet<IpAddr>, NetlinkError> {
    let mut message = RouteMessage::default();
    message.header.address_family = number(family);
    message.attributes = vec![RouteAttribute::Table(table)];
    let operation = Operation::new("list the routes of table", table);
    let request = Request::new(operation, RouteNetlinkMessage::GetRoute(message), 0);
    let found = match socket.dump(&request) {
        // There is no such table.
        Err(error) if error.is_missing() => Vec::new(),
        found => found?,
    };
    Ok(found.into_iter().filter_map(|message| addr_of(message, table)).collect())
}

fn addr_of(message: RouteNetlinkMessage, table: u32) -> Option<IpAddr> {
    let RouteNetlinkMessage::NewRoute(message) = message else { return None };
    // A kernel that does not look at what is asked for lists all tables.
    if !message.attributes.contains(&RouteAttribute::Table(table)) {
        return None;
    }
    message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(RouteAddress::Inet(addr)) => Some(IpAddr::from(*addr)),
        RouteAttribute::Destination(RouteAddress::Inet6(addr)) => Some(IpAddr::from(*addr)),
        _ => None,
    })
}

fn no_more(addr: IpAddr, what: &Attraction) -> Request {
    let operation = Operation::new("take for the node's own no more packets to", addr);
    Request::new(operation, RouteNetlinkMessage::DelRoute(route(addr, what)), 0).done_at(&[Errno::SRCH])
}

fn route(addr: IpAddr, what: &Attraction) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = number(Family::of(&addr));
    message.header.destination_prefix_length = IpNet::from(addr).prefix_len();
    message.header.table = RouteHeader::RT_TABLE_UNSPEC;
    message.header.protocol = RouteProtocol::from(ROUTE_PROTOCOL);
    message.header.kind = RouteType::Local;
    message.header.scope = RouteScope::Host;
    let to = RouteAttribute::Destination(RouteAddress::from(addr));
    message.attributes = vec![to, RouteAttribute::Table(what.table), RouteAttribute::Oif(LOOPBACK)];
    message
}

pub(crate) const fn number(family: Family) -> AddressFamily {
    match family {
        Family::V4 => AddressFamily::Inet,
        Family::V6 => AddressFamily::Inet6,
    }
}

#[cfg(test)]
mod tests {
    use podnet_model::Protocol;

    use super::*;
    use crate::testing::TestNs;

    const NOTHING: Attraction = Attraction::nothing(4242, 99);

    fn attracting(bits: u32, addrs: &[&str]) -> Attraction {
        Attraction { bits, addrs: addrs.iter().map(|addr| addr.parse().unwrap()).collect(), ..NOTHING }
    }

    fn is_taken(namespace: &TestNs, packet: &str) -> bool {
        let line = format!("ip route get {packet}");
        let output = namespace.run(|| std::process::Command::new("sh").args(["-c", &line]).output());
        String::from_utf8(output.unwrap().unwrap().stdout).unwrap().starts_with("local ")
    }

    #[test]
    fn marked_packets_to_an_address_are_the_nodes_until_they_are_released() {
        let namespace = TestNs::new("attract");
        namespace.command("ip link set lo up");
        let lines = ["ip rule", "ip -6 rule", "ip route show table all", "ip -6 route show table all"];
        let look = || lines.map(|line| namespace.command(line));
        let untouched = look();
        for (family, one, other) in [(Family::V4, "192.0.2.1", "192.0.2.2"), (Family::V6, "2001:db8::1", "2001:db8::2")]
        {
            let is_taken = |addr: &str, mark: &str| is_taken(&namespace, &format!("{addr} mark {mark}"));
            for done in [2, 0] {
                assert_eq!(attract(&namespace, family, &attracting(0x40, &[one])).unwrap(), done);
                assert!(is_taken(one, "0xc0") && !is_taken(one, "0x80") && !is_taken(other, "0xc0"));
            }
            assert_eq!(attract(&namespace, family, &attracting(0x40, &[other])).unwrap(), 2);
            assert!(is_taken(other, "0x40") && !is_taken(one, "0x40"));
            // Another bit, as a changed configuration may mean: nothing of the one before stays.
            assert_eq!(attract(&namespace, family, &attracting(0x80, &[other])).unwrap(), 2);
            assert!(is_taken(other, "0x80") && !is_taken(other, "0x40"));
        }
        let rules = namespace.command("ip rule");
        assert!(rules.contains("99:\tfrom all fwmark 0x80/0x80 lookup 4242"), "{rules}");
        namespace.command("ip rule del pref 99");
        assert_eq!(attract(&namespace, Family::V4, &attracting(0x80, &["192.0.2.2"])).unwrap(), 1);
        for family in Family::ALL {
            for done in [2, 0] {
                assert_eq!(attract(&namespace, family, &NOTHING).unwrap(), done);
            }
        }
        assert_eq!(look(), untouched);
    }

    #[test]
    fn what_comes_in_for_a_port_is_the_nodes_and_what_it_sends_there_is_not() {
        let namespace = TestNs::new("attract-ports");
        for line in [
            "link set lo up",
            "link add in type veth peer name far",
            "link set in up",
            "link set far up",
            "addr add 198.51.100.1/24 dev in",
            "addr add fd00::1/64 dev in nodad",
            "route add default via 198.51.100.2",
            "-6 route add default via fd00::2",
        ] {
            namespace.command(&format!("ip {line}"));
        }
        // What packets come from has to be reached by the device.
        namespace.command("sysctl -qw net.ipv4.conf.all.forwarding=1 net.ipv6.conf.all.forwarding=1");
        let look = || ["ip rule", "ip -6 rule"].map(|line| namespace.command(line));
        let untouched = look();
        for (family, addr, from) in [(Family::V4, "192.0.2.1", "198.51.100.7"), (Family::V6, "2001:db8::1", "fd00::7")]
        {
            let frontend = |port| FrontendKey { addr: addr.parse().unwrap(), protocol: Protocol::Tcp, port };
            let what = Attraction { frontends: [frontend(80), frontend(443)].into(), ..NOTHING };
            for done in [5, 0] {
                assert_eq!(attract(&namespace, family, &what).unwrap(), done);
            }
            let comes = |rest: &str| is_taken(&namespace, &format!("{addr} from {from} iif in {rest}"));
            let goes = |rest: &str| is_taken(&namespace, &format!("{addr} {rest}"));
            assert!(comes("ipproto tcp dport 80") && comes("ipproto tcp dport 443"));
            assert!(!comes("ipproto tcp dport 81") && !comes("ipproto udp dport 80"));
            assert!(!goes("ipproto tcp dport 80"));
            let what = Attraction { frontends: [frontend(80)].into(), ..NOTHING };
            assert_eq!(attract(&namespace, family, &what).unwrap(), 2);
            assert!(comes("ipproto tcp dport 80") && !comes("ipproto tcp dport 443"));
            // What is attracted by a mark meanwhile may stay for a while.
            let marked = Attraction { bits: 0x40, addrs: [addr.parse().unwrap()].into(), ..NOTHING };
            assert_eq!(attract(&namespace, family, &marked).unwrap(), 3);
            assert_eq!(attract_too(&namespace, family, &what).unwrap(), 2);
            assert!(comes("ipproto tcp dport 80") && comes("mark 0x40") && !comes("ipproto tcp dport 443"));
            assert_eq!(attract_too(&namespace, family, &what).unwrap(), 0);
            assert_eq!(attract(&namespace, family, &what).unwrap(), 1);
            assert!(comes("ipproto tcp dport 80") && !comes("mark 0x40"));
            assert_eq!(attract(&namespace, family, &NOTHING).unwrap(), 3);
        }
        assert_eq!(look(), untouched);
    }
}
