//! The Node object and its lease: that the node is there, what it has, and whether it is ready.

use std::{
    collections::BTreeMap,
    fs,
    time::{Duration, SystemTime},
};

use k8s_openapi::{
    api::{
        coordination::v1::{Lease, LeaseSpec},
        core::v1::{DaemonEndpoint, Node, NodeAddress, NodeCondition, NodeDaemonEndpoints, NodeStatus, NodeSystemInfo},
    },
    apimachinery::pkg::{
        api::resource::Quantity,
        apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference, Time},
    },
    jiff::Timestamp,
    serde_json::json,
};
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
};
use tokio::sync::watch;
use tracing::{debug, info, warn};

use crate::{
    cluster::{api::said, events::timestamp},
    config::NodeConfig,
    pod::{NetworkState, fields::memory_bytes},
};

/// Where nodes' leases are.
const LEASES: &str = "kube-node-lease";
/// kubelet's numbers: a lease of 40 s, renewed four times in that, and a status at least each 5 min.
const LEASE_SECONDS: i32 = 40;
const RENEWAL: Duration = Duration::from_secs(10);
const STATUS_EACH: Duration = Duration::from_secs(300);
/// Between attempts while the API server does not answer; with `podnet up` it starts together with the nodes.
const AGAIN: Duration = Duration::from_millis(100);

/// Keeps the node registered, for ever.
pub(super) async fn keep(client: Client, config: NodeConfig, mut network: watch::Receiver<NetworkState>) {
    let registration =
        Registration { nodes: Api::all(client.clone()), leases: Api::namespaced(client, LEASES), config };
    let uid = loop {
        match registration.register().await {
            Ok(uid) => break uid,
            Err(error) => {
                debug!(error = %said(&error), "the node cannot be registered yet");
                tokio::time::sleep(AGAIN).await;
            }
        }
    };
    info!(node = %registration.config.node_name, "node registered");
    let mut renewals = tokio::time::interval(RENEWAL);
    let mut status_due = tokio::time::Instant::now();
    let mut since: Option<(bool, Timestamp)> = None;
    loop {
        tokio::select! {
            _ = renewals.tick() => {
                if let Err(error) = registration.renew(&uid).await {
                    debug!(error = %said(&error), "the lease was not renewed");
                }
            }
            () = tokio::time::sleep_until(status_due) => {
                let state = network.borrow_and_update().clone();
                status_due = tokio::time::Instant::now() + match registration.report(&state, &mut since).await {
                    Ok(()) => STATUS_EACH,
                    Err(error) => {
                        warn!(error = %said(&error), "the node's status was not written");
                        AGAIN
                    }
                };
            }
            changed = network.changed() => match changed {
                Ok(()) => status_due = tokio::time::Instant::now(),
                Err(_) => return,
            },
        }
    }
}

struct Registration {
    nodes: Api<Node>,
    leases: Api<Lease>,
    config: NodeConfig,
}

impl Registration {
    /// Makes the Node object, or brings the labels of one that is there up to date; answers its uid.
    async fn register(&self) -> Result<String, kube::Error> {
        let name = &self.config.node_name;
        let labels = self.labels();
        let node = match self.nodes.get_opt(name).await? {
            Some(_) => {
                let patch = json!({ "metadata": { "labels": labels } });
                self.nodes.patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await?
            }
            None => {
                let metadata = ObjectMeta { name: Some(name.clone()), labels: Some(labels), ..ObjectMeta::default() };
                self.nodes.create(&PostParams::default(), &Node { metadata, ..Node::default() }).await?
            }
        };
        Ok(node.metadata.uid.unwrap_or_default())
    }

    fn labels(&self) -> BTreeMap<String, String> {
        let mut labels = self.config.labels.clone();
        let arch = architecture();
        for (name, value) in [
            ("kubernetes.io/hostname", self.config.node_name.as_str()),
            ("kubernetes.io/os", "linux"),
            ("kubernetes.io/arch", arch),
            ("beta.kubernetes.io/os", "linux"),
            ("beta.kubernetes.io/arch", arch),
        ] {
            labels.insert(name.to_owned(), value.to_owned());
        }
        labels
    }

    async fn renew(&self, uid: &str) -> Result<(), kube::Error> {
        let name = &self.config.node_name;
        let now = MicroTime(now_precise());
        let patch =
            json!({ "spec": { "holderIdentity": name, "leaseDurationSeconds": LEASE_SECONDS, "renewTime": now } });
        match self.leases.patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await {
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            other => return other.map(drop),
        }
        let owner = OwnerReference {
            api_version: "v1".into(),
            kind: "Node".into(),
            name: name.clone(),
            uid: uid.to_owned(),
            ..OwnerReference::default()
        };
        let lease = Lease {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                owner_references: Some(vec![owner]),
                ..ObjectMeta::default()
            },
            spec: Some(LeaseSpec {
                holder_identity: Some(name.clone()),
                lease_duration_seconds: Some(LEASE_SECONDS),
                renew_time: Some(now),
                ..LeaseSpec::default()
            }),
        };
        self.leases.create(&PostParams::default(), &lease).await.map(drop)
    }

    /// Writes the status; `since` keeps when the readiness last changed.
    async fn report(&self, network: &NetworkState, since: &mut Option<(bool, Timestamp)>) -> Result<(), kube::Error> {
        let now = timestamp(SystemTime::now());
        let ready = matches!(network, NetworkState::Ready(_));
        let changed = since.filter(|(known, _)| *known == ready).map_or(now, |(_, at)| at);
        *since = Some((ready, changed));
        let patch = json!({ "status": self.status(network, now, changed) });
        self.nodes.patch_status(&self.config.node_name, &PatchParams::default(), &Patch::Merge(&patch)).await.map(drop)
    }

    fn status(&self, network: &NetworkState, now: Timestamp, changed: Timestamp) -> NodeStatus {
        let config = &self.config;
        let address = |kind: &str, address: String| NodeAddress { type_: kind.to_owned(), address };
        let resources = BTreeMap::from([
            (
                "cpu".to_owned(),
                Quantity(std::thread::available_parallelism().map_or(1, std::num::NonZero::get).to_string()),
            ),
            ("memory".to_owned(), Quantity(format!("{}Ki", memory_bytes() / 1024))),
            ("pods".to_owned(), Quantity(config.max_pods.to_string())),
        ]);
        NodeStatus {
            addresses: Some(vec![
                address("InternalIP", config.node_address.to_string()),
                address("Hostname", config.node_name.clone()),
            ]),
            capacity: Some(resources.clone()),
            allocatable: Some(resources),
            conditions: Some(conditions(network, now, changed)),
            daemon_endpoints: Some(NodeDaemonEndpoints {
                kubelet_endpoint: Some(DaemonEndpoint { port: i32::from(NodeConfig::PORT) }),
            }),
            node_info: Some(system_info()),
            ..NodeStatus::default()
        }
    }
}

fn conditions(network: &NetworkState, now: Timestamp, changed: Timestamp) -> Vec<NodeCondition> {
    let condition = |kind: &str, status: &str, reason: &str, message: String| NodeCondition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message),
        last_heartbeat_time: Some(Time(now)),
        last_transition_time: Some(Time(changed)),
    };
    let ready = match network {
        NetworkState::Ready(_) => condition("Ready", "True", "KubeletReady", "podnet is posting ready status".into()),
        NetworkState::NotReady(reason) => {
            let message = format!(
                "container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady message:{reason}"
            );
            condition("Ready", "False", "KubeletNotReady", message)
        }
    };
    vec![
        condition(
            "MemoryPressure",
            "False",
            "KubeletHasSufficientMemory",
            "the node has sufficient memory available".into(),
        ),
        condition("DiskPressure", "False", "KubeletHasNoDiskPressure", "the node has no disk pressure".into()),
        condition("PIDPressure", "False", "KubeletHasSufficientPID", "the node has sufficient PID available".into()),
        ready,
    ]
}

fn system_info() -> NodeSystemInfo {
    let uname = rustix::system::uname();
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    let os = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let os =
        os.lines().find_map(|line| line.strip_prefix("PRETTY_NAME=")).unwrap_or("Linux").trim_matches('"').to_owned();
    NodeSystemInfo {
        architecture: architecture().to_owned(),
        boot_id: read("/proc/sys/kernel/random/boot_id"),
        container_runtime_version: format!("podnet://{}", env!("CARGO_PKG_VERSION")),
        kernel_version: uname.release().to_string_lossy().into_owned(),
        kube_proxy_version: String::new(),
        kubelet_version: format!("v1.32.0-podnet.{}", env!("CARGO_PKG_VERSION")),
        machine_id: read("/etc/machine-id"),
        operating_system: "linux".to_owned(),
        os_image: os,
        system_uuid: read("/etc/machine-id"),
        swap: None,
    }
}

/// As Kubernetes and Go name it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn now_precise() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_microsecond(i64::try_from(since.as_micros()).unwrap_or(0)).unwrap_or(Timestamp::UNIX_EPOCH)
}
