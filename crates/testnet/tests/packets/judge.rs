//! Sends each row of the table as real packets and judges what becomes of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::{self, Write},
    net::SocketAddr,
    thread,
    time::Duration,
};

use podnet_model::Protocol;
use podnet_planner::{
    border::BorderConfig,
    ruleset::{BackendAddress, walk::Direction},
    services::{
        ServicesConfig,
        packet_table::{self, Fate, NODES, NodeRules, Row, six},
    },
};

use crate::{
    lab::{Lab, Place},
    listeners::{Listeners, Port, Sight},
    modes::Mode,
    probes::{self, Datagram, Outcome},
};

/// On a loaded machine, and in an emulated one, an answer takes its time. Only rows that fail wait for so long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(15);
/// What is refused at once is refused before TCP tries again, which is after 1 s.
const AT_ONCE: Duration = Duration::from_millis(900);
/// What was not answered by then is dropped: longer would cost time only, as an answer that comes is seen far earlier.
pub(crate) const SILENCE: Duration = Duration::from_millis(400);
/// How a refusal is told that did not come at once.
const LATE: &str = "refused, but late";
/// A slow answer may be the machine's fault, but not each time.
const TRIES_TO_BE_QUICK: u32 = 5;

/// What a node is told when it starts.
type Config = fn(&str) -> (ServicesConfig, BorderConfig);

/// As kube-proxy's configuration is where it says nothing, by IPv4 and by IPv6.
const USUAL: [Config; 2] = [packet_table::config, six::config];

/// A row that does not hold.
#[derive(Debug)]
pub(crate) struct Failure {
    /// Its line in the table.
    pub(crate) line: usize,
    /// It came to the right end, but not at once.
    is_late: bool,
    /// What was expected and what was seen.
    report: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.report)
    }
}

/// How often a packet is sent for each of the backends that it may come to, so that one to which it must not come is met: of two, the
/// wrong one is missed once in a million times.
pub(crate) const OFTEN: u32 = 20;
/// Where each packet takes long, and what may come is seen elsewhere.
pub(crate) const SELDOM: u32 = 4;

/// The rows that do not hold, where each packet is sent so often for each of its backends.
pub(crate) fn failures(lab: &Lab, mode: &dyn Mode, rows: &[Row], often: u32) -> Vec<Failure> {
    on_each_node(lab, mode, rows, |own| of_node(lab, mode, own, often))
}

/// Has each node with rows in turn under test, and in force there what the mode does, while something is done with the node's rows.
pub(crate) fn on_each_node<'a, T>(
    lab: &Lab,
    mode: &dyn Mode,
    rows: &'a [Row],
    work: impl Fn(&[&'a Row]) -> Vec<T>,
) -> Vec<T> {
    on_each_node_as(USUAL, lab, mode, rows, work)
}

/// The same with nodes that are configured so, for IPv4 and for IPv6.
pub(crate) fn on_each_node_as<'a, T>(
    configs: [Config; 2],
    lab: &Lab,
    mode: &dyn Mode,
    rows: &'a [Row],
    work: impl Fn(&[&'a Row]) -> Vec<T>,
) -> Vec<T> {
    let ports = ports(rows.iter().chain(&packet_table::rows()));
    let mut done = Vec::new();
    for node in NODES {
        let own: Vec<&Row> = rows.iter().filter(|row| row.node == node).collect();
        if own.is_empty() {
            continue;
        }
        lab.lead_through(node);
        let rules = rules(node, mode, configs);
        let _listeners = Listeners::start(lab, &ports, (node, &mode.listens_at(&rules)));
        let in_force = mode.put(&lab.places[node].namespace.netns, &rules);
        done.extend(work(&own));
        drop(in_force);
    }
    done
}

/// The rows that do not hold of those of the node that is under test.
pub(crate) fn of_node(lab: &Lab, mode: &dyn Mode, own: &[&Row], often: u32) -> Vec<Failure> {
    // Beside all others a slow machine may be late for each try of a row, but not while that row is alone.
    let (again, failed): (Vec<_>, Vec<_>) =
        together(lab, mode, own, often).into_iter().partition(|(_, failure)| mode.takes_turns() || failure.is_late);
    let failed_again = again.iter().flat_map(|(row, _)| together(lab, mode, &[*row], often));
    failed.into_iter().chain(failed_again).map(|(_, failure)| failure).collect()
}

/// What a node's agent knows of the table's cluster.
fn rules(node: &str, mode: &dyn Mode, [four, by_six]: [Config; 2]) -> Vec<NodeRules> {
    let of = |(services, border): (ServicesConfig, _), changes: Vec<_>| {
        let loopback = if mode.serves_loopback() { services.loopback } else { Vec::new() };
        let mut rules = NodeRules::new((ServicesConfig { loopback, ..services }, border));
        changes.iter().for_each(|change| drop(rules.apply(change)));
        rules
    };
    vec![of(four(node), packet_table::changes()), of(by_six(node), six::changes())]
}

/// Everything that a packet could be addressed to, before and after translation.
fn ports<'a>(rows: impl Iterator<Item = &'a Row>) -> BTreeSet<Port> {
    let of = |row: &Row| {
        let mut ports = vec![row.packet.dport];
        if let Fate::Arrives(arrivals) = &row.fate {
            ports.extend(arrivals.keys().map(|at| at.port));
        }
        let protocol = row.packet.protocol;
        ports.into_iter().map(move |port| (protocol, port)).collect::<Vec<_>>()
    };
    rows.filter(|row| !row.packet.is_echo).flat_map(of).collect()
}

/// All rows at once: each has a thread at its sender's place. Those that fail, with what was seen.
fn together<'a>(lab: &Lab, mode: &dyn Mode, rows: &[&'a Row], often: u32) -> Vec<(&'a Row, Failure)> {
    thread::scope(|scope| {
        let running: Vec<_> =
            rows.iter().map(|row| (*row, scope.spawn(|| Trial::new(lab, row).run(mode, often)))).collect();
        let done = |(row, trial): (_, thread::ScopedJoinHandle<'_, _>)| {
            let failure: Option<Failure> = trial.join().expect("a trial panics on nothing");
            Some((row, failure?))
        };
        running.into_iter().filter_map(done).collect()
    })
}

/// A row under way.
struct Trial<'a> {
    lab: &'a Lab,
    row: &'a Row,
    sender: &'a Place,
    seen: BTreeMap<String, u32>,
    sent: u32,
}

impl<'a> Trial<'a> {
    fn new(lab: &'a Lab, row: &'a Row) -> Self {
        let sender = match row.direction {
            Direction::FromHost => Some(&lab.places[row.node]),
            _ => lab.place_of(row.packet.src).map(|(_, place)| place),
        };
        let sender = sender.unwrap_or_else(|| panic!("{row}: nobody has the source"));
        Self { lab, row, sender, seen: BTreeMap::new(), sent: 0 }
    }

    /// What failed.
    fn run(mut self, mode: &dyn Mode, often: u32) -> Option<Failure> {
        self.sender.namespace.netns.enter_current_thread().unwrap();
        mode.enter(self.row.direction);
        let held = match &self.row.fate {
            // Nobody has the address.
            Fate::Arrives(_) if self.row.packet.is_echo => matches!(self.send(mode, SILENCE), Outcome::Nothing),
            Fate::Arrives(arrivals) => self.arrives(mode, arrivals, often),
            Fate::Rejected => self.is_rejected(mode),
            Fate::Dropped => self.is_dropped(mode),
            Fate::Answered => matches!(self.send(mode, PATIENCE), Outcome::Answered),
        };
        let is_late = self.seen.keys().all(|seen| seen == LATE);
        (!held).then(|| Failure { line: self.row.line, is_late, report: self.report(mode) })
    }

    /// Sends until every backend was met, and for a while in any case, in case that there are others.
    fn arrives(&mut self, mode: &dyn Mode, arrivals: &BTreeMap<BackendAddress, bool>, often: u32) -> bool {
        let (mut met, mut lost) = (BTreeSet::new(), false);
        // Whoever stays with a backend meets no other, however often it comes.
        let all = if self.row.sticks { 1 } else { arrivals.len() };
        let ways = u32::try_from(all).expect("few backends");
        // That one of them is not met by chance happens once in a million million times: `n·(1-1/n)^k`.
        let (least, most) = (often * ways, 35 * ways);
        while self.sent < least || (met.len() < all && self.sent < most) {
            let sight = match self.send(mode, PATIENCE) {
                Outcome::Arrived(sight) => sight,
                // A loaded machine may lose a datagram; TCP sends again by itself.
                Outcome::Nothing if !lost && self.row.packet.protocol != Protocol::Tcp => {
                    lost = true;
                    continue;
                }
                _ => return false,
            };
            let at = backend(sight.at);
            let Some(masqueraded) = arrivals.get(&at) else { return false };
            if !self.source_is_right(mode, sight, *masqueraded) {
                return false;
            }
            met.insert(at);
        }
        met.len() == all
    }

    /// A masqueraded packet has an address of the node as its source. What the node itself sends has so in any case.
    fn source_is_right(&self, mode: &dyn Mode, sight: Sight, masqueraded: bool) -> bool {
        let row = self.row;
        let from_node = self.lab.places[row.node].addrs.contains(&sight.source.ip());
        let own = sight.source.ip() == row.packet.src;
        match (row.direction, masqueraded) {
            (Direction::FromHost, _) if sight.at.ip().is_loopback() => own,
            (Direction::FromHost, _) => from_node,
            _ if mode.masquerades(row, &sight) => from_node,
            (_, true) => from_node || (own && mode.spares_masquerading(row, &sight)),
            (_, false) => own,
        }
    }

    fn is_rejected(&mut self, mode: &dyn Mode) -> bool {
        for _ in 0..TRIES_TO_BE_QUICK {
            match self.send(mode, PATIENCE) {
                Outcome::Refused(after) if after < AT_ONCE => return true,
                Outcome::Refused(_) => {}
                _ => return false,
            }
        }
        false
    }

    /// Once by a socket that is connected, once by one that is not.
    fn is_dropped(&mut self, mode: &dyn Mode) -> bool {
        let is_told = mode.tells_what_it_drops() && self.row.direction != Direction::FromOutside;
        (0..2).all(|_| match self.send(mode, SILENCE) {
            Outcome::Nothing => true,
            Outcome::Unreachable => is_told,
            _ => false,
        })
    }

    /// Of the frontends at which whoever comes stays with a backend, in turn.
    fn next_frontend(&self, mode: &dyn Mode) -> SocketAddr {
        let others = if mode.shares_affinity() { self.row.sticks_at.as_slice() } else { &[] };
        let packet = &self.row.packet;
        match others.get(self.sent as usize % (others.len() + 1)) {
            Some(other) => SocketAddr::new(other.addr, other.port),
            None => SocketAddr::new(packet.dst, packet.dport),
        }
    }

    fn send(&mut self, mode: &dyn Mode, patience: Duration) -> Outcome {
        let packet = &self.row.packet;
        // Who is not connected hears of no refusal.
        let connected = self.row.fate == Fate::Rejected || self.sent.is_multiple_of(2);
        let how = if connected { Datagram::Connected } else { Datagram::Unconnected };
        let to = self.next_frontend(mode);
        let outcome = if packet.is_echo {
            probes::ping(packet.dst, patience)
        } else {
            probes::send(packet.protocol, to, how, patience)
        };
        self.sent += 1;
        let words = match &outcome {
            Outcome::Arrived(sight) => {
                format!("{} from {}", self.at(backend(sight.at)), self.lab.name_of(sight.source.ip()))
            }
            Outcome::Answered => "answered".to_owned(),
            Outcome::Refused(after) if *after < AT_ONCE => "refused at once".to_owned(),
            Outcome::Refused(_) => LATE.to_owned(),
            Outcome::Unreachable => "unreachable".to_owned(),
            Outcome::Nothing => "no answer".to_owned(),
            Outcome::Wrong(what) => what.clone(),
        };
        *self.seen.entry(words).or_default() += 1;
        outcome
    }

    fn report(&self, mode: &dyn Mode) -> String {
        let Row { line, node, packet, direction, fate, sticks, .. } = self.row;
        let (from, to) =
            (self.lab.name_of(packet.src), self.at(BackendAddress { addr: packet.dst, port: packet.dport }));
        let mut report =
            format!("{}: line {line}: {node} {from} ({direction:?}) to {to}/{}", mode.name(), packet.protocol);
        let expected = match fate {
            Fate::Rejected => "refused at once".to_owned(),
            Fate::Dropped => "no answer".to_owned(),
            Fate::Answered => "answered".to_owned(),
            Fate::Arrives(arrivals) => {
                let arrival = |(at, masqueraded): (&BackendAddress, &bool)| {
                    self.at(*at) + if *masqueraded { " from the node" } else { " from the sender" }
                };
                let always = if *sticks { "always the same of " } else { "" };
                always.to_owned() + &arrivals.iter().map(arrival).collect::<Vec<_>>().join(", ")
            }
        };
        let _ = write!(report, "\n    expected: {expected}\n    seen:     ");
        let seen = self.seen.iter().map(|(what, times)| format!("{what} ({times} times)"));
        report + &seen.collect::<Vec<_>>().join(", ")
    }

    fn at(&self, at: BackendAddress) -> String {
        format!("{}:{}", self.lab.name_of(at.addr), at.port)
    }
}

fn backend(at: SocketAddr) -> BackendAddress {
    BackendAddress { addr: at.ip(), port: at.port() }
}
