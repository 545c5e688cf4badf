//! The file: opened, read, written, and opened again after it failed.

use std::collections::HashMap;
use std::fmt;
use std::fs::{OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use redb::{DatabaseError, ReadableDatabase, ReadableTable, TableDefinition};
use serde_json::Value;

use super::cache::Cache;
use super::event::{Change, Event};
use super::{Key, Object, OpenError};

/// (resource, namespace, name) → the object as JSON.
const OBJECTS: TableDefinition<(&str, &str, &str), &[u8]> = TableDefinition::new("objects");

/// Names → numbers: `revision`.
const NUMBERS: TableDefinition<&str, u64> = TableDefinition::new("numbers");

/// Key in [`NUMBERS`] of the latest revision.
const REVISION: &str = "revision";

/// Only the owner may read the store: it holds Secrets.
const MODE: u32 = 0o600;

/// Opens the database anew.
pub(super) type Open = Box<dyn Fn() -> Result<redb::Database, redb::Error> + Send>;

/// The database, which is closed after a failure (redb refuses everything then) and opened again for the next use.
pub(super) struct Database {
    path: String,
    open: Open,
    handle: Option<redb::Database>,
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Database").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Database {
    /// The database in a file, which is created when missing.
    pub(super) fn file(path: &Path) -> Result<Self, OpenError> {
        let file = path.to_owned();
        Self::new(path.display().to_string(), Box::new(move || open_file(&file)))
    }

    /// A database that is opened so. `path` is what it is called in errors.
    pub(super) fn new(path: String, open: Open) -> Result<Self, OpenError> {
        let mut database = Self { path, open, handle: None };
        match database.handle().map(drop) {
            Ok(()) => Ok(database),
            Err(error) => Err(database.unusable(error)),
        }
    }

    fn unusable(&self, error: redb::Error) -> OpenError {
        let path = self.path.clone();
        match error {
            redb::Error::DatabaseAlreadyOpen => OpenError::InUse { path },
            source => OpenError::Database { path, source: Box::new(source) },
        }
    }

    fn handle(&mut self) -> Result<&redb::Database, redb::Error> {
        let handle = match self.handle.take() {
            Some(handle) => handle,
            None => (self.open)()?,
        };
        Ok(self.handle.insert(handle))
    }

    /// Reads everything.
    pub(super) fn load(&mut self) -> Result<Cache, OpenError> {
        let mut objects = Vec::new();
        let read = |handle: &redb::Database, objects: &mut Vec<(Key, Vec<u8>)>| -> Result<u64, redb::Error> {
            let revision = prepare(handle)?;
            let table = handle.begin_read()?.open_table(OBJECTS)?;
            let mut resources: HashMap<String, Arc<str>> = HashMap::new();
            for entry in table.iter()? {
                let (key, json) = entry?;
                let (resource, namespace, name) = key.value();
                let resource = resources.entry(resource.to_owned()).or_insert_with(|| Arc::from(resource));
                let resource = Arc::clone(resource);
                let key = Key { resource, namespace: namespace.to_owned(), name: name.to_owned() };
                objects.push((key, json.value().to_vec()));
            }
            Ok(revision)
        };
        let revision = self.handle().and_then(|handle| read(handle, &mut objects));
        let mut cache = Cache::starting_at(revision.map_err(|error| self.unusable(error))?);
        for (key, json) in objects {
            cache.restore(Arc::new(parse(key, json)?));
        }
        Ok(cache)
    }

    /// Writes events durably, all or none. After a failure the database is opened again and asked whether they are there after all:
    /// the disk may have failed after the commit.
    ///
    /// # Errors
    /// None of the events is stored; when [`Failure::unsettled`], that could not be found out.
    pub(super) fn persist(&mut self, events: &[Event]) -> Result<(), Failure> {
        let Some(last) = events.last().map(Event::revision) else { return Ok(()) };
        let Err(cause) = self.handle().and_then(|handle| write(handle, events, last)) else { return Ok(()) };
        self.handle = None;
        match self.revision() {
            Ok(revision) if revision == last => Ok(()),
            Ok(_) => Err(Failure { cause, unsettled: false }),
            Err(_) => Err(Failure { cause, unsettled: true }),
        }
    }

    /// The latest revision on disk.
    pub(super) fn revision(&mut self) -> Result<u64, redb::Error> {
        let read = |handle: &redb::Database| -> Result<u64, redb::Error> {
            let numbers = handle.begin_read()?.open_table(NUMBERS)?;
            Ok(numbers.get(REVISION)?.map_or(0, |value| value.value()))
        };
        let revision = self.handle().and_then(read);
        if revision.is_err() {
            self.handle = None;
        }
        revision
    }
}

/// Why events were not stored.
#[derive(Debug)]
pub(super) struct Failure {
    /// What the database says.
    pub(super) cause: redb::Error,
    /// Whether the database could not be read afterwards either, so that it may turn out to hold the events.
    pub(super) unsettled: bool,
}

fn open_file(path: &Path) -> Result<redb::Database, redb::Error> {
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(MODE).open(path)?;
    if file.metadata()?.permissions().mode() & 0o077 != 0 {
        file.set_permissions(Permissions::from_mode(MODE))?;
    }
    redb::Database::builder().create_file(file).map_err(|error| match error {
        DatabaseError::Storage(redb::StorageError::Io(error)) if error.kind() == io::ErrorKind::InvalidData => {
            redb::Error::Corrupted(error.to_string())
        }
        other => other.into(),
    })
}

/// Makes sure that both tables exist; answers the latest revision.
fn prepare(database: &redb::Database) -> Result<u64, redb::Error> {
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

fn parse(key: Key, json: Vec<u8>) -> Result<Object, OpenError> {
    let value: Value = serde_json::from_slice(&json).map_err(|source| OpenError::Object {
        resource: key.resource.to_string(),
        namespace: key.namespace.clone(),
        name: key.name.clone(),
        source,
    })?;
    let revision = value["metadata"]["resourceVersion"].as_str().and_then(|text| text.parse().ok()).unwrap_or_default();
    Ok(Object { key, revision, value, json: Bytes::from(json) })
}

fn write(database: &redb::Database, events: &[Event], last: u64) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
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
        numbers.insert(REVISION, last)?;
    }
    // Durability::Immediate is redb's default: the data is on disk when this returns.
    transaction.commit()?;
    Ok(())
}
