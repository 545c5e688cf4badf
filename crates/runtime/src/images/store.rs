//! The store's directories, and the records of what has been imported.

use std::{
    fs::{self, File},
    io::{ErrorKind, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, flock, syncfs};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::{Image, ImageConfig, ImageError, Reference, Rootfs, oci};

/// Where everything is.
#[derive(Clone, Debug)]
pub(super) struct Directories {
    root: PathBuf,
}

/// What `images/<…>.json` says.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    reference: String,
    id: String,
    /// Digits of the layers' diff identifiers, lowest first.
    layers: Vec<String>,
    config: ImageConfig,
}

impl Directories {
    /// Makes what is missing, and empties `tmp` unless an import is under way.
    pub(super) fn open(root: &Path) -> Result<Directories, ImageError> {
        let directories = Directories { root: root.to_owned() };
        for name in ["blobs/sha256", "layers", "images", "tmp"] {
            let path = root.join(name);
            fs::create_dir_all(&path).map_err(ImageError::io("make the directory", path))?;
        }
        // Layers hold set-user-id programs of strangers: no other user of the machine may reach them.
        fs::set_permissions(root, fs::Permissions::from_mode(0o700)).map_err(ImageError::io("restrict", root))?;
        let lock = directories.lock_file()?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => directories.empty_tmp()?,
            Err(rustix::io::Errno::WOULDBLOCK) => {}
            Err(error) => return Err(ImageError::io("lock", root.join("lock"))(error.into())),
        }
        Ok(directories)
    }

    /// Waits until no other import runs; others wait until the file is dropped.
    pub(super) fn lock(&self) -> Result<File, ImageError> {
        let file = self.lock_file()?;
        flock(&file, FlockOperation::LockExclusive)
            .map_err(|error| ImageError::io("lock", self.root.join("lock"))(error.into()))?;
        Ok(file)
    }

    fn lock_file(&self) -> Result<File, ImageError> {
        let path = self.root.join("lock");
        File::options().create(true).truncate(false).write(true).open(&path).map_err(ImageError::io("open", path))
    }

    fn empty_tmp(&self) -> Result<(), ImageError> {
        let tmp = self.root.join("tmp");
        for entry in fs::read_dir(&tmp).map_err(ImageError::io("list", &tmp))? {
            let path = entry.map_err(ImageError::io("list", &tmp))?.path();
            let removed =
                if path.is_dir() && !path.is_symlink() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            removed.map_err(ImageError::io("remove", path))?;
        }
        Ok(())
    }

    /// A new directory that is removed with the value.
    pub(super) fn scratch(&self) -> Result<Scratch, ImageError> {
        let path = self.root.join("tmp").join(Uuid::new_v4().to_string());
        fs::create_dir(&path).map_err(ImageError::io("make the directory", &path))?;
        Ok(Scratch(path))
    }

    /// Where the layer with these digits is, or will be.
    pub(super) fn layer(&self, digits: &str) -> PathBuf {
        self.root.join("layers").join(digits)
    }

    /// Keeps a document under its digest.
    pub(super) fn keep_blob(&self, digits: &str, bytes: &[u8]) -> Result<(), ImageError> {
        self.publish(&self.root.join("blobs/sha256").join(digits), bytes)
    }

    /// Makes `unpacked` the layer with these digits: complete on disk first, then under its name.
    pub(super) fn keep_layer(&self, unpacked: &Path, digits: &str) -> Result<(), ImageError> {
        let layer = self.layer(digits);
        File::open(unpacked).and_then(|directory| Ok(syncfs(directory)?)).map_err(ImageError::io("sync", unpacked))?;
        fs::rename(unpacked, &layer).map_err(ImageError::io("rename to", layer))
    }

    /// Records what a reference is from now on.
    pub(super) fn record(
        &self,
        reference: &Reference,
        id: &str,
        layers: Vec<String>,
        config: ImageConfig,
    ) -> Result<Image, ImageError> {
        let record = Record { reference: reference.to_string(), id: id.to_owned(), layers, config };
        let path = self.record_path(reference);
        let bytes = serde_json::to_vec_pretty(&record).map_err(|source| ImageError::Json {
            what: "image record",
            path: path.clone(),
            source,
        })?;
        self.publish(&path, &bytes)?;
        Ok(self.image(record))
    }

    /// The imported image of this reference.
    pub(super) fn find(&self, reference: &Reference) -> Result<Option<Image>, ImageError> {
        match oci::document::<Record>(&self.record_path(reference), "image record", None) {
            Ok((record, _)) => Ok(Some(self.image(record))),
            Err(ImageError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn image(&self, record: Record) -> Image {
        let Record { reference, id, layers, config } = record;
        let layers = layers.iter().map(|digits| self.layer(digits)).collect();
        Image { reference, id, rootfs: Rootfs::Layers(layers), config, stand_in_for: None }
    }

    fn record_path(&self, reference: &Reference) -> PathBuf {
        let name = format!("{:x}.json", Sha256::digest(reference.to_string()));
        self.root.join("images").join(name)
    }

    /// Writes a file so that it is there whole or not at all.
    fn publish(&self, path: &Path, bytes: &[u8]) -> Result<(), ImageError> {
        let scratch = self.scratch()?;
        let draft = scratch.path().join("draft");
        let written = File::create(&draft).and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()));
        written.map_err(ImageError::io("write", &draft))?;
        fs::rename(&draft, path).map_err(ImageError::io("rename to", path))?;
        let directory = path.parent().unwrap_or(&self.root);
        File::open(directory).and_then(|directory| directory.sync_all()).map_err(ImageError::io("sync", directory))
    }
}

/// A temporary directory.
pub(super) struct Scratch(PathBuf);

impl Scratch {
    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            tracing::warn!(path = %self.0.display(), %error, "a temporary directory stays behind until the store is opened again");
        }
    }
}
