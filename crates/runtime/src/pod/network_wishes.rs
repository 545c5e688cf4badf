//! What a pod asks of its network: values of CNI capabilities, and kernel settings.

use k8s_openapi::{api::core::v1::Pod, apimachinery::pkg::api::resource::Quantity};
use serde_json::{Map, Value, json};

use super::fields;

/// What container runtimes choose for a bandwidth plugin's burst: as much as the field holds.
const BURST: u64 = 2_147_483_647;

/// Values of CNI capabilities: `portMappings` from hostPorts, `bandwidth` from the annotations.
pub(super) fn capabilities(pod: &Pod) -> Map<String, Value> {
    let mut values = Map::new();
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let ports: Vec<Value> = containers
        .flat_map(|container| container.ports.iter().flatten())
        .filter_map(|port| {
            let host_port = port.host_port.filter(|port| *port > 0)?;
            let mut mapping = json!({
                "hostPort": host_port,
                "containerPort": port.container_port,
                "protocol": port.protocol.as_deref().unwrap_or("TCP").to_lowercase(),
            });
            if let Some(address) = port.host_ip.as_deref().filter(|address| !address.is_empty()) {
                mapping["hostIP"] = json!(address);
            }
            Some(mapping)
        })
        .collect();
    if !ports.is_empty() {
        values.insert("portMappings".into(), Value::Array(ports));
    }
    let annotation = |name: &str| {
        let text = pod.metadata.annotations.as_ref()?.get(name)?;
        fields::quantity(&Quantity(text.clone())).map(|rate| rate as u64)
    };
    let mut bandwidth = Map::new();
    for (name, side) in [("kubernetes.io/ingress-bandwidth", "ingress"), ("kubernetes.io/egress-bandwidth", "egress")] {
        if let Some(rate) = annotation(name) {
            bandwidth.insert(format!("{side}Rate"), json!(rate));
            bandwidth.insert(format!("{side}Burst"), json!(BURST));
        }
    }
    if !bandwidth.is_empty() {
        values.insert("bandwidth".into(), Value::Object(bandwidth));
    }
    values
}

/// The kernel settings that a pod asks for, as paths below `/proc/sys`.
///
/// Only those are allowed that belong to a namespace which the pod has for itself; kubelet allows them after
/// `--allowed-unsafe-sysctls`, and ends a pod that asks for another one, which would be a change of the whole machine.
///
/// # Errors
/// The name of the first that is not allowed.
pub(super) fn sysctls(pod: &Pod) -> Result<Vec<(String, String)>, String> {
    let spec = pod.spec.as_ref();
    let on_host = spec.and_then(|spec| spec.host_network).unwrap_or(false);
    let wanted = spec.and_then(|spec| spec.security_context.as_ref()?.sysctls.as_ref());
    let allowed = wanted.into_iter().flatten().map(|sysctl| {
        let path = sysctl_path(&sysctl.name).filter(|path| belongs_to_pod(path, on_host));
        path.map(|path| (path, sysctl.value.clone())).ok_or_else(|| sysctl.name.clone())
    });
    allowed.collect()
}

/// `net.ipv4.ip_forward` and `net/ipv4/conf/eth0.1/rp_filter` (sysctl.d(5)): the separator that comes first is the one of the whole name.
fn sysctl_path(name: &str) -> Option<String> {
    let separator = name.find(['.', '/']).map_or(".", |at| &name[at..=at]);
    let parts: Vec<String> = name
        .split(separator)
        .map(|part| if separator == "." { part.replace('/', ".") } else { part.to_owned() })
        .collect();
    let plain = parts.iter().all(|part| !part.is_empty() && part != "." && part != "..");
    (plain && parts.len() > 1).then(|| parts.join("/"))
}

fn belongs_to_pod(path: &str, on_host: bool) -> bool {
    let of_ipc = ["kernel/shm", "kernel/msg", "fs/mqueue/"].iter().any(|prefix| path.starts_with(prefix));
    // Settings of bridges reach beyond the namespace on some kernels.
    let of_network = path.starts_with("net/") && !path.starts_with("net/bridge/");
    of_ipc || path == "kernel/sem" || (of_network && !on_host)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::serde_json::from_value;

    use super::*;

    #[test]
    fn only_settings_of_the_pods_own_namespaces_are_allowed() {
        let pod = |name: &str, on_host: bool| {
            from_value(json!({ "spec": { "containers": [], "hostNetwork": on_host,
                "securityContext": { "sysctls": [{ "name": name, "value": "1" }] } } }))
            .unwrap()
        };
        for (name, path) in [
            ("net.ipv4.ip_forward", "net/ipv4/ip_forward"),
            ("net.ipv4.conf.eth0/1.rp_filter", "net/ipv4/conf/eth0.1/rp_filter"),
            ("net/ipv4/conf/eth0.1/rp_filter", "net/ipv4/conf/eth0.1/rp_filter"),
            ("kernel.shm_rmid_forced", "kernel/shm_rmid_forced"),
        ] {
            assert_eq!(sysctls(&pod(name, false)), Ok(vec![(path.into(), "1".into())]), "{name}");
        }
        for name in [
            "kernel.core_pattern",
            "vm.panic_on_oom",
            "/etc/passwd",
            "net/../kernel/core_pattern",
            "net",
            "net.bridge.x",
        ] {
            assert_eq!(sysctls(&pod(name, false)), Err(name.into()), "{name}");
        }
        assert!(sysctls(&pod("net.ipv4.ip_forward", true)).is_err(), "the host's network is not the pod's");
    }

    #[test]
    fn host_ports_and_bandwidth_become_capability_values() {
        let pod = from_value(json!({
            "metadata": { "annotations": { "kubernetes.io/egress-bandwidth": "1M" } },
            "spec": { "containers": [{ "name": "c", "ports": [{ "containerPort": 80, "hostPort": 8080 }, { "containerPort": 81 }] }] }
        }))
        .unwrap();
        let values = capabilities(&pod);
        assert_eq!(values["portMappings"], json!([{ "hostPort": 8080, "containerPort": 80, "protocol": "tcp" }]));
        assert_eq!(values["bandwidth"], json!({ "egressRate": 1_000_000, "egressBurst": BURST }));
    }
}
