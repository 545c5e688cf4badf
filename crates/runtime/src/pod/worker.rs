//! The loop of one pod.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use k8s_openapi::{
    api::core::v1::{Container, Pod, PodSpec, PodStatus},
    jiff::Timestamp,
};
use tokio::sync::{mpsc, watch};
use tracing::{Instrument, info_span};

use super::{Desired, NetworkState, PodContext, backoff::Backoff, probes::ProbeOutcome, runs::Record, volumes::Tokens};
use crate::{
    cluster::{PodEvent, PodKey, events::timestamp},
    sandbox::{Sandbox, SandboxState},
};

/// One pod's worker.
pub(crate) struct Worker {
    pub(super) context: Arc<PodContext>,
    pub(super) key: PodKey,
    pub(super) pod: Arc<Pod>,
    pub(super) dir: PathBuf,
    pub(super) desired: watch::Receiver<Desired>,
    pub(super) sandbox: Option<Sandbox>,
    pub(super) setup_backoff: Backoff,
    pub(super) records: BTreeMap<String, Record>,
    pub(super) outcomes: (mpsc::Sender<ProbeOutcome>, mpsc::Receiver<ProbeOutcome>),
    pub(super) published: Option<PodStatus>,
    /// The version of the object that the last published status made.
    pub(super) written: Option<String>,
    /// When a status that somebody else had overwritten was written again.
    pub(super) corrected: Option<Instant>,
    pub(super) start_time: Timestamp,
    /// Addresses are shown also after the sandbox has gone.
    pub(super) addresses: Vec<std::net::IpAddr>,
    /// When volumes that come from the API are to be looked at again.
    pub(super) volumes_due: Option<Instant>,
    pub(super) failure: Option<(String, String)>,
    /// Service account tokens in its volumes.
    pub(super) tokens: Tokens,
    /// The status could not be written: when to try again.
    pub(super) publish_due: Option<Instant>,
    pub(super) stopping: bool,
}

/// What a turn of the loop ends with.
pub(super) type Wake = Option<Instant>;

/// The earlier of two times to wake.
pub(super) fn sooner(one: Wake, other: Wake) -> Wake {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

impl Worker {
    /// A worker for a pod; `desired` says what the API wants of it.
    pub(crate) fn new(context: Arc<PodContext>, key: PodKey, mut desired: watch::Receiver<Desired>) -> Self {
        let pod = desired.borrow_and_update().pod.clone();
        let known = pod.status.as_ref().and_then(|status| status.start_time.clone());
        Self {
            dir: context.state_dir.join(&key.uid),
            start_time: known.map_or_else(|| timestamp(std::time::SystemTime::now()), |time| time.0),
            context,
            key,
            pod,
            desired,
            sandbox: None,
            setup_backoff: Backoff::of_setup(),
            records: BTreeMap::new(),
            outcomes: mpsc::channel(16),
            published: None,
            written: None,
            corrected: None,
            addresses: Vec::new(),
            volumes_due: None,
            failure: None,
            tokens: Tokens::default(),
            publish_due: None,
            stopping: false,
        }
    }

    /// Works until the pod is gone, or until the sender of `desired` is: then the pod keeps running, for the next runtime to adopt.
    pub(crate) async fn run(mut self) {
        let span = info_span!("pod", pod = %self.key);
        async move {
            self.recover().await;
            while self.turn().await {}
        }
        .instrument(span)
        .await;
    }

    /// One turn; false where the work is over.
    async fn turn(&mut self) -> bool {
        let desired = self.desired.borrow_and_update().clone();
        self.pod = desired.pod;
        self.observe().await;
        if desired.gone || self.pod.metadata.deletion_timestamp.is_some() {
            self.end(desired.gone).await;
            return false;
        }
        let wake = self.sync().await;
        self.publish().await;
        let wake = sooner(wake, sooner(self.volumes_due, self.publish_due));
        let waits_for_network =
            self.sandbox.is_none() && matches!(*self.context.network.borrow(), NetworkState::NotReady(_));
        let mut network = self.context.network.clone();
        network.mark_unchanged();
        tokio::select! {
            changed = self.desired.changed() => return changed.is_ok(),
            () = changed(self.sandbox.as_mut()) => {}
            Some(outcome) = self.outcomes.1.recv() => self.probed(outcome).await,
            Ok(()) = network.changed(), if waits_for_network => {}
            () = sleep_until(wake) => {}
        }
        true
    }

    /// Finds what an earlier runtime left.
    async fn recover(&mut self) {
        let names: Vec<String> = self.all_containers().map(|container| container.name.clone()).collect();
        self.records = names
            .into_iter()
            .map(|name| {
                let record = Record::recover(&self.dir, &name);
                (name, record)
            })
            .collect();
        let known = self.pod.status.clone().unwrap_or_default();
        for shown in known.container_statuses.into_iter().chain(known.init_container_statuses).flatten() {
            let run = self.records.get_mut(&shown.name).and_then(|record| record.run.as_mut());
            if let Some(run) = run.filter(|run| shown.container_id == Some(format!("podnet://{}", run.id))) {
                run.recovered = Some(shown.ready);
            }
        }
        let images = self.context.images.clone();
        for container in self.all_containers().cloned().collect::<Vec<_>>() {
            let reference = container.image.clone().unwrap_or_default();
            let images = images.clone();
            let found = tokio::task::spawn_blocking(move || images.resolve(&reference)).await;
            if let (Ok(Ok(image)), Some(record)) = (found, self.records.get_mut(&container.name))
                && record.run.is_some()
            {
                record.image_id = image.id;
            }
        }
        self.sandbox = self.context.sandboxes.adopt(&self.dir).await;
        match &self.sandbox {
            Some(sandbox) => {
                tracing::info!(id = %sandbox.spec.id, "sandbox adopted");
                self.addresses = self.addresses_of(sandbox);
                self.volumes_due = Some(Instant::now());
                self.have_etc().await;
            }
            None => self.drop_sandbox().await,
        }
    }

    pub(super) fn spec(&self) -> PodSpec {
        self.pod.spec.clone().unwrap_or_default()
    }

    /// Init containers first.
    pub(super) fn all_containers(&self) -> impl Iterator<Item = &Container> {
        let spec = self.pod.spec.as_ref();
        spec.into_iter().flat_map(|spec| spec.init_containers.iter().flatten().chain(&spec.containers))
    }

    pub(super) fn on_host_network(&self) -> bool {
        self.pod.spec.as_ref().and_then(|spec| spec.host_network).unwrap_or(false)
    }

    pub(super) fn addresses_of(&self, sandbox: &Sandbox) -> Vec<std::net::IpAddr> {
        if self.on_host_network() { self.context.node_addresses.clone() } else { sandbox.addresses.clone() }
    }

    pub(super) fn tell(
        &self,
        warning: bool,
        reason: &'static str,
        message: impl Into<String>,
        container: Option<&str>,
    ) {
        let event = PodEvent { warning, reason, message: message.into(), container: container.map(Into::into) };
        self.context.cluster.event(&self.key, event);
    }

    /// Ends what is left of the sandbox, if it can be done now; otherwise it is tried again with the next one.
    pub(super) async fn drop_sandbox(&mut self) {
        self.sandbox = None;
        if let Err(error) = self.context.sandboxes.tear_down(&self.dir).await {
            tracing::warn!(%error, "what is left of a sandbox could not be undone");
        }
        self.lose_running();
    }

    /// Takes down that what still ran has ended, with its pause.
    pub(super) fn lose_running(&mut self) {
        for (name, record) in &mut self.records {
            if let Some(run) = record.run.as_mut().filter(|run| run.exit.is_none()) {
                super::runs::lose(&self.dir, name, run);
            }
        }
    }
}

/// Waits for news of a sandbox; forever where there is none.
pub(super) async fn changed(sandbox: Option<&mut Sandbox>) {
    match sandbox {
        // A sender that is gone has said `Dead` before.
        Some(sandbox)
            if *sandbox.state.borrow() != SandboxState::Dead || sandbox.state.has_changed().unwrap_or(false) =>
        {
            let _ = sandbox.state.changed().await;
        }
        _ => std::future::pending().await,
    }
}

pub(super) async fn sleep_until(wake: Wake) {
    match wake {
        // A little late rather than a little early, which would be a turn for nothing.
        Some(at) => tokio::time::sleep_until((at + Duration::from_millis(1)).into()).await,
        None => std::future::pending().await,
    }
}
