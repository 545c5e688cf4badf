//! What happened to objects lately.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use super::Object;

/// Events kept for each resource. A watch that is further behind lists again.
const RING_EVENTS: usize = 4096;

/// Memory that the events of each resource take at most, about (64 MiB), so that large objects cannot fill it: 4096 events of 2 KiB.
const RING_BYTES: usize = 64 << 20;

/// Memory of an event for each byte of its object's JSON: the text, the line of a watch, and the value, which takes several times as
/// much as its text.
const EXPANSION: usize = 8;

/// What happened to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It was created.
    Added,
    /// It was replaced.
    Modified,
    /// It was removed.
    Deleted,
}

impl Change {
    /// The word in a watch event's `type`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Added => "ADDED",
            Self::Modified => "MODIFIED",
            Self::Deleted => "DELETED",
        }
    }
}

/// One change of one object.
#[derive(Debug)]
pub struct Event {
    /// Kind of change.
    pub change: Change,
    /// The object afterwards; for a deletion as it was last, at the revision of the deletion.
    pub object: Arc<Object>,
    /// The object before, so that selectors can tell objects that come into view from those that leave it.
    pub previous: Option<Arc<Object>>,
    line: OnceLock<Bytes>,
}

impl Event {
    pub(super) fn new(change: Change, object: Arc<Object>, previous: Option<Arc<Object>>) -> Self {
        Self { change, object, previous, line: OnceLock::new() }
    }

    /// Revision of the change.
    pub fn revision(&self) -> u64 {
        self.object.revision
    }

    /// Bytes of memory that it takes, about.
    fn weight(&self) -> usize {
        self.object.json.len() * EXPANSION
    }

    /// The event as a line of a watch's answer. Made once, however many watches send it.
    pub fn line(&self) -> Bytes {
        self.line.get_or_init(|| watch_line(self.change.word(), &self.object.json)).clone()
    }
}

/// A line of a watch's answer around an object that is already JSON.
pub fn watch_line(word: &str, json: &[u8]) -> Bytes {
    let mut line = Vec::with_capacity(json.len() + 40);
    line.extend_from_slice(b"{\"type\":\"");
    line.extend_from_slice(word.as_bytes());
    line.extend_from_slice(b"\",\"object\":");
    line.extend_from_slice(json);
    line.extend_from_slice(b"}\n");
    Bytes::from(line)
}

/// The revision asked for lies outside the history that is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too old resource version: {asked} ({oldest})")]
pub struct Expired {
    /// The revision asked for.
    pub asked: u64,
    /// The oldest revision from which history is complete.
    pub oldest: u64,
}

/// The latest events of one resource.
#[derive(Debug)]
pub(super) struct Ring {
    events: VecDeque<Arc<Event>>,
    bytes: usize,
    /// Events up to and including this revision are gone.
    floor: u64,
}

impl Ring {
    pub(super) fn starting_after(floor: u64) -> Self {
        Self { events: VecDeque::new(), bytes: 0, floor }
    }

    pub(super) fn push(&mut self, event: Arc<Event>) {
        self.bytes += event.weight();
        self.events.push_back(event);
        while self.events.len() > RING_EVENTS || (self.bytes > RING_BYTES && self.events.len() > 1) {
            if let Some(oldest) = self.events.pop_front() {
                self.bytes -= oldest.weight();
                self.floor = oldest.revision();
            }
        }
    }

    pub(super) fn after(&self, revision: u64) -> Result<Vec<Arc<Event>>, Expired> {
        if revision < self.floor {
            return Err(Expired { asked: revision, oldest: self.floor });
        }
        let start = self.events.partition_point(|event| event.revision() <= revision);
        Ok(self.events.range(start..).cloned().collect())
    }
}
