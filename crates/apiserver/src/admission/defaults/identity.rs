//! The service account of a pod and the volume through which its containers prove who they are (Kubernetes documentation,
//! "Service Accounts", bound service account tokens).

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{
    super::tree::{Object, each, list, set_default, set_default_text, text},
    pod::mounts,
};

/// Where containers look for their token, the cluster's certificate authority and their namespace.
const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const VOLUME_PREFIX: &str = "kube-api-access-";
/// One hour, and seven seconds by which clients recognise a token that was not asked for explicitly.
const TOKEN_SECONDS: i32 = 3607;

/// Gives a pod the default account where it names none, and each container without a mount of its own the token.
pub(super) fn mount_service_account(metadata: &Value, spec: &mut Object) {
    set_default_text(spec, "serviceAccountName", "default");
    let name = spec.get("serviceAccountName").cloned().unwrap_or_default();
    set_default_text(spec, "serviceAccount", text(&name));
    if spec.get("automountServiceAccountToken") == Some(&Value::Bool(false)) {
        return;
    }
    let volume = token_volume(spec).unwrap_or_else(|| volume_name(metadata));
    let mut mounted = false;
    for containers in ["containers", "initContainers"] {
        for container in each(spec, containers).filter(|container| !mounts(container, MOUNT_PATH)) {
            set_default(container, "volumeMounts", json!([]));
            if let Some(Value::Array(list)) = container.get_mut("volumeMounts") {
                list.push(json!({ "name": volume, "readOnly": true, "mountPath": MOUNT_PATH }));
                mounted = true;
            }
        }
    }
    if mounted && token_volume(spec).is_none() {
        set_default(spec, "volumes", json!([]));
        if let Some(Value::Array(volumes)) = spec.get_mut("volumes") {
            volumes.push(volume_source(&volume));
        }
    }
}

/// The token's volume that is there already.
fn token_volume(spec: &Object) -> Option<String> {
    let volumes = list(spec.get("volumes")?);
    let names = volumes.iter().filter(|v| v["projected"].is_object()).map(|volume| text(&volume["name"]));
    names.filter(|name| name.starts_with(VOLUME_PREFIX)).map(str::to_owned).next()
}

fn volume_source(name: &str) -> Value {
    json!({
        "name": name,
        "projected": {
            "defaultMode": 0o644,
            "sources": [
                { "serviceAccountToken": { "expirationSeconds": TOKEN_SECONDS, "path": "token" } },
                { "configMap": { "name": "kube-root-ca.crt", "items": [{ "key": "ca.crt", "path": "ca.crt" }] } },
                { "downwardAPI": { "items": [
                    { "path": "namespace", "fieldRef": { "apiVersion": "v1", "fieldPath": "metadata.namespace" } },
                ] } },
            ],
        },
    })
}

/// A name that is the same whenever the pod is looked at, and that nobody else chooses by accident.
fn volume_name(metadata: &Value) -> String {
    // No vowels and no digits that look like them: no words arise.
    const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
    let mut hash = Sha256::new();
    for field in ["namespace", "name"] {
        hash.update(text(&metadata[field]));
        hash.update([0]);
    }
    let suffix =
        hash.finalize().into_iter().take(5).map(|byte| char::from(ALPHABET[usize::from(byte) % ALPHABET.len()]));
    VOLUME_PREFIX.chars().chain(suffix).collect()
}
