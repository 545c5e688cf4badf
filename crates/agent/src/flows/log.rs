//! A file of JSON lines within a budget of bytes, each with its item's id, as collectors get them.

mod asides;

use std::{fs, io};

use k8s_openapi::jiff::Timestamp;
use podnet_flow::{Gap, Item, Numbered, RecordId, jsonl::Writer, record::GapAt, store::Sum};
use podnet_model::NodeName;

use self::asides::Asides;
use super::{FlowLog, lines::Lines};

/// Into how many parts the budget is parted. The file itself, the one that is being compressed, and what becomes of that have one each at most; what
/// was compressed before has the rest.
const PARTS: u64 = 8;
/// So many bytes are written at once.
const CHUNK: usize = 64 << 10;

/// The file, open at its end.
#[derive(Debug)]
pub(super) struct Log {
    settings: FlowLog,
    node: NodeName,
    lines: Lines,
    writer: Writer,
    bytes: u64,
    asides: Asides,
    /// When the last items were written.
    whole: Timestamp,
    /// What could not be written, until the log says so.
    missing: Option<Gap>,
    /// The last item that could not: what tells of it has its id. An agent that was killed told none.
    last: Option<RecordId>,
}

/// So many of the items were written, and why no more.
type Short = (usize, io::Error);

impl Log {
    /// Goes on with what is there, of a node. A record that an agent was killed while writing is missing.
    pub(super) fn open(settings: &FlowLog, node: NodeName) -> io::Result<Self> {
        let now = Timestamp::now();
        let changed = fs::metadata(&settings.path).and_then(|about| about.modified());
        let (lines, is_cut) = Lines::open(&settings.path)?;
        let bytes = lines.len()?;
        let part = settings.bytes / PARTS;
        let asides = Asides::open(&settings.path, settings.bytes - 3 * part);
        let whole = changed.ok().and_then(|changed| Timestamp::try_from(changed).ok()).unwrap_or(now);
        let (settings, writer) = (settings.clone(), Writer::default());
        let mut log = Self { settings, node, lines, writer, bytes, asides, whole, missing: None, last: None };
        if is_cut {
            log.miss(Sum::default(), 1);
        }
        log.whole = now;
        Ok(log)
    }

    /// Adds items; all of them are in the file when it returns. What is not, because of an error, is told by a gap as soon as there is room.
    pub(super) fn add(&mut self, items: &[Numbered]) -> io::Result<()> {
        let between_pods = self.settings.between_pods;
        let is_wanted = |item: &&Numbered| match &item.item {
            Item::Flow(record) => !between_pods || record.is_pod_to_pod(),
            Item::Gap(_) | Item::Drops(_) => true,
        };
        let wanted: Vec<&Numbered> = items.iter().filter(is_wanted).collect();
        let lines = wanted.iter().map(|item| (Some(&item.record), &item.item));
        match self.tell_missing().and_then(|()| self.put(lines)) {
            Ok(()) => {
                self.whole = Timestamp::now();
                Ok(())
            }
            Err((written, error)) => {
                let lost = wanted.get(written..).unwrap_or_default();
                let mut sum = Sum::default();
                lost.iter().for_each(|item| sum.add(&item.item));
                self.last = lost.last().map(|item| item.record.clone()).or(self.last.take());
                self.miss(sum, lost.len() as u64);
                // What was missing before anything was written here is told by what is lost now.
                let starts = lost.iter().filter_map(|item| match &item.item {
                    Item::Gap(gap) => Some(gap.start),
                    Item::Drops(drops) => Some(drops.start),
                    Item::Flow(_) => None,
                });
                if let (Some(missing), Some(first)) = (&mut self.missing, starts.min()) {
                    missing.start = missing.start.min(first);
                }
                Err(error)
            }
        }
    }

    fn miss(&mut self, Sum { packets, bytes, .. }: Sum, records: u64) {
        let (start, end, node, at) = (self.whole, Timestamp::now(), self.node.clone(), GapAt::Log);
        let none = Gap { start, end, node, at, device: None, pod: None, packets: 0, bytes: 0, flows: 0 };
        let missing = self.missing.get_or_insert(none);
        missing.end = end;
        missing.packets += packets;
        missing.bytes += bytes;
        missing.flows += records;
    }

    fn tell_missing(&mut self) -> Result<(), Short> {
        let Some(missing) = self.missing.take() else { return Ok(()) };
        let record = self.last.clone().map(|last| RecordId { missing: true, ..last });
        let told = Item::Gap(missing.clone());
        self.put([(record.as_ref(), &told)]).map_err(|(_, error)| {
            self.missing = Some(missing);
            (0, error)
        })?;
        self.last = None;
        Ok(())
    }

    /// Each as a line with its end.
    fn put<'a>(&mut self, items: impl IntoIterator<Item = (Option<&'a RecordId>, &'a Item)>) -> Result<(), Short> {
        let (mut text, mut line, mut written) = (Vec::new(), Vec::new(), 0);
        for (record, item) in items {
            line.clear();
            self.writer.add(&mut line, record, item);
            let before = self.bytes + text.len() as u64;
            let is_full = before > 0 && before + line.len() as u64 > self.settings.bytes / PARTS;
            if is_full || text.len() >= CHUNK {
                written += self.write(&mut text).map_err(|(more, error)| (written + more, error))?;
            }
            if is_full {
                self.set_aside().map_err(|error| (written, error))?;
            }
            text.extend_from_slice(&line);
        }
        self.write(&mut text).map_err(|(more, error)| (written + more, error))?;
        Ok(())
    }

    /// How many lines that are.
    fn write(&mut self, text: &mut Vec<u8>) -> Result<usize, Short> {
        if text.is_empty() {
            return Ok(0);
        }
        let added = self.lines.add(text);
        let bytes = added.as_ref().map_or_else(|short| short.written, |_| text.len());
        self.bytes += bytes as u64;
        let lines = text.iter().take(bytes).filter(|byte| **byte == b'\n').count();
        text.clear();
        added.map(|()| lines).map_err(|short| (lines, short.error))
    }

    /// Begins the file anew. What was there is compressed by a thread of its own.
    fn set_aside(&mut self) -> io::Result<()> {
        let aside = self.asides.free()?;
        fs::rename(&self.settings.path, &aside)?;
        match Lines::open(&self.settings.path) {
            Ok((lines, _)) => self.lines = lines,
            Err(error) => {
                // It goes on to be the one that is open.
                fs::rename(&aside, &self.settings.path)?;
                return Err(error);
            }
        }
        self.bytes = 0;
        self.asides.compress();
        Ok(())
    }
}

#[cfg(test)]
mod tests;
