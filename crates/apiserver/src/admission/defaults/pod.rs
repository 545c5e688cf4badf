//! Pods and pod templates.

use serde_json::{Map, Value, json};

use super::{
    super::tree::{Object, each, entries, list, object_at, set_default, set_default_text, text},
    identity,
};

/// What a pod has beyond what its template had: identity, tolerations, priority.
pub(super) fn default_pod(pod: &mut Object) {
    let metadata = pod.get("metadata").cloned().unwrap_or_default();
    let Some(spec) = object_at(pod, "spec") else { return };
    set_default(spec, "enableServiceLinks", true);
    default_spec(spec);
    for container in ["containers", "initContainers"] {
        for container in each(spec, container) {
            default_requests(container);
        }
    }
    set_default(spec, "priority", 0);
    set_default_text(spec, "preemptionPolicy", "PreemptLowerPriority");
    tolerate_short_outages(spec);
    identity::mount_service_account(&metadata, spec);
}

/// A pod's spec, in a pod or in a template.
pub(super) fn default_spec(spec: &mut Object) {
    set_default_text(spec, "restartPolicy", "Always");
    set_default_text(spec, "dnsPolicy", "ClusterFirst");
    set_default(spec, "terminationGracePeriodSeconds", 30);
    set_default_text(spec, "schedulerName", "default-scheduler");
    set_default(spec, "securityContext", Map::new());
    mirror_service_account(spec);
    let on_host = spec.get("hostNetwork") == Some(&Value::Bool(true));
    for containers in ["containers", "initContainers", "ephemeralContainers"] {
        for container in each(spec, containers) {
            default_container(container, on_host);
        }
    }
    for volume in each(spec, "volumes") {
        default_volume(volume);
    }
    for constraint in each(spec, "topologySpreadConstraints") {
        set_default_text(constraint, "nodeAffinityPolicy", "Honor");
        set_default_text(constraint, "nodeTaintsPolicy", "Ignore");
    }
}

/// `serviceAccount` is the old name of `serviceAccountName`; both are always there.
fn mirror_service_account(spec: &mut Object) {
    for (from, to) in [("serviceAccountName", "serviceAccount"), ("serviceAccount", "serviceAccountName")] {
        if let Some(name) = spec.get(from).and_then(Value::as_str).filter(|name| !name.is_empty()) {
            let name = name.to_owned();
            set_default_text(spec, to, &name);
        }
    }
}

fn default_container(container: &mut Object, on_host: bool) {
    let image = container.get("image").and_then(Value::as_str).unwrap_or_default();
    let pull = if is_latest(image) { "Always" } else { "IfNotPresent" };
    set_default_text(container, "imagePullPolicy", pull);
    set_default_text(container, "terminationMessagePath", "/dev/termination-log");
    set_default_text(container, "terminationMessagePolicy", "File");
    set_default(container, "resources", Map::new());
    for port in each(container, "ports") {
        set_default_text(port, "protocol", "TCP");
        if on_host && let Some(number) = port.get("containerPort").cloned() {
            set_default(port, "hostPort", number);
        }
    }
    for variable in each(container, "env") {
        if let Some(Value::Object(from)) = variable.get_mut("valueFrom") {
            default_field_ref(from);
        }
    }
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(Value::Object(probe)) = container.get_mut(probe) {
            default_probe(probe);
        }
    }
    if let Some(Value::Object(lifecycle)) = container.get_mut("lifecycle") {
        for handler in ["postStart", "preStop"] {
            if let Some(Value::Object(handler)) = lifecycle.get_mut(handler) {
                default_http_get(handler);
            }
        }
    }
}

/// Whether an image's name means "the latest": no tag and no digest, or the tag `latest`.
fn is_latest(image: &str) -> bool {
    if image.contains('@') {
        return false;
    }
    // A colon before the last slash belongs to the registry's port.
    let name = image.rsplit('/').next().unwrap_or(image);
    name.split_once(':').is_none_or(|(_, tag)| tag == "latest")
}

fn default_probe(probe: &mut Object) {
    for (field, value) in
        [("timeoutSeconds", 1), ("periodSeconds", 10), ("successThreshold", 1), ("failureThreshold", 3)]
    {
        if probe.get(field).is_none_or(|known| known.is_null() || known == 0) {
            probe.insert(field.to_owned(), value.into());
        }
    }
    if let Some(Value::Object(grpc)) = probe.get_mut("grpc") {
        set_default(grpc, "service", "");
    }
    default_http_get(probe);
}

fn default_http_get(handler: &mut Object) {
    if let Some(Value::Object(get)) = handler.get_mut("httpGet") {
        set_default_text(get, "path", "/");
        set_default_text(get, "scheme", "HTTP");
    }
}

fn default_field_ref(holder: &mut Object) {
    if let Some(Value::Object(reference)) = holder.get_mut("fieldRef") {
        set_default_text(reference, "apiVersion", "v1");
    }
}

/// Files of volumes are readable by all (0644) where nobody says otherwise.
const DEFAULT_MODE: i32 = 0o644;

fn default_volume(volume: &mut Object) {
    if volume.keys().all(|key| key == "name") {
        volume.insert("emptyDir".to_owned(), json!({}));
    }
    for source in ["configMap", "secret", "downwardAPI", "projected"] {
        if let Some(Value::Object(source)) = volume.get_mut(source) {
            set_default(source, "defaultMode", DEFAULT_MODE);
            for item in each(source, "items") {
                default_field_ref(item);
            }
        }
    }
    if let Some(Value::Object(host)) = volume.get_mut("hostPath") {
        set_default(host, "type", "");
    }
    let Some(Value::Object(projected)) = volume.get_mut("projected") else { return };
    for source in each(projected, "sources") {
        if let Some(Value::Object(token)) = source.get_mut("serviceAccountToken") {
            set_default(token, "expirationSeconds", 3600);
        }
        if let Some(Value::Object(downward)) = source.get_mut("downwardAPI") {
            for item in each(downward, "items") {
                default_field_ref(item);
            }
        }
    }
}

/// What a container may use at most it also asks for.
fn default_requests(container: &mut Object) {
    let Some(Value::Object(resources)) = container.get_mut("resources") else { return };
    let limits = resources.get("limits").cloned().unwrap_or_default();
    if entries(&limits).next().is_none() {
        return;
    }
    let Some(requests) = object_at(resources, "requests") else { return };
    for (name, limit) in entries(&limits) {
        set_default(requests, name, limit.clone());
    }
}

/// How long a pod stays on a node that does not answer, in seconds.
const OUTAGE_SECONDS: i32 = 300;

fn tolerate_short_outages(spec: &mut Object) {
    for key in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
        set_default(spec, "tolerations", json!([]));
        let Some(Value::Array(tolerations)) = spec.get_mut("tolerations") else { return };
        let covers = |toleration: &Value| {
            let any_key = text(&toleration["key"]).is_empty() && toleration["operator"] == "Exists";
            (any_key || toleration["key"] == key) && matches!(text(&toleration["effect"]), "" | "NoExecute")
        };
        if !tolerations.iter().any(covers) {
            tolerations.push(json!({
                "key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": OUTAGE_SECONDS,
            }));
        }
    }
}

/// Whether a container has something mounted there.
pub(super) fn mounts(container: &Object, path: &str) -> bool {
    container
        .get("volumeMounts")
        .is_some_and(|m| list(m).iter().any(|mount| text(&mount["mountPath"]).trim_end_matches('/') == path))
}
