//! Many items as lines of JSON. Nearly all that stands in a line is who its pods are, which is the same in thousands of them: it is written once and
//! read once.
//!
//! What is written and read is the same as item by item ([`crate::export::json`], [`crate::output::line`], [`Numbered::from_json`]).

use std::{
    collections::{HashMap, hash_map::Entry},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use jiff::Timestamp;
use podnet_model::NodeName;
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};

use crate::{
    entry::{Transport, Way},
    names::PodIdentity,
    numbered::{Numbered, RecordId},
    record::{Asked, AtDestination, Cause, Class, End, FlowId, Item, Record, Report, Reporter, Verdict},
};

/// Of so many pods it is remembered how they are written: those of a node, and with whom they speak. Where there are more, all are forgotten. In tests a few.
const WRITTEN: usize = if cfg!(test) { 3 } else { 1024 };
/// So many pods of all nodes are remembered that were read, of 1 to 2 KB each.
const READ: usize = if cfg!(test) { 3 } else { 16_384 };
/// What stands behind the id in a flow's line.
const FLOW: &str = r#""type":"flow""#;

/// Writes lines.
#[derive(Debug, Default)]
pub struct Writer {
    /// Each as JSON, by where it is in memory: nothing else is there as long as it is kept here.
    pods: HashMap<usize, (Arc<PodIdentity>, Box<RawValue>)>,
}

impl Writer {
    /// Adds an item as a line with its end, with an id or without one.
    pub fn add(&mut self, to: &mut Vec<u8>, record: Option<&RecordId>, item: &Item) {
        let begin = to.len();
        let written = match (item, record) {
            (Item::Flow(flow), _) => self.flow(to, record, flow),
            (item, Some(record)) => {
                let numbered = Numbered { record: record.clone(), item: item.clone() };
                serde_json::to_writer(&mut *to, &numbered)
            }
            (item, None) => serde_json::to_writer(&mut *to, item),
        };
        if written.is_err() {
            // Nothing in it can fail to be JSON.
            to.truncate(begin);
        }
        to.push(b'\n');
    }

    fn flow(&mut self, to: &mut Vec<u8>, record: Option<&RecordId>, flow: &Record) -> serde_json::Result<()> {
        if self.pods.len() + 2 > WRITTEN {
            self.pods.clear();
        }
        for pod in [&flow.source.pod, &flow.destination.pod].into_iter().flatten() {
            if let Entry::Vacant(vacant) = self.pods.entry(place(pod)) {
                vacant.insert((Arc::clone(pod), to_raw_value(&**pod)?));
            }
        }
        serde_json::to_writer(to, &self.written(record, flow))
    }

    fn written(&self, record: Option<&RecordId>, flow: &Record) -> Written<'_> {
        // All of it by name, so that none is left out.
        let Record {
            id,
            report,
            start,
            end,
            protocol,
            source,
            destination,
            seen_as,
            service,
            class,
            verdict,
            cause,
            node,
            reporter,
            sent,
            received,
            handshake_micros,
            destination_counts,
        } = flow;
        Written {
            record: record.cloned(),
            kind: Some(Kind::Flow),
            id: *id,
            report: *report,
            start: *start,
            end: *end,
            protocol: *protocol,
            source: self.end(source),
            destination: self.end(destination),
            seen_as: *seen_as,
            service: service.clone(),
            class: *class,
            verdict: *verdict,
            cause: *cause,
            node: node.clone(),
            reporter: *reporter,
            sent: *sent,
            received: *received,
            handshake_micros: *handshake_micros,
            destination_counts: destination_counts.clone(),
        }
    }

    fn end(&self, end: &End) -> WrittenEnd<'_> {
        let End { ip, port, pod, node } = end;
        let known = pod.as_ref().and_then(|pod| self.pods.get(&place(pod)));
        WrittenEnd { ip: *ip, port: *port, pod: known.map(|(_, text)| &**text), node: node.clone() }
    }
}

fn place(pod: &Arc<PodIdentity>) -> usize {
    Arc::as_ptr(pod).addr()
}

/// Reads lines. Records of one pod share who it is.
#[derive(Debug, Default)]
pub struct Reader {
    /// By what stands in lines.
    pods: HashMap<Box<str>, Arc<PodIdentity>>,
}

impl Reader {
    /// Reads a line, without its end.
    ///
    /// # Errors
    /// Where it is no item with an id.
    pub fn read(&mut self, line: &str) -> serde_json::Result<Numbered> {
        // What is not as it is written here is read, or refused, in the other way.
        self.flow(line).map_or_else(|| Numbered::from_json(line), Ok)
    }

    /// A flow, where the line is as [`Writer`] has it.
    fn flow(&mut self, line: &str) -> Option<Numbered> {
        let (_, behind) = line.split_once(',')?;
        if !behind.starts_with(FLOW) {
            return None;
        }
        let mut written: Written<'_> = serde_json::from_str(line).ok()?;
        let record = written.record.take()?;
        Some(Numbered { record, item: Item::Flow(Arc::new(self.record(written)?)) })
    }

    /// A flow's record; none where it cannot be read.
    pub(crate) fn record(&mut self, written: Written<'_>) -> Option<Record> {
        let Written {
            record: _,
            kind: _,
            id,
            report,
            start,
            end,
            protocol,
            source,
            destination,
            seen_as,
            service,
            class,
            verdict,
            cause,
            node,
            reporter,
            sent,
            received,
            handshake_micros,
            destination_counts,
        } = written;
        Some(Record {
            id,
            report,
            start,
            end,
            protocol,
            source: self.end(source)?,
            destination: self.end(destination)?,
            seen_as,
            service,
            class,
            verdict,
            cause,
            node,
            reporter,
            sent,
            received,
            handshake_micros,
            destination_counts,
        })
    }

    fn end(&mut self, end: WrittenEnd<'_>) -> Option<End> {
        let WrittenEnd { ip, port, pod, node } = end;
        let pod = match pod {
            Some(text) => Some(self.pod(text.get())?),
            None => None,
        };
        Some(End { ip, port, pod, node })
    }

    fn pod(&mut self, text: &str) -> Option<Arc<PodIdentity>> {
        if let Some(pod) = self.pods.get(text) {
            return Some(Arc::clone(pod));
        }
        let pod: Arc<PodIdentity> = serde_json::from_str(text).ok()?;
        if self.pods.len() >= READ {
            self.pods.clear();
        }
        self.pods.insert(text.into(), Arc::clone(&pod));
        Some(pod)
    }
}

/// A flow's line: what [`Numbered`], [`Item`] and [`Record`] have, in their order, with pods as they stand there. A record alone has no id and no kind.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Written<'a> {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    record: Option<RecordId>,
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<Kind>,
    id: FlowId,
    report: Report,
    start: Timestamp,
    end: Timestamp,
    protocol: Transport,
    #[serde(borrow)]
    source: WrittenEnd<'a>,
    #[serde(borrow)]
    destination: WrittenEnd<'a>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    seen_as: Option<SocketAddr>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    service: Option<Asked>,
    class: Class,
    verdict: Verdict,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cause: Option<Cause>,
    node: NodeName,
    reporter: Reporter,
    sent: Way,
    received: Way,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    handshake_micros: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    destination_counts: Option<Box<AtDestination>>,
}

/// The kind of item that it is.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Flow,
}

/// What [`End`] has.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WrittenEnd<'a> {
    ip: IpAddr,
    port: u16,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pod: Option<&'a RawValue>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    node: Option<NodeName>,
}

#[cfg(test)]
mod tests;
