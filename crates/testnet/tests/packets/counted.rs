//! Whether the trace agrees with reality: the devices that it names for a row's packet, beside those where the packet was counted.
//!
//! Each row is sent a few times more. Every packet is followed by itself through all devices of nodes and pods, also where its addresses and
//! ports are translated, and has to have passed those devices, in that direction, that the trace names for the backend that it came to, and
//! no others. Only the node under test has rules, and the underlay is the lab's own: how packets come to that node is the lab's to know.

mod taps;

use std::{collections::BTreeSet, net::SocketAddr, thread};

use podnet_model::{Dual, Family, NodeName, proxy};
use podnet_planner::{
    ruleset::walk::Direction,
    services::packet_table::{
        Fate, NODES, Row,
        traced::{self, is_from_pod, link_of},
    },
    trace::{Cluster, Hop, Kind, Path, Place},
};

use crate::{
    judge::{PATIENCE, SILENCE},
    lab::Lab,
    modes::Mode,
    probes::{self, Datagram, Outcome},
};
use taps::{Point, Seen, Taps};

/// So often each row is sent for each of its backends.
const TIMES: usize = 3;

/// The table's cluster as it is traced.
pub(crate) struct Traced {
    clusters: Dual<Cluster>,
}

/// A packet that was sent.
struct Sent {
    /// Its source and destination as its sender wrote them; the source's port is also the number of a ping.
    ends: (SocketAddr, SocketAddr),
    outcome: Outcome,
}

impl Traced {
    /// With Services in a mode.
    pub(crate) fn new(mode: proxy::Mode) -> Self {
        Self { clusters: Dual::from_fn(|family| traced::cluster(family, mode)) }
    }

    /// The same where kube-proxy's configuration says more.
    pub(crate) fn configured(mode: proxy::Mode) -> Self {
        Self { clusters: Dual::from_fn(|family| traced::cluster_configured(family, mode)) }
    }

    /// Sends the packets of these rows of the node that is under test; what differs, in words.
    pub(crate) fn differences(&self, lab: &Lab, mode: &dyn Mode, rows: &[&Row]) -> Vec<String> {
        let differing: Vec<&Row> = self.compare(lab, mode, rows).into_iter().map(|(row, _)| row).collect();
        // A packet that its sender sends again, as the answer is late, may go to another backend. A trace that is wrong is wrong again.
        let told = if differing.is_empty() { Vec::new() } else { self.compare(lab, mode, &differing) };
        told.into_iter().map(|(_, what)| format!("{}: {what}", mode.name())).collect()
    }

    /// Sends these rows once; those that differ, and how.
    fn compare<'a>(&self, lab: &Lab, mode: &dyn Mode, rows: &[&'a Row]) -> Vec<(&'a Row, String)> {
        let mut taps = Taps::open(lab);
        let sent = thread::scope(|scope| {
            let running: Vec<_> = rows.iter().map(|row| scope.spawn(|| send(lab, mode, row))).collect();
            while !running.iter().all(thread::ScopedJoinHandle::is_finished) {
                taps.count();
            }
            running.into_iter().map(|row| row.join().expect("a sender panics on nothing")).collect::<Vec<_>>()
        });
        let seen = taps.end();
        let differs = |(row, sent): (&&'a Row, &Vec<Sent>)| Some((*row, self.difference(lab, row, sent, &seen)?));
        rows.iter().zip(&sent).filter_map(differs).collect()
    }

    fn difference(&self, lab: &Lab, row: &Row, sent: &[Sent], seen: &Seen) -> Option<String> {
        let cluster = &self.clusters[Family::of(&row.packet.dst)];
        let paths = match traced::trace(cluster, row) {
            Ok(trace) => trace.paths,
            Err(unknown) => return Some(format!("{row}: {unknown}")),
        };
        let before = if is_from_pod(cluster, row) { BTreeSet::new() } else { approach(lab, row) };
        // A ping that is passed on comes to nobody.
        let arrives = matches!(row.fate, Fate::Arrives(_)) && !row.packet.is_echo;
        let node = cluster.planned(&NodeName::from(row.node));
        let is_own = node.is_some_and(|planned| planned.addrs.contains(&row.packet.dst));
        let is_to_itself = row.direction == Direction::FromHost && is_own;
        let mut compared = 0;
        for Sent { ends: (source, to), outcome } in sent {
            let at = match outcome {
                Outcome::Arrived(sight) => Some(*sight),
                // A packet may be lost, and what is refused or dropped comes to nobody.
                Outcome::Answered if row.packet.is_echo => None,
                _ if arrives || row.fate == Fate::Answered => continue,
                _ => None,
            };
            let protocol = row.packet.protocol;
            // To an address of its own a node sends from that one.
            let from = if is_to_itself { SocketAddr::new(to.ip(), source.port()) } else { *source };
            let first = (protocol, from, *to);
            let last = at.map(|sight| (protocol, sight.source, sight.at));
            let counted = match row.packet.is_echo {
                true => seen.points_of_ping(source.port()),
                false => seen.points([first].into_iter().chain(last)),
            };
            let fits = |path: &&Path| at.is_none_or(|sight| end(row, path) == sight.at);
            let traced: BTreeSet<BTreeSet<Point>> = paths.iter().filter(fits).map(|path| points(row, path)).collect();
            let expected: BTreeSet<_> = traced.into_iter().map(|points| &points | &before).collect();
            if !expected.contains(&counted) || expected.len() != 1 {
                let to = at.map_or_else(String::new, |sight| format!(" came to {}", sight.at));
                return Some(format!("{row}{to}\n    counted: {counted:?}\n    traced:  {expected:?}"));
            }
            compared += 1;
        }
        (compared == 0).then(|| format!("{row}: no packet of it came to anybody"))
    }
}

/// Sends a row's packet some times, from its place.
fn send(lab: &Lab, mode: &dyn Mode, row: &Row) -> Vec<Sent> {
    let packet = &row.packet;
    let sender = match row.direction {
        Direction::FromHost => Some(&lab.places[row.node]),
        _ => lab.place_of(packet.src).map(|(_, place)| place),
    };
    sender.unwrap_or_else(|| panic!("{row}: nobody has the source")).namespace.netns.enter_current_thread().unwrap();
    mode.enter(row.direction);
    let (times, patience) = match &row.fate {
        Fate::Arrives(_) if packet.is_echo => (1, SILENCE),
        Fate::Arrives(_) if row.sticks => (TIMES, PATIENCE),
        Fate::Arrives(arrivals) => (TIMES * arrivals.len(), PATIENCE),
        Fate::Rejected | Fate::Answered => (1, PATIENCE),
        Fate::Dropped => (1, SILENCE),
    };
    let to = SocketAddr::new(packet.dst, packet.dport);
    let once = |_| {
        let port = probes::next_port();
        let outcome = match packet.is_echo {
            true => probes::ping_as(port, packet.dst, patience),
            false => probes::send_from(port, packet.protocol, to, Datagram::Connected, patience),
        };
        Sent { ends: (SocketAddr::new(packet.src, port), to), outcome }
    };
    (0..times).map(once).collect()
}

/// Where a packet that comes to the node under test from elsewhere passes before, of what is of the cluster.
fn approach(lab: &Lab, row: &Row) -> BTreeSet<Point> {
    let eth0 = |place: &str| (place.to_owned(), "eth0".to_owned(), true);
    let sender = lab.place_of(row.packet.src).filter(|_| row.direction != Direction::FromHost);
    match sender.map(|(name, place)| (name, place.node.as_deref())) {
        Some((pod, Some(node))) => [eth0(pod), (node.to_owned(), link_of(pod).to_string(), false), eth0(node)].into(),
        Some((node, None)) if NODES.contains(&node) => [eth0(node)].into(),
        // A host outside.
        Some(_) | None => BTreeSet::new(),
    }
}

/// What of a path is so in the lab, where nodes other than the one under test have no rules.
fn there<'a>(row: &'a Row, path: &'a Path) -> impl Iterator<Item = &'a Hop> {
    path.hops.iter().take_while(|hop| !is_elsewhere(row, hop))
}

/// Whether rules of another node have it go elsewhere.
fn is_elsewhere(row: &Row, hop: &Hop) -> bool {
    let by_rules = matches!(hop.kind, Kind::Translated | Kind::Judged);
    by_rules && hop.place.node().is_some_and(|node| node.as_str() != row.node)
}

/// Where the packet comes to by a path.
fn end(row: &Row, path: &Path) -> SocketAddr {
    match path.hops.iter().any(|hop| is_elsewhere(row, hop)) {
        true => SocketAddr::new(row.packet.dst, row.packet.dport),
        false => SocketAddr::new(path.destination.addr, path.destination.port),
    }
}

/// The devices that a path names.
fn points(row: &Row, path: &Path) -> BTreeSet<Point> {
    let point = |hop: &Hop| {
        let place = match &hop.place {
            Place::Pod(pod, _) => pod.name.to_string(),
            Place::Node(node) => node.to_string(),
            Place::Underlay => return None,
        };
        let outbound = match hop.kind {
            Kind::Sent | Kind::Routed | Kind::Encapsulated => true,
            Kind::Received | Kind::Decapsulated | Kind::Delivered => false,
            Kind::Chosen | Kind::Translated | Kind::Masqueraded | Kind::Judged => return None,
        };
        Some((place, hop.device.as_ref()?.to_string(), outbound))
    };
    there(row, path).filter_map(point).collect()
}
