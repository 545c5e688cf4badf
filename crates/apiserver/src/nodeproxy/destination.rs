//! Where a request about a container has to go.

use std::net::IpAddr;

use serde_json::Value;

use crate::api::{Api, Place};
use crate::errors::ApiError;

/// Names the container that is meant when a request names none.
const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";

/// A node's streaming server and the path there.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Destination {
    /// Name of the node.
    pub(super) node: String,
    /// Its address.
    pub(super) address: IpAddr,
    /// Path on its server.
    pub(super) path: String,
}

impl Destination {
    /// Where the container of a pod is.
    pub(super) fn find(
        api: &Api,
        at: &Place<'_>,
        subresource: &str,
        container: Option<&str>,
    ) -> Result<Self, ApiError> {
        let pod = api.existing(at)?;
        let container = container_of(&pod.value, at.name, container)?;
        let node = pod.value["spec"]["nodeName"].as_str().unwrap_or_default().to_owned();
        if node.is_empty() {
            return Err(ApiError::bad_request(format!("pod {} does not have a host assigned", at.name)));
        }
        let nodes = api.registry().builtin("", "nodes");
        let stored = api.existing(&Place { resource: &nodes, namespace: "", name: &node })?;
        let address = internal_address(&stored.value)
            .ok_or_else(|| ApiError::internal(format!("node {node} has no InternalIP address to reach it at")))?;
        let root = if subresource == "log" { "containerLogs" } else { subresource };
        let path = format!("/{root}/{}/{}/{container}", at.namespace, at.name);
        Ok(Self { node, address, path })
    }
}

fn internal_address(node: &Value) -> Option<IpAddr> {
    let addresses = node["status"]["addresses"].as_array()?;
    let internal = addresses.iter().find(|address| address["type"] == "InternalIP")?;
    internal["address"].as_str()?.parse().ok()
}

/// The container that is asked for, or the only one, or the one that the pod calls its default.
fn container_of(pod: &Value, name: &str, asked: Option<&str>) -> Result<String, ApiError> {
    let names = |field: &str| -> Vec<String> {
        let containers = pod["spec"][field].as_array().into_iter().flatten();
        containers.filter_map(|container| container["name"].as_str()).map(str::to_owned).collect()
    };
    let (mains, inits, debuggers) = (names("containers"), names("initContainers"), names("ephemeralContainers"));
    let annotated = pod["metadata"]["annotations"][DEFAULT_CONTAINER].as_str();
    match (asked.or(annotated.filter(|name| mains.iter().any(|main| main == name))), mains.as_slice()) {
        (Some(asked), _) => {
            let known = mains.iter().chain(&inits).chain(&debuggers).any(|container| container == asked);
            let refusal = || ApiError::bad_request(format!("container {asked} is not valid for pod {name}"));
            known.then(|| asked.to_owned()).ok_or_else(refusal)
        }
        (None, [only]) => Ok(only.clone()),
        (None, several) => {
            let mut message =
                format!("a container name must be specified for pod {name}, choose one of: [{}]", several.join(" "));
            if !inits.is_empty() {
                message.push_str(&format!(" or one of the init containers: [{}]", inits.join(" ")));
            }
            Err(ApiError::bad_request(message))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_only_container_need_not_be_named() {
        let pod = json!({"spec": {"containers": [{"name": "web"}]}});
        assert_eq!(container_of(&pod, "p", None).unwrap(), "web");
        assert_eq!(container_of(&pod, "p", Some("db")).unwrap_err().message, "container db is not valid for pod p");
    }

    #[test]
    fn of_several_containers_one_has_to_be_named_unless_the_pod_names_it() {
        let mut pod = json!({"metadata": {}, "spec": {"containers": [{"name": "a"}, {"name": "b"}], "initContainers": [{"name": "i"}]}});
        assert_eq!(
            container_of(&pod, "p", None).unwrap_err().message,
            "a container name must be specified for pod p, choose one of: [a b] or one of the init containers: [i]"
        );
        pod["metadata"]["annotations"] = json!({DEFAULT_CONTAINER: "b"});
        assert_eq!(container_of(&pod, "p", None).unwrap(), "b");
    }
}
