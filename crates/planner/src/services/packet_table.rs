//! A table of packets and what must become of them: `node, from, to ⇒ fate`. Every row holds of IPv4 and, with other addresses, of
//! IPv6 ([`six`](mod@six)).
//!
//! The cluster that the packets are sent through is in [`cluster`](mod@cluster): [`changes`] makes it, [`config`] is a node of
//! it. [`rows`] reads the table. The tests here send each row through [`walk`](crate::ruleset::walk); a test with namespaces can
//! make the same nodes and pods and send each row through a kernel.

mod cluster;
pub mod configured;
mod node;
#[cfg(test)]
mod objects;
mod policies;
pub mod six;
mod table;
pub mod traced;

use std::{collections::BTreeMap, fmt, net::IpAddr};

use podnet_model::Protocol;

pub use cluster::{ADDRESSES, NODES, OUTSIDE, POD_CIDR, SERVICE_CIDR, address, changes, config, removals};
pub use node::{Edits, NodeRules};
use table::TABLE;

use crate::ruleset::{
    BackendAddress,
    walk::{Direction, Journey, Packet, Verdict},
};

/// A row of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Its line in the table, from 1.
    pub line: usize,
    /// The node whose rules are meant.
    pub node: &'static str,
    /// How the packet comes to the node.
    pub direction: Direction,
    /// The packet, the first of its connection.
    pub packet: Packet,
    /// What must become of it.
    pub fate: Fate,
    /// Of the backends that it may arrive at, all connections of this source come to the same one.
    pub sticks: bool,
    /// Where else it comes to the same one then: other frontends of the same port.
    pub sticks_at: Vec<BackendAddress>,
}

/// What becomes of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It arrives, with equal chances, at one of these, and where the flag is true with an address of the node as its source.
    Arrives(BTreeMap<BackendAddress, bool>),
    /// It is refused at once.
    Rejected,
    /// Nothing is heard of it.
    Dropped,
    /// The echo that it asks for comes, from the address that was asked. One that goes to an address which nobody has arrives there.
    Answered,
}

/// The rows of the table.
///
/// # Panics
/// Where a row cannot be read: the table is part of this module.
#[must_use]
pub fn rows() -> Vec<Row> {
    read(TABLE)
}

fn read(table: &'static str) -> Vec<Row> {
    let lines = table.lines().enumerate().map(|(index, line)| (index + 1, line.trim()));
    let lines = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|(number, line)| row(number, line).unwrap_or_else(|| panic!("line {number} of the table: {line}")))
        .collect()
}

impl Fate {
    /// What became of a walked packet; none where random choices are not equal or lead to different verdicts.
    #[must_use]
    pub fn of(journey: &Journey) -> Option<Self> {
        match journey.verdict()? {
            Verdict::Rejected => Some(Self::Rejected),
            Verdict::Dropped => Some(Self::Dropped),
            Verdict::Accepted if journey.outcomes.iter().all(|o| o.answers && is_somebodys(o.destination.addr)) => {
                Some(Self::Answered)
            }
            Verdict::Accepted => {
                let arrivals: BTreeMap<_, _> =
                    journey.outcomes.iter().map(|o| (o.destination, o.masqueraded)).collect();
                let ways = u32::try_from(arrivals.len()).ok()?;
                let equal =
                    journey.outcomes.len() == arrivals.len() && journey.outcomes.iter().all(|o| o.one_in == ways);
                equal.then_some(Self::Arrives(arrivals))
            }
            Verdict::Unreachable => None,
        }
    }
}

/// Whether a node, a pod or a host outside has the address, or a process of the node.
fn is_somebodys(addr: IpAddr) -> bool {
    let has = |(_, known): &(&str, _)| [IpAddr::V4(*known), six::six(IpAddr::V4(*known))].contains(&addr);
    addr.is_loopback() || ADDRESSES.iter().find(|known| has(known)).is_some_and(|(name, _)| cluster::is_host(name))
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Packet { src, dst, protocol, dport, is_echo, .. } = self.packet;
        write!(f, "row {} on {}: {src} to ", self.line, self.node)?;
        if is_echo { write!(f, "{dst}/ping") } else { write!(f, "{dst}:{dport}/{protocol}") }
    }
}

/// Reads `node from to[:port][/protocol] ⇒ fate [sticky [frontends]]`.
fn row(line: usize, text: &'static str) -> Option<Row> {
    let (packet, fate) = text.split_once('⇒')?;
    let mut words = packet.split_whitespace();
    let (node, from, to) = (words.next()?, words.next()?, words.next()?);
    let (to, protocol) = to.split_once('/').unwrap_or((to, "tcp"));
    let (src, direction) = source(node, from)?;
    if protocol == "ping" {
        let packet = Packet::ping(src, address(to)?);
        let to = BackendAddress { addr: packet.dst, port: 0 };
        return Some(Row {
            line,
            node,
            direction,
            packet,
            fate: self::fate(fate.trim(), to)?,
            sticks: false,
            sticks_at: Vec::new(),
        });
    }
    let protocol = match protocol {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        "sctp" => Protocol::Sctp,
        _ => return None,
    };
    let to = backend(to)?;
    // What is sent to a loopback address comes from one.
    let src = if to.addr.is_loopback() { to.addr } else { src };
    let packet = Packet::opening(src, to.addr, protocol, to.port);
    let (fate, sticks_at) = fate.split_once(" sticky").map_or((fate, None), |(fate, rest)| (fate, Some(rest)));
    let (fate, sticks) = (self::fate(fate.trim(), to)?, sticks_at.is_some());
    let sticks_at = sticks_at.unwrap_or_default().split_whitespace().map(backend).collect::<Option<_>>()?;
    Some(Row { line, node, direction, packet, fate, sticks, sticks_at })
}

/// The source: `host` is the node itself, a pod is of this node unless it is said to come `@` another.
fn source(node: &str, from: &str) -> Option<(IpAddr, Direction)> {
    match from.strip_prefix('@') {
        Some(elsewhere) => Some((address(elsewhere)?, Direction::FromOutside)),
        None if from == "host" => Some((address(node)?, Direction::FromHost)),
        None => Some((address(from)?, Direction::FromPod)),
    }
}

/// Reads `rejected`, `dropped`, `answered`, `direct`, or backends; `!` behind a backend or `direct` is masquerading.
fn fate(text: &str, to: BackendAddress) -> Option<Fate> {
    match text {
        "rejected" => return Some(Fate::Rejected),
        "dropped" => return Some(Fate::Dropped),
        "answered" => return Some(Fate::Answered),
        _ => {}
    }
    let arrival = |word: &str| {
        let (word, masqueraded) = word.strip_suffix('!').map_or((word, false), |word| (word, true));
        let at = if word == "direct" { to } else { backend(word)? };
        Some((at, masqueraded))
    };
    text.split_whitespace().map(arrival).collect::<Option<_>>().map(Fate::Arrives)
}

/// Reads `name:port`.
fn backend(text: &str) -> Option<BackendAddress> {
    let (name, port) = text.split_once(':')?;
    Some(BackendAddress { addr: address(name)?, port: port.parse().ok()? })
}
