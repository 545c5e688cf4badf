//! Configurations of the whole network as they were when they were last right: while one is wrong that counts, also for an agent that
//! starts meanwhile. A network that stands still is better than one that is taken down by a typing error.

use std::{ffi::OsString, fs, io::ErrorKind, path::PathBuf};

use kube::{Resource, ResourceExt};
use serde::{Serialize, de::DeserializeOwned};
use tracing::warn;

/// A file for each object.
#[derive(Debug)]
pub(super) struct LastGood {
    directory: PathBuf,
}

impl LastGood {
    pub(super) const fn new(directory: PathBuf) -> Self {
        Self { directory }
    }

    /// Keeps the object. Where that fails the network goes on, and a restart beside a wrong configuration would not know this one.
    pub(super) fn keep<K: Resource<DynamicType = ()> + Serialize>(&self, object: &K) {
        let path = self.path(object);
        let written = serde_json::to_vec(object).map_err(std::io::Error::from).and_then(|text| {
            if fs::read(&path).is_ok_and(|there| there == text) {
                return Ok(());
            }
            fs::create_dir_all(&self.directory)?;
            let new = path.with_extension("new");
            fs::write(&new, text)?;
            fs::rename(new, &path)
        });
        if let Err(error) = written {
            warn!(%error, path = %path.display(), "configuration not kept; a restart reads it from the API server alone");
        }
    }

    /// What this very object was when it was last right.
    pub(super) fn of<K: Resource<DynamicType = ()> + DeserializeOwned>(&self, object: &K) -> Option<K> {
        let kept: K = serde_json::from_slice(&fs::read(self.path(object)).ok()?).ok()?;
        (kept.uid() == object.uid()).then_some(kept)
    }

    /// Every object of a kind, each as it was when it was last right.
    pub(super) fn all<K: Resource<DynamicType = ()> + DeserializeOwned>(&self) -> Vec<K> {
        let kind = format!("{}.", K::kind(&()));
        let is_of_kind =
            |name: &OsString| name.to_str().is_some_and(|name| name.starts_with(&kind) && name.ends_with(".json"));
        let entries = fs::read_dir(&self.directory).into_iter().flatten().flatten();
        let files = entries.filter(|entry| is_of_kind(&entry.file_name()));
        files.filter_map(|file| serde_json::from_slice(&fs::read(file.path()).ok()?).ok()).collect()
    }

    /// The object is gone.
    pub(super) fn forget<K: Resource<DynamicType = ()>>(&self, object: &K) {
        let path = self.path(object);
        if let Err(error) = fs::remove_file(&path)
            && error.kind() != ErrorKind::NotFound
        {
            warn!(%error, path = %path.display(), "configuration of before not removed");
        }
    }

    /// Neither kind, namespace nor name can hold a `/`, and none but the name a dot.
    fn path<K: Resource<DynamicType = ()>>(&self, object: &K) -> PathBuf {
        let namespace = object.namespace().unwrap_or_default();
        self.directory.join(format!("{}.{namespace}.{}.json", K::kind(&()), object.name_any()))
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{ConfigMap, Pod};
    use serde_json::json;

    use super::*;

    #[test]
    fn what_was_right_counts_for_the_same_object_alone() {
        let directory = tempfile::tempdir().unwrap();
        let good = LastGood::new(directory.path().join("deep"));
        let map = |uid: &str, text: &str| -> ConfigMap {
            serde_json::from_value(json!({
                "metadata": {"name": "kube-flannel-cfg", "namespace": "kube-flannel", "uid": uid}, "data": {"net-conf.json": text},
            }))
            .unwrap()
        };
        assert_eq!(good.of(&map("a", "wrong")), None);
        good.keep(&map("a", "right"));
        good.keep(&map("a", "better"));
        assert_eq!(good.of(&map("a", "wrong")), Some(map("a", "better")));
        assert_eq!(good.of(&map("b", "wrong")), None, "it was deleted and made anew");
        assert_eq!(good.all::<ConfigMap>(), [map("a", "better")]);
        assert!(good.all::<Pod>().is_empty());
        good.forget(&map("a", "wrong"));
        good.forget(&map("a", "wrong"));
        assert!(good.all::<ConfigMap>().is_empty());
    }
}
