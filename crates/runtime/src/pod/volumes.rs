//! A pod's volumes below its directory: `volumes/<name>`.
//!
//! What comes from the API is written as kubelet writes it: into a new directory that the link `..data` is then turned to at once, so
//! that a program sees all files of one version.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::{PermissionsExt, chown, symlink},
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
use crate::cluster::{Cluster, ClusterError, PodKey, TokenWish};

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

/// A file of a projected volume.
struct ProjectedFile {
    path: String,
    bytes: Vec<u8>,
    mode: Option<i32>,
}

/// Makes a pod's volumes.
pub(crate) struct VolumeMaker<'a> {
    pub(crate) cluster: &'a dyn Cluster,
    pub(crate) pod: &'a Pod,
    pub(crate) key: &'a PodKey,
    pub(crate) dir: &'a Path,
    pub(crate) placed: &'a Placed,
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
    /// Makes all volumes, or brings them up to date; answers when a token in one of them has to be asked for again.
    pub(crate) async fn make(&self) -> Result<Option<Timestamp>, VolumeError> {
        let mut refresh: Option<Timestamp> = None;
        let mut objects = Objects::new(self.cluster, &self.key.namespace);
        for volume in self.pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten()) {
            if let Some(at) = self.make_one(volume, &mut objects).await? {
                refresh = Some(refresh.map_or(at, |known| known.min(at)));
            }
        }
        Ok(refresh)
    }

    async fn make_one(&self, volume: &Volume, objects: &mut Objects<'_>) -> Result<Option<Timestamp>, VolumeError> {
        let name = &volume.name;
        let config = |source| VolumeError::Config { volume: name.clone(), source };
        let mut refresh = None;
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
                files.extend(self.project(name, part, objects, &mut refresh).await?);
            }
            (files, source.default_mode)
        } else if volume.empty_dir.is_some() {
            self.empty_dir(name)?;
            return Ok(None);
        } else if let Some(source) = &volume.host_path {
            host_path(name, source)?;
            return Ok(None);
        } else {
            let reason =
                "supported kinds are configMap, secret, downwardAPI, projected, emptyDir and hostPath".to_owned();
            return Err(VolumeError::Invalid { volume: name.clone(), reason });
        };
        self.write(name, &files, default_mode.unwrap_or(0o644))?;
        Ok(refresh)
    }

    async fn project(
        &self,
        volume: &str,
        part: &VolumeProjection,
        objects: &mut Objects<'_>,
        refresh: &mut Option<Timestamp>,
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
        let token = self.cluster.token(self.key, &wish).await.map_err(failed)?;
        let now = crate::cluster::events::timestamp(std::time::SystemTime::now()).as_second();
        // As kubelet does: a new one at four fifths of its life.
        let due = now + (token.expires.as_second() - now).max(0) * 4 / 5;
        let due = Timestamp::from_second(due).unwrap_or(token.expires);
        *refresh = Some(refresh.map_or(due, |known| known.min(due)));
        Ok(vec![ProjectedFile { path: source.path.clone(), bytes: token.token.into_bytes(), mode: None }])
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

    fn write(&self, name: &str, files: &[ProjectedFile], default_mode: i32) -> Result<(), VolumeError> {
        for file in files {
            let plain = Path::new(&file.path).components().all(|part| matches!(part, Component::Normal(_)));
            if !plain || file.path.is_empty() || file.path.starts_with("..") {
                let reason = format!("invalid path {:?}: it must be relative and stay inside the volume", file.path);
                return Err(VolumeError::Invalid { volume: name.to_owned(), reason });
            }
        }
        write_version(&self.dir.join("volumes").join(name), files, default_mode, self.fs_group())
            .map_err(system(name, "write its files"))
    }
}

fn system(volume: &str, action: &'static str) -> impl FnOnce(io::Error) -> VolumeError {
    let volume = volume.to_owned();
    move |source| VolumeError::System { volume, action: action.to_owned(), source }
}

/// Writes one version of all files, unless the present one is the same.
fn write_version(volume: &Path, files: &[ProjectedFile], default_mode: i32, group: Option<u32>) -> io::Result<()> {
    fs::create_dir_all(volume)?;
    fs::set_permissions(volume, fs::Permissions::from_mode(0o755))?;
    let data = volume.join("..data");
    let present = fs::read_link(&data).ok();
    let is_same = |file: &ProjectedFile| fs::read(data.join(&file.path)).is_ok_and(|bytes| bytes == file.bytes);
    if present.is_some() && files.iter().all(is_same) && count_files(&data)? == files.len() {
        return Ok(());
    }
    let version = format!("..{}", uuid::Uuid::new_v4().simple());
    let dir = volume.join(&version);
    fs::create_dir(&dir)?;
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o755))?;
    for file in files {
        let path = dir.join(&file.path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(&path, &file.bytes)?;
        let mut mode = u32::try_from(file.mode.unwrap_or(default_mode)).unwrap_or(0o644) & 0o777;
        if let Some(group) = group {
            chown(&path, None, Some(group))?;
            mode |= 0o440;
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
    }
    let turned = volume.join("..data_new");
    let _ = fs::remove_file(&turned);
    symlink(&version, &turned)?;
    fs::rename(&turned, &data)?;
    link_names(volume, files)?;
    if let Some(old) = present {
        let _ = fs::remove_dir_all(volume.join(old));
    }
    Ok(())
}

/// Makes the visible names: links into `..data`.
fn link_names(volume: &Path, files: &[ProjectedFile]) -> io::Result<()> {
    let first =
        |file: &ProjectedFile| Path::new(&file.path).components().next().map(|part| part.as_os_str().to_owned());
    let wanted: std::collections::BTreeSet<_> = files.iter().filter_map(first).collect();
    for name in &wanted {
        let link = volume.join(name);
        if fs::symlink_metadata(&link).is_err() {
            symlink(Path::new("..data").join(name), &link)?;
        }
    }
    for entry in fs::read_dir(volume)? {
        let name = entry?.file_name();
        if !wanted.contains(&name) && !name.to_string_lossy().starts_with("..") {
            fs::remove_file(volume.join(name))?;
        }
    }
    Ok(())
}

fn count_files(dir: &Path) -> io::Result<usize> {
    let mut count = 0;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        count += if entry.file_type()?.is_dir() { count_files(&entry.path())? } else { 1 };
    }
    Ok(count)
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
