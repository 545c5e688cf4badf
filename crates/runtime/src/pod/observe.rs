//! What happened to the containers: ends, losses, probes.

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Container;

use super::{
    probes::{self, ProbeKind, ProbeOutcome, ProbeTarget},
    runs::{self, RunRecord},
    worker::Worker,
};
use crate::{access::ContainerRef, pause::protocol::ContainerState, sandbox::SandboxState};

impl Worker {
    /// Takes over what pause says.
    pub(super) async fn observe(&mut self) {
        let Some(sandbox) = &mut self.sandbox else { return };
        let state = sandbox.state.borrow_and_update().clone();
        match state {
            SandboxState::Alive(containers) => {
                for state in containers {
                    self.take_state(state);
                }
                self.lose_unknown();
            }
            SandboxState::Dead => {
                self.tell(false, "SandboxChanged", "Pod sandbox changed, it will be killed and re-created.", None);
                tracing::warn!("pause is gone: the sandbox is made anew");
                self.drop_sandbox().await;
            }
        }
    }

    fn take_state(&mut self, state: ContainerState) {
        let name = state.name.clone();
        let Some(run) = self.records.get_mut(&name).and_then(|record| record.run.as_mut()) else { return };
        if run.attempt != state.attempt || run.exit.is_some() {
            return;
        }
        run.started_ms = state.started_ms;
        let new = run.pid == 0 && state.pid != 0;
        let first = run.recovered.is_none();
        run.pid = state.pid;
        match state.exit {
            Some(exit) => {
                if let Some(error) = &exit.start_error {
                    let message = format!("Error: failed to start container \"{name}\": {error}");
                    self.tell(true, "Failed", message, Some(&name));
                } else if new && first {
                    self.tell(false, "Started", format!("Container started: {name}"), Some(&name));
                }
                let Some(record) = self.records.get_mut(&name) else { return };
                let Some(run) = record.run.as_mut() else { return };
                let ran = Duration::from_millis(u64::try_from(exit.finished_ms - exit.started_ms).unwrap_or(0));
                let now = Instant::now();
                tracing::info!(container = %name, code = exit.code, "container ended");
                run.exit = Some(exit);
                run.probes.clear();
                run.ended.send_replace(true);
                record.backoff.failed(now.checked_sub(ran).unwrap_or(now), now);
            }
            None if new => {
                self.start_probes(&name);
                // Hooks and probes find the container by what is published.
                self.publish_handles();
                if first {
                    self.tell(false, "Started", format!("Container started: {name}"), Some(&name));
                    if let Some(container) = self.all_containers().find(|container| container.name == name).cloned() {
                        self.after_start(&container);
                    }
                }
            }
            None => {}
        }
    }

    /// Runs of an earlier runtime that pause has never heard of did not start: that runtime ended between writing their file and asking
    /// for them. What this one asked for is always heard of, though maybe a little later than the answer to the request.
    fn lose_unknown(&mut self) {
        let Some(sandbox) = &self.sandbox else { return };
        let SandboxState::Alive(containers) = sandbox.state.borrow().clone() else { return };
        for (name, record) in &mut self.records {
            let Some(run) = record.run.as_mut().filter(|run| run.exit.is_none() && run.recovered.is_some()) else {
                continue;
            };
            if !containers.iter().any(|known| known.name == *name && known.attempt >= run.attempt) {
                runs::lose(&self.dir, name, run);
            }
        }
    }

    /// Begins to probe a container; without a startup probe it counts as started, without a readiness probe as ready.
    fn start_probes(&mut self, name: &str) {
        let Some(container) = self.all_containers().find(|container| container.name == name).cloned() else { return };
        let Some(target) = self.target(name) else { return };
        let Some(run) = self.records.get_mut(name).and_then(|record| record.run.as_mut()) else { return };
        let was_ready = run.recovered == Some(true);
        match container.startup_probe.clone().filter(|_| !was_ready) {
            Some(probe) => run.probes = vec![probes::start(target, &container, ProbeKind::Startup, probe)],
            None => {
                started(run, &target, &container);
                // A restart of the runtime takes nobody out of service: the next probe decides.
                run.ready |= was_ready;
            }
        }
    }

    pub(super) fn target(&self, name: &str) -> Option<ProbeTarget> {
        let run = self.records.get(name)?.run.as_ref()?;
        Some(ProbeTarget {
            containers: self.context.containers.clone(),
            container: self.reference(name),
            name: name.to_owned(),
            attempt: run.attempt,
            address: self.addresses.first().copied().or_else(|| self.context.node_addresses.first().copied())?,
            outcomes: self.outcomes.0.clone(),
        })
    }

    pub(super) fn reference(&self, name: &str) -> ContainerRef {
        ContainerRef {
            namespace: self.key.namespace.clone(),
            pod: self.key.name.clone(),
            container: Some(name.to_owned()),
        }
    }

    /// Takes over what a probe found.
    pub(super) async fn probed(&mut self, outcome: ProbeOutcome) {
        let name = outcome.container.clone();
        let Some(target) = self.target(&name) else { return };
        let Some(container) = self.all_containers().find(|container| container.name == name).cloned() else { return };
        let current = |run: &&mut RunRecord| run.attempt == outcome.attempt && run.exit.is_none() && !run.condemned;
        let Some(run) = self.records.get_mut(&name).and_then(|record| record.run.as_mut()).filter(current) else {
            return;
        };
        match (outcome.kind, outcome.verdict) {
            (ProbeKind::Startup, Some(true)) => started(run, &target, &container),
            (ProbeKind::Readiness, Some(ready)) => run.ready = ready,
            (ProbeKind::Startup | ProbeKind::Liveness, Some(false)) => run.condemned = true,
            (ProbeKind::Liveness, Some(true)) | (_, None) => {}
        }
        let condemned = run.condemned;
        if let Some(failure) = &outcome.failure {
            self.tell(true, "Unhealthy", format!("{} probe failed: {failure}", outcome.kind.name()), Some(&name));
        }
        if condemned {
            let kind = outcome.kind.name().to_lowercase();
            self.tell(
                false,
                "Killing",
                format!("Container {name} failed {kind} probe, will be restarted"),
                Some(&name),
            );
            self.stop_in_background(&container);
        }
    }
}

fn started(run: &mut RunRecord, target: &ProbeTarget, container: &Container) {
    run.started = true;
    run.ready = container.readiness_probe.is_none();
    let kinds = [(ProbeKind::Readiness, &container.readiness_probe), (ProbeKind::Liveness, &container.liveness_probe)];
    run.probes = kinds
        .into_iter()
        .filter_map(|(kind, probe)| Some(probes::start(target.clone(), container, kind, probe.clone()?)))
        .collect();
}
