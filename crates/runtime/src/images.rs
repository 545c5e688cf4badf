//! Images: what a container's root is made of and what it runs.
//!
//! A reference is looked for in the store (images that were imported), among the built-in ones (`podnet.local/…`, which need no
//! registry because their root is the host's own `/usr`), and in the table of stand-ins for well-known demonstration images.
//!
//! On disk, below the store's directory:
//!
//! ```text
//! blobs/sha256/<digest>    manifests and configurations, as they came
//! layers/<diff id>/        unpacked layers, each once, whiteouts in overlayfs' form
//! images/<reference>.json  which layers an imported reference consists of (named by the reference's SHA-256)
//! tmp/                     what is being imported; emptied when the store is opened and no import runs
//! ```
//!
//! Everything appears under its name by a rename, once it is complete and its digest has been checked. All functions block.

mod built_in;
mod error;
mod layer;
mod layout;
mod oci;
mod reference;
mod stand_in;
mod store;
#[cfg(test)]
mod tests;
mod unpack;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use error::ImageError;
pub use reference::Reference;

use self::store::Directories;

/// An image, ready to be run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// The image that runs, with registry and tag: `docker.io/library/nginx:1.27`, or the stand-in's `podnet.local/demoapp:latest`.
    pub reference: String,
    /// `sha256:` and 64 digits: the digest of its configuration; for built-in images, of their description.
    pub id: String,
    /// What its root file system consists of.
    pub rootfs: Rootfs,
    /// What it runs and how.
    pub config: ImageConfig,
    /// The reference that was asked for, where another image stands in for it.
    pub stand_in_for: Option<String>,
}

/// Where a root file system comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rootfs {
    /// The host's own programs and libraries, read-only.
    Host,
    /// Directories, lowest first, for overlayfs: whiteouts are character devices 0/0, opaque directories carry
    /// `trusted.overlay.opaque`. (overlayfs' `lowerdir` option wants them the other way round.)
    Layers(Vec<PathBuf>),
}

/// The part of an image's configuration that running it needs (OCI image specification, config.md).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageConfig {
    /// What a container's `command` replaces.
    pub entrypoint: Vec<String>,
    /// What a container's `args` replace; left out as well where its `command` is given.
    pub cmd: Vec<String>,
    /// Environment, in order.
    pub env: Vec<(String, String)>,
    /// Where processes start; `/` where there is none.
    pub working_dir: Option<String>,
    /// `user`, `uid`, `user:group` or `uid:gid`; root where there is none.
    pub user: Option<String>,
}

/// The images of this machine. Cheap to clone; several processes may use the same directory.
#[derive(Clone, Debug)]
pub struct ImageStore {
    directories: Directories,
}

impl ImageStore {
    /// Opens the store in `dir`, which is made where it is missing, and clears away what an interrupted import left there.
    ///
    /// # Errors
    /// [`ImageError::Io`] when a directory cannot be made or emptied.
    pub fn open(dir: &Path) -> Result<ImageStore, ImageError> {
        Ok(ImageStore { directories: Directories::open(dir)? })
    }

    /// Finds the image that a reference, in any of its usual short forms, means: imported, built in, or by a stand-in.
    ///
    /// # Errors
    /// [`ImageError::Reference`] for what is no reference, [`ImageError::Unknown`] when nothing is there for it, and
    /// [`ImageError::Io`] or [`ImageError::Json`] when the store is damaged.
    pub fn resolve(&self, reference: &str) -> Result<Image, ImageError> {
        let reference = Reference::parse(reference)?;
        if let Some(image) = self.directories.find(&reference)? {
            return Ok(image);
        }
        built_in::find(&reference)
            .or_else(|| stand_in::find(&reference))
            .ok_or_else(|| ImageError::Unknown { reference: reference.to_string() })
    }

    /// Imports an image from an OCI image layout: a directory, or a tar file of one, gzip-compressed or not. Of an index the entry
    /// for linux/amd64 is taken; of several images the one that `org.opencontainers.image.ref.name` gives this reference or tag.
    /// Importing a reference again replaces it.
    ///
    /// # Errors
    /// Whatever is wrong with the layout, its digests or a layer; nothing of the import is visible then.
    pub fn import(&self, path: &Path, reference: &str) -> Result<Image, ImageError> {
        let reference = Reference::parse(reference)?;
        layout::import(&self.directories, path, &reference)
    }
}
