//! Fields of a pod as files and environment variables (the downward API).

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Pod, ResourceFieldSelector};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// What the pod object itself does not know yet.
#[derive(Clone, Debug, Default)]
pub(crate) struct Placed {
    pub(crate) pod_ips: Vec<IpAddr>,
    pub(crate) host_ips: Vec<IpAddr>,
}

/// The value of `fieldRef.fieldPath`; none where there is no such field.
pub(crate) fn field(pod: &Pod, placed: &Placed, path: &str) -> Option<String> {
    let meta = &pod.metadata;
    let spec = pod.spec.as_ref();
    let first = |addresses: &[IpAddr]| addresses.first().map(ToString::to_string).unwrap_or_default();
    let all = |addresses: &[IpAddr]| addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    Some(match path {
        "metadata.name" => text(&meta.name),
        "metadata.namespace" => text(&meta.namespace),
        "metadata.uid" => text(&meta.uid),
        "metadata.labels" => lines(meta.labels.as_ref()),
        "metadata.annotations" => lines(meta.annotations.as_ref()),
        "spec.nodeName" => spec.map(|spec| text(&spec.node_name)).unwrap_or_default(),
        "spec.serviceAccountName" => service_account(pod),
        "status.podIP" => first(&placed.pod_ips),
        "status.podIPs" => all(&placed.pod_ips),
        "status.hostIP" => first(&placed.host_ips),
        "status.hostIPs" => all(&placed.host_ips),
        _ => {
            let (map, key) = path.strip_suffix("']")?.split_once("['")?;
            let map = match map {
                "metadata.labels" => meta.labels.as_ref(),
                "metadata.annotations" => meta.annotations.as_ref(),
                _ => return None,
            };
            map.and_then(|map| map.get(key)).cloned().unwrap_or_default()
        }
    })
}

/// The service account of a pod.
pub(crate) fn service_account(pod: &Pod) -> String {
    let name = pod.spec.as_ref().and_then(|spec| spec.service_account_name.clone()).filter(|name| !name.is_empty());
    name.unwrap_or_else(|| "default".into())
}

fn lines(map: Option<&std::collections::BTreeMap<String, String>>) -> String {
    map.into_iter().flatten().map(|(key, value)| format!("{key}={value:?}\n")).collect()
}

/// The value of `resourceFieldRef`; a limit that is not set is the node's capacity.
pub(crate) fn resource(pod: &Pod, container: &str, wanted: &ResourceFieldSelector) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let name = wanted.container_name.as_deref().unwrap_or(container);
    let found = spec.containers.iter().chain(spec.init_containers.iter().flatten()).find(|found| found.name == name)?;
    let resources = found.resources.as_ref();
    let (kind, resource) = wanted.resource.split_once('.')?;
    let of = |map: Option<&std::collections::BTreeMap<String, Quantity>>| {
        map.and_then(|map| map.get(resource)).and_then(quantity)
    };
    let limit = of(resources.and_then(|resources| resources.limits.as_ref()));
    let value = match kind {
        "limits" => limit.or_else(|| capacity(resource)),
        "requests" => of(resources.and_then(|resources| resources.requests.as_ref())).or(limit).or(Some(0.0)),
        _ => None,
    }?;
    let divisor = wanted.divisor.as_ref().and_then(quantity).filter(|divisor| *divisor > 0.0).unwrap_or(1.0);
    // Rounded up, as the API says.
    Some(format!("{}", (value / divisor).ceil()))
}

fn capacity(resource: &str) -> Option<f64> {
    match resource {
        "cpu" => Some(std::thread::available_parallelism().map_or(1, std::num::NonZero::get) as f64),
        "memory" => Some(memory_bytes() as f64),
        _ => None,
    }
}

/// The machine's memory.
pub(crate) fn memory_bytes() -> u64 {
    let info = rustix::system::sysinfo();
    info.totalram * u64::from(info.mem_unit)
}

/// A quantity's value in its base unit; none where it is not one.
pub(crate) fn quantity(quantity: &Quantity) -> Option<f64> {
    const SUFFIXES: [(&str, f64); 16] = [
        ("Ki", 1024.0),
        ("Mi", 1_048_576.0),
        ("Gi", 1_073_741_824.0),
        ("Ti", 1_099_511_627_776.0),
        ("Pi", 1_125_899_906_842_624.0),
        ("Ei", 1_152_921_504_606_846_976.0),
        ("n", 1e-9),
        ("u", 1e-6),
        ("m", 1e-3),
        ("k", 1e3),
        ("M", 1e6),
        ("G", 1e9),
        ("T", 1e12),
        ("P", 1e15),
        ("E", 1e18),
        ("", 1.0),
    ];
    let text = quantity.0.trim();
    SUFFIXES.iter().find_map(|(suffix, factor)| Some(text.strip_suffix(suffix)?.parse::<f64>().ok()? * factor))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::serde_json::{from_value, json};

    use super::*;

    fn pod() -> Pod {
        from_value(json!({
            "metadata": { "name": "web", "namespace": "shop", "labels": { "app": "web" } },
            "spec": { "nodeName": "node1", "containers": [{ "name": "c", "resources": { "limits": { "memory": "64Mi", "cpu": "250m" } } }] }
        }))
        .unwrap()
    }

    #[test]
    fn fields_are_found_by_path() {
        let placed = Placed { pod_ips: vec!["10.1.2.3".parse().unwrap()], host_ips: vec![] };
        for (path, value) in [
            ("metadata.name", "web"),
            ("metadata.labels['app']", "web"),
            ("metadata.labels['none']", ""),
            ("spec.nodeName", "node1"),
            ("spec.serviceAccountName", "default"),
            ("status.podIP", "10.1.2.3"),
            ("metadata.labels", "app=\"web\"\n"),
        ] {
            assert_eq!(field(&pod(), &placed, path).as_deref(), Some(value), "{path}");
        }
        assert_eq!(field(&pod(), &placed, "spec.secret"), None);
    }

    #[test]
    fn resources_are_divided_and_rounded_up() {
        let select = |resource: &str, divisor: &str| ResourceFieldSelector {
            container_name: None,
            divisor: Some(Quantity(divisor.into())),
            resource: resource.into(),
        };
        assert_eq!(resource(&pod(), "c", &select("limits.memory", "1Mi")).as_deref(), Some("64"));
        assert_eq!(resource(&pod(), "c", &select("limits.cpu", "1")).as_deref(), Some("1"));
        assert_eq!(resource(&pod(), "c", &select("limits.cpu", "1m")).as_deref(), Some("250"));
    }

    #[test]
    fn quantities_are_decimal_binary_or_exponential() {
        for (text, value) in [("1", 1.0), ("100m", 0.1), ("2Ki", 2048.0), ("1e3", 1000.0), ("3M", 3e6)] {
            assert_eq!(quantity(&Quantity(text.into())), Some(value), "{text}");
        }
        assert_eq!(quantity(&Quantity("lots".into())), None);
    }
}
