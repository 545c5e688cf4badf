//! Which objects a pod names: what its node has to be able to read.

use serde_json::Value;

use super::Api;
use crate::auth::rules::Facts;

impl Facts for Api {
    fn node_of_pod(&self, namespace: &str, name: &str) -> Option<String> {
        let pod = self.store().object("pods", namespace, name)?;
        pod.value["spec"]["nodeName"].as_str().map(str::to_owned)
    }

    fn node_uses(&self, node: &str, namespace: &str, resource: &str, name: &str) -> bool {
        if namespace.is_empty() || name.is_empty() {
            return false;
        }
        let pods = self.store().list("pods", Some(namespace)).objects;
        pods.iter().map(|pod| &pod.value["spec"]).any(|spec| spec["nodeName"] == node && uses(spec, resource, name))
    }
}

/// Whether a pod's specification names an object.
fn uses(spec: &Value, resource: &str, name: &str) -> bool {
    match resource {
        "serviceaccounts" => spec["serviceAccountName"] == name,
        "secrets" => {
            list(&spec["imagePullSecrets"]).any(|secret| secret["name"] == name)
                || list(&spec["volumes"]).any(|volume| volume["secret"]["secretName"] == name)
                || sources(spec, "secret", "secretRef", "secretKeyRef").any(|source| source["name"] == name)
        }
        "configmaps" => {
            list(&spec["volumes"]).any(|volume| volume["configMap"]["name"] == name)
                || sources(spec, "configMap", "configMapRef", "configMapKeyRef").any(|source| source["name"] == name)
        }
        _ => false,
    }
}

/// The sources of projected volumes, of whole environments, and of single variables.
fn sources<'a>(
    spec: &'a Value,
    projected: &'a str,
    whole: &'a str,
    single: &'a str,
) -> impl Iterator<Item = &'a Value> + use<'a> {
    let volumes = list(&spec["volumes"]).flat_map(|volume| list(&volume["projected"]["sources"]));
    let containers = ["containers", "initContainers", "ephemeralContainers"];
    let containers = containers.into_iter().flat_map(|field| list(&spec[field]));
    let environment = containers.flat_map(move |container| {
        let whole = list(&container["envFrom"]).map(move |source| &source[whole]);
        whole.chain(list(&container["env"]).map(move |variable| &variable["valueFrom"][single]))
    });
    volumes.map(move |source| &source[projected]).chain(environment)
}

fn list(value: &Value) -> impl Iterator<Item = &Value> + use<'_> {
    value.as_array().into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pod_uses_what_its_volumes_environment_and_images_name() {
        let spec = json!({
            "serviceAccountName": "robot",
            "imagePullSecrets": [{"name": "pull"}],
            "volumes": [
                {"secret": {"secretName": "mounted"}}, {"configMap": {"name": "settings"}},
                {"projected": {"sources": [{"secret": {"name": "part"}}, {"configMap": {"name": "kube-root-ca.crt"}}]}},
            ],
            "containers": [{"envFrom": [{"secretRef": {"name": "all"}}, {"configMapRef": {"name": "all"}}]}],
            "initContainers": [{"env": [
                {"valueFrom": {"secretKeyRef": {"name": "one", "key": "k"}}},
                {"valueFrom": {"configMapKeyRef": {"name": "one", "key": "k"}}},
            ]}],
        });
        for secret in ["pull", "mounted", "part", "all", "one"] {
            assert!(uses(&spec, "secrets", secret), "{secret}");
        }
        for config_map in ["settings", "kube-root-ca.crt", "all", "one"] {
            assert!(uses(&spec, "configmaps", config_map), "{config_map}");
        }
        assert!(uses(&spec, "serviceaccounts", "robot"));
        for resource in ["secrets", "configmaps", "serviceaccounts", "pods"] {
            assert!(!uses(&spec, resource, "another"), "{resource}");
        }
    }
}
