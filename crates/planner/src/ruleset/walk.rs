//! A virtual packet on its way through a rule set, as netfilter would send it.
//!
//! [`walk`] enters the base chains of each hook in the order of their priorities: prerouting (or output, for what this host
//! sends), then input or forward, then postrouting. A random choice is not made: every slot is followed, so the answer is a
//! distribution over [`Outcome`]s. `podnet trace` shows it, and the packet tables compare it with the kernel's.

mod interpreter;
mod journey;

use std::{collections::BTreeSet, net::IpAddr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use podnet_model::{Family, Protocol};

use interpreter::Traveller;
pub use journey::{Element, Hop, Journey, Outcome, Verdict};

use super::{BackendAddress, Chain, HookPoint, RuleSet};

/// A packet of the direction in which its connection was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Source address.
    pub src: IpAddr,
    /// Destination address, before any translation.
    pub dst: IpAddr,
    /// Transport protocol.
    pub protocol: Protocol,
    /// Source port.
    pub sport: u16,
    /// Destination port, before any translation.
    pub dport: u16,
    /// The packet mark that it arrives with.
    pub mark: u32,
    /// What connection tracking knows of its connection.
    pub connection: Connection,
    /// It asks for an echo (ICMP, ICMPv6): protocol and ports mean nothing.
    pub is_echo: bool,
    /// The backend that the memory holds for this client of this frontend.
    pub remembered: Option<BackendAddress>,
}

impl Packet {
    /// The first, unmarked packet of a connection, from a port of the ephemeral range.
    #[must_use]
    pub fn opening(src: impl Into<IpAddr>, dst: impl Into<IpAddr>, protocol: Protocol, dport: u16) -> Self {
        Self {
            src: src.into(),
            dst: dst.into(),
            protocol,
            sport: 40_000,
            dport,
            mark: 0,
            connection: Connection::New,
            is_echo: false,
            remembered: None,
        }
    }

    /// The first echo request of a ping.
    #[must_use]
    pub fn ping(src: impl Into<IpAddr>, dst: impl Into<IpAddr>) -> Self {
        Self { is_echo: true, sport: 0, ..Self::opening(src, dst, Protocol::Udp, 0) }
    }
}

/// What connection tracking knows of a packet's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connection {
    /// Nothing yet: the packet is the first one, and `nat` chains see it.
    New,
    /// Packets went both ways: it is translated as the first one was, whatever the `nat` chains say now.
    Established {
        /// Where the first packet's destination was translated to.
        destination: Option<BackendAddress>,
        /// The first packet's source was translated.
        masqueraded: bool,
    },
}

/// Where a packet enters the host's network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From a pod of this host, through its device.
    FromPod,
    /// From another host, through the underlay or an overlay device.
    FromOutside,
    /// From a process in the host's own network namespace.
    FromHost,
}

/// Where the host's routing table sends packets to an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// To the host itself.
    Local,
    /// Out of a device.
    Forward,
    /// There is no route.
    Unreachable,
}

/// The host's routing table.
pub trait Routing {
    /// Where packets to the address go.
    fn route(&self, destination: IpAddr) -> Way;

    /// Whether a socket is there for what comes to an address, protocol and port.
    fn has_socket(&self, _addr: IpAddr, _protocol: Protocol, _port: u16) -> bool {
        false
    }
}

/// A host as far as a packet needs it: its own addresses, and where it has routes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// The host's own addresses.
    pub local_addresses: BTreeSet<IpAddr>,
    /// Destinations of its routes.
    pub routes: Vec<IpNet>,
}

impl Host {
    /// A host with these addresses and default routes.
    #[must_use]
    pub fn new(local_addresses: impl IntoIterator<Item = impl Into<IpAddr>>) -> Self {
        let routes = vec![Ipv4Net::default().into(), Ipv6Net::default().into()];
        Self { local_addresses: local_addresses.into_iter().map(Into::into).collect(), routes }
    }
}

impl Routing for Host {
    fn route(&self, destination: IpAddr) -> Way {
        if self.local_addresses.contains(&destination) || destination.is_loopback() {
            Way::Local
        } else if self.routes.iter().any(|route| route.contains(&destination)) {
            Way::Forward
        } else {
            Way::Unreachable
        }
    }
}

/// Sends the packet through the rules and tells everything that can become of it.
///
/// The sender is taken to be honest: its addresses are its own. The rules should be valid: where they refer to what is not there it counts as empty, and a packet that loops is dropped.
#[must_use]
pub fn walk(rules: &RuleSet, packet: &Packet, direction: Direction, routing: &dyn Routing) -> Journey {
    walk_tables(&[rules], packet, direction, routing)
}

/// As [`walk`], through several tables: at each hook the chains of all, by priority.
#[must_use]
pub fn walk_tables(tables: &[&RuleSet], packet: &Packet, direction: Direction, routing: &dyn Routing) -> Journey {
    let start = Traveller::new(packet, direction);
    let outcomes = match direction {
        Direction::FromHost => from_host(tables, start, routing),
        Direction::FromPod | Direction::FromOutside => arriving(tables, start, routing),
    };
    Journey { outcomes }
}

/// The way of what comes in: prerouting, routing by the translated destination, then input or forward and postrouting.
fn arriving(tables: &[&RuleSet], start: Traveller, routing: &dyn Routing) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    for traveller in through(tables, HookPoint::Prerouting, start, routing, &mut outcomes) {
        let rest: &[HookPoint] = match routing.route(traveller.dst) {
            Way::Local => &[HookPoint::Input],
            Way::Forward => &[HookPoint::Forward, HookPoint::Postrouting],
            Way::Unreachable => {
                outcomes.push(traveller.ends(Verdict::Unreachable));
                continue;
            }
        };
        finish(tables, rest, traveller, routing, &mut outcomes);
    }
    outcomes
}

/// The way of what the host sends: it is routed before and after translation; what goes to the host itself leaves through the
/// loopback device and comes in again.
fn from_host(tables: &[&RuleSet], start: Traveller, routing: &dyn Routing) -> Vec<Outcome> {
    if routing.route(start.dst) == Way::Unreachable {
        return vec![start.ends(Verdict::Unreachable)];
    }
    let mut outcomes = Vec::new();
    for traveller in through(tables, HookPoint::Output, start, routing, &mut outcomes) {
        let rest: &[HookPoint] = match routing.route(traveller.dst) {
            Way::Local => &[HookPoint::Postrouting, HookPoint::Prerouting, HookPoint::Input],
            Way::Forward => &[HookPoint::Postrouting],
            Way::Unreachable => {
                outcomes.push(traveller.ends(Verdict::Unreachable));
                continue;
            }
        };
        finish(tables, rest, traveller, routing, &mut outcomes);
    }
    outcomes
}

fn finish(
    tables: &[&RuleSet],
    hooks: &[HookPoint],
    traveller: Traveller,
    routing: &dyn Routing,
    outcomes: &mut Vec<Outcome>,
) {
    let mut travellers = vec![traveller];
    for hook in hooks {
        travellers = travellers.into_iter().flat_map(|one| through(tables, *hook, one, routing, outcomes)).collect();
    }
    outcomes.extend(travellers.into_iter().map(|traveller| traveller.ends(Verdict::Accepted)));
}

/// Sends a traveller through all base chains of a hook, by priority. Those that pass it are the answer; the others have met
/// their outcome.
fn through(
    tables: &[&RuleSet],
    hook: HookPoint,
    traveller: Traveller,
    routing: &dyn Routing,
    outcomes: &mut Vec<Outcome>,
) -> Vec<Traveller> {
    // A table of the other family sees nothing of the packet.
    let family = Family::of(&traveller.dst);
    let tables = || tables.iter().filter(|table| table.family == family);
    if tables().next().is_none() {
        return vec![traveller];
    }
    let mut bases = Vec::new();
    for table in tables() {
        let at_hook = |chain: &Chain| chain.hook.filter(|found| found.point == hook);
        bases.extend(table.chains.iter().filter_map(|(name, chain)| Some((at_hook(chain)?, name, table))));
    }
    bases.sort_by_key(|(hook, ..)| hook.priority);

    let mut travellers = vec![traveller.arrives(hook)];
    for (hook, base, rules) in bases {
        let mut passed = Vec::new();
        for traveller in travellers {
            for (traveller, end) in traveller.enter(rules, base, hook, routing) {
                match end {
                    None => passed.push(traveller),
                    Some(verdict) => outcomes.push(traveller.ends(verdict)),
                }
            }
        }
        travellers = passed;
    }
    travellers
}
