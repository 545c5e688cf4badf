//! A pod's volumes below its directory: `volumes/<name>`.
//!
//! What comes from the API is written as kubelet writes it: into a new directory that the link `..data` is then turned to at once, so
//! that a program sees all files of one version.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::{PermissionsExt, chown},
    path::{Component, Path, PathBuf},
};

use k8s_openapi::{
    api::core::v1::{DownwardAPIVolumeFile, HostPathVolumeSource, KeyToPath, Pod, Volume, VolumeProjection},
    jiff::Timestamp,
};

use super::{
    environment::{ConfigError, Objects},
    fields::{self, Placed},
};
use crate::cluster::{Cluster, ClusterError, PodKey, Token, TokenWish};

mod projection;

use projection::{ProjectedFile, write_version};

/// A volume cannot be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum VolumeError {
    #[error("MountVolume.SetUp failed for volume {volume:?} : {source}")]
    Config { volume: String, source: ConfigError },
    #[error("MountVolume.SetUp failed for volume {volume:?} : {source}")]
    Token { volume: String, source: ClusterError },
    #[error("MountVolume.SetUp failed for volume {volume:?} : cannot {action}: {source}")]
    System { volume: String, action: String, source: io::Error },
    #[error("MountVolume.SetUp failed for volume {volume:?} : {reason}")]
    Invalid { volume: String, reason: String },
}

/// Makes a pod's volumes.
pub(crate) struct VolumeMaker<'a> {
    pub(crate) cluster: &'a dyn Cluster,
    pub(crate) pod: &'a Pod,
    pub(crate) key: &'a PodKey,
    pub(crate) dir: &'a Path,
    pub(crate) placed: &'a Placed,
}

/// Tokens that are in use, and when the first of them has to be asked for again.
#[derive(Debug, Default)]
pub(crate) struct Tokens {
    known: BTreeMap<(Vec<String>, i64), (Token, Timestamp)>,
}

impl Tokens {
    /// The token for a wish: a new one where the last has lived four fifths of its life, as with kubelet.
    async fn of(&mut self, cluster: &dyn Cluster, pod: &PodKey, wish: &TokenWish) -> Result<String, ClusterError> {
        let now = crate::cluster::events::timestamp(std::time::SystemTime::now());
        let key = (wish.audiences.clone(), wish.seconds);
        if let Some((token, due)) = self.known.get(&key)
            && now < *due
        {
            return Ok(token.token.clone());
        }
        let token = cluster.token(pod, wish).await?;
        let due = now.as_second() + (token.expires.as_second() - now.as_second()).max(0) * 4 / 5;
        let due = Timestamp::from_second(due).unwrap_or(token.expires);
        let text = token.token.clone();
        self.known.insert(key, (token, due));
        Ok(text)
    }

    /// When the first one is due.
    pub(crate) fn due(&self) -> Option<Timestamp> {
        self.known.values().map(|(_, due)| *due).min()
    }
}

/// Whether a volume's files come from the API. kubelet mounts such volumes read-only, whatever the mount says: the node writes in them
/// for as long as the pod lives, and must not be led elsewhere by what a container put there.
pub(crate) fn is_projected(pod: &Pod, name: &str) -> bool {
    let volumes = pod.spec.as_ref().and_then(|spec| spec.volumes.as_deref()).unwrap_or_default();
    volumes.iter().any(|volume| volume.name == name && comes_from_api(volume))
}

/// See [`is_projected`].
pub(crate) fn comes_from_api(volume: &Volume) -> bool {
    volume.config_map.is_some()
        || volume.secret.is_some()
        || volume.projected.is_some()
        || volume.downward_api.is_some()
}

/// Where a volume is.
pub(crate) fn path_of(dir: &Path, pod: &Pod, name: &str) -> Option<PathBuf> {
    let volume = pod.spec.as_ref()?.volumes.iter().flatten().find(|volume| volume.name == name)?;
    Some(match &volume.host_path {
        Some(host) => PathBuf::from(&host.path),
        None => dir.join("volumes").join(name),
    })
}

/// The volumes that are memory file systems, with their sizes in bytes.
pub(crate) fn memory_volumes(dir: &Path, pod: &Pod) -> Vec<(PathBuf, Option<u64>)> {
    let volumes = pod.spec.as_ref().and_then(|spec| spec.volumes.as_deref()).unwrap_or_default();
    let memory = volumes.iter().filter_map(|volume| {
        let empty = volume.empty_dir.as_ref().filter(|empty| empty.medium.as_deref() == Some("Memory"))?;
        let size = empty.size_limit.as_ref().and_then(fields::quantity).map(|size| size as u64);
        Some((dir.join("volumes").join(&volume.name), size))
    });
    memory.collect()
}

impl VolumeMaker<'_> {
    /// Makes all volumes, or brings them up to date.
    pub(crate) async fn make(&self, tokens: &mut Tokens) -> Result<(), VolumeError> {
        let mut objects = Objects::new(self.cluster, &self.key.namespace);
        for volume in self.pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten()) {
            self.make_one(volume, &mut objects, tokens).await?;
        }
        Ok(())
    }

    async fn make_one(
        &self,
        volume: &Volume,
        objects: &mut Objects<'_>,
        tokens: &mut Tokens,
    ) -> Result<(), VolumeError> {
        let name = &volume.name;
        let config = |source| VolumeError::Config { volume: name.clone(), source };
        let (files, default_mode) = if let Some(source) = &volume.config_map {
            let found = objects.config_map(&source.name, source.optional.unwrap_or(false)).await.map_err(config)?;
            (self.select(name, found, source.items.as_deref(), source.optional.unwrap_or(false))?, source.default_mode)
        } else if let Some(source) = &volume.secret {
            let secret = source.secret_name.as_deref().unwrap_or_default();
            let found = objects.secret(secret, source.optional.unwrap_or(false)).await.map_err(config)?;
            (self.select(name, found, source.items.as_deref(), source.optional.unwrap_or(false))?, source.default_mode)
        } else if let Some(source) = &volume.downward_api {
            (self.downward(name, source.items.as_deref())?, source.default_mode)
        } else if let Some(source) = &volume.projected {
            let mut files = Vec::new();
            for part in source.sources.iter().flatten() {
                files.extend(self.project(name, part, objects, tokens).await?);
            }
            (files, source.default_mode)
        } else if volume.empty_dir.is_some() {
            return self.empty_dir(name);
        } else if let Some(source) = &volume.host_path {
            let (name, source) = (name.clone(), source.clone());
            return blocking(&volume.name, move || host_path(&name, &source)).await;
        } else {
            let reason =
                "supported kinds are configMap, secret, downwardAPI, projected, emptyDir and hostPath".to_owned();
            return Err(VolumeError::Invalid { volume: name.clone(), reason });
        };
        self.write(name, files, default_mode.unwrap_or(0o644)).await
    }

    async fn project(
        &self,
        volume: &str,
        part: &VolumeProjection,
        objects: &mut Objects<'_>,
        tokens: &mut Tokens,
    ) -> Result<Vec<ProjectedFile>, VolumeError> {
        let config = |source| VolumeError::Config { volume: volume.to_owned(), source };
        if let Some(source) = &part.config_map {
            let optional = source.optional.unwrap_or(false);
            let found = objects.config_map(&source.name, optional).await.map_err(config)?;
            return self.select(volume, found, source.items.as_deref(), optional);
        }
        if let Some(source) = &part.secret {
            let optional = source.optional.unwrap_or(false);
            let found = objects.secret(&source.name, optional).await.map_err(config)?;
            return self.select(volume, found, source.items.as_deref(), optional);
        }
        if let Some(source) = &part.downward_api {
            return self.downward(volume, source.items.as_deref());
        }
        let Some(source) = &part.service_account_token else {
            let reason = "supported sources are configMap, secret, downwardAPI and serviceAccountToken".to_owned();
            return Err(VolumeError::Invalid { volume: volume.to_owned(), reason });
        };
        let wish = TokenWish {
            service_account: fields::service_account(self.pod),
            audiences: source.audience.iter().filter(|audience| !audience.is_empty()).cloned().collect(),
            seconds: source.expiration_seconds.unwrap_or(3600),
        };
        let failed = |source| VolumeError::Token { volume: volume.to_owned(), source };
        let token = tokens.of(self.cluster, self.key, &wish).await.map_err(failed)?;
        Ok(vec![ProjectedFile { path: source.path.clone(), bytes: token.into_bytes(), mode: None }])
    }

    fn select(
        &self,
        volume: &str,
        found: Option<BTreeMap<String, Vec<u8>>>,
        items: Option<&[KeyToPath]>,
        optional: bool,
    ) -> Result<Vec<ProjectedFile>, VolumeError> {
        let mut found = found.unwrap_or_default();
        let Some(items) = items.filter(|items| !items.is_empty()) else {
            return Ok(found.into_iter().map(|(path, bytes)| ProjectedFile { path, bytes, mode: None }).collect());
        };
        let mut files = Vec::new();
        for item in items {
            match found.remove(&item.key) {
                Some(bytes) => files.push(ProjectedFile { path: item.path.clone(), bytes, mode: item.mode }),
                None if optional => {}
                None => {
                    let reason = format!("references non-existent key: {}", item.key);
                    return Err(VolumeError::Invalid { volume: volume.to_owned(), reason });
                }
            }
        }
        Ok(files)
    }

    fn downward(
        &self,
        volume: &str,
        items: Option<&[DownwardAPIVolumeFile]>,
    ) -> Result<Vec<ProjectedFile>, VolumeError> {
        let files = items.into_iter().flatten().map(|item| {
            let value = match (&item.field_ref, &item.resource_field_ref) {
                (Some(wanted), _) => fields::field(self.pod, self.placed, &wanted.field_path),
                (None, Some(wanted)) => {
                    fields::resource(self.pod, wanted.container_name.as_deref().unwrap_or_default(), wanted)
                }
                (None, None) => None,
            };
            let invalid = || VolumeError::Invalid {
                volume: volume.to_owned(),
                reason: format!("there is no field for {}", item.path),
            };
            Ok(ProjectedFile {
                path: item.path.clone(),
                bytes: value.ok_or_else(invalid)?.into_bytes(),
                mode: item.mode,
            })
        });
        files.collect()
    }

    fn empty_dir(&self, name: &str) -> Result<(), VolumeError> {
        let path = self.dir.join("volumes").join(name);
        let failed = system(name, "make the directory");
        if path.exists() {
            return Ok(());
        }
        fs::create_dir_all(&path)
            .and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(0o777)))
            .and_then(|()| match self.fs_group() {
                // New files belong to the group, too.
                Some(group) => chown(&path, None, Some(group))
                    .and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(0o2777))),
                None => Ok(()),
            })
            .map_err(failed)
    }

    fn fs_group(&self) -> Option<u32> {
        let group = self.pod.spec.as_ref()?.security_context.as_ref()?.fs_group?;
        u32::try_from(group).ok()
    }

    async fn write(&self, name: &str, files: Vec<ProjectedFile>, default_mode: i32) -> Result<(), VolumeError> {
        for file in &files {
            let plain = Path::new(&file.path).components().all(|part| matches!(part, Component::Normal(_)));
            if !plain || file.path.is_empty() || file.path.starts_with("..") {
                let reason = format!("invalid path {:?}: it must be relative and stay inside the volume", file.path);
                return Err(VolumeError::Invalid { volume: name.to_owned(), reason });
            }
        }
        let (path, group) = (self.dir.join("volumes").join(name), self.fs_group());
        let written = system(name, "write its files");
        blocking(name, move || write_version(&path, &files, default_mode, group).map_err(written)).await
    }
}

/// File systems of the host may be slow, or hang.
async fn blocking(
    volume: &str,
    work: impl FnOnce() -> Result<(), VolumeError> + Send + 'static,
) -> Result<(), VolumeError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => Err(system(volume, "work on its files")(io::Error::other(error))),
    }
}

fn system(volume: &str, action: &'static str) -> impl FnOnce(io::Error) -> VolumeError + use<> {
    let volume = volume.to_owned();
    move |source| VolumeError::System { volume, action: action.to_owned(), source }
}

fn host_path(name: &str, source: &HostPathVolumeSource) -> Result<(), VolumeError> {
    let path = Path::new(&source.path);
    let invalid = |reason: &str| VolumeError::Invalid {
        volume: name.to_owned(),
        reason: format!("hostPath {}: {reason}", source.path),
    };
    match source.type_.as_deref().unwrap_or_default() {
        "DirectoryOrCreate" => fs::create_dir_all(path).map_err(system(name, "make the host's directory")),
        "FileOrCreate" if !path.exists() => fs::write(path, b"").map_err(system(name, "make the host's file")),
        "Directory" if !path.is_dir() => Err(invalid("is not a directory")),
        "File" if !path.is_file() => Err(invalid("is not a file")),
        _ if !path.exists() => Err(invalid("does not exist")),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
