//! One flow that is under way.

mod rest;

use std::net::SocketAddr;

use jiff::{SignedDuration, Timestamp};
use podnet_model::NodeName;
pub(super) use rest::Rest;
use uuid::Uuid;

use super::{Scene, class, outcome::Evidence};
use crate::{
    entry::{Entry, EntryKey, Transport, Way},
    names::Names,
    record::{Asked, AtDestination, Cause, End, FlowId, Key, Record, Report, Reporter},
};

/// A packet passes both ends' interfaces nearly at once.
const NEARLY: SignedDuration = SignedDuration::from_millis(1);
/// So much later than told the last packet may have been: its time is that of a tick of the kernel, of which there are 100 in a second at least.
const TICKS: SignedDuration = SignedDuration::from_millis(20);
/// A flow whose protocol says that it is over, and that is not older, is told once: as it ends.
const SHORT: SignedDuration = SignedDuration::from_secs(5);
/// What ids of flows are made in.
const IDS: Uuid = Uuid::from_u128(0x9d1f_5f1e_2f0c_4f7b_8d44_62a7_3d5c_0e11);

/// Whose interface an entry is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Source,
    Destination,
}

#[derive(Debug)]
struct Counted {
    entry: Entry,
    is_open: bool,
    /// Its packets as it rang for its end; 0: it did not.
    rang: u64,
}

/// What may be another thing by the time that a flow is told.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct First {
    /// The source is no address of the pod that sent.
    pub(super) is_spoofed: bool,
    /// The Service that was asked had nobody to answer here.
    pub(super) is_unserved: bool,
}

#[derive(Debug)]
pub(super) struct Flow {
    pub(super) key: Key,
    source: End,
    destination: End,
    // Most flows have one of these: there are hundreds of thousands of them.
    asked: Option<Box<Asked>>,
    /// The source that who answers sees, where that is another one: there it may not be among what is counted.
    seen_as: Option<Box<SocketAddr>>,
    at_source: Option<Box<Counted>>,
    at_destination: Option<Box<Counted>>,
    /// The pods at these ends are this node's, so that there have to be entries of theirs.
    expects: [bool; 2],
    /// What is known of the source, and of whom it asked, as it began.
    first: First,
    /// Rules lost or refused a packet of it as beyond a pod's limit.
    is_beyond_limit: bool,
    id: Option<FlowId>,
    /// When it was told, and with how many packets.
    told: Option<(Timestamp, u64)>,
    /// The reading of the map before which it was first seen.
    began: u64,
    /// The reading at which all its entries were idle for the first time.
    idle: Option<u64>,
}

impl Flow {
    pub(super) fn new(
        node: &NodeName,
        key: Key,
        (source, destination): (End, End),
        (asked, seen_as, first): (Option<Asked>, Option<SocketAddr>, First),
        (entry, side, began): (&Entry, Side, u64),
    ) -> Self {
        let expects = expects(&source, &destination, node);
        let mut flow = Self {
            key,
            source,
            destination,
            asked: asked.map(Box::new),
            seen_as: seen_as.map(Box::new),
            at_source: None,
            at_destination: None,
            expects,
            first,
            is_beyond_limit: false,
            id: None,
            told: None,
            began,
            idle: None,
        };
        flow.attach(side, entry, None);
        flow
    }

    fn counted(&self, side: Side) -> Option<&Counted> {
        match side {
            Side::Source => self.at_source.as_deref(),
            Side::Destination => self.at_destination.as_deref(),
        }
    }

    fn counted_mut(&mut self, side: Side) -> &mut Option<Box<Counted>> {
        match side {
            Side::Source => &mut self.at_source,
            Side::Destination => &mut self.at_destination,
        }
    }

    /// It is known by now between whom it is.
    pub(super) fn readdress(&mut self, key: Key, (source, destination): (End, End), node: &NodeName) {
        if key.source != self.key.source {
            self.source = source;
        }
        if key.destination != self.key.destination {
            self.destination = destination;
        }
        self.key = key;
        self.expects = expects(&self.source, &self.destination, node);
    }

    /// An entry at one of its ends.
    pub(super) fn attach(&mut self, side: Side, entry: &Entry, asked: Option<Asked>) {
        *self.counted_mut(side) = Some(Box::new(Counted { entry: *entry, is_open: true, rang: 0 }));
        self.idle = None;
        self.asked = self.asked.take().or(asked.map(Box::new));
    }

    /// What a bell brings may be older than what was read since.
    pub(super) fn update(&mut self, side: Side, entry: &Entry) {
        if let Some(counted) = self.counted_mut(side)
            && entry.packets() >= counted.entry.packets()
        {
            counted.entry = *entry;
        }
    }

    /// Heeds what is known of limits now, by an entry of one of its ends: later it is known no more.
    pub(super) fn limit(&mut self, entry: &Entry, names: &Names) {
        self.is_beyond_limit = self.is_beyond_limit || names.is_beyond_limit(entry, &self.key);
    }

    /// Whether it is over: nothing came between two readings, so that the entries of both ends are taken out at one reading.
    pub(super) fn is_over(&mut self, scan: u64, is_idle: impl FnMut(&Entry) -> bool) -> bool {
        if !self.open().all(is_idle) {
            self.idle = None;
            return false;
        }
        *self.idle.get_or_insert(scan) < scan
    }

    /// An entry is over. Whether all are by now.
    pub(super) fn close(&mut self, side: Side) -> bool {
        if let Some(counted) = self.counted_mut(side) {
            counted.is_open = false;
        }
        !self.is_open()
    }

    /// One of its ends went away while it was open.
    pub(super) fn has_lost_an_end(&self) -> bool {
        let all = [&self.at_source, &self.at_destination].into_iter().flatten();
        all.filter(|counted| !counted.entry.ended).any(|counted| !counted.is_open)
    }

    pub(super) fn is_open(&self) -> bool {
        self.open().next().is_some()
    }

    /// Its entries in the kernel.
    pub(super) fn open(&self) -> impl Iterator<Item = &Entry> {
        let all = [&self.at_source, &self.at_destination].into_iter().flatten();
        all.filter(|counted| counted.is_open).map(|counted| &counted.entry)
    }

    /// The entry of the other end is to be on this node, and had no reading of the map yet in which it was to be found.
    pub(super) fn waits_for_other(&self, scan: u64) -> bool {
        let is_missing =
            self.at_source.is_none() && self.expects[0] || self.at_destination.is_none() && self.expects[1];
        is_missing && scan <= self.began
    }

    /// How far an entry of an end that has none yet is from the other end's; none where it is of another flow.
    pub(super) fn distance(&self, side: Side, entry: &Entry) -> Option<SignedDuration> {
        if self.counted(side).is_some() {
            return None;
        }
        let other = match side {
            Side::Source => self.at_destination.as_ref(),
            Side::Destination => self.at_source.as_ref(),
        };
        let other = &other?.entry;
        let (source, destination) = match side {
            Side::Source => (entry, other),
            Side::Destination => (other, entry),
        };
        // The calendar may have been set since the other end was read: times of one reading alone can be compared.
        let born = |entry: &Entry| SignedDuration::from_nanos(i64::try_from(entry.born).unwrap_or(i64::MAX));
        let apart = born(destination) - born(source);
        let is_within = !source.ended || apart <= source.last.duration_since(source.first) + TICKS;
        (apart >= -NEARLY && is_within).then(|| apart.abs())
    }

    pub(super) fn start(&self) -> Timestamp {
        self.main().map_or(Timestamp::MAX, |entry| entry.first)
    }

    fn main(&self) -> Option<&Entry> {
        self.at_source.as_ref().or(self.at_destination.as_ref()).map(|counted| &counted.entry)
    }

    pub(super) const fn is_told(&self) -> bool {
        self.told.is_some()
    }

    /// Of two entries on this node, the source's tells: while it is missing, nothing is told.
    pub(super) fn is_due(&self, now: Timestamp, update: SignedDuration) -> bool {
        if self.at_source.is_none() && self.expects[0] && self.is_open() {
            return false;
        }
        let Some(main) = self.main() else { return false };
        match self.told {
            None => !main.ended || now.duration_since(main.first) >= SHORT,
            Some((at, told)) => told != main.packets() && now.duration_since(at) >= update,
        }
    }

    pub(super) fn tell(&mut self, report: Report, scene: &Scene<'_>, (node, boot): (&NodeName, Uuid)) -> Record {
        let (start, end) = self.main().map_or((scene.now, scene.now), |entry| (entry.first, entry.last));
        self.unmask(scene.names);
        self.name(scene.names, start);
        let (reporter, sent, received) = self.ways();
        let packets = sent.packets + received.packets;
        self.told = Some((scene.now, packets));
        let id = *self.id.get_or_insert_with(|| id(boot, self.at_source.as_deref().or(self.at_destination.as_deref())));
        let handshake =
            [&self.at_source, &self.at_destination].into_iter().flatten().map(|one| one.entry.handshake_micros);
        let (verdict, cause) = self.evidence((sent, received), report, scene.names).outcome();
        Record {
            id,
            report,
            start,
            end,
            protocol: self.key.transport,
            class: class(&self.source, &self.destination, self.asked.is_some()),
            source: self.source.clone(),
            destination: self.destination.clone(),
            // Where both ends are this node's they are told as one already.
            seen_as: self.seen_as.as_deref().copied().filter(|_| reporter == Reporter::Source),
            service: self.asked.as_deref().cloned(),
            verdict,
            cause,
            node: node.clone(),
            reporter,
            sent: self.as_told(sent),
            received: self.as_told(received),
            handshake_micros: handshake.filter(|micros| *micros > 0).max(),
            destination_counts: self.lost_between(report, node, (sent, received)),
        }
    }

    /// What was counted at the destination's end, where that is this node's as well and it is over with something else there.
    fn lost_between(
        &self,
        report: Report,
        node: &NodeName,
        (sent, received): (Way, Way),
    ) -> Option<Box<AtDestination>> {
        let (Some(_), Some(destination)) = (&self.at_source, &self.at_destination) else { return None };
        let Entry { into, out, .. } = destination.entry;
        let there = AtDestination { node: node.clone(), sent: self.as_told(into), received: self.as_told(out) };
        let is_other = |one: Way, other: Way| (one.packets, one.bytes) != (other.packets, other.bytes);
        let differs = is_other(there.sent, sent) || is_other(there.received, received);
        (report == Report::End && differs).then(|| Box::new(there))
    }

    /// Flags are TCP's: that an association of SCTP was opened is no flag to anybody else.
    fn as_told(&self, way: Way) -> Way {
        if self.key.transport == Transport::TCP { way } else { Way { flags: 0, ..way } }
    }

    /// Whose packets these are may be known later than that they came.
    fn unmask(&mut self, names: &Names) {
        if !self.first.is_spoofed && self.at_source.as_ref().is_some_and(|counted| names.is_spoofed(&counted.entry)) {
            self.first.is_spoofed = true;
            // It was named after who has the address.
            (self.source.pod, self.source.node) = (None, None);
        }
    }

    /// A pod may have spoken before anybody was told its name.
    fn name(&mut self, names: &Names, start: Timestamp) {
        let sender = self.at_source.as_ref().map(|counted| counted.entry.key).filter(|_| self.first.is_spoofed);
        let own = sender.and_then(|key| names.senders(key.device)?.first().copied());
        for (end, own) in [(&mut self.source, own), (&mut self.destination, None)] {
            if end.pod.is_none() && end.node.is_none() {
                *end = End::new(end.at(), names.holder(own.unwrap_or(end.ip), start));
            }
        }
    }

    fn ways(&self) -> (Reporter, Way, Way) {
        match (&self.at_source, &self.at_destination) {
            (Some(source), None) => (Reporter::Source, source.entry.out, source.entry.into),
            (Some(source), Some(_)) => (Reporter::Both, source.entry.out, source.entry.into),
            (None, Some(destination)) => (Reporter::Destination, destination.entry.into, destination.entry.out),
            (None, None) => (Reporter::Source, Way::default(), Way::default()),
        }
    }

    fn evidence(&self, (sent, received): (Way, Way), report: Report, names: &Names) -> Evidence {
        let [source, destination] =
            [&self.at_source, &self.at_destination].map(|end| end.as_ref().map(|counted| &counted.entry));
        let error = |entry: &Entry| Cause::of(entry.error?, entry.key.remote.is_ipv6());
        let asked = self.asked.as_deref().map(Asked::at);
        Evidence {
            is_tcp: self.key.transport == Transport::TCP,
            wants_answer: wants_answer(&self.key),
            sent,
            received,
            error: source.and_then(error).or_else(|| destination.and_then(error)),
            at_socket: source.and_then(|entry| entry.unserved),
            was_reset_by_destination: destination.is_some_and(|entry| entry.out.resets > 0),
            is_spoofed: self.first.is_spoofed,
            has_backend: asked.is_some_and(|asked| asked != self.key.destination),
            was_unserved: self.first.is_unserved,
            is_unserved: asked.is_some_and(|asked| names.is_unserved(asked, self.key.transport)),
            never_came: report == Report::End && self.expects[1] && destination.is_none() && self.seen_as.is_none(),
            is_beyond_limit: self.is_beyond_limit,
        }
    }
}

/// Which ends are those of this node's pods.
fn expects(source: &End, destination: &End, node: &NodeName) -> [bool; 2] {
    [source, destination].map(|end| end.pod.as_ref().is_some_and(|pod| pod.node == *node))
}

/// Whether somebody is always answered by who gets it: what opens a connection or an association, or an echo request (RFC 792; RFC 4443,
/// section 4.1).
const fn wants_answer(key: &Key) -> bool {
    match key.transport {
        Transport::TCP | Transport::SCTP => true,
        Transport::ICMP => key.destination.port() == 8,
        Transport::ICMP6 => key.destination.port() == 128,
        _ => false,
    }
}

/// The same for whoever reads this entry, however often.
fn id(boot: Uuid, counted: Option<&Counted>) -> FlowId {
    let Some(entry) = counted.map(|counted| &counted.entry) else { return FlowId(boot) };
    let EntryKey { device, local, remote, local_port, remote_port, transport } = entry.key;
    let born = entry.born;
    let text = format!("{boot} {device} {local} {local_port} {remote} {remote_port} {transport} {born}");
    FlowId(Uuid::new_v5(&IDS, text.as_bytes()))
}
