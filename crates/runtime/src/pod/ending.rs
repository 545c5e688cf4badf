//! The end of containers and of the pod.

use std::time::{Duration, Instant};

use futures::future::join_all;
use k8s_openapi::api::core::v1::Container;
use tokio::{sync::watch, time::timeout};
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument as _;

use super::{
    probes::{self, ProbeKind},
    worker::{Worker, changed, sleep_until},
};
use crate::{
    access::ContainerRef,
    containers::Containers,
    pause::protocol::Request,
    sandbox::{PauseClient, SandboxState},
};

const SIGTERM: i32 = 15;
const SIGKILL: i32 = 9;
/// A pod that was taken out of the API by force still gets a moment (kubelet's minimum).
const FORCED_GRACE: Duration = Duration::from_secs(2);
/// How long an API server that does not answer may hold up an end.
const PATIENCE: Duration = Duration::from_secs(10);

/// Ends one container.
struct Stop {
    client: PauseClient,
    containers: Containers,
    target: ContainerRef,
    container: Container,
    ended: watch::Receiver<bool>,
}

impl Stop {
    /// The preStop hook, SIGTERM, and SIGKILL when `deadline` has come.
    async fn run(mut self, mut deadline: watch::Receiver<Instant>) {
        let gently = async {
            let action = self.container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.pre_stop.as_ref());
            if let Some(action) = action.and_then(|action| action.exec.as_ref())
                && let Err(error) = probes::exec(&self.containers, self.target.clone(), action).await
            {
                tracing::warn!(container = %self.container.name, %error, "preStop hook failed");
            }
            if let Some(sleep) = action.and_then(|action| action.sleep.as_ref()) {
                tokio::time::sleep(Duration::from_secs(u64::try_from(sleep.seconds).unwrap_or(0))).await;
            }
            let name = self.container.name.clone();
            let _ = self.client.ask(&Request::Signal { container: name, signal: SIGTERM }).await;
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = gently => {}
            _ = self.ended.wait_for(|ended| *ended) => return,
            () = passed(&mut deadline) => {}
        }
        let name = self.container.name.clone();
        let _ = self.client.ask(&Request::Signal { container: name, signal: SIGKILL }).await;
    }
}

/// Waits until the newest deadline has passed.
async fn passed(deadline: &mut watch::Receiver<Instant>) {
    loop {
        let at = *deadline.borrow_and_update();
        tokio::select! {
            () = tokio::time::sleep_until(at.into()) => return,
            changed = deadline.changed() => if changed.is_err() {
                tokio::time::sleep_until(at.into()).await;
                return;
            },
        }
    }
}

impl Worker {
    /// Ends a container that a probe condemned; it is started again by the ordinary rules.
    pub(super) fn stop_in_background(&self, container: &Container) {
        let Some(stop) = self.stop(container) else { return };
        let grace = self.pod.spec.as_ref().and_then(|spec| spec.termination_grace_period_seconds).unwrap_or(30);
        let deadline = Instant::now() + Duration::from_secs(u64::try_from(grace).unwrap_or(0));
        tokio::spawn(stop.run(watch::channel(deadline).1));
    }

    fn stop(&self, container: &Container) -> Option<Stop> {
        let run = self.records.get(&container.name)?.run.as_ref().filter(|run| run.exit.is_none())?;
        Some(Stop {
            client: self.sandbox.as_ref()?.client().clone(),
            containers: self.context.containers.clone(),
            target: self.reference(&container.name),
            container: container.clone(),
            ended: run.ended.subscribe(),
        })
    }

    /// Ends the pod: its containers, its network, its directory, its object. Until a container has ended it is ready for as long as its
    /// readiness probe says so, as with kubelets (KEP-1669): who is told to end may answer on, and flows that lead there go on meanwhile.
    pub(super) async fn end(&mut self, gone: bool) {
        self.stopping = true;
        for record in self.records.values_mut() {
            if let Some(run) = &mut record.run {
                run.probes.retain(|probe| !gone && probe.is_of_readiness());
                run.ready &= !gone;
            }
        }
        self.publish_now().await;
        let gone = self.end_containers(gone).await;
        self.publish_now().await;
        self.give_back(gone).await;
        self.context.containers.forget(&self.key);
        if let Err(error) = tokio::fs::remove_dir_all(&self.dir).await
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(dir = %self.dir.display(), %error, "the pod's directory stays behind");
        }
        self.remove_object(gone).await;
        tracing::info!("pod ended");
    }

    async fn publish_now(&mut self) {
        self.publish_due = None;
        if timeout(PATIENCE, self.publish()).await.is_err() {
            tracing::warn!("status not written: the API server does not answer");
            self.publish_due = Some(Instant::now());
        }
    }

    async fn end_containers(&mut self, mut gone: bool) -> bool {
        let (deadline, deadlines) = watch::channel(self.deadline(gone));
        let containers: Vec<Container> = self.all_containers().cloned().collect();
        let stops: Vec<_> = containers.iter().filter_map(|container| self.stop(container)).collect();
        for stop in &stops {
            self.tell(
                false,
                "Killing",
                format!("Stopping container {}", stop.container.name),
                Some(&stop.container.name),
            );
        }
        // A task of its own: signals do not wait for an API server that does not answer.
        let stops = join_all(stops.into_iter().map(|stop| stop.run(deadlines.clone())));
        let mut stopped = AbortOnDropHandle::new(tokio::spawn(stops.in_current_span()));
        let mut all_asked = false;
        while self.records.values().any(super::runs::Record::running) && self.sandbox.is_some() {
            tokio::select! {
                changed = self.desired.changed(), if !gone => {
                    if changed.is_ok() {
                        let desired = self.desired.borrow().clone();
                        gone = desired.gone;
                        self.pod = desired.pod;
                        // A statement of its own: a channel that is still borrowed cannot be sent to.
                        let agreed = *deadline.borrow();
                        deadline.send_replace(self.deadline(gone).min(agreed));
                    } else {
                        gone = true;
                    }
                }
                () = changed(self.sandbox.as_mut()) => {
                    if self.sandbox.as_ref().is_some_and(|sandbox| *sandbox.state.borrow() == SandboxState::Dead) {
                        self.lose_running();
                        break;
                    }
                    self.observe().await;
                    // Each end is shown when it comes: who waits for the others is ready no more.
                    if !gone {
                        self.publish().await;
                    }
                }
                Some(outcome) = self.outcomes.1.recv() => {
                    // What was found before counts no more: nothing is started again.
                    if outcome.kind == ProbeKind::Readiness {
                        self.probed(outcome).await;
                        self.publish().await;
                    }
                }
                () = sleep_until(self.publish_due), if !gone => self.publish().await,
                _ = &mut stopped, if !all_asked => all_asked = true,
            }
        }
        gone
    }

    fn deadline(&self, gone: bool) -> Instant {
        if gone {
            return Instant::now() + FORCED_GRACE;
        }
        let own = self.pod.spec.as_ref().and_then(|spec| spec.termination_grace_period_seconds);
        let grace = self.pod.metadata.deletion_grace_period_seconds.or(own).unwrap_or(30);
        Instant::now() + Duration::from_secs(u64::try_from(grace).unwrap_or(0))
    }

    /// Gives back network, namespace and cgroup, and does not rest before it is done: what is not given back leaks.
    async fn give_back(&mut self, mut gone: bool) {
        self.setup_backoff.reset();
        loop {
            let Err(error) = self.context.sandboxes.tear_down(&self.dir).await else { break };
            tracing::warn!(%error, "the sandbox is not ended yet");
            self.tell(true, "FailedKillPod", format!("error killing pod: {error}"), None);
            let now = Instant::now();
            let wait = self.setup_backoff.failed(now, now);
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                changed = self.desired.changed(), if !gone => gone = changed.is_err() || self.desired.borrow().gone,
            }
        }
        self.sandbox = None;
    }

    async fn remove_object(&mut self, gone: bool) {
        if gone {
            return;
        }
        self.setup_backoff.reset();
        while let Err(error) = self.context.cluster.remove(&self.key).await {
            tracing::warn!(%error, "the pod's object cannot be removed yet");
            let now = Instant::now();
            tokio::time::sleep(self.setup_backoff.failed(now, now)).await;
        }
    }
}
