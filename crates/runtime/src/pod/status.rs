//! A pod's status, out of what is known of its containers: a pure function.

use std::net::IpAddr;

use k8s_openapi::{
    api::core::v1::{
        Container, ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting,
        ContainerStatus, HostIP, Pod, PodCondition, PodIP, PodSpec, PodStatus,
    },
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::Timestamp,
};

use crate::pause::spec::Exit;

mod qos;

pub(crate) use qos::qos_class;

/// What is known of a container.
#[derive(Clone, Debug, Default)]
pub(crate) struct ContainerView {
    /// Newest run; none where it never started.
    pub(crate) run: Option<RunView>,
    /// The run before.
    pub(crate) previous: Option<(String, Exit, String)>,
    /// Why it does not run.
    pub(crate) waiting: Option<(String, String)>,
    pub(crate) restarts: u32,
    pub(crate) ready: bool,
    pub(crate) started: bool,
    pub(crate) image_id: String,
    /// The run was one in a sandbox that is no more, and there is another.
    pub(crate) outdated: bool,
}

/// A run of a container.
#[derive(Clone, Debug)]
pub(crate) struct RunView {
    pub(crate) id: String,
    pub(crate) started_ms: i64,
    pub(crate) exit: Option<Exit>,
    /// Its last words.
    pub(crate) message: String,
}

/// What is known of a pod.
#[derive(Debug)]
pub(crate) struct PodView<'a> {
    pub(crate) pod: &'a Pod,
    pub(crate) containers: Vec<(&'a Container, ContainerView)>,
    pub(crate) init_containers: Vec<(&'a Container, ContainerView)>,
    pub(crate) has_sandbox: bool,
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) node_addresses: Vec<IpAddr>,
    pub(crate) start_time: Timestamp,
    pub(crate) now: Timestamp,
    /// Ended for a reason of the node's (`reason`, `message`): the phase is Failed.
    pub(crate) failure: Option<(String, String)>,
}

/// An init container that runs beside the others (`restartPolicy: Always`).
pub(crate) fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

impl PodView<'_> {
    /// The status that the API should show, without conditions of others; `before` has the times of what has not changed.
    pub(crate) fn status(&self, before: Option<&PodStatus>) -> PodStatus {
        let phase = self.phase();
        let node = |address: &IpAddr| address.to_string();
        let addresses: Vec<PodIP> = self.addresses.iter().map(|address| PodIP { ip: address.to_string() }).collect();
        let empty = PodSpec::default();
        let statuses = |list: &[(&Container, ContainerView)]| {
            Some(list.iter().map(|(container, view)| container_status(container, view)).collect::<Vec<_>>())
                .filter(|list| !list.is_empty())
        };
        PodStatus {
            phase: Some(phase.to_owned()),
            reason: self.failure.as_ref().map(|(reason, _)| reason.clone()),
            message: self.failure.as_ref().map(|(_, message)| message.clone()),
            conditions: Some(self.conditions(phase, before)),
            container_statuses: statuses(&self.containers),
            init_container_statuses: statuses(&self.init_containers),
            pod_ip: addresses.first().map(|first| first.ip.clone()),
            pod_ips: Some(addresses).filter(|addresses| !addresses.is_empty()),
            host_ip: self.node_addresses.first().map(node),
            host_ips: Some(self.node_addresses.iter().map(|address| HostIP { ip: node(address) }).collect()),
            start_time: Some(Time(self.start_time)),
            qos_class: Some(qos_class(self.pod.spec.as_ref().unwrap_or(&empty)).to_owned()),
            ..PodStatus::default()
        }
    }

    pub(crate) fn phase(&self) -> &'static str {
        if self.failure.is_some() {
            return "Failed";
        }
        let policy = self.pod.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref()).unwrap_or("Always");
        let failed = |view: &ContainerView| {
            view.run.as_ref().and_then(|run| run.exit.as_ref()).is_some_and(|exit| exit.code != 0)
        };
        if policy == "Never"
            && self.init_containers.iter().any(|(container, view)| !is_sidecar(container) && failed(view))
        {
            return "Failed";
        }
        if self.containers.iter().any(|(_, view)| view.run.is_none()) {
            return "Pending";
        }
        let ended = self.containers.iter().all(|(_, view)| view.run.as_ref().is_some_and(|run| run.exit.is_some()));
        if !ended || policy == "Always" {
            return "Running";
        }
        match (self.containers.iter().any(|(_, view)| failed(view)), policy) {
            (false, _) => "Succeeded",
            (true, "Never") => "Failed",
            (true, _) => "Running",
        }
    }

    fn conditions(&self, phase: &str, before: Option<&PodStatus>) -> Vec<PodCondition> {
        let over = matches!(phase, "Succeeded" | "Failed");
        let unready: Vec<&str> = self
            .containers
            .iter()
            .filter(|(_, view)| !view.ready)
            .map(|(container, _)| container.name.as_str())
            .collect();
        let uninitialized: Vec<&str> = self
            .init_containers
            .iter()
            .filter(|(container, view)| !initialized(container, view))
            .map(|(c, _)| c.name.as_str())
            .collect();
        let containers_ready = self.verdict(
            over,
            unready.is_empty(),
            "ContainersNotReady",
            format!("containers with unready status: [{}]", unready.join(" ")),
        );
        let gates_open = self.readiness_gates_open();
        let ready = match gates_open {
            true => containers_ready.clone(),
            false => (
                false,
                Some("ReadinessGatesNotReady".to_owned()),
                Some("the pod's readiness gates are not all true".to_owned()),
            ),
        };
        let initialized = if uninitialized.is_empty() {
            (true, (phase == "Succeeded").then(|| "PodCompleted".to_owned()), None)
        } else {
            let message = format!("containers with incomplete status: [{}]", uninitialized.join(" "));
            (false, Some("ContainersNotInitialized".to_owned()), Some(message))
        };
        [
            ("PodReadyToStartContainers", (self.has_sandbox, None, None)),
            ("Initialized", initialized),
            ("Ready", ready),
            ("ContainersReady", containers_ready),
            ("PodScheduled", (true, None, None)),
        ]
        .into_iter()
        .map(|(kind, verdict)| self.condition(kind, verdict, before))
        .collect()
    }

    /// Others open the gates, by conditions in the object (Kubernetes documentation, "Pod readiness").
    fn readiness_gates_open(&self) -> bool {
        let known = self.pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
        let gates = self.pod.spec.as_ref().and_then(|spec| spec.readiness_gates.as_deref()).unwrap_or_default();
        gates.iter().all(|gate| known.iter().any(|known| known.type_ == gate.condition_type && known.status == "True"))
    }

    fn verdict(&self, over: bool, good: bool, reason: &str, message: String) -> (bool, Option<String>, Option<String>) {
        if over {
            let reason = if self.phase() == "Succeeded" { "PodCompleted" } else { "PodFailed" };
            return (false, Some(reason.to_owned()), None);
        }
        if good { (true, None, None) } else { (false, Some(reason.to_owned()), Some(message)) }
    }

    fn condition(
        &self,
        kind: &str,
        verdict: (bool, Option<String>, Option<String>),
        before: Option<&PodStatus>,
    ) -> PodCondition {
        let status = if verdict.0 { "True" } else { "False" };
        let known = before.and_then(|before| before.conditions.as_ref()?.iter().find(|known| known.type_ == kind));
        let since = known.filter(|known| known.status == status).and_then(|known| known.last_transition_time.clone());
        PodCondition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason: verdict.1,
            message: verdict.2,
            last_transition_time: Some(since.unwrap_or(Time(self.now))),
            ..PodCondition::default()
        }
    }
}

/// Whether the API shows what the node determined, as far as the node alone determines it. Times do not count.
pub(crate) fn agrees(own: &PodStatus, shown: &PodStatus) -> bool {
    let conditions = |status: &PodStatus| -> Vec<(String, String, Option<String>)> {
        let all = status.conditions.iter().flatten();
        all.map(|condition| (condition.type_.clone(), condition.status.clone(), condition.reason.clone())).collect()
    };
    let containers = |status: &PodStatus| -> Vec<_> {
        let all = status.init_container_statuses.iter().chain(&status.container_statuses).flatten();
        all.map(|one| (one.name.clone(), one.ready, one.restart_count, one.container_id.clone())).collect()
    };
    let of_shown = conditions(shown);
    own.phase == shown.phase
        && own.reason == shown.reason
        && own.pod_ip == shown.pod_ip
        && own.pod_ips.as_deref().unwrap_or_default() == shown.pod_ips.as_deref().unwrap_or_default()
        && own.host_ip == shown.host_ip
        && containers(own) == containers(shown)
        && conditions(own).iter().all(|condition| of_shown.contains(condition))
}

/// An init container has done its part, in the sandbox that there is.
pub(crate) fn initialized(container: &Container, view: &ContainerView) -> bool {
    if is_sidecar(container) {
        return view.started;
    }
    !view.outdated && view.run.as_ref().and_then(|run| run.exit.as_ref()).is_some_and(|exit| exit.code == 0)
}

fn container_status(container: &Container, view: &ContainerView) -> ContainerStatus {
    let image = container.image.clone().unwrap_or_default();
    let running = view.run.as_ref().is_some_and(|run| run.exit.is_none());
    let last = match (&view.run, &view.waiting) {
        // A container that waits shows the run that ended as its last.
        (Some(run), Some(_)) => run.exit.as_ref().map(|exit| terminated(&run.id, exit, &run.message)),
        _ => view.previous.as_ref().map(|(id, exit, message)| terminated(id, exit, message)),
    };
    ContainerStatus {
        name: container.name.clone(),
        image,
        image_id: view.image_id.clone(),
        container_id: view.run.as_ref().map(|run| format!("podnet://{}", run.id)),
        ready: view.ready,
        started: Some(view.started && running),
        restart_count: i32::try_from(view.restarts).unwrap_or(i32::MAX),
        state: Some(state(view)),
        last_state: Some(last.unwrap_or_default()),
        ..ContainerStatus::default()
    }
}

fn state(view: &ContainerView) -> ContainerState {
    if let Some((reason, message)) = &view.waiting {
        return waiting(reason, message);
    }
    match &view.run {
        None => waiting("ContainerCreating", ""),
        Some(RunView { exit: Some(exit), id, message, .. }) => terminated(id, exit, message),
        Some(run) => ContainerState {
            running: Some(ContainerStateRunning { started_at: Some(Time(time(run.started_ms))) }),
            ..ContainerState::default()
        },
    }
}

fn waiting(reason: &str, message: &str) -> ContainerState {
    let message = Some(message.to_owned()).filter(|message| !message.is_empty());
    ContainerState {
        waiting: Some(ContainerStateWaiting { reason: Some(reason.to_owned()), message }),
        ..ContainerState::default()
    }
}

fn terminated(id: &str, exit: &Exit, message: &str) -> ContainerState {
    let (reason, message) = match &exit.start_error {
        Some(error) => ("StartError", Some(error.clone())),
        None => (
            if exit.code == 0 { "Completed" } else { "Error" },
            Some(message.to_owned()).filter(|message| !message.is_empty()),
        ),
    };
    ContainerState {
        terminated: Some(ContainerStateTerminated {
            container_id: Some(format!("podnet://{id}")),
            exit_code: exit.code,
            signal: None,
            reason: Some(reason.to_owned()),
            message,
            started_at: Some(Time(time(exit.started_ms))),
            finished_at: Some(Time(time(exit.finished_ms))),
        }),
        ..ContainerState::default()
    }
}

/// In whole seconds, as the API's times are.
fn time(ms: i64) -> Timestamp {
    Timestamp::from_second(ms.div_euclid(1000)).unwrap_or(Timestamp::UNIX_EPOCH)
}

#[cfg(test)]
mod tests;
