//! The commit thread: gathers waiting writes, commits them in one durable transaction, then makes them visible and answers.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};
use tracing::{debug, error, info};

use super::cache::Cache;
use super::database::{Database, Failure};
use super::event::{Change, Event};
use super::{Key, Object, Write, WriteError};
use crate::shape::{self, MAX_BYTES, MAX_DEPTH};

/// Writes that share one commit at most. A commit costs about as much as encoding this many objects.
const BATCH: usize = 512;

/// A write and who waits for it.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) write: Write,
    pub(super) reply: oneshot::Sender<Result<Arc<Object>, WriteError>>,
}

type Reply = (oneshot::Sender<Result<Arc<Object>, WriteError>>, Result<Arc<Object>, WriteError>);

/// Owner of the database; the only writer.
pub(super) struct Committer {
    database: Database,
    cache: Arc<RwLock<Cache>>,
    /// The events of a commit that failed so that nobody knows yet whether it happened.
    unsettled: Option<Vec<Event>>,
}

impl Committer {
    pub(super) fn new(database: Database, cache: Arc<RwLock<Cache>>) -> Self {
        Self { database, cache, unsettled: None }
    }

    /// Commits until all senders are gone.
    pub(super) fn run(mut self, mut queue: mpsc::Receiver<Job>) {
        let mut jobs = Vec::with_capacity(BATCH);
        while let Some(first) = queue.blocking_recv() {
            jobs.push(first);
            while jobs.len() < BATCH {
                match queue.try_recv() {
                    Ok(job) => jobs.push(job),
                    Err(_) => break,
                }
            }
            self.commit(jobs.drain(..));
        }
        debug!("store closed");
    }

    fn commit(&mut self, jobs: impl Iterator<Item = Job>) {
        if let Err(cause) = self.settle() {
            error!(error = %cause, "the store cannot be opened again after a failure; no writes are possible");
            let text: Arc<str> = Arc::from(cause.to_string());
            for job in jobs {
                let _ = job.reply.send(Err(WriteError::Storage(Arc::clone(&text))));
            }
            return;
        }
        let (batch, mut replies) = self.decide(jobs);
        match self.database.persist(&batch.events) {
            Ok(()) => self.show(batch.events),
            Err(Failure { cause, unsettled }) => {
                let text: Arc<str> = Arc::from(cause.to_string());
                error!(error = %cause, writes = replies.len(), "store refused a commit; none of its writes happened");
                for (_, result) in &mut replies {
                    *result = Err(WriteError::Storage(Arc::clone(&text)));
                }
                self.unsettled = unsettled.then_some(batch.events);
            }
        }
        for (reply, result) in replies {
            // A caller that went away does not want to know.
            let _ = reply.send(result);
        }
    }

    /// Finds out whether the last commit, after which the store could not be read, happened after all.
    fn settle(&mut self) -> Result<(), redb::Error> {
        let Some(events) = self.unsettled.take() else { return Ok(()) };
        match self.database.revision() {
            Ok(revision) if events.last().is_some_and(|last| last.revision() == revision) => self.show(events),
            Ok(_) => {}
            Err(error) => {
                self.unsettled = Some(events);
                return Err(error);
            }
        }
        info!("the store can be written again");
        Ok(())
    }

    fn show(&self, events: Vec<Event>) {
        if !events.is_empty() {
            self.cache.write().unwrap_or_else(PoisonError::into_inner).apply(events);
        }
    }

    /// Checks each write against what is stored and what precedes it in the batch.
    fn decide(&self, jobs: impl Iterator<Item = Job>) -> (Batch, Vec<Reply>) {
        let cache = self.cache.read().unwrap_or_else(PoisonError::into_inner);
        let mut batch = Batch { revision: cache.revision(), pending: HashMap::new(), events: Vec::new() };
        let replies = jobs.map(|job| (job.reply, batch.add(&cache, job.write))).collect();
        (batch, replies)
    }
}

/// Writes that will be committed together.
struct Batch {
    revision: u64,
    /// What the batch leaves at each place that it touches.
    pending: HashMap<Key, Option<Arc<Object>>>,
    events: Vec<Event>,
}

impl Batch {
    fn add(&mut self, cache: &Cache, write: Write) -> Result<Arc<Object>, WriteError> {
        match write {
            Write::Create { key, value } => match self.current(cache, &key) {
                Some(_) => Err(WriteError::Exists),
                None => self.record(Change::Added, key, value, None),
            },
            Write::Update { key, value, expected } => {
                let previous = self.expect(cache, &key, expected)?;
                self.record(Change::Modified, key, value, Some(previous))
            }
            Write::Delete { key, expected } => {
                let previous = self.expect(cache, &key, expected)?;
                self.record(Change::Deleted, key, previous.value.clone(), Some(previous))
            }
        }
    }

    fn current(&self, cache: &Cache, key: &Key) -> Option<Arc<Object>> {
        match self.pending.get(key) {
            Some(pending) => pending.clone(),
            None => cache.object(&key.resource, &key.namespace, &key.name).cloned(),
        }
    }

    fn expect(&self, cache: &Cache, key: &Key, expected: Option<u64>) -> Result<Arc<Object>, WriteError> {
        let current = self.current(cache, key).ok_or(WriteError::Missing)?;
        match expected {
            Some(revision) if revision != current.revision => Err(WriteError::Changed),
            _ => Ok(current),
        }
    }

    fn record(
        &mut self,
        change: Change,
        key: Key,
        mut value: Value,
        previous: Option<Arc<Object>>,
    ) -> Result<Arc<Object>, WriteError> {
        let revision = self.revision + 1;
        if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.insert("resourceVersion".to_owned(), Value::from(revision.to_string()));
        }
        // What is there already may go, however large it is.
        if change != Change::Deleted && shape::is_deeper_than(&value, MAX_DEPTH) {
            return Err(WriteError::TooDeep);
        }
        let json = serde_json::to_vec(&value).map_err(|error| WriteError::Storage(Arc::from(error.to_string())))?;
        if change != Change::Deleted && json.len() > MAX_BYTES {
            return Err(WriteError::TooLarge);
        }
        let object = Arc::new(Object { key: key.clone(), revision, value, json: Bytes::from(json) });
        self.revision = revision;
        let left = (change != Change::Deleted).then(|| Arc::clone(&object));
        self.pending.insert(key, left);
        self.events.push(Event::new(change, Arc::clone(&object), previous));
        Ok(object)
    }
}
