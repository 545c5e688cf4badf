//! What can be wrong with an image.

use std::{io, path::PathBuf};

/// Why an image cannot be found or imported.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The text is no image reference.
    #[error("{reference:?} is no image reference: {reason}")]
    Reference {
        /// The text.
        reference: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Neither imported, nor built in, nor in the table of stand-ins.
    #[error(
        "image {reference} is not in the image store and nothing stands in for it; import it, or use podnet.local/tools or podnet.local/demoapp"
    )]
    Unknown {
        /// The normalised reference.
        reference: String,
    },
    /// A file of the store or of the layout cannot be used.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was being done.
        action: &'static str,
        /// With which file.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// A document is not what the OCI image specification describes.
    #[error("{} is not a valid {what}", path.display())]
    Json {
        /// The kind of document.
        what: &'static str,
        /// Where it is.
        path: PathBuf,
        /// What the parser said.
        #[source]
        source: serde_json::Error,
    },
    /// The layout has no image that can be run here, or one that cannot be unpacked.
    #[error("image layout {}: {reason}", path.display())]
    Layout {
        /// The directory or archive.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Content is not what its digest says.
    #[error("{what} is damaged: its digest is {actual}, not {expected}")]
    Digest {
        /// Blob or layer.
        what: String,
        /// From the manifest or configuration.
        expected: String,
        /// From the content.
        actual: String,
    },
    /// An archive holds something that must not be unpacked.
    #[error("archive entry {entry:?}: {reason}")]
    Entry {
        /// Its path as the archive has it.
        entry: String,
        /// Why it is refused.
        reason: String,
    },
    /// Unpacking would take more room than an image may.
    #[error("{what} is larger than {limit} bytes")]
    TooLarge {
        /// What is.
        what: String,
        /// The bound.
        limit: u64,
    },
}

impl ImageError {
    /// For `map_err`.
    pub(super) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> ImageError {
        let path = path.into();
        move |source| ImageError::Io { action, path, source }
    }
}
