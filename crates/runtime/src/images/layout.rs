//! Imports an OCI image layout: finds the image in it, then unpacks the layers that are not there yet.

use std::{
    fs::{self, File},
    io::{self, BufReader, Read, Seek, SeekFrom},
    path::{Component, Path, PathBuf},
};

use flate2::bufread::MultiGzDecoder;

use super::{
    Image, ImageError, Reference, layer,
    oci::{self, Config, Descriptor, Index, Manifest},
    reference::sha256_digits,
    store::{Directories, Scratch},
};

/// The most that an image may take unpacked, and a layout's archive with it: 16 GiB.
pub(super) const MAX_IMAGE: u64 = 16 << 30;
/// How deep indexes may refer to indexes.
const MAX_DEPTH: usize = 3;
/// The annotation that names an image in a layout.
const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// See [`super::ImageStore::import`].
pub(super) fn import(store: &Directories, path: &Path, reference: &Reference) -> Result<Image, ImageError> {
    let _lock = store.lock()?;
    let layout = Layout::open(store, path)?;
    let descriptor = layout.image(reference)?;
    let (manifest, manifest_bytes): (Manifest, _) = layout.document(&descriptor, "image manifest")?;
    let (config, config_bytes): (Config, _) = layout.document(&manifest.config, "image configuration")?;
    if !config.platform.is_ours() {
        let platform = config.platform;
        return Err(layout.bad(format!("the image is for {}/{}, not linux/amd64", platform.os, platform.architecture)));
    }
    let diff_ids = &config.rootfs.diff_ids;
    if diff_ids.len() != manifest.layers.len() {
        let (layers, ids) = (manifest.layers.len(), diff_ids.len());
        return Err(layout.bad(format!("the manifest has {layers} layers, the configuration {ids}")));
    }
    let mut layers = Vec::with_capacity(diff_ids.len());
    let mut room = MAX_IMAGE;
    for (blob, diff_id) in manifest.layers.iter().zip(diff_ids) {
        let digits = sha256_digits(diff_id).ok_or_else(|| layout.bad(format!("{diff_id:?} is no sha256 digest")))?;
        if !store.layer(digits).is_dir() {
            let scratch = store.scratch()?;
            let target = scratch.path().join("layer");
            room = layer::unpack(&layout.blob(blob)?, blob.digits()?, digits, &target, room)?;
            store.keep_layer(&target, digits)?;
        }
        layers.push(digits.to_owned());
    }
    store.keep_blob(descriptor.digits()?, &manifest_bytes)?;
    store.keep_blob(manifest.config.digits()?, &config_bytes)?;
    store.record(reference, &manifest.config.digest, layers, config.run())
}

/// A layout as a directory.
struct Layout {
    /// What the caller knows it as.
    given: PathBuf,
    directory: PathBuf,
    /// Where an archive was unpacked to.
    _unpacked: Option<Scratch>,
}

impl Layout {
    fn open(store: &Directories, path: &Path) -> Result<Layout, ImageError> {
        let given = path.to_owned();
        if path.is_dir() {
            return Ok(Layout { directory: given.clone(), given, _unpacked: None });
        }
        let scratch = store.scratch()?;
        unpack_archive(path, scratch.path())?;
        Ok(Layout { given, directory: scratch.path().to_owned(), _unpacked: Some(scratch) })
    }

    fn bad(&self, reason: String) -> ImageError {
        ImageError::Layout { path: self.given.clone(), reason }
    }

    fn blob(&self, descriptor: &Descriptor) -> Result<PathBuf, ImageError> {
        Ok(self.directory.join("blobs/sha256").join(descriptor.digits()?))
    }

    fn document<T: serde::de::DeserializeOwned>(
        &self,
        descriptor: &Descriptor,
        what: &'static str,
    ) -> Result<(T, Vec<u8>), ImageError> {
        oci::document(&self.blob(descriptor)?, what, Some(descriptor.digits()?))
    }

    /// The manifest to run: of the entries, the one with the reference's name or tag, or else the first; of an index, ours.
    fn image(&self, reference: &Reference) -> Result<Descriptor, ImageError> {
        let (index, _): (Index, _) = oci::document(&self.directory.join("index.json"), "image index", None)?;
        let name = reference.to_string();
        let named = |descriptor: &&Descriptor| {
            descriptor.annotations.get(REF_NAME).is_some_and(|given| {
                Some(given.as_str()) == reference.tag()
                    || Reference::parse(given).is_ok_and(|given| given.to_string() == name)
            })
        };
        match index.manifests.iter().find(named) {
            Some(descriptor) => self.ours(std::slice::from_ref(descriptor), MAX_DEPTH)?,
            None => self.ours(&index.manifests, MAX_DEPTH)?,
        }
        .ok_or_else(|| self.bad("it has no image for linux/amd64".to_owned()))
    }

    fn ours(&self, manifests: &[Descriptor], depth: usize) -> Result<Option<Descriptor>, ImageError> {
        if depth == 0 {
            return Err(self.bad(format!("indexes refer to indexes more than {MAX_DEPTH} times")));
        }
        for descriptor in manifests {
            if descriptor.is_index() {
                let (index, _): (Index, _) = self.document(descriptor, "image index")?;
                if let Some(found) = self.ours(&index.manifests, depth - 1)? {
                    return Ok(Some(found));
                }
            } else if descriptor.platform.as_ref().is_none_or(oci::Platform::is_ours) {
                return Ok(Some(descriptor.clone()));
            }
        }
        Ok(None)
    }
}

/// Takes `index.json` and the blobs out of an archive; a layout consists of nothing else that matters.
fn unpack_archive(archive: &Path, target: &Path) -> Result<(), ImageError> {
    let blobs = target.join("blobs/sha256");
    fs::create_dir_all(&blobs).map_err(ImageError::io("make the directory", &blobs))?;
    let reader = decompressed(archive).map_err(ImageError::io("open", archive))?;
    let mut archive_reader = tar::Archive::new(reader);
    let mut room = MAX_IMAGE;
    for entry in archive_reader.entries().map_err(ImageError::io("read", archive))? {
        let mut entry = entry.map_err(ImageError::io("read", archive))?;
        let path = entry.path().map_err(ImageError::io("read", archive))?.into_owned();
        let Some(place) = place(&path, target) else { continue };
        if !entry.header().entry_type().is_file() {
            continue;
        }
        room = room
            .checked_sub(entry.size())
            .ok_or_else(|| ImageError::TooLarge { what: archive.display().to_string(), limit: MAX_IMAGE })?;
        let copied = File::create(&place).and_then(|mut file| io::copy(&mut entry, &mut file));
        copied.map_err(ImageError::io("write", place))?;
    }
    Ok(())
}

/// Where an entry of a layout's archive belongs; none for what a layout does not have.
fn place(path: &Path, target: &Path) -> Option<PathBuf> {
    let parts: Vec<&str> = path
        .components()
        .filter(|component| *component != Component::CurDir)
        .map(|component| component.as_os_str().to_str())
        .collect::<Option<_>>()?;
    match parts[..] {
        ["index.json"] => Some(target.join("index.json")),
        ["blobs", "sha256", digits] if sha256_digits(&format!("sha256:{digits}")).is_some() => {
            Some(target.join("blobs/sha256").join(digits))
        }
        _ => None,
    }
}

/// A file's content, without gzip where it begins as gzip does (RFC 1952, 2.3.1).
pub(super) fn decompressed(path: &Path) -> io::Result<Box<dyn Read>> {
    let mut file = File::open(path)?;
    let mut magic = [0; 2];
    let gzip = match file.read_exact(&mut magic) {
        Ok(()) => magic == [0x1f, 0x8b],
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => false,
        Err(error) => return Err(error),
    };
    file.seek(SeekFrom::Start(0))?;
    let file = BufReader::with_capacity(64 * 1024, file);
    Ok(if gzip { Box::new(MultiGzDecoder::new(file)) } else { Box::new(file) })
}
