//! Disks that fill up or fail, files that are torn or taken.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicI64, Ordering};

use redb::StorageBackend;
use redb::backends::FileBackend;

use super::*;

/// Operations on a disk that succeed before all others fail; negative: it never fails.
type Left = Arc<AtomicI64>;

/// A file on a disk that fills up.
#[derive(Debug)]
struct Disk {
    file: FileBackend,
    left: Left,
}

impl Disk {
    fn spend(&self) -> io::Result<()> {
        match self.left.load(Ordering::Relaxed) {
            0 => Err(io::Error::from(io::ErrorKind::StorageFull)),
            left if left > 0 => {
                self.left.fetch_sub(1, Ordering::Relaxed);
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.spend()?;
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.spend()?;
        self.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.spend()?;
        self.file.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.file.close()
    }
}

fn open_on(path: PathBuf, left: &Left) -> Store {
    let (name, left) = (path.display().to_string(), Arc::clone(left));
    let open = move || {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path)?;
        let disk = Disk { file: FileBackend::new(file)?, left: Arc::clone(&left) };
        Ok(redb::Database::builder().create_with_backend(disk)?)
    };
    Store::over(Database::new(name, Box::new(open)).unwrap()).unwrap()
}

/// Names and revisions of what is stored.
fn content(store: &Store) -> Vec<(String, u64)> {
    store.list("configmaps", None).objects.iter().map(|object| (object.key.name.clone(), object.revision)).collect()
}

#[tokio::test]
async fn a_full_disk_refuses_writes_and_loses_none_and_a_disk_with_space_again_takes_them() {
    for operations in 0..40 {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store.redb");
        let left = Left::new(AtomicI64::new(-1));
        let store = open_on(path.clone(), &left);
        store.write(create("before")).await.unwrap();
        left.store(operations, Ordering::Relaxed);
        let during = store.write(create("during")).await;
        let shown = store.object("configmaps", "default", "during").is_some();
        match &during {
            Ok(_) => assert!(shown, "after {operations} operations"),
            Err(error) => {
                assert!(matches!(error, WriteError::Storage(_)) && !shown, "after {operations} operations: {error:?}");
                let again = store.write(create("again")).await;
                assert!(matches!(again, Err(WriteError::Storage(_))) || left.load(Ordering::Relaxed) > 0, "{again:?}");
            }
        }
        left.store(-1, Ordering::Relaxed);
        let after = store.write(create("after")).await.unwrap();
        assert_eq!(store.revision(), after.revision);
        let (events, _) = store.events_after("configmaps", after.revision - 1).unwrap();
        assert_eq!(events.len(), 1);
        let shown = content(&store);
        drop(store);
        assert_eq!(content(&Store::open(&path).unwrap()), shown, "after {operations} operations");
    }
}

#[test]
fn a_store_that_another_process_has_open_is_refused_in_plain_words() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.redb");
    let first = Store::open(&path).unwrap();
    let error = Store::open(&path).unwrap_err();
    assert!(error.to_string().contains("is in use by another process"), "{error}");
    drop(first);
    Store::open(&path).unwrap();
}

#[tokio::test]
async fn a_torn_file_is_refused_or_whole_but_never_half_of_what_it_was() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.redb");
    let store = Store::open(&path).unwrap();
    for n in 0..50 {
        store.write(create(&format!("c{n}"))).await.unwrap();
    }
    let whole = content(&store);
    drop(store);
    let bytes = std::fs::read(&path).unwrap();
    let torn = directory.path().join("torn.redb");
    for part in 1..16 {
        std::fs::write(&torn, &bytes[..bytes.len() * part / 16]).unwrap();
        if let Ok(store) = Store::open(&torn) {
            assert_eq!(content(&store), whole, "{part}/16 of the file");
        }
    }
    std::fs::write(&torn, b"this is not a database".repeat(1000)).unwrap();
    assert!(matches!(Store::open(&torn), Err(OpenError::Database { .. })));
}

#[test]
fn only_its_owner_may_read_the_store() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.redb");
    File::create(&path).unwrap().set_permissions(PermissionsExt::from_mode(0o644)).unwrap();
    Store::open(&path).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
}

#[tokio::test]
async fn an_object_that_could_not_be_read_again_or_is_too_large_is_not_stored() {
    let (_directory, store) = open();
    let mut deep = json!({});
    for _ in 0..MAX_DEPTH {
        deep = json!({ "a": deep });
    }
    let written = store.write(Write::Create { key: key("deep"), value: deep }).await;
    assert_eq!(written.unwrap_err(), WriteError::TooDeep);
    let large = json!({"metadata": {"name": "large"}, "data": "x".repeat(MAX_BYTES)});
    let written = store.write(Write::Create { key: key("large"), value: large }).await;
    assert_eq!(written.unwrap_err(), WriteError::TooLarge);
    store.write(create("small")).await.unwrap();
}
