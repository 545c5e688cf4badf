//! Pods: one word for what phase, conditions and container states say together.

use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use super::{
    AGE, Column, NAME, Printer, age,
    cells::{list, name, number, or_none, text},
};

pub(super) static PODS: Printer = Printer {
    columns: &[
        NAME,
        Column::text("Ready"),
        Column::text("Status"),
        Column::text("Restarts"),
        AGE,
        Column::text("IP").wide(),
        Column::text("Node").wide(),
        Column::text("Nominated Node").wide(),
        Column::text("Readiness Gates").wide(),
    ],
    cells,
};

fn cells(pod: &Value, now: DateTime<Utc>) -> Vec<Value> {
    let summary = Summary::of(pod);
    let ip = match text(&pod["status"]["podIPs"][0]["ip"]) {
        "" => text(&pod["status"]["podIP"]),
        ip => ip,
    };
    vec![
        name(pod),
        json!(format!("{}/{}", summary.ready, summary.total)),
        json!(summary.reason),
        json!(summary.restarts.render(now)),
        age::of(pod, now),
        or_none(ip),
        or_none(text(&pod["spec"]["nodeName"])),
        or_none(text(&pod["status"]["nominatedNodeName"])),
        readiness_gates(pod),
    ]
}

fn readiness_gates(pod: &Value) -> Value {
    let gates = list(&pod["spec"]["readinessGates"]);
    if gates.is_empty() {
        return or_none("");
    }
    let met = gates.iter().filter(|gate| condition_holds(pod, text(&gate["conditionType"]))).count();
    json!(format!("{met}/{}", gates.len()))
}

fn condition_holds(pod: &Value, kind: &str) -> bool {
    list(&pod["status"]["conditions"]).iter().any(|c| c["type"] == kind && c["status"] == "True")
}

/// What the first columns say.
#[derive(Default)]
struct Summary {
    reason: String,
    ready: usize,
    total: usize,
    restarts: Restarts,
}

/// How often containers were started again, and when one ended last.
#[derive(Default)]
struct Restarts {
    count: i64,
    last: Option<DateTime<Utc>>,
}

impl Restarts {
    fn count(&mut self, container: &Value) {
        self.count += number(&container["restartCount"]);
        self.last = self.last.max(age::parse(&container["lastState"]["terminated"]["finishedAt"]));
    }

    fn render(&self, now: DateTime<Utc>) -> String {
        match self.last {
            Some(last) if self.count > 0 => format!("{} ({} ago)", self.count, age::human(now - last)),
            _ => self.count.to_string(),
        }
    }
}

impl Summary {
    fn of(pod: &Value) -> Self {
        let status = &pod["status"];
        let sidecars = list(&pod["spec"]["initContainers"]).iter().filter(|c| is_sidecar(c)).count();
        let mut summary = Self { total: list(&pod["spec"]["containers"]).len() + sidecars, ..Self::default() };
        summary.reason = match text(&status["reason"]) {
            "" => text(&status["phase"]).to_owned(),
            reason => reason.to_owned(),
        };
        if list(&status["conditions"]).iter().any(|c| c["type"] == "PodScheduled" && c["reason"] == "SchedulingGated") {
            summary.reason = "SchedulingGated".to_owned();
        }
        let initializing = summary.read_init_containers(pod);
        if !initializing || condition_holds(pod, "Initialized") {
            summary.read_containers(pod);
        }
        summary.read_deletion(pod);
        summary
    }

    /// Reads the init containers' states up to the one that the pod waits for; says whether there is one.
    fn read_init_containers(&mut self, pod: &Value) -> bool {
        let specs = list(&pod["spec"]["initContainers"]);
        for (i, container) in list(&pod["status"]["initContainerStatuses"]).iter().enumerate() {
            self.restarts.count(container);
            let sidecar = specs.iter().any(|spec| spec["name"] == container["name"] && is_sidecar(spec));
            let (terminated, waiting) = (&container["state"]["terminated"], &container["state"]["waiting"]);
            if terminated.is_object() && number(&terminated["exitCode"]) == 0 {
                continue;
            }
            if sidecar && container["started"] == true {
                self.ready += usize::from(container["ready"] == true);
                continue;
            }
            self.reason = if terminated.is_object() {
                format!("Init:{}", ending(terminated))
            } else if !matches!(text(&waiting["reason"]), "" | "PodInitializing") {
                format!("Init:{}", text(&waiting["reason"]))
            } else {
                format!("Init:{i}/{}", specs.len())
            };
            return true;
        }
        false
    }

    fn read_containers(&mut self, pod: &Value) {
        let specs = list(&pod["spec"]["initContainers"]);
        // Once the pod is initialised, only the init containers that keep running count.
        self.restarts = Restarts::default();
        for container in list(&pod["status"]["initContainerStatuses"]) {
            if specs.iter().any(|spec| spec["name"] == container["name"] && is_sidecar(spec)) {
                self.restarts.count(container);
            }
        }
        let mut running = false;
        // The first container's word is the last one said.
        for container in list(&pod["status"]["containerStatuses"]).iter().rev() {
            self.restarts.count(container);
            let state = &container["state"];
            if !text(&state["waiting"]["reason"]).is_empty() {
                self.reason = text(&state["waiting"]["reason"]).to_owned();
            } else if state["terminated"].is_object() {
                self.reason = ending(&state["terminated"]);
            } else if container["ready"] == true && state["running"].is_object() {
                running = true;
                self.ready += 1;
            }
        }
        if self.reason == "Completed" && running {
            let word = if condition_holds(pod, "Ready") { "Running" } else { "NotReady" };
            self.reason = word.to_owned();
        }
    }

    fn read_deletion(&mut self, pod: &Value) {
        if pod["metadata"]["deletionTimestamp"].is_null() {
            return;
        }
        if pod["status"]["reason"] == "NodeLost" {
            self.reason = "Unknown".to_owned();
        } else if !matches!(text(&pod["status"]["phase"]), "Succeeded" | "Failed") {
            self.reason = "Terminating".to_owned();
        }
    }
}

/// An init container that keeps running beside the others.
fn is_sidecar(spec: &Value) -> bool {
    spec["restartPolicy"] == "Always"
}

/// How a container ended, in a word.
fn ending(terminated: &Value) -> String {
    match (text(&terminated["reason"]), number(&terminated["signal"])) {
        ("", 0) => format!("ExitCode:{}", number(&terminated["exitCode"])),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.to_owned(),
    }
}
