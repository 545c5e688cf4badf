//! Services. Addresses and node ports are `allocate`'s.

use serde_json::{Value, json};

use super::super::tree::{Object, each, list, object_at, set_default, set_default_text, text};

/// How long a client stays with its backend under `sessionAffinity: ClientIP`: three hours.
const AFFINITY_SECONDS: i32 = 10_800;

pub(super) fn default_service(service: &mut Object) {
    if let Some(status) = object_at(service, "status") {
        set_default(status, "loadBalancer", json!({}));
        if let Some(balancer) = object_at(status, "loadBalancer") {
            for ingress in each(balancer, "ingress") {
                if ingress.get("ip").is_some_and(|ip| !text(ip).is_empty()) {
                    set_default_text(ingress, "ipMode", "VIP");
                }
            }
        }
    }
    let Some(spec) = object_at(service, "spec") else { return };
    set_default_text(spec, "type", "ClusterIP");
    set_default_text(spec, "sessionAffinity", "None");
    default_affinity(spec);
    for port in each(spec, "ports") {
        set_default_text(port, "protocol", "TCP");
        let unset = port.get("targetPort").is_none_or(|target| target.is_null() || target == 0 || target == "");
        if unset && let Some(number) = port.get("port").cloned() {
            port.insert("targetPort".to_owned(), number);
        }
    }
    let kind = spec.get("type").map(text).unwrap_or_default().to_owned();
    let external = spec.get("externalIPs").is_some_and(|addresses| !list(addresses).is_empty());
    if matches!(kind.as_str(), "NodePort" | "LoadBalancer") || (kind == "ClusterIP" && external) {
        set_default_text(spec, "externalTrafficPolicy", "Cluster");
    }
    if matches!(kind.as_str(), "ClusterIP" | "NodePort" | "LoadBalancer") {
        set_default_text(spec, "internalTrafficPolicy", "Cluster");
    }
    if kind == "LoadBalancer" {
        set_default(spec, "allocateLoadBalancerNodePorts", true);
    }
}

fn default_affinity(spec: &mut Object) {
    if spec.get("sessionAffinity") == Some(&Value::from("ClientIP")) {
        if let Some(config) = object_at(spec, "sessionAffinityConfig")
            && let Some(client) = object_at(config, "clientIP")
        {
            set_default(client, "timeoutSeconds", AFFINITY_SECONDS);
        }
    } else {
        spec.shift_remove("sessionAffinityConfig");
    }
}
