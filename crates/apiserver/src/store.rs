//! Objects, their revisions, and what happened to them lately.
//!
//! Writes go through one thread that gathers those waiting into one durable transaction (group commit); a write is answered only
//! after that transaction is on disk. Reads never touch the disk: an ordered cache holds every object, and a bounded ring for each
//! resource holds the latest events, which watches read at their own pace. A watch that falls out of the ring is told so
//! ([`Expired`]) and lists again; it never holds a writer up.
//!
//! There is one revision for the whole store. It grows with each write and is what clients see as `resourceVersion`.

use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::thread::JoinHandle;

use bytes::Bytes;
use serde_json::Value;
use tokio::sync::{mpsc, oneshot, watch};

mod cache;
mod database;
mod event;
#[cfg(test)]
mod tests;
mod writer;

pub use cache::{Listing, Position};
pub use event::{Change, Event, Expired, watch_line};

use cache::Cache;
use database::Database;
use writer::Job;

use crate::shape::{MAX_BYTES, MAX_DEPTH};

/// Writes that may wait for the commit thread before writers are held back.
const WAITING_WRITES: usize = 1024;

/// Where an object is kept.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Key {
    /// Storage name of the resource: `plural` or `plural.group`.
    pub resource: Arc<str>,
    /// Namespace; empty for cluster-wide objects.
    pub namespace: String,
    /// Name within the namespace.
    pub name: String,
}

/// One object at one revision. Shared by the cache, events and answers under way.
#[derive(Debug)]
pub struct Object {
    /// Where it is kept.
    pub key: Key,
    /// Revision of the write that made it so; for a deleted object that of the deletion.
    pub revision: u64,
    /// The object, `metadata.resourceVersion` included.
    pub value: Value,
    /// `value` as JSON text.
    pub json: Bytes,
}

/// One change that a caller asks for.
#[derive(Debug)]
pub enum Write {
    /// Store a new object.
    Create {
        /// Where.
        key: Key,
        /// What; its `metadata.resourceVersion` is set by the store.
        value: Value,
    },
    /// Replace an object.
    Update {
        /// Where.
        key: Key,
        /// What; its `metadata.resourceVersion` is set by the store.
        value: Value,
        /// Refuse unless the stored object is at this revision.
        expected: Option<u64>,
    },
    /// Remove an object.
    Delete {
        /// Where.
        key: Key,
        /// Refuse unless the stored object is at this revision.
        expected: Option<u64>,
    },
}

/// Why a write did not happen.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
pub enum WriteError {
    /// An object of that name exists.
    #[error("the object already exists")]
    Exists,
    /// No object of that name exists.
    #[error("the object does not exist")]
    Missing,
    /// The object is at another revision than the writer presumed.
    #[error("the object is at another revision")]
    Changed,
    /// The object is larger than one may be.
    #[error("the object is larger than {MAX_BYTES} bytes")]
    TooLarge,
    /// The object is nested deeper than one may be.
    #[error("the object is nested deeper than {MAX_DEPTH} levels")]
    TooDeep,
    /// The disk refused. What was written before is safe; this write may only be found to have happened after all when the server
    /// cannot read its store again before it is restarted.
    #[error("committing to the store failed: {0}")]
    Storage(Arc<str>),
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
}

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The database file could not be opened, read or prepared.
    #[error("opening the store {path}")]
    Database {
        /// The store's file.
        path: String,
        /// What the database says.
        #[source]
        source: Box<redb::Error>,
    },
    /// Another process has it open.
    #[error("the store {path} is in use by another process; stop that one first, or choose another store")]
    InUse {
        /// The store's file.
        path: String,
    },
    /// A stored object is not readable.
    #[error("reading {resource} {namespace}/{name} from the store")]
    Object {
        /// Storage name of the resource.
        resource: String,
        /// Namespace of the object.
        namespace: String,
        /// Name of the object.
        name: String,
        /// What is wrong with its text.
        #[source]
        source: serde_json::Error,
    },
    /// The commit thread could not be started.
    #[error("starting the store's commit thread")]
    Thread(#[source] std::io::Error),
}

/// A durable, watchable set of objects. Closed when dropped, after the writes under way.
#[derive(Debug)]
pub struct Store {
    cache: Arc<RwLock<Cache>>,
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Store {
    /// Opens the store in the file at `path`, which is created when missing, and reads it into memory. Blocking.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        Self::over(Database::file(path)?)
    }

    fn over(mut database: Database) -> Result<Self, OpenError> {
        let cache = database.load()?;
        let cache = Arc::new(RwLock::new(cache));
        let (jobs, queue) = mpsc::channel(WAITING_WRITES);
        let committer = writer::Committer::new(database, Arc::clone(&cache));
        let thread = std::thread::Builder::new()
            .name("store-commit".to_owned())
            .spawn(move || committer.run(queue))
            .map_err(OpenError::Thread)?;
        Ok(Self { cache, jobs: Some(jobs), thread: Some(thread) })
    }

    /// Performs a write; returns after it is durable and visible. A deletion answers with the object as it was last, at the
    /// revision of the deletion.
    pub async fn write(&self, write: Write) -> Result<Arc<Object>, WriteError> {
        let (reply, answer) = oneshot::channel();
        let jobs = self.jobs.as_ref().ok_or(WriteError::Closed)?;
        jobs.send(Job { write, reply }).await.map_err(|_| WriteError::Closed)?;
        answer.await.map_err(|_| WriteError::Closed)?
    }

    /// The object at a place.
    pub fn object(&self, resource: &str, namespace: &str, name: &str) -> Option<Arc<Object>> {
        self.read().object(resource, namespace, name).cloned()
    }

    /// The objects of a resource in order of namespace and name, in one namespace or in all.
    pub fn list(&self, resource: &str, namespace: Option<&str>) -> Listing {
        self.read().list(resource, namespace, None, usize::MAX)
    }

    /// A part of [`Store::list`]: at most `limit` objects that come after `after`.
    pub fn page(&self, resource: &str, namespace: Option<&str>, after: Option<&Position>, limit: usize) -> Listing {
        self.read().list(resource, namespace, after, limit)
    }

    /// The latest revision.
    pub fn revision(&self) -> u64 {
        self.read().revision()
    }

    /// The events of a resource after a revision, and the revision up to which they are complete.
    pub fn events_after(&self, resource: &str, revision: u64) -> Result<(Vec<Arc<Event>>, u64), Expired> {
        self.read().events_after(resource, revision)
    }

    /// Told after each commit that touched the resource; the value is the commit's revision.
    pub fn subscribe(&self, resource: &str) -> watch::Receiver<u64> {
        if let Some(receiver) = self.read().subscribe(resource) {
            return receiver;
        }
        self.cache.write().unwrap_or_else(PoisonError::into_inner).table(resource).subscribe()
    }

    fn read(&self) -> RwLockReadGuard<'_, Cache> {
        self.cache.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // The thread ends after the writes that it has accepted: milliseconds. Its own panic has been reported by then.
            let _ = thread.join();
        }
    }
}
