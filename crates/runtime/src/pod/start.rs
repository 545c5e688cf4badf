//! Starts one container: image, configuration, run.

use std::time::Instant;

use k8s_openapi::api::core::v1::Container;
use tokio::sync::watch;

use super::{
    container_spec,
    environment::Objects,
    fields::Placed,
    probes,
    runs::{self, RunRecord},
    worker::{Wake, Worker},
};
use crate::{images::Image, pause::spec::ContainerSpec};

impl Worker {
    /// Starts a container that should run and does not; answers when to look again.
    pub(super) async fn keep_running(&mut self, container: &Container, always: bool) -> Wake {
        let name = &container.name;
        let is_init =
            self.pod.spec.iter().flat_map(|spec| spec.init_containers.iter().flatten()).any(|init| init.name == *name);
        let policy = if always { "Always".to_owned() } else { self.restart_policy() };
        let (key, now) = (self.key.clone(), Instant::now());
        let outdated = self.view_of(name).outdated;
        let record = self.record(name);
        if record.running() {
            record.waiting = None;
            return None;
        }
        // What succeeded in a sandbox that is no more is not tried again, as it did not fail, but done again.
        let done_before = outdated && is_init && record.exit().is_some_and(|exit| exit.code == 0);
        if let Some(exit) = record.exit().filter(|_| !done_before) {
            // Whether an init container goes on is decided by the caller; it comes here only to be tried again.
            let again = match policy.as_str() {
                "Never" => false,
                "OnFailure" => exit.code != 0,
                _ => true,
            };
            if !again {
                record.waiting = None;
                return None;
            }
            if let Some((wait, until)) = record.backoff.until(now) {
                let message = format!(
                    "back-off {} restarting failed container={name} pod={}_{}({})",
                    duration(wait),
                    key.name,
                    key.namespace,
                    key.uid
                );
                if record
                    .waiting
                    .as_ref()
                    .is_none_or(|(reason, known)| reason != "CrashLoopBackOff" || *known != message)
                {
                    record.waiting = Some(("CrashLoopBackOff".to_owned(), message));
                    let told = format!(
                        "Back-off restarting failed container {name} in pod {}_{}({})",
                        key.name, key.namespace, key.uid
                    );
                    self.tell(true, "BackOff", told, Some(name));
                }
                return Some(until);
            }
        }
        if let Some((_, until)) = record.image_backoff.until(now) {
            if record.waiting.as_ref().is_some_and(|(reason, _)| reason == "ErrImagePull") {
                let image = container.image.as_deref().unwrap_or_default();
                let message = format!("Back-off pulling image \"{image}\"");
                record.waiting = Some(("ImagePullBackOff".to_owned(), message.clone()));
                self.tell(false, "BackOff", message, Some(name));
            }
            return Some(until);
        }
        self.start(container).await
    }

    pub(super) fn restart_policy(&self) -> String {
        self.pod.spec.as_ref().and_then(|spec| spec.restart_policy.clone()).unwrap_or_else(|| "Always".to_owned())
    }

    async fn start(&mut self, container: &Container) -> Wake {
        let name = container.name.clone();
        let image = match self.image(container).await {
            Ok(image) => image,
            Err(wake) => return wake,
        };
        let spec = match self.resolve(container, &image).await {
            Ok(spec) => spec,
            Err(error) => {
                let message = format!("Error: {error}");
                if self.record(&name).waiting.as_ref().is_none_or(|(_, known)| *known != error) {
                    self.tell(true, "Failed", message, Some(&name));
                }
                self.record(&name).waiting = Some(("CreateContainerConfigError".to_owned(), error));
                return Some(self.try_again_later(&name));
            }
        };
        let attempt = spec.attempt;
        runs::prune(&self.dir, &name, attempt);
        let record = self.record(&name);
        record.image_id.clone_from(&image.id);
        record.image_backoff.reset();
        record.waiting = None;
        record.run = Some(RunRecord {
            attempt,
            id: spec.id,
            sandbox: spec.sandbox,
            pid: 0,
            started_ms: runs::now_ms(),
            exit: None,
            ready: false,
            started: false,
            probes: Vec::new(),
            ended: watch::Sender::new(false),
            condemned: false,
            recovered: None,
        });
        self.tell(false, "Created", format!("Container created: {name}"), Some(&name));
        let Some(sandbox) = &self.sandbox else { return None };
        if let Err(error) = sandbox.start(&name, attempt).await {
            self.tell(true, "Failed", format!("Error: {error}"), Some(&name));
            if let Some(run) = self.records.get_mut(&name).and_then(|record| record.run.as_mut()) {
                runs::lose(&self.dir, &name, run);
            }
            let now = Instant::now();
            return Some(now + self.record(&name).backoff.failed(now, now));
        }
        tracing::info!(container = %name, attempt, "container started");
        None
    }

    /// Runs the postStart hook beside everything else; a container whose hook fails is ended.
    pub(super) fn after_start(&self, container: &Container) {
        let Some(action) =
            container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.post_start.as_ref()?.exec.clone())
        else {
            return;
        };
        let (context, key, name) = (self.context.clone(), self.key.clone(), container.name.clone());
        let target = self.reference(&name);
        let Some(client) = self.sandbox.as_ref().map(|sandbox| sandbox.client().clone()) else { return };
        tokio::spawn(async move {
            if let Err(error) = probes::exec(&context.containers, target, &action).await {
                let event = crate::cluster::PodEvent {
                    warning: true,
                    reason: "FailedPostStartHook",
                    message: format!("PostStartHook failed: {error}"),
                    container: Some(name.clone()),
                };
                context.cluster.event(&key, event);
                let _ = client.ask(&crate::pause::protocol::Request::Signal { container: name, signal: 9 }).await;
            }
        });
    }

    fn try_again_later(&mut self, name: &str) -> Instant {
        let now = Instant::now();
        now + self.record(name).image_backoff.failed(now, now)
    }

    async fn image(&mut self, container: &Container) -> Result<Image, Wake> {
        let (name, reference) = (container.name.clone(), container.image.clone().unwrap_or_default());
        let (images, wanted) = (self.context.images.clone(), reference.clone());
        let found = match tokio::task::spawn_blocking(move || images.resolve(&wanted)).await {
            Ok(found) => found.map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        match found {
            Ok(image) => {
                let message = match &image.stand_in_for {
                    Some(_) => {
                        let stand_in = &image.reference;
                        format!(
                            "Image \"{reference}\" cannot be pulled (no registry): using the built-in stand-in {stand_in}"
                        )
                    }
                    None => format!("Container image \"{reference}\" already present on machine"),
                };
                self.tell(false, "Pulled", message, Some(&name));
                Ok(image)
            }
            Err(error) if container.image_pull_policy.as_deref() == Some("Never") => {
                let message =
                    format!("Container image \"{reference}\" is not present with pull policy of Never: {error}");
                self.tell(true, "ErrImageNeverPull", message.clone(), Some(&name));
                self.record(&name).waiting = Some(("ErrImageNeverPull".to_owned(), message));
                Err(Some(self.try_again_later(&name)))
            }
            Err(error) => {
                let message = format!("Failed to pull image \"{reference}\": {error}");
                self.tell(true, "Failed", message.clone(), Some(&name));
                self.tell(true, "Failed", "Error: ErrImagePull", Some(&name));
                self.record(&name).waiting = Some(("ErrImagePull".to_owned(), message));
                // The state is shown once as it is; the turn after that shows the wait.
                self.try_again_later(&name);
                Err(Some(Instant::now()))
            }
        }
    }

    async fn resolve(&mut self, container: &Container, image: &Image) -> Result<ContainerSpec, String> {
        let attempt = self.record(&container.name).next_attempt();
        let Some(sandbox) = &self.sandbox else { return Err("the pod has no sandbox".to_owned()) };
        let placed = Placed { pod_ips: self.addresses.clone(), host_ips: self.context.node_addresses.clone() };
        let mut objects = Objects::new(self.context.cluster.as_ref(), &self.key.namespace);
        let spec = self
            .plan(container, attempt, image, &placed, sandbox)
            .resolve(&mut objects)
            .await
            .map_err(|error| error.to_string())?;
        container_spec::save(&self.dir, &spec)
            .map_err(|error| format!("cannot write the container's files: {error}"))?;
        Ok(spec)
    }
}

/// As kubelet writes it: `10s`, `1m20s`, `5m0s`.
fn duration(wait: std::time::Duration) -> String {
    match (wait.as_secs() / 60, wait.as_secs() % 60) {
        (0, seconds) => format!("{seconds}s"),
        (minutes, seconds) => format!("{minutes}m{seconds}s"),
    }
}
