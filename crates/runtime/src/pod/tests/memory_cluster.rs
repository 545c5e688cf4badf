//! The cluster in memory.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use futures::future::{BoxFuture, FutureExt};
use k8s_openapi::{
    api::core::v1::{ConfigMap, PodStatus, Secret},
    jiff::Timestamp,
};
use tokio::sync::watch;

use crate::cluster::{Cluster, ClusterError, PodEvent, PodKey, Token, TokenWish};

/// The cluster in memory.
#[derive(Default)]
pub(super) struct MemoryCluster {
    config_maps: Mutex<BTreeMap<String, ConfigMap>>,
    events: Mutex<Vec<PodEvent>>,
    removed: Mutex<Vec<String>>,
    pub(super) status: watch::Sender<Option<PodStatus>>,
    tokens: Mutex<usize>,
    /// How often a status was written: the version of the object.
    writes: Mutex<u64>,
    silent: AtomicBool,
}

impl MemoryCluster {
    pub(super) fn put_config_map(&self, name: &str, data: &[(&str, &str)]) {
        let data = data.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        self.config_maps.lock().unwrap().insert(name.into(), ConfigMap { data: Some(data), ..ConfigMap::default() });
    }

    pub(super) fn reasons(&self) -> Vec<&'static str> {
        self.events.lock().unwrap().iter().map(|event| event.reason).collect()
    }

    pub(super) fn messages(&self) -> Vec<String> {
        self.events.lock().unwrap().iter().map(|event| event.message.clone()).collect()
    }

    pub(super) fn removed(&self) -> Vec<String> {
        self.removed.lock().unwrap().clone()
    }

    /// How many tokens were asked for.
    pub(super) fn tokens(&self) -> usize {
        *self.tokens.lock().unwrap()
    }

    /// How many statuses were written.
    pub(super) fn writes(&self) -> u64 {
        *self.writes.lock().unwrap()
    }

    /// From now on nobody who writes a status gets an answer.
    pub(super) fn fall_silent(&self) {
        self.silent.store(true, Ordering::Relaxed);
    }

    pub(super) fn last_status(&self) -> Option<PodStatus> {
        self.status.borrow().clone()
    }
}

impl Cluster for MemoryCluster {
    fn config_map<'a>(&'a self, _: &'a str, name: &'a str) -> BoxFuture<'a, Result<Option<ConfigMap>, ClusterError>> {
        futures::future::ready(Ok(self.config_maps.lock().unwrap().get(name).cloned())).boxed()
    }

    fn secret<'a>(&'a self, _: &'a str, _: &'a str) -> BoxFuture<'a, Result<Option<Secret>, ClusterError>> {
        futures::future::ready(Ok(None)).boxed()
    }

    fn token<'a>(&'a self, _: &'a PodKey, _: &'a TokenWish) -> BoxFuture<'a, Result<Token, ClusterError>> {
        *self.tokens.lock().unwrap() += 1;
        let expires = Timestamp::from_second(4_000_000_000).unwrap();
        futures::future::ready(Ok(Token { token: "t".into(), expires })).boxed()
    }

    fn publish_status<'a>(
        &'a self,
        _: &'a PodKey,
        status: &'a PodStatus,
    ) -> BoxFuture<'a, Result<Option<String>, ClusterError>> {
        let mut writes = self.writes.lock().unwrap();
        *writes += 1;
        self.status.send_replace(Some(status.clone()));
        if self.silent.load(Ordering::Relaxed) {
            return futures::future::pending().boxed();
        }
        futures::future::ready(Ok(Some(writes.to_string()))).boxed()
    }

    fn remove<'a>(&'a self, pod: &'a PodKey) -> BoxFuture<'a, Result<(), ClusterError>> {
        self.removed.lock().unwrap().push(pod.name.clone());
        futures::future::ready(Ok(())).boxed()
    }

    fn event(&self, _: &PodKey, event: PodEvent) {
        self.events.lock().unwrap().push(event);
    }

    fn kubernetes_service(&self) -> BoxFuture<'_, Option<(String, u16)>> {
        futures::future::ready(Some(("10.233.0.1".into(), 443))).boxed()
    }
}
