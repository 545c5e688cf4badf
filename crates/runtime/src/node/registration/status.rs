//! What a node says of itself.

use std::{collections::BTreeMap, fs};

use k8s_openapi::{
    api::core::v1::{DaemonEndpoint, NodeAddress, NodeCondition, NodeDaemonEndpoints, NodeStatus, NodeSystemInfo},
    apimachinery::pkg::{api::resource::Quantity, apis::meta::v1::Time},
    jiff::Timestamp,
};

use crate::{
    config::NodeConfig,
    pod::{NetworkState, fields::memory_bytes},
};

/// The labels that every node has, and those of its settings.
pub(super) fn labels(config: &NodeConfig) -> BTreeMap<String, String> {
    let mut labels = config.labels.clone();
    let arch = architecture();
    for (name, value) in [
        ("kubernetes.io/hostname", config.node_name.as_str()),
        ("kubernetes.io/os", "linux"),
        ("kubernetes.io/arch", arch),
        ("beta.kubernetes.io/os", "linux"),
        ("beta.kubernetes.io/arch", arch),
    ] {
        labels.insert(name.to_owned(), value.to_owned());
    }
    labels
}

/// The status of a node, `now`, whose readiness last changed at `changed`.
pub(super) fn status(config: &NodeConfig, network: &NetworkState, now: Timestamp, changed: Timestamp) -> NodeStatus {
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
        addresses: Some(
            std::iter::once(config.node_address)
                .chain(config.other_address)
                .map(|internal| address("InternalIP", internal.to_string()))
                .chain([address("Hostname", config.node_name.clone())])
                .collect(),
        ),
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

/// Whether the API shows something else than the node said of itself. What others add does not count.
pub(super) fn contradicts(own: &NodeStatus, shown: &NodeStatus) -> bool {
    let essence = |condition: &NodeCondition| {
        (condition.type_.clone(), condition.status.clone(), condition.reason.clone().unwrap_or_default())
    };
    let conditions: Vec<_> = shown.conditions.iter().flatten().map(essence).collect();
    let addresses = shown.addresses.as_deref().unwrap_or_default();
    own.conditions.iter().flatten().any(|condition| !conditions.contains(&essence(condition)))
        || own.addresses.iter().flatten().any(|address| !addresses.contains(address))
        || own.daemon_endpoints != shown.daemon_endpoints
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
