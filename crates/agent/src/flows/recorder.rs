//! Reads what was counted and makes records of it: bells often, the whole map every second.

use std::{
    collections::HashMap,
    error::Error,
    io,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use k8s_openapi::jiff::Timestamp;
use podnet_flow::{
    Aggregator, Entry, Gap, Item, Names, Numbered, PodIdentity, Record, RecordId, Tally, Translations,
    aggregate::{Fate, Scene, Timeouts},
    names::Holder,
    record::GapAt,
};
use podnet_kernel::{
    conntrack::Backends,
    flows::{Flows, FlowsError, Told},
};
use podnet_model::NodeName;
use tracing::warn;
use uuid::Uuid;

use super::{collect::Collectors, known::Known, log::Log, past::Past};

/// How often bells are heard: the ring has room for what 100,000 connections of a second ring in this time.
const HEARING: Duration = Duration::from_millis(100);
/// How often the map is read.
const READING: Duration = Duration::from_secs(1);

/// The recorder's thread, which ends with the value.
#[derive(Debug)]
pub(crate) struct Recording {
    stop: Option<mpsc::SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Recording {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // It has told what it had to tell.
            let _ = thread.join();
        }
    }
}

/// Where it goes.
pub(super) struct Sinks {
    pub(super) log: Option<Log>,
    /// It has every item, so that its numbers are those of ids.
    pub(super) past: Option<Arc<Past>>,
    pub(super) tally: Arc<Mutex<Tally>>,
    pub(super) collectors: Collectors,
}

/// What becomes of what is counted.
pub(super) struct Recorder {
    flows: Arc<Flows>,
    sinks: Sinks,
    /// The id of the next item.
    next: RecordId,
    node: NodeName,
    known: Arc<Known>,
    aggregator: Aggregator,
    translations: Box<dyn Translations + Send>,
    /// When it was last known that nothing was missing.
    whole: Timestamp,
    is_failing: bool,
}

impl Drop for Recorder {
    fn drop(&mut self) {
        if let Some(past) = &self.sinks.past {
            past.end();
        }
    }
}

impl Recorder {
    pub(super) fn new(flows: Arc<Flows>, sinks: Sinks, node: NodeName, known: Arc<Known>) -> Self {
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let boot = Uuid::parse_str(boot.trim()).unwrap_or_default();
        let now = Timestamp::now();
        let aggregator = Aggregator::new(node.clone(), boot, now, Timeouts::default());
        // Without netfilter nothing is translated.
        let translations: Box<dyn Translations + Send> = match Backends::open() {
            Ok(backends) => Box::new(backends),
            Err(_) => Box::new(()),
        };
        let epoch = sinks.past.as_ref().map_or(0, |past| past.epoch());
        let next = RecordId { node: node.clone(), epoch, sequence: 0, missing: false };
        Self { flows, sinks, next, node, known, aggregator, translations, whole: now, is_failing: false }
    }

    pub(super) fn start(mut self) -> io::Result<Recording> {
        let (stop, stopped) = mpsc::sync_channel(1);
        let run = move || {
            let mut next = Instant::now();
            while stopped.recv_timeout(HEARING) == Err(mpsc::RecvTimeoutError::Timeout) {
                let reads = Instant::now() >= next;
                self.round(reads, false);
                if reads {
                    next = Instant::now() + READING;
                }
            }
            self.round(true, true);
        };
        let thread = thread::Builder::new().name("flows".into()).spawn(run)?;
        Ok(Recording { stop: Some(stop), thread: Some(thread) })
    }

    /// Hears what rang, and reads the map where it is time to. The first failure is told, and the next success.
    pub(super) fn round(&mut self, reads: bool, is_last: bool) {
        if reads {
            self.known.write_down(is_last);
        }
        let mut items = Vec::new();
        let read = self.read(reads, is_last, &mut items).map_err(|error| -> Box<dyn Error> { error.into() });
        self.sinks.tally.lock().unwrap_or_else(PoisonError::into_inner).add(&items);
        if let Some(past) = &self.sinks.past {
            past.add(&items, Timestamp::now());
        }
        if self.sinks.collectors.is_empty() {
            self.next.sequence += items.len() as u64;
        } else {
            let numbered = self.numbered(&items);
            self.sinks.collectors.offer(&numbered);
        }
        let written = self.sinks.log.as_mut().map_or(Ok(()), |log| log.add(&items));
        let written = written.map_err(|error| -> Box<dyn Error> { error.into() });
        match read.and(written) {
            Ok(()) => self.is_failing = false,
            Err(error) if !std::mem::replace(&mut self.is_failing, true) => {
                warn!(error = &*error, "flows are missing from the log; told once until it works again");
            }
            Err(_) => {}
        }
    }

    fn numbered(&mut self, items: &[Item]) -> Vec<Numbered> {
        let number = |item: &Item| {
            let record = self.next.clone();
            self.next.sequence += 1;
            Numbered { record, item: item.clone() }
        };
        items.iter().map(number).collect()
    }

    fn read(&mut self, reads: bool, is_last: bool, items: &mut Vec<Item>) -> Result<(), FlowsError> {
        // What has rung is not heard again: nothing may fail before it is taken in.
        let missed = if reads { self.flows.missed()? } else { Vec::new() };
        let bells = self.flows.bells();
        // Whose flows are missing is known by the addresses that others of theirs have.
        let mut addrs: HashMap<u32, Option<IpAddr>> = missed.iter().map(|(device, _)| (*device, None)).collect();
        let mut facts = self.known.facts();
        let now = Timestamp::now();
        let mut told: Vec<Record> = Vec::new();
        let mut scene = Scene { now, names: &facts.names, translations: &mut *self.translations };
        for bell in bells {
            match bell {
                Told::Ended(entry) => drop(self.aggregator.observe(&entry, &mut scene, &mut told)),
                Told::Replaced(entry) => self.aggregator.over(&entry, &mut scene),
            }
        }
        self.aggregator.settle(false, &mut scene, &mut told);
        let seen = |entry: &Entry| {
            if let Some(addr) = addrs.get_mut(&entry.key.device) {
                *addr = addr.or(Some(entry.key.local));
            }
        };
        let taken = if reads { sweep(&self.flows, &mut self.aggregator, &mut scene, &mut told, seen) } else { Ok(()) };
        if is_last {
            self.aggregator.settle(true, &mut scene, &mut told);
        }
        items.extend(told.into_iter().map(|record| Item::Flow(Arc::new(record))));
        for (device, missed) in missed {
            items.push(Item::Gap(Gap {
                start: self.whole,
                end: now,
                node: self.node.clone(),
                at: GapAt::Kernel,
                device: Some(device),
                pod: addrs.get(&device).copied().flatten().and_then(|addr| pod_at(addr, &facts.names, now)),
                packets: missed.packets,
                bytes: missed.bytes,
                flows: missed.connections,
            }));
        }
        if reads {
            self.whole = now;
            facts.names.forget(now);
        }
        taken
    }
}

fn pod_at(addr: IpAddr, names: &Names, now: Timestamp) -> Option<Arc<PodIdentity>> {
    match names.holder(addr, now) {
        Holder::Pod(pod) => Some(pod),
        _ => None,
    }
}

/// Reads the map and takes out what is over. `seen` gets each entry.
fn sweep(
    flows: &Flows,
    aggregator: &mut Aggregator,
    scene: &mut Scene<'_>,
    told: &mut Vec<Record>,
    mut seen: impl FnMut(&Entry),
) -> Result<(), FlowsError> {
    let mut taken = Ok(());
    flows.each(|entry| {
        seen(&entry);
        if aggregator.observe(&entry, scene, told) == Fate::Over && taken.is_ok() {
            match flows.take(&entry) {
                Ok(Some(last)) => aggregator.over(&last, scene),
                // It is told by a later reading, or a bell.
                Ok(None) => {}
                Err(error) => taken = Err(error),
            }
        }
    })?;
    taken?;
    aggregator.sweep(scene, told);
    Ok(())
}

#[cfg(test)]
mod tests;
