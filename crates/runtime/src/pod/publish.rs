//! What others see of a pod: its status in the API, its containers in the registry of this node.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant, SystemTime},
};

use k8s_openapi::api::core::v1::PodStatus;

use super::{
    container_spec::log_path,
    status::{PodView, agrees},
    worker::Worker,
};
use crate::{
    cluster::{events::timestamp, is_newer},
    containers::ContainerHandle,
    pause::spec::RunFiles,
};

/// A status that could not be written, or that was overwritten twice, is written again after this.
const AGAIN: Duration = Duration::from_secs(1);

impl Worker {
    /// Publishes what changed, and what somebody else changed: a node that was silent finds its pods marked as not ready.
    pub(super) async fn publish(&mut self) {
        self.publish_handles();
        let shown = self.shown();
        let status = self.view().status(shown.or(self.published.as_ref()));
        let overwritten = shown.is_some_and(|shown| !agrees(&status, shown));
        let now = Instant::now();
        let changed = self.published.as_ref() != Some(&status);
        let due = match (self.publish_due, self.corrected) {
            (Some(due), _) => due,
            (None, _) if changed => now,
            (None, Some(last)) if overwritten => last + AGAIN,
            (None, None) if overwritten => now,
            (None, _) => return,
        };
        if due > now {
            self.publish_due = Some(due);
            return;
        }
        if overwritten && !changed {
            tracing::info!("the pod's status says something else than the node: it is written again");
            self.corrected = Some(now);
        }
        match self.context.cluster.publish_status(&self.key, &status).await {
            Ok(version) => {
                self.published = Some(status);
                self.written = version;
                self.publish_due = None;
            }
            Err(error) => {
                tracing::warn!(%error, "status not written");
                self.publish_due = Some(Instant::now() + AGAIN);
            }
        }
    }

    /// What the API shows; none where nothing is known of it since the last write.
    fn shown(&self) -> Option<&PodStatus> {
        let version = self.pod.metadata.resource_version.as_deref();
        self.pod.status.as_ref().filter(|_| is_newer(version, self.written.as_deref()))
    }

    pub(super) fn view(&self) -> PodView<'_> {
        let spec = self.pod.spec.as_ref();
        let view = |container: &k8s_openapi::api::core::v1::Container| self.view_of(&container.name);
        let containers = spec.into_iter().flat_map(|spec| &spec.containers);
        let init_containers = spec.into_iter().flat_map(|spec| spec.init_containers.iter().flatten());
        PodView {
            pod: &self.pod,
            containers: containers.map(|container| (container, view(container))).collect(),
            init_containers: init_containers.map(|container| (container, view(container))).collect(),
            has_sandbox: self.sandbox.is_some(),
            addresses: self.addresses.clone(),
            node_addresses: self.context.node_addresses.clone(),
            start_time: self.start_time,
            now: timestamp(SystemTime::now()),
            failure: self.failure.clone(),
        }
    }

    pub(super) fn publish_handles(&self) {
        let spec = self.pod.spec.as_ref();
        let own = spec.into_iter().flat_map(|spec| spec.containers.iter().chain(spec.init_containers.iter().flatten()));
        let order: Vec<String> = own.map(|container| container.name.clone()).collect();
        let client = crate::sandbox::PauseClient::new(&self.dir);
        let mut handles = BTreeMap::new();
        for (name, record) in &self.records {
            let Some(run) = &record.run else { continue };
            let previous =
                run.attempt.checked_sub(1).filter(|attempt| RunFiles::new(&self.dir, name, *attempt).spec.exists());
            let state = match (&run.exit, &record.waiting) {
                (None, _) => "it is starting".to_owned(),
                (Some(_), Some((reason, _))) => format!("it waits: {reason}"),
                (Some(exit), None) => format!("it ended with code {}", exit.code),
            };
            let handle = ContainerHandle {
                client: client.clone(),
                pid: Some(run.pid).filter(|pid| *pid > 0 && run.exit.is_none()),
                state,
                log: Some(log_path(&self.dir, name, run.attempt)),
                previous_log: previous.map(|attempt| log_path(&self.dir, name, attempt)),
                ended: run.ended.subscribe(),
            };
            handles.insert(name.clone(), handle);
        }
        self.context.containers.publish(&self.key, order, handles);
    }
}
