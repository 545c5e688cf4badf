//! From the kernel's entries to records: each flow once, whatever is read how often.
//!
//! The kernel's map is the truth: entries are absolute, so that reading them again changes nothing, and a reader that began anew goes on where
//! the kernel is. Bells (an entry began, ended, was replaced) only make it sooner; of replaced entries they bring the last counters.
//!
//! A flow between two pods of the node has two entries, one at each pod's interface: they become one record, told by the source's. Nothing
//! ends between two complete readings of the map ([`Aggregator::sweep`]), so that the second entry is not taken for another flow; but for connections
//! all of whose entries rang ([`Aggregator::take_ended`]).

mod ended;
mod flow;
mod outcome;
mod resolved;
mod table;

use std::{collections::BTreeSet, net::IpAddr};

pub use ended::Entries;
use flow::{First, Flow, Side};
// Each record is looked up some ten times on its way, by keys of a hundred bytes.
use foldhash::{HashMap, HashSet};
use jiff::{SignedDuration, Timestamp};
use podnet_model::NodeName;
use resolved::Resolved;
use table::Table;
use uuid::Uuid;

use crate::{
    entry::{Entry, EntryKey, Transport},
    names::Names,
    record::{Class, End, Key, Record, Report},
};

/// How long a flow without packets is waited for, and how often one that lasts is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// Of TCP, while nothing says that it ended: the least that RFC 5382 (REQ-5) asks of who keeps connections.
    pub tcp: SignedDuration,
    /// Of UDP.
    pub udp: SignedDuration,
    /// Of all others.
    pub others: SignedDuration,
    /// After the protocol said that it ended: the last acknowledgements.
    pub ended: SignedDuration,
    /// After a connection of TCP ended and that was acknowledged, or it was reset: what is still under way.
    pub acknowledged: SignedDuration,
    /// Between two records of a flow that lasts.
    pub update: SignedDuration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            tcp: SignedDuration::from_mins(124),
            udp: SignedDuration::from_secs(60),
            others: SignedDuration::from_secs(30),
            ended: SignedDuration::from_secs(1),
            acknowledged: SignedDuration::from_millis(200),
            update: SignedDuration::from_secs(60),
        }
    }
}

impl Timeouts {
    /// Of an entry whose other end on this node `is_gone`, if so.
    fn of(&self, entry: &Entry, is_gone: bool) -> SignedDuration {
        match entry.key.transport {
            _ if entry.ended => self.ended,
            // Nobody is there any more who could answer.
            _ if is_gone => self.others,
            // Nearly all who open a connection give up when they are told that there is no way (RFC 5461, section 3.1).
            Transport::TCP if entry.is_stopped() => self.others,
            Transport::TCP => self.tcp,
            Transport::UDP => self.udp,
            _ => self.others,
        }
    }
}

/// Who knows what is translated on the node: by its stack, or by who takes connections and passes them on.
pub trait Translations {
    /// What who answers sees of a flow that somebody began with these addresses and ports; none where that is the same, or nothing is known.
    fn onward(&mut self, key: &Key) -> Option<Key>;

    /// With which addresses and ports a flow began of which who answers sees these; none where they are the same, or nothing is known.
    fn origin(&mut self, key: &Key) -> Option<Key>;
}

/// Nothing is translated: of use where Services are chosen at the socket.
impl Translations for () {
    fn onward(&mut self, _: &Key) -> Option<Key> {
        None
    }

    fn origin(&mut self, _: &Key) -> Option<Key> {
        None
    }
}

/// What surrounds a reading.
pub struct Scene<'a> {
    /// When it is.
    pub now: Timestamp,
    /// Who is who.
    pub names: &'a Names,
    /// What is translated.
    pub translations: &'a mut dyn Translations,
}

/// What to do with an entry that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Fate {
    /// It stays in the kernel.
    Stays,
    /// It is over: it is to be taken out of the kernel, and its last counters told by [`Aggregator::over`].
    Over,
}

/// One incarnation of an entry: a key is used again and again.
type Incarnation = (EntryKey, u64);

#[derive(Debug)]
struct Live {
    flow: u64,
    side: Side,
    /// The last reading of the map that it was seen in.
    scan: u64,
}

/// The flows of a node.
#[derive(Debug)]
pub struct Aggregator {
    node: NodeName,
    boot: Uuid,
    since: Timestamp,
    timeouts: Timeouts,
    live: HashMap<Incarnation, Live>,
    flows: Table,
    /// Flows all of whose entries are over.
    closing: Vec<u64>,
    /// Connections that are over since the last reading of the map, and those before that since the one before.
    ended: HashSet<Incarnation>,
    ended_before: HashSet<Incarnation>,
    /// Flows that rang for their end and may be over before the next reading of the map.
    ending: BTreeSet<u64>,
    scan: u64,
}

impl Aggregator {
    /// Of a node, which runs since the boot of this id (`/proc/sys/kernel/random/boot_id`). What began before `now` was told by an earlier one.
    #[must_use]
    pub fn new(node: NodeName, boot: Uuid, now: Timestamp, timeouts: Timeouts) -> Self {
        Self {
            node,
            boot,
            since: now,
            timeouts,
            live: HashMap::default(),
            flows: Table::default(),
            closing: Vec::new(),
            ended: HashSet::default(),
            ended_before: HashSet::default(),
            ending: BTreeSet::new(),
            scan: 0,
        }
    }

    /// How many flows are under way.
    #[must_use]
    pub fn len(&self) -> usize {
        self.flows.len()
    }

    /// Whether no flow is under way.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.flows.is_empty()
    }

    /// Takes in an entry of the map, or one that a bell told of. Records that are due come to `told`.
    pub fn observe(&mut self, entry: &Entry, scene: &mut Scene<'_>, told: &mut Vec<Record>) -> Fate {
        if self.has_ended(entry) {
            return Fate::Stays;
        }
        let id = self.learn(entry, scene);
        let (timeouts, since, scan) = (self.timeouts, self.since, self.scan);
        let Some(flow) = self.flows.get_mut(id) else { return Fate::Stays };
        if flow.is_due(scene.now, timeouts.update) {
            let report = if flow.is_told() || flow.start() < since { Report::Update } else { Report::Start };
            told.push(flow.tell(report, scene, (&self.node, self.boot)));
        }
        let is_gone = flow.has_lost_an_end();
        let is_idle = |entry: &Entry| scene.now.duration_since(entry.last) >= timeouts.of(entry, is_gone);
        if flow.is_over(scan, is_idle) { Fate::Over } else { Fate::Stays }
    }

    /// An entry is out of the kernel's map; these are its last counters. It may have been open: its interface is gone, and no packet can come any more.
    pub fn over(&mut self, entry: &Entry, scene: &mut Scene<'_>) {
        if self.has_ended(entry) {
            return;
        }
        self.learn(entry, scene);
        let incarnation = (entry.key, entry.born);
        self.close(incarnation);
        if may_be_replaced(entry) {
            self.ended.insert(incarnation);
        }
    }

    /// Whether it is over already. The kernel rings for an entry a moment before another takes its place: in between that one is read, or taken out.
    fn has_ended(&self, entry: &Entry) -> bool {
        let incarnation = (entry.key, entry.born);
        may_be_replaced(entry) && [&self.ended, &self.ended_before].iter().any(|ended| ended.contains(&incarnation))
    }

    /// The map was read as a whole, every entry in it was observed, and those that are over were taken out. Flows that have ended are told.
    /// What was not in the map, neither now nor the time before, is gone: others took it out.
    pub fn sweep(&mut self, scene: &mut Scene<'_>, told: &mut Vec<Record>) {
        self.scan += 1;
        let scan = self.scan;
        let gone: Vec<Incarnation> =
            self.live.iter().filter(|(_, live)| live.scan + 2 < scan).map(|(incarnation, _)| *incarnation).collect();
        gone.into_iter().for_each(|incarnation| self.close(incarnation));
        // What rang before this reading has been heard before the next one ends.
        self.ended_before = std::mem::take(&mut self.ended);
        self.settle(false, scene, told);
    }

    /// Tells the flows that have ended by what bells told: that one began that is over so soon is not told besides. The last time, also
    /// those whose other end's entry may still come.
    pub fn settle(&mut self, is_last: bool, scene: &mut Scene<'_>, told: &mut Vec<Record>) {
        for id in std::mem::take(&mut self.closing) {
            let Some(flow) = self.flows.get_mut(id).filter(|flow| !flow.is_open()) else { continue };
            if flow.waits_for_other(self.scan) && !is_last {
                self.closing.push(id);
                continue;
            }
            told.push(flow.tell(Report::End, scene, (&self.node, self.boot)));
            self.flows.remove(id);
        }
    }

    fn close(&mut self, incarnation: Incarnation) {
        let Some(live) = self.live.remove(&incarnation) else { return };
        let Some(flow) = self.flows.get_mut(live.flow) else { return };
        if flow.close(live.side) {
            self.closing.push(live.flow);
        }
    }

    /// The flow that an entry is of, with its counters.
    fn learn(&mut self, entry: &Entry, scene: &mut Scene<'_>) -> u64 {
        let incarnation = (entry.key, entry.born);
        if let Some(live) = self.live.get_mut(&incarnation) {
            live.scan = self.scan;
            if let Some(flow) = self.flows.get_mut(live.flow) {
                flow.update(live.side, entry);
                flow.limit(entry, scene.names);
            }
            return live.flow;
        }
        let side = if entry.pod_began { Side::Source } else { Side::Destination };
        let id = self.begin(entry, side, scene);
        if let Some(flow) = self.flows.get_mut(id) {
            flow.limit(entry, scene.names);
        }
        self.live.insert(incarnation, Live { flow: id, side, scan: self.scan });
        id
    }

    fn begin(&mut self, entry: &Entry, side: Side, scene: &mut Scene<'_>) -> u64 {
        let resolved = Resolved::new(entry, side, &self.node, scene);
        let key = resolved.key;
        let mut nearest = self.flows.nearest(&key, side, entry);
        if nearest.is_none() {
            // What of it was read first may have been read too soon.
            nearest = resolved.elsewhere.and_then(|key| self.flows.nearest(&key, side, entry));
            if let Some(id) = nearest {
                let ends = ends(&key, entry.first, None, scene.names);
                self.flows.readdress(id, key, ends, &self.node);
            }
        }
        if let Some((flow, id)) = nearest.and_then(|id| Some((self.flows.get_mut(id)?, id))) {
            flow.attach(side, entry, resolved.asked);
            return id;
        }
        let flow = self.flow(resolved, (entry, side), scene.names);
        self.flows.insert(flow)
    }

    fn flow(&self, resolved: Resolved, (entry, side): (&Entry, Side), names: &Names) -> Flow {
        let Resolved { key, asked, seen_as, .. } = resolved;
        let first = First {
            is_spoofed: side == Side::Source && names.is_spoofed(entry),
            // Where the Service has a backend, that is the destination.
            is_unserved: asked.is_some() && names.is_unserved(key.destination, key.transport),
        };
        // The pod that sent it, and not the one whose address it took.
        let sender = names.senders(entry.key.device).filter(|_| first.is_spoofed).and_then(<[IpAddr]>::first);
        let ends = ends(&key, entry.first, sender.copied(), names);
        Flow::new(&self.node, key, ends, (asked, seen_as, first), (entry, side, self.scan))
    }
}

/// Who is at both ends of a flow, at a time; at the source who has the address of `sender`, if there is one.
fn ends(key: &Key, at: Timestamp, sender: Option<IpAddr>, names: &Names) -> (End, End) {
    let source = End::new(key.source, names.holder(sender.unwrap_or(key.source.ip()), at));
    (source, End::new(key.destination, names.holder(key.destination.ip(), at)))
}

/// Entries of connections are, once these have ended.
fn may_be_replaced(entry: &Entry) -> bool {
    entry.ended && matches!(entry.key.transport, Transport::TCP | Transport::SCTP)
}

/// What kinds of ends these are.
pub(crate) fn class(source: &End, destination: &End, asked: bool) -> Class {
    match (&source.pod, &destination.pod) {
        (Some(_), _) if asked => Class::PodService,
        (Some(source), Some(destination)) if source.node == destination.node => Class::PodPodSameNode,
        (Some(_), Some(_)) => Class::PodPodOtherNode,
        (Some(_), None) if destination.node.is_some() => Class::PodNode,
        (Some(_), None) => Class::PodWorld,
        (None, _) if source.node.is_some() => Class::NodePod,
        (None, _) => Class::WorldPod,
    }
}

#[cfg(test)]
mod tests;
