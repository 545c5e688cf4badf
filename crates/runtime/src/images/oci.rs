//! The documents of the OCI image specification, as far as running an image needs them.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use serde::{Deserialize, de::DeserializeOwned};
use sha2::{Digest, Sha256};

use super::{ImageConfig, ImageError, reference::sha256_digits};

/// The largest document taken, in bytes; registries refuse manifests beyond 4 MiB.
const MAX_DOCUMENT: u64 = 4 * 1024 * 1024;

/// `index.json`, or an index that it refers to.
#[derive(Debug, Deserialize)]
pub(super) struct Index {
    pub(super) manifests: Vec<Descriptor>,
}

/// Says where content is and what.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Descriptor {
    #[serde(default)]
    pub(super) media_type: String,
    pub(super) digest: String,
    pub(super) platform: Option<Platform>,
    #[serde(default)]
    pub(super) annotations: std::collections::HashMap<String, String>,
}

impl Descriptor {
    pub(super) fn is_index(&self) -> bool {
        self.media_type.ends_with("image.index.v1+json") || self.media_type.ends_with("manifest.list.v2+json")
    }

    /// The digits of its digest.
    pub(super) fn digits(&self) -> Result<&str, ImageError> {
        sha256_digits(&self.digest).ok_or_else(|| ImageError::Reference {
            reference: self.digest.clone(),
            reason: "only sha256 digests are supported",
        })
    }
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Platform {
    pub(super) os: String,
    pub(super) architecture: String,
}

impl Platform {
    pub(super) fn is_ours(&self) -> bool {
        self.os == "linux" && self.architecture == "amd64"
    }
}

#[derive(Debug, Deserialize)]
pub(super) struct Manifest {
    pub(super) config: Descriptor,
    pub(super) layers: Vec<Descriptor>,
}

/// An image's configuration.
#[derive(Debug, Deserialize)]
pub(super) struct Config {
    #[serde(default)]
    config: Run,
    pub(super) rootfs: DiffIds,
    #[serde(flatten)]
    pub(super) platform: Platform,
}

#[derive(Debug, Deserialize)]
pub(super) struct DiffIds {
    /// Digests of the uncompressed layers, lowest first.
    pub(super) diff_ids: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Run {
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    env: Option<Vec<String>>,
    working_dir: String,
    user: String,
}

impl Config {
    pub(super) fn run(&self) -> ImageConfig {
        let Run { entrypoint, cmd, env, working_dir, user } = &self.config;
        let given = |text: &String| (!text.is_empty()).then(|| text.clone());
        let variable = |text: &String| {
            let (name, value) = text.split_once('=').unwrap_or((text, ""));
            (name.to_owned(), value.to_owned())
        };
        ImageConfig {
            entrypoint: entrypoint.clone().unwrap_or_default(),
            cmd: cmd.clone().unwrap_or_default(),
            env: env.iter().flatten().map(variable).collect(),
            working_dir: given(working_dir),
            user: given(user),
        }
    }
}

/// Reads a document and, where its digest is known, checks it.
pub(super) fn document<T: DeserializeOwned>(
    path: &Path,
    what: &'static str,
    digits: Option<&str>,
) -> Result<(T, Vec<u8>), ImageError> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_DOCUMENT + 1).read_to_end(&mut bytes))
        .map_err(ImageError::io("read", path))?;
    if bytes.len() as u64 > MAX_DOCUMENT {
        return Err(ImageError::TooLarge { what: path.display().to_string(), limit: MAX_DOCUMENT });
    }
    if let Some(expected) = digits {
        check(what, expected, &format!("{:x}", Sha256::digest(&bytes)))?;
    }
    let parsed =
        serde_json::from_slice(&bytes).map_err(|source| ImageError::Json { what, path: path.to_owned(), source })?;
    Ok((parsed, bytes))
}

/// Compares digests' digits.
pub(super) fn check(what: &str, expected: &str, actual: &str) -> Result<(), ImageError> {
    if expected == actual {
        return Ok(());
    }
    Err(ImageError::Digest {
        what: what.to_owned(),
        expected: format!("sha256:{expected}"),
        actual: format!("sha256:{actual}"),
    })
}

/// Computes the digest of what is read through it, and reads no more than it may.
pub(super) struct Measured<R> {
    inner: R,
    digest: Sha256,
    left: u64,
}

impl<R: Read> Measured<R> {
    pub(super) fn new(inner: R, limit: u64) -> Measured<R> {
        Measured { inner, digest: Sha256::new(), left: limit }
    }

    /// Reads to the end; answers the source, the digest's digits and what is left of the limit.
    pub(super) fn finish(mut self) -> io::Result<(R, String, u64)> {
        io::copy(&mut self, &mut io::sink())?;
        Ok((self.inner, format!("{:x}", self.digest.finalize()), self.left))
    }
}

impl<R: Read> Read for Measured<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.inner.read(buffer)?;
        self.digest.update(&buffer[..length]);
        self.left = self
            .left
            .checked_sub(length as u64)
            .ok_or_else(|| io::Error::new(io::ErrorKind::FileTooLarge, "more bytes than an image may have"))?;
        Ok(length)
    }
}
