//! Reads what was counted and makes records of it: bells often, the whole map every second.

mod complaint;
mod interfaces;
mod limits;
mod mark;
mod refused;
mod telling;

use std::{
    collections::HashSet,
    error::Error,
    io,
    path::Path,
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use k8s_openapi::jiff::Timestamp;
use podnet_flow::{
    Aggregator, Cause, Drops, Entry, Gap, Item, Record, RecordId, Tally,
    aggregate::{Fate, Scene, Timeouts},
    parts::{self, Parts},
    record::GapAt,
};
use podnet_kernel::{
    cgroup::Cgroup,
    flows::{Flows, FlowsError, Told},
};
use podnet_model::NodeName;
use tracing::{info, warn};
use uuid::Uuid;

use self::{
    complaint::{Complaint, Say},
    interfaces::{Interfaces, Seen},
    limits::Limits,
    mark::Mark,
    refused::Refused,
};
use super::{
    collect::Collectors,
    known::Known,
    log::Log,
    neighbours::Neighbours,
    past::Past,
    recorders::{Marks, Recorders, marks},
    senders::{Asking, Holders},
    translated::Translated,
};

/// How often bells are heard: the ring has room for what 100,000 connections of a second ring in this time.
const HEARING: Duration = Duration::from_millis(100);
/// How often the map is read.
const READING: Duration = Duration::from_secs(1);
/// So long what was read may have been on its way to the log, or to a collector that answers: other nodes are asked for 3 s who began it and for 15 s who
/// tells it (`podnet_flow::joint`), parts wait for 60 s (`podnet_flow::parts`), what comes in a second is sent together, and an attempt takes 10 s at most.
const UNSENT: Duration = Duration::from_secs(89);
/// So long other nodes are asked what became of a flow that nothing came back of, before it is told to anybody (`podnet_flow::joint`); who began one they
/// are asked for less.
const SILENT: Duration = Duration::from_secs(6);

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
    translations: Translated,
    /// Who may send what.
    senders: Asking,
    interfaces: Interfaces,
    limits: Limits,
    refused: Refused,
    /// What stands for the places where all goes that is told, and who else told there when it was looked last.
    marks: Marks,
    recorders: Arc<Recorders>,
    /// What these tell.
    parts: Parts,
    /// The agents of other nodes, where these can be asked.
    neighbours: Option<Neighbours>,
    /// When it was last known that nothing was missing.
    whole: Timestamp,
    complaint: Complaint,
    mark: Option<Mark>,
    /// What an earlier agent lost, until it is told.
    unfinished: Option<Gap>,
}

impl Drop for Recorder {
    fn drop(&mut self) {
        if let Some(past) = &self.sinks.past {
            past.end();
        }
    }
}

impl Recorder {
    pub(super) fn new(
        flows: Arc<Flows>,
        sinks: Sinks,
        node: NodeName,
        (known, holders): (Arc<Known>, impl Holders + 'static),
    ) -> Self {
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let boot = Uuid::parse_str(boot.trim()).unwrap_or_default();
        let now = Timestamp::now();
        // What is counted since nobody counted before was told by nobody yet.
        let since = if flows.goes_on() { now } else { Timestamp::MIN };
        sinks.tally.lock().unwrap_or_else(PoisonError::into_inner).begin(since);
        let aggregator = Aggregator::new(node.clone(), boot, since, Timeouts::default());
        let translations = Translated::open();
        let epoch = sinks.past.as_ref().map_or(0, |past| past.epoch());
        let next = RecordId { node: node.clone(), epoch, sequence: 0, missing: false };
        let senders = Asking::new(Box::new(holders));
        let marks = marks(sinks.log.is_some(), &sinks.collectors);
        let (recorders, parts) = (Arc::default(), Parts::new(parts::MOST));
        Self {
            flows,
            sinks,
            next,
            node,
            known,
            aggregator,
            translations,
            senders,
            interfaces: Interfaces::default(),
            limits: Limits::default(),
            refused: Refused::default(),
            marks,
            recorders,
            parts,
            neighbours: None,
            whole: now,
            complaint: Complaint::default(),
            mark: None,
            unfinished: None,
        }
    }

    /// Marks with a file that it records. An earlier agent that did not come to take its mark away had read what it did not tell, and one of another
    /// version may have counted what nobody reads any more: a gap says so first.
    pub(super) fn marking(mut self, path: &Path) -> Self {
        let (mark, found, ended) = Mark::make(path);
        self.mark = mark;
        let is_sent = self.sinks.log.is_some() || !self.sinks.collectors.is_empty();
        let before = (self.flows.goes_on(), self.flows.abandons());
        let Some((start, end)) = untold((found, ended), before, is_sent, self.whole) else { return self };
        let (node, at) = (self.node.clone(), GapAt::Agent);
        self.unfinished = Some(Gap { start, end, node, at, device: None, pod: None, packets: 0, bytes: 0, flows: 0 });
        self
    }

    /// Tells also what Services refuse at the sockets of this cgroup's processes, where backends are chosen there.
    pub(super) fn refusing(mut self, cgroup: Option<Cgroup>) -> Self {
        self.refused = Refused::of(cgroup);
        self
    }

    /// Settles with the agents of other nodes which of them tells a flow that both count; what these ask is answered by what the past keeps
    /// ([`Past::joint`]).
    pub(super) fn asking(mut self, neighbours: Option<Neighbours>) -> Self {
        self.neighbours = neighbours;
        self
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

    /// Hears what rang, and reads the map where it is time to. Of failures the first is told, and that there are none any more.
    pub(super) fn round(&mut self, reads: bool, is_last: bool) {
        if reads {
            self.known.write_down(is_last);
        }
        let mut items: Vec<Item> = self.unfinished.take().map(Item::Gap).into_iter().collect();
        let read = self.read(reads, is_last, &mut items).map_err(|error| -> Box<dyn Error> { error.into() });
        let told = self.tell(items, reads && read.is_ok(), is_last);
        self.sinks.collectors.offer(&told);
        let written = self.sinks.log.as_mut().map_or(Ok(()), |log| log.add(&told));
        let written = written.map_err(|error| -> Box<dyn Error> { error.into() });
        let is_written = written.is_ok();
        if is_last {
            // What the log could not take is told by a gap of the next agent's.
            self.mark.take().filter(|_| is_written).into_iter().for_each(Mark::take_away);
        } else if let Some(mark) = self.mark.as_ref().filter(|_| reads && is_written && read.is_ok()) {
            mark.touch();
        }
        let outcome = read.and(written);
        match (self.complaint.note(outcome.is_ok(), Instant::now()), outcome) {
            (Say::Fails, Err(error)) => {
                warn!(error = &*error, "flows cannot be recorded; told once until it works again");
            }
            (Say::Works, _) => info!("flows are recorded again; where some are missing, a gap says so"),
            _ => {}
        }
    }

    fn read(&mut self, reads: bool, is_last: bool, items: &mut Vec<Item>) -> Result<(), FlowsError> {
        // What has rung is not heard again: nothing may fail before it is taken in.
        let missed = if reads { self.flows.missed()? } else { Vec::new() };
        let bells = self.flows.bells();
        let mut seen = Seen::new(missed.iter().map(|(device, _)| *device));
        let senders = if reads { self.senders.ask() } else { None };
        if reads {
            self.interfaces.look(self.senders.devices());
        }
        let is_due = reads && self.limits.is_due(Timestamp::now(), is_last);
        let dropped = if is_due { self.senders.dropped() } else { None };
        let unnoted = if reads { self.refused.read(&self.senders, Instant::now()) } else { 0 };
        // Each time: what came from a pod that began just now is told within a moment, and not named any more after that.
        self.known.attached(self.senders.pods(), Timestamp::now());
        // What is refused ends at once, and is told by its bell: what noted it is known by then.
        let is_asked = reads || bells.iter().any(limits::may_be_beyond);
        let beyond = if is_asked { self.senders.beyond() } else { None };
        let mut facts = self.known.facts();
        if let Some(senders) = senders {
            facts.names.set_senders(senders);
        }
        if let Some(beyond) = beyond {
            facts.names.set_beyond(beyond);
        }
        let now = Timestamp::now();
        let mut told: Vec<Record> = Vec::new();
        let mut scene = Scene { now, names: &facts.names, translations: &mut self.translations };
        for bell in bells {
            match bell {
                Told::Ended(entry) => self.aggregator.rang(&entry, &mut scene, &mut told),
                Told::Replaced(entry) => self.aggregator.over(&entry, &mut scene),
            }
        }
        let ended = self.aggregator.take_ended(&mut &*self.flows, &mut scene, &mut told);
        self.aggregator.settle(false, &mut scene, &mut told);
        let taken = if reads {
            let counting = (&*self.flows, &mut self.refused, self.interfaces.gone());
            sweep(counting, &mut self.aggregator, &mut scene, &mut told, |entry| seen.entry(entry, &facts.names))
        } else {
            Ok(())
        };
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
                device: Some(self.interfaces.called(device)),
                pod: seen.pod(device, &facts.names, now),
                packets: missed.packets,
                bytes: missed.bytes,
                flows: missed.flows,
            }));
        }
        if unnoted > 0 {
            // Of how many sockets these were is not known.
            let (start, node, at) = (self.whole, self.node.clone(), GapAt::Kernel);
            let (packets, flows) = (unnoted, unnoted);
            items.push(Item::Gap(Gap { start, end: now, node, at, device: None, pod: None, packets, bytes: 0, flows }));
        }
        for (start, dropped) in dropped.map(|dropped| self.limits.since_last(&dropped, now)).unwrap_or_default() {
            items.push(Item::Drops(Drops {
                start,
                end: now,
                node: self.node.clone(),
                cause: Cause::Limit,
                direction: dropped.direction,
                device: Some(self.interfaces.called(dropped.device)),
                pod: interfaces::behind(dropped.device, &facts.names, now),
                packets: dropped.packets,
            }));
        }
        if reads {
            self.senders.saw(self.interfaces.read(seen));
            self.whole = now;
            facts.names.forget(now);
        }
        ended.and(taken)
    }
}

/// From when until when what an earlier agent counted may be told by nobody: by the mark of it that was `found`, or when it `ended` by itself, and whether
/// its maps are gone on with or abandoned: these were counted in also since it ended. All that is counted from `whole` on is told. Where records go to
/// nobody but readers (not `is_sent`), less may have been on its way. None: nothing is untold.
#[must_use]
pub fn untold(
    (found, ended): (Option<Timestamp>, Option<Timestamp>),
    (goes_on, abandons): (bool, bool),
    is_sent: bool,
    whole: Timestamp,
) -> Option<(Timestamp, Timestamp)> {
    let told = found.or_else(|| abandons.then(|| ended.unwrap_or(whole)))?;
    // If nothing was counted meanwhile, nobody asked for it.
    let end = if goes_on || abandons { whole } else { told.checked_add(READING).unwrap_or(told) };
    // Who reads the past is told of a flow at the next reading, or once it is known what became of it. Of a flow that lasts an abandoned map may have what
    // passed since it was told last, a minute before its agent ended.
    let unsent = if is_sent || abandons { UNSENT } else { 2 * READING + SILENT };
    Some((told.checked_sub(unsent).unwrap_or(told), end))
}

/// Reads the map and takes out what is over, also since its interface is gone. `seen` gets each entry. What was refused at sockets was read already.
fn sweep(
    (flows, refused, gone): (&Flows, &mut Refused, &HashSet<u32>),
    aggregator: &mut Aggregator,
    scene: &mut Scene<'_>,
    told: &mut Vec<Record>,
    mut seen: impl FnMut(&Entry),
) -> Result<(), FlowsError> {
    let mut taken = Ok(());
    flows.each(|entry| {
        seen(&entry);
        let is_over = aggregator.observe(&entry, scene, told) == Fate::Over || gone.contains(&entry.key.device);
        if is_over && taken.is_ok() {
            match flows.take(&entry) {
                Ok(Some(last)) => aggregator.over(&last, scene),
                // It is told by a later reading, or a bell.
                Ok(None) => {}
                Err(error) => taken = Err(error),
            }
        }
    })?;
    for (refusal, entry) in refused.found() {
        seen(&entry);
        let is_over = aggregator.observe(&entry, scene, told) == Fate::Over || gone.contains(&entry.key.device);
        if is_over && let Some(last) = refused.take(&refusal) {
            aggregator.over(&last, scene);
        } else {
            refused.keep((refusal, entry));
        }
    }
    taken?;
    aggregator.sweep(scene, told);
    Ok(())
}

#[cfg(test)]
mod tests;
