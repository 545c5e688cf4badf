//! The commit thread: gathers waiting writes, commits them in one durable transaction, then makes them visible and answers.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};
use tracing::{debug, error};

use super::cache::Cache;
use super::event::{Change, Event};
use super::{Key, Object, OpenError, Write, WriteError};

/// (resource, namespace, name) → the object as JSON.
const OBJECTS: TableDefinition<(&str, &str, &str), &[u8]> = TableDefinition::new("objects");

/// Names → numbers: `revision`.
const NUMBERS: TableDefinition<&str, u64> = TableDefinition::new("numbers");

/// Key in [`NUMBERS`] of the latest revision.
const REVISION: &str = "revision";

/// Writes that share one commit at most. A commit costs about as much as encoding this many objects.
const BATCH: usize = 512;

/// A write and who waits for it.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) write: Write,
    pub(super) reply: oneshot::Sender<Result<Arc<Object>, WriteError>>,
}

type Reply = (oneshot::Sender<Result<Arc<Object>, WriteError>>, Result<Arc<Object>, WriteError>);

/// Opens the database and reads all of it.
pub(super) fn load(path: &Path) -> Result<(Database, Cache), OpenError> {
    let failed =
        |source: redb::Error| OpenError::Database { path: path.display().to_string(), source: Box::new(source) };
    let database = Database::create(path).map_err(|e| failed(e.into()))?;
    let revision = prepare(&database).map_err(failed)?;
    let mut cache = Cache::starting_at(revision);
    let transaction = database.begin_read().map_err(|e| failed(e.into()))?;
    let table = transaction.open_table(OBJECTS).map_err(|e| failed(e.into()))?;
    let mut resources: HashMap<String, Arc<str>> = HashMap::new();
    for entry in table.iter().map_err(|e| failed(e.into()))? {
        let (key, json) = entry.map_err(|e| failed(e.into()))?;
        let (resource, namespace, name) = key.value();
        let resource = resources.entry(resource.to_owned()).or_insert_with(|| Arc::from(resource));
        let key = Key { resource: Arc::clone(resource), namespace: namespace.to_owned(), name: name.to_owned() };
        cache.restore(Arc::new(read(key, json.value())?));
    }
    Ok((database, cache))
}

/// Makes sure that both tables exist; answers the latest revision.
fn prepare(database: &Database) -> Result<u64, redb::Error> {
    let transaction = database.begin_write()?;
    let revision = {
        transaction.open_table(OBJECTS)?;
        let mut numbers = transaction.open_table(NUMBERS)?;
        let stored = numbers.get(REVISION)?.map(|value| value.value());
        // Revision 0 means "any" to Kubernetes clients, so counting starts at 1.
        let revision = stored.unwrap_or(1);
        numbers.insert(REVISION, revision)?;
        revision
    };
    transaction.commit()?;
    Ok(revision)
}

fn read(key: Key, json: &[u8]) -> Result<Object, OpenError> {
    let value: Value = serde_json::from_slice(json).map_err(|source| OpenError::Object {
        resource: key.resource.to_string(),
        namespace: key.namespace.clone(),
        name: key.name.clone(),
        source,
    })?;
    let revision = value["metadata"]["resourceVersion"].as_str().and_then(|text| text.parse().ok()).unwrap_or_default();
    Ok(Object { key, revision, value, json: Bytes::copy_from_slice(json) })
}

/// Owner of the database; the only writer.
pub(super) struct Committer {
    database: Database,
    cache: Arc<RwLock<Cache>>,
}

impl Committer {
    pub(super) fn new(database: Database, cache: Arc<RwLock<Cache>>) -> Self {
        Self { database, cache }
    }

    /// Commits until all senders are gone.
    pub(super) fn run(self, mut queue: mpsc::Receiver<Job>) {
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

    fn commit(&self, jobs: impl Iterator<Item = Job>) {
        let (batch, mut replies) = self.decide(jobs);
        if !batch.events.is_empty() {
            match self.persist(&batch.events) {
                Ok(()) => self.cache.write().unwrap_or_else(PoisonError::into_inner).apply(batch.events),
                Err(cause) => {
                    let text: Arc<str> = Arc::from(cause.to_string());
                    error!(error = %cause, writes = replies.len(), "store refused a commit; none of its writes happened");
                    for (_, result) in &mut replies {
                        *result = Err(WriteError::Storage(Arc::clone(&text)));
                    }
                }
            }
        }
        for (reply, result) in replies {
            // A caller that went away does not want to know.
            let _ = reply.send(result);
        }
    }

    /// Checks each write against what is stored and what precedes it in the batch.
    fn decide(&self, jobs: impl Iterator<Item = Job>) -> (Batch, Vec<Reply>) {
        let cache = self.cache.read().unwrap_or_else(PoisonError::into_inner);
        let mut batch = Batch { revision: cache.revision(), pending: HashMap::new(), events: Vec::new() };
        let replies = jobs.map(|job| (job.reply, batch.add(&cache, job.write))).collect();
        (batch, replies)
    }

    fn persist(&self, events: &[Event]) -> Result<(), redb::Error> {
        let transaction = self.database.begin_write()?;
        {
            let mut objects = transaction.open_table(OBJECTS)?;
            let mut numbers = transaction.open_table(NUMBERS)?;
            for event in events {
                let Key { resource, namespace, name } = &event.object.key;
                let place = (&**resource, namespace.as_str(), name.as_str());
                match event.change {
                    Change::Added | Change::Modified => objects.insert(place, &*event.object.json)?,
                    Change::Deleted => objects.remove(place)?,
                };
            }
            if let Some(last) = events.last() {
                numbers.insert(REVISION, last.revision())?;
            }
        }
        // Durability::Immediate is redb's default: the data is on disk when this returns.
        transaction.commit()?;
        Ok(())
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
        let json = serde_json::to_vec(&value).map_err(|error| WriteError::Storage(Arc::from(error.to_string())))?;
        let object = Arc::new(Object { key: key.clone(), revision, value, json: Bytes::from(json) });
        self.revision = revision;
        let left = (change != Change::Deleted).then(|| Arc::clone(&object));
        self.pending.insert(key, left);
        self.events.push(Event::new(change, Arc::clone(&object), previous));
        Ok(object)
    }
}
