//! One record of what the nodes of both ends tell of a flow: the source's, with what the destination's counted.

use std::{collections::HashMap, sync::Arc};

use jiff::{SignedDuration, Timestamp};

use crate::record::{AtDestination, Key, Record, Reporter};

/// So far apart two nodes' clocks and the two ends' first packets may be; ports are seldom used again sooner.
const APART: SignedDuration = SignedDuration::from_secs(30);

/// What the destination's nodes told, by flow, until the source's tell the same.
#[derive(Debug)]
pub struct Destinations {
    by_key: HashMap<Key, Vec<Arc<Record>>>,
    most: usize,
    kept: usize,
}

impl Destinations {
    /// For no more than that many records; what is beyond is not kept.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self { by_key: HashMap::new(), most, kept: 0 }
    }

    /// Keeps what a destination's node told ([`Record::is_secondary`]): of each flow its last record.
    pub fn keep(&mut self, record: &Arc<Record>) {
        let same = self.by_key.entry(record.key()).or_default();
        match same.iter_mut().find(|kept| kept.id == record.id) {
            Some(kept) => *kept = Arc::clone(record),
            None if self.kept < self.most => {
                same.push(Arc::clone(record));
                self.kept += 1;
            }
            None => {}
        }
    }

    /// What the source's node told, with what is kept of the same flow.
    #[must_use]
    pub fn joined(&self, record: &Arc<Record>) -> Arc<Record> {
        if record.reporter != Reporter::Source || record.destination_counts.is_some() {
            return Arc::clone(record);
        }
        let apart = |other: &Arc<Record>| other.start.duration_since(record.start).abs();
        let same = self.by_key.get(&record.key()).into_iter().flatten().filter(|other| apart(other) <= APART);
        same.min_by_key(|other| apart(other)).map_or_else(|| Arc::clone(record), |other| Arc::new(join(record, other)))
    }

    /// Forgets records of which nothing is heard any more: those whose flows' last packets were before that time.
    pub fn forget(&mut self, before: Timestamp) {
        self.by_key.retain(|_, kept| {
            kept.retain(|kept| kept.end >= before);
            !kept.is_empty()
        });
        self.kept = self.by_key.values().map(Vec::len).sum();
    }
}

/// The source's record stays what it is; what it does not know comes from the other.
fn join(source: &Record, destination: &Record) -> Record {
    let mut joined = source.clone();
    joined.reporter = Reporter::Both;
    for (end, other) in [(&mut joined.source, &destination.source), (&mut joined.destination, &destination.destination)]
    {
        end.pod = end.pod.take().or_else(|| other.pod.clone());
    }
    joined.handshake_micros = joined.handshake_micros.or(destination.handshake_micros);
    joined.destination_counts = Some(Box::new(AtDestination {
        node: destination.node.clone(),
        sent: destination.sent,
        received: destination.received,
    }));
    joined
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Item, Transport,
        record::{Class, FlowId},
        testing,
    };

    fn told(reporter: Reporter, id: u128, start: &str) -> Arc<Record> {
        let Item::Flow(record) = testing::flow(0).item else { panic!("no flow") };
        let mut record = Record::clone(&record);
        record.id = FlowId(uuid::Uuid::from_u128(id));
        record.class = Class::PodPodOtherNode;
        record.start = start.parse().unwrap();
        if reporter == Reporter::Destination {
            (record.node, record.reporter, record.service) = ("node2".into(), reporter, None);
            (record.sent.packets, record.received.packets) = (4, 9);
        } else {
            record.destination.pod = None;
        }
        Arc::new(record)
    }

    #[test]
    fn what_the_destinations_node_counted_is_in_the_record_of_the_sources() {
        let mut destinations = Destinations::new(2);
        let source = told(Reporter::Source, 1, "2026-01-01T00:00:00Z");
        assert_eq!(destinations.joined(&source), source);
        for start in ["2026-01-01T00:00:00.1Z", "2026-01-01T00:00:00.2Z"] {
            // Of the same flow the last one counts.
            destinations.keep(&told(Reporter::Destination, 2, start));
        }
        destinations.keep(&told(Reporter::Destination, 3, "2026-01-01T00:00:10Z"));
        let joined = destinations.joined(&source);
        assert_eq!((joined.id, joined.reporter, joined.sent.packets), (source.id, Reporter::Both, 6));
        assert_eq!((joined.node.as_str(), joined.service.as_ref()), ("node1", source.service.as_ref()));
        let counts = joined.destination_counts.as_deref().unwrap();
        assert_eq!((counts.node.as_str(), counts.sent.packets, counts.received.packets), ("node2", 4, 9));
        assert_eq!(joined.destination.pod.as_ref().map(|pod| &*pod.name), Some("web"));
        assert_eq!(destinations.joined(&joined), joined);
        destinations.keep(&told(Reporter::Destination, 4, "2026-01-01T00:00:00Z"));
        assert_eq!(destinations.kept, 2, "there is no room for another one");
        let later = told(Reporter::Source, 1, "2026-01-01T00:00:41Z");
        assert_eq!(destinations.joined(&later), later, "that was another one with the same ports");
        destinations.forget("2026-01-01T00:00:02.5Z".parse().unwrap());
        assert_eq!(destinations.kept, 2);
        destinations.forget("2026-01-01T00:00:02.6Z".parse().unwrap());
        assert!(destinations.by_key.is_empty() && destinations.kept == 0);
    }

    #[test]
    fn other_flows_are_left_alone() {
        let mut destinations = Destinations::new(1);
        destinations.keep(&told(Reporter::Destination, 2, "2026-01-01T00:00:00Z"));
        let mut other = Record::clone(&told(Reporter::Source, 1, "2026-01-01T00:00:00Z"));
        other.protocol = Transport::UDP;
        let other = Arc::new(other);
        assert_eq!(destinations.joined(&other), other);
    }
}
