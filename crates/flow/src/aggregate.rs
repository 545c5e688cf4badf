//! From the kernel's entries to records: each flow once, whatever is read how often.
//!
//! The kernel's map is the truth: entries are absolute, so that reading them again changes nothing, and a reader that began anew goes on where
//! the kernel is. Bells (an entry began, ended, was replaced) only make it sooner; of replaced entries they bring the last counters.
//!
//! A flow between two pods of the node has two entries, one at each pod's interface: they become one record, told by the source's. Nothing
//! ends between two complete readings of the map ([`Aggregator::sweep`]), so that the second entry is not taken for another flow.

mod flow;

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    net::SocketAddr,
    sync::Arc,
};

use flow::{Flow, Side};
use jiff::{SignedDuration, Timestamp};
use podnet_model::NodeName;
use uuid::Uuid;

use crate::{
    entry::{Entry, EntryKey, Transport},
    names::{Holder, Names},
    record::{Asked, Class, End, Key, Record, Report},
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
            update: SignedDuration::from_secs(60),
        }
    }
}

impl Timeouts {
    fn of(&self, entry: &Entry) -> SignedDuration {
        match entry.key.transport {
            _ if entry.ended => self.ended,
            Transport::TCP => self.tcp,
            Transport::UDP => self.udp,
            _ => self.others,
        }
    }
}

/// Who knows what the node's stack translates.
pub trait Translations {
    /// Who answers what was addressed to a Service, if the stack knows.
    fn backend(&mut self, key: &Key) -> Option<SocketAddr>;
}

/// No stack translates anything: of use where Services are chosen at the socket.
impl Translations for () {
    fn backend(&mut self, _: &Key) -> Option<SocketAddr> {
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
    /// Apart from the table, whose empty places would be as large.
    flows: HashMap<u64, Box<Flow>>,
    /// Flows by the hashes of their keys: others may have the same one.
    by_key: HashMap<u64, Vec<u64>>,
    keyed: RandomState,
    /// Flows all of whose entries are over.
    closing: Vec<u64>,
    next: u64,
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
            live: HashMap::new(),
            flows: HashMap::new(),
            by_key: HashMap::new(),
            keyed: RandomState::new(),
            closing: Vec::new(),
            next: 0,
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
        let id = self.learn(entry, scene);
        let (timeouts, since, scan) = (self.timeouts, self.since, self.scan);
        let Some(flow) = self.flows.get_mut(&id) else { return Fate::Stays };
        if flow.is_due(scene.now, timeouts.update) {
            let report = if flow.is_told() || flow.start() < since { Report::Update } else { Report::Start };
            told.push(flow.tell(report, scene, (&self.node, self.boot)));
        }
        let is_idle = |entry: &Entry| scene.now.duration_since(entry.last) >= timeouts.of(entry);
        if flow.is_over(scan, is_idle) { Fate::Over } else { Fate::Stays }
    }

    /// An entry is out of the kernel's map; these are its last counters.
    pub fn over(&mut self, entry: &Entry, scene: &mut Scene<'_>) {
        self.learn(entry, scene);
        self.close((entry.key, entry.born));
    }

    /// The map was read as a whole, every entry in it was observed, and those that are over were taken out. Flows that have ended are told.
    /// What was not in the map, neither now nor the time before, is gone: with its interface, say.
    pub fn sweep(&mut self, scene: &mut Scene<'_>, told: &mut Vec<Record>) {
        self.scan += 1;
        let scan = self.scan;
        let gone: Vec<Incarnation> =
            self.live.iter().filter(|(_, live)| live.scan + 2 < scan).map(|(incarnation, _)| *incarnation).collect();
        gone.into_iter().for_each(|incarnation| self.close(incarnation));
        self.settle(false, scene, told);
    }

    /// Tells the flows that have ended by what bells told: that one began that is over so soon is not told besides. The last time, also
    /// those whose other end's entry may still come.
    pub fn settle(&mut self, is_last: bool, scene: &mut Scene<'_>, told: &mut Vec<Record>) {
        for id in std::mem::take(&mut self.closing) {
            let Some(flow) = self.flows.get_mut(&id).filter(|flow| !flow.is_open()) else { continue };
            if flow.waits_for_other(self.scan) && !is_last {
                self.closing.push(id);
                continue;
            }
            told.push(flow.tell(Report::End, scene, (&self.node, self.boot)));
            self.remove(id);
        }
    }

    fn remove(&mut self, id: u64) {
        let Some(flow) = self.flows.remove(&id) else { return };
        let hash = self.keyed.hash_one(flow.key);
        if let Some(ids) = self.by_key.get_mut(&hash) {
            ids.retain(|other| *other != id);
            if ids.is_empty() {
                self.by_key.remove(&hash);
            }
        }
    }

    fn close(&mut self, incarnation: Incarnation) {
        let Some(live) = self.live.remove(&incarnation) else { return };
        let Some(flow) = self.flows.get_mut(&live.flow) else { return };
        if flow.close(live.side) {
            self.closing.push(live.flow);
        }
    }

    /// The flow that an entry is of, with its counters.
    fn learn(&mut self, entry: &Entry, scene: &mut Scene<'_>) -> u64 {
        let incarnation = (entry.key, entry.born);
        if let Some(live) = self.live.get_mut(&incarnation) {
            live.scan = self.scan;
            if let Some(flow) = self.flows.get_mut(&live.flow) {
                flow.update(live.side, entry);
            }
            return live.flow;
        }
        let side = if entry.pod_began { Side::Source } else { Side::Destination };
        let id = self.begin(entry, side, scene);
        self.live.insert(incarnation, Live { flow: id, side, scan: self.scan });
        id
    }

    fn begin(&mut self, entry: &Entry, side: Side, scene: &mut Scene<'_>) -> u64 {
        let own = Key::of(entry);
        // What the socket asked for, or what is addressed and translated on its way.
        let at = entry.asked.unwrap_or(own.destination);
        let asked = match side {
            Side::Source => scene.names.service(at, own.transport).cloned(),
            Side::Destination => None,
        };
        let is_translated = asked.is_some() && entry.asked.is_none();
        let backend = is_translated.then(|| scene.translations.backend(&own)).flatten();
        let key = Key { destination: backend.unwrap_or(own.destination), ..own };
        let asked = asked.map(|service| Asked { service, ip: at.ip(), port: at.port() });
        let fits = |id: &u64| {
            let flow = self.flows.get(id).filter(|flow| flow.key == key)?;
            Some((flow.distance(side, entry)?, *id))
        };
        let hash = self.keyed.hash_one(key);
        let nearest = self.by_key.get(&hash).and_then(|ids| ids.iter().filter_map(fits).min());
        if let Some((flow, id)) = nearest.and_then(|(_, id)| Some((self.flows.get_mut(&id)?, id))) {
            flow.attach(side, entry, asked);
            return id;
        }
        let flow = self.flow(key, (entry, side), asked, scene.names);
        let id = self.next;
        self.next += 1;
        self.flows.insert(id, Box::new(flow));
        // Nearly all are alone.
        self.by_key.entry(hash).or_insert_with(|| Vec::with_capacity(1)).push(id);
        id
    }

    fn flow(&self, key: Key, (entry, side): (&Entry, Side), asked: Option<Asked>, names: &Names) -> Flow {
        let own = names.device(entry.key.device).map(|pod| Holder::Pod(Arc::clone(pod)));
        let holder = |of: Side, at: SocketAddr| match &own {
            Some(own) if of == side && at.ip() == entry.key.local => own.clone(),
            _ => names.holder(at.ip(), entry.first),
        };
        let source = End::new(key.source, holder(Side::Source, key.source));
        let destination = End::new(key.destination, holder(Side::Destination, key.destination));
        Flow::new(&self.node, key, (source, destination), asked, (entry, side, self.scan))
    }
}

/// What kinds of ends these are.
fn class(source: &End, destination: &End, asked: bool) -> Class {
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
