//! One record of what the nodes of both ends tell of a flow: the source's, with what the destination's counted.

mod kept;

use std::sync::Arc;

use jiff::Timestamp;

use crate::record::{AtDestination, Class, Key, Record, Report, Reporter, Verdict};
use kept::{Kept, apart};

/// Of what is told as from outside this part of what is kept of each other kind: few of it is a pod's.
const OUTSIDE: usize = 10;

/// What the destinations' nodes told, by flow, until the source's tell the same.
#[derive(Debug)]
pub struct Destinations {
    /// What the source's node tells as well ([`Record::is_secondary`]).
    secondary: Kept,
    /// What is told as from a node. There may be a pod behind that address, whose node tells it.
    fronts: Kept,
    /// What is told as from outside, of which the same holds: a node may have addresses that nobody knows. Apart, since whoever is outside may
    /// send any number of flows.
    outside: Kept,
    /// What sources' nodes told of pods that are behind such addresses, by these ([`Record::seen_as`]).
    masked: Kept,
    /// What sources' nodes told of pods that asked a port of another node: who answers that one knows alone ([`Record::names_who_answers`]).
    asking: Kept,
}

impl Destinations {
    /// For no more than that many records of each kind, of 1 or more: where there are as many, the oldest goes, since both nodes tell of a flow at
    /// about the same time. Of what is told as from outside it is a tenth.
    #[must_use]
    pub fn new(most: usize) -> Self {
        let outside = Kept::new((most / OUTSIDE).max(1));
        let [secondary, fronts, masked, asking] = [(); 4].map(|()| Kept::new(most));
        Self { secondary, fronts, outside, masked, asking }
    }

    /// Keeps what was heard now, if another node may tell the same flow: of each its last record.
    pub fn keep(&mut self, record: &Arc<Record>, now: Timestamp) {
        if record.is_secondary() {
            self.secondary.keep(record.key(), record, now);
        } else if record.reporter == Reporter::Destination {
            let fronts = if record.class == Class::WorldPod { &mut self.outside } else { &mut self.fronts };
            fronts.keep(record.key(), record, now);
        } else {
            if let Some(key) = record.seen_key() {
                self.masked.keep(key, record, now);
            }
            if is_asking(record) {
                self.asking.keep(record.key(), record, now);
            }
        }
    }

    /// What the source's node told, with what is kept of the same flow.
    #[must_use]
    pub fn joined(&self, record: &Arc<Record>) -> Arc<Record> {
        if record.reporter != Reporter::Source || record.destination_counts.is_some() {
            return Arc::clone(record);
        }
        self.other(record).map_or_else(|| Arc::clone(record), |other| Arc::new(join(record, other)))
    }

    /// Whether the destination's node told as much of the flow as this record of the source's: its end, where this is its end.
    #[must_use]
    pub fn is_told(&self, record: &Record) -> bool {
        let is_last = |other: &Arc<Record>| matches!(other.report, Report::End | Report::Part);
        self.other(record).is_some_and(|other| record.report != Report::End || is_last(other))
    }

    fn other(&self, record: &Record) -> Option<&Arc<Record>> {
        let own = self.secondary.nearest(&record.key(), record.start);
        own.or_else(|| self.front(&record.seen_key()?, record.start))
    }

    /// Whether what is told as from a node, or from outside, is what a source's node told of a pod, since it said that its destination sees the pod
    /// as that. Of several from one port it is the one that began nearest to it.
    #[must_use]
    pub fn is_of_pod(&self, record: &Arc<Record>) -> bool {
        if record.reporter != Reporter::Destination || record.is_secondary() {
            return false;
        }
        let key = record.key();
        let mut told = self.masked.near(&key, record.start);
        told.any(|source| self.front(&key, source.start).is_some_and(|front| front.id == record.id))
    }

    /// Whether what the destination's node told with who answers at a port of another node is what the source's node told as well. Of several from
    /// one port it is the one that began nearest to it.
    #[must_use]
    pub fn is_of_source(&self, record: &Record) -> bool {
        if !record.names_who_answers() {
            return false;
        }
        let key = record.key();
        let mut told = self.asking.near(&key, record.start);
        told.any(|source| self.secondary.nearest(&key, source.start).is_some_and(|other| other.id == record.id))
    }

    /// What is told as from a node, or from outside, of that flow: the one that began nearest to it.
    fn front(&self, key: &Key, start: Timestamp) -> Option<&Arc<Record>> {
        let all = self.fronts.near(key, start).chain(self.outside.near(key, start));
        all.min_by_key(|record| apart(record, start))
    }

    /// Forgets records of which nothing is heard any more: those that were heard, and whose flows' last packets were, before that time.
    pub fn forget(&mut self, before: Timestamp) {
        let all = [&mut self.secondary, &mut self.fronts, &mut self.outside, &mut self.masked, &mut self.asking];
        all.into_iter().for_each(|kept| kept.forget(before));
    }
}

/// The source's node tells whom its pod asked, which left it as it was.
fn is_asking(record: &Record) -> bool {
    let at = record.destination.at();
    record.destination.pod.is_none() && record.service.as_ref().is_some_and(|asked| asked.at() == at)
}

/// The source's record stays what it is; what it does not know comes from the other.
pub(crate) fn join(source: &Record, destination: &Record) -> Record {
    let mut joined = source.clone();
    joined.reporter = Reporter::Both;
    if destination.service.is_some() {
        // It was translated there: who answers is known there alone.
        joined.destination = destination.destination.clone();
        joined.service = joined.service.or_else(|| destination.service.clone());
        if joined.source.pod.is_some() {
            joined.class = Class::PodService;
        }
    }
    for (end, other) in [(&mut joined.source, &destination.source), (&mut joined.destination, &destination.destination)]
    {
        end.pod = end.pod.take().or_else(|| other.pod.clone());
    }
    // The source's node did not know yet that there is a pod. In all else the class says what the ends are also where their names are left out.
    let is_pod = match joined.class {
        Class::PodWorld => joined.destination.pod.is_some(),
        Class::WorldPod => joined.source.pod.is_some(),
        _ => false,
    };
    if is_pod {
        joined.class = if joined.service.is_some() { Class::PodService } else { Class::PodPodOtherNode };
    }
    joined.handshake_micros = joined.handshake_micros.or(destination.handshake_micros);
    if joined.cause.is_none() && destination.cause.is_some() {
        joined.cause = destination.cause;
        // What the destination's end said did not come to who asked; nor did what it answered, if it did.
        if joined.received.packets == 0 && destination.verdict != Verdict::Forwarded {
            joined.verdict = destination.verdict;
        }
    }
    joined.destination_counts = Some(Box::new(AtDestination {
        node: destination.node.clone(),
        sent: destination.sent,
        received: destination.received,
    }));
    joined
}

#[cfg(test)]
mod tests;
