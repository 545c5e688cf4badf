//! Waiting for the cluster: each thing is asked for again until it is there or time is up, whatever goes wrong meanwhile.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use k8s_openapi::api::{coordination::v1::Lease, core::v1::Node};
use kube::{Api, Client, ResourceExt, api::ListParams};

use super::dns_probe;
use crate::{
    cluster::Cluster,
    lock, logs,
    report::{Doing, Failure},
};

/// Between two looks at something that is awaited.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How long one attempt may take: a server that accepted a connection and says nothing is asked anew.
const ATTEMPT: Duration = Duration::from_secs(10);
/// How long the first question to cluster DNS waits for its answer, and how long a later one at most.
const DNS_PATIENCE: (Duration, Duration) = (Duration::from_millis(30), Duration::from_secs(1));
/// A supervisor that has no lock by now has ended.
const SUPERVISOR_STARTS: Duration = Duration::from_secs(5);
/// How much of a log a failure shows.
const LOG_LINES: usize = 8;
/// Where nodes renew their leases.
const LEASES: &str = "kube-node-lease";

/// When to give up.
pub(super) struct Deadline {
    started: Instant,
    patience: Duration,
}

impl Deadline {
    pub(super) fn new(started: Instant, patience: Duration) -> Self {
        Self { started, patience }
    }

    /// Attempts until it is done; at the end of the patience, what the last attempt said.
    pub(super) async fn until<T>(
        &self,
        what: &str,
        mut attempt: impl AsyncFnMut() -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        loop {
            // The last attempt gets a chance as well, of one look.
            let time = self.left().clamp(LOOK_EVERY, ATTEMPT);
            let failure = match tokio::time::timeout(time, attempt()).await {
                Ok(Ok(done)) => return Ok(done),
                Ok(Err(failure)) => failure,
                Err(_) => Failure::new(format!("{what}: no answer within {:.1} s", time.as_secs_f64()))
                    .remedy("look at: podnet logs apiserver"),
            };
            if self.left().is_zero() {
                return Err(failure);
            }
            if self.started.elapsed() > SUPERVISOR_STARTS && !lock::supervisor_lives() {
                return Err(Failure::new("the supervisor ended, and nothing runs without it")
                    .detail(logs::last_lines("supervisor", LOG_LINES))
                    .remedy("mend the cause and run `podnet up` again"));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    fn left(&self) -> Duration {
        self.patience.saturating_sub(self.started.elapsed())
    }
}

/// Nodes that did not run when `up` began. Their last words in the API are older than `since`, and nothing that they say now.
pub(super) struct Stale {
    pub(super) since: SystemTime,
    pub(super) nodes: BTreeSet<String>,
}

impl Stale {
    /// A node renews its lease after it wrote its status, so a renewed lease means that the status is of this life.
    fn holds_for(&self, node: &str, leases: &[Lease]) -> bool {
        let since = self.since.duration_since(UNIX_EPOCH).unwrap_or_default().as_micros();
        let renewed = leases.iter().find(|lease| lease.name_any() == node).and_then(|lease| {
            let renewed = lease.spec.as_ref()?.renew_time.as_ref()?;
            u128::try_from(renewed.0.as_microsecond()).ok()
        });
        self.nodes.contains(node) && renewed.is_none_or(|renewed| renewed < since)
    }
}

pub(super) async fn api(client: &Client, deadline: &Deadline) -> Result<(), Failure> {
    let attempt = async || {
        client.apiserver_version().await.map(drop).map_err(|error| {
            Failure::because("the API server does not answer", error).remedy("look at: podnet logs apiserver")
        })
    };
    let answer = deadline.until("API server", attempt).await;
    answer.map_err(|failure| failure.detail(logs::last_lines("apiserver", LOG_LINES)))
}

pub(super) async fn nodes(
    client: &Client,
    cluster: &Cluster,
    stale: &Stale,
    deadline: &Deadline,
) -> Result<(), Failure> {
    let (nodes, leases) = (Api::<Node>::all(client.clone()), Api::<Lease>::namespaced(client.clone(), LEASES));
    let expected: Vec<String> = cluster.places().into_iter().map(|place| place.name).collect();
    let everything = ListParams::default();
    let attempt = async || {
        // The leases first: a status that is read after a renewed lease is not an older one.
        let leases = leases.list(&everything).await.doing(|| "cannot list the nodes' leases".into())?;
        let present = nodes.list(&everything).await.doing(|| "cannot list the nodes".into())?;
        let missing: Vec<String> = expected
            .iter()
            .filter_map(|name| {
                let node = present.iter().find(|node| node.name_any() == *name);
                unready(node, stale.holds_for(name, &leases.items)).map(|why| format!("{name} ({why})"))
            })
            .collect();
        let Some(first) = missing.first() else { return Ok(()) };
        Err(Failure::new(format!("not every node became Ready: {}", missing.join(", ")))
            .remedy(format!("look at: podnet logs {}", first.split(' ').next().unwrap_or("node1"))))
    };
    deadline.until("nodes", attempt).await
}

/// Why a node is not Ready; none when it is.
fn unready(node: Option<&Node>, stale: bool) -> Option<String> {
    let Some(node) = node else { return Some("not registered".to_owned()) };
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
    match conditions.and_then(|all| all.iter().find(|condition| condition.type_ == "Ready")) {
        Some(ready) if ready.status == "True" && stale => Some("not heard of since it was started".to_owned()),
        Some(ready) if ready.status == "True" => None,
        Some(ready) => Some(ready.message.clone().unwrap_or_else(|| "not ready".to_owned())),
        None => Some("no Ready condition".to_owned()),
    }
}

pub(super) async fn dns(cluster: &Cluster, deadline: &Deadline) -> Result<(), Failure> {
    // A question that came before the node's rules is lost, so the next one soon follows; a slow machine gets more time for each.
    let mut patience = DNS_PATIENCE.0;
    let attempt = async || {
        let (cluster, time) = (cluster.clone(), patience);
        patience = DNS_PATIENCE.1.min(time * 2);
        let asked = tokio::task::spawn_blocking(move || dns_probe::ask(&cluster, time)).await;
        asked.doing(|| "cannot ask cluster DNS".into())?
    };
    let answer = deadline.until("cluster DNS", attempt).await;
    answer.map_err(|failure| failure.remedy("look at: kubectl -n kube-system describe pods -l k8s-app=kube-dns"))
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use serde_json::json;

    use super::*;

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
    }

    #[test]
    fn an_error_that_passes_does_not_end_the_wait() {
        let deadline = Deadline::new(Instant::now(), Duration::from_secs(4));
        let attempts = Cell::new(0);
        let attempt = async || {
            attempts.set(attempts.get() + 1);
            if attempts.get() < 3 { Err(Failure::new("not yet")) } else { Ok(attempts.get()) }
        };
        assert_eq!(runtime().block_on(deadline.until("test", attempt)).unwrap(), 3);
    }

    #[test]
    fn a_silent_server_does_not_outlast_the_patience() {
        let began = Instant::now();
        let deadline = Deadline::new(began, Duration::from_millis(200));
        let silent = async || std::future::pending::<Result<(), Failure>>().await;
        let message = runtime().block_on(deadline.until("nodes", silent)).unwrap_err().to_string();
        assert!(message.contains("nodes: no answer"), "{message}");
        assert!(began.elapsed() < Duration::from_secs(3));
    }

    #[test]
    fn a_node_that_was_started_now_is_believed_once_its_lease_is_newer() {
        let lease = |renewed: &str| -> Vec<Lease> {
            let object = json!({"metadata": {"name": "node1"}, "spec": {"renewTime": renewed}});
            vec![serde_json::from_value(object).unwrap()]
        };
        // 2026-01-01T00:00:00Z
        let since = UNIX_EPOCH + Duration::from_secs(1_767_225_600);
        let stale = Stale { since, nodes: ["node1".to_owned()].into() };
        assert!(stale.holds_for("node1", &[]));
        assert!(stale.holds_for("node1", &lease("2025-12-31T23:59:59.999999Z")));
        assert!(!stale.holds_for("node1", &lease("2026-01-01T00:00:00.000001Z")));
        assert!(!Stale { since, nodes: BTreeSet::new() }.holds_for("node1", &[]));
    }
}
