//! What the bodies of nodes' requests may say, as Kubernetes' NodeRestriction admission checks it: a node makes its own Node and
//! Lease and that of whoever gives load balancers' addresses, and asks for tokens that are bound to its own pods.
//! <https://kubernetes.io/docs/reference/access-authn-authz/admission-controllers/#noderestriction>

use podnet_model::balancer::LEASE;
use serde_json::Value;

use crate::api::{Api, Place};
use crate::auth::Identity;
use crate::errors::ApiError;
use crate::registry::Resource;

/// Checks an object that is to be created. Authorization did not know its name yet.
pub(super) fn check_create(
    identity: &Identity,
    resource: &Resource,
    namespace: &str,
    body: &Value,
) -> Result<(), ApiError> {
    let Some(node) = identity.node() else { return Ok(()) };
    let is_lease = resource.is("coordination.k8s.io", "leases");
    let own_only = resource.is("", "nodes") || is_lease;
    let name = body["metadata"]["name"].as_str().unwrap_or_default();
    let is_balancers = is_lease && (namespace, name) == LEASE;
    let own = name == node && (!is_lease || namespace == "kube-node-lease");
    if !own_only || own || is_balancers {
        return Ok(());
    }
    let place = if namespace.is_empty() { String::new() } else { format!(" in namespace {namespace:?}") };
    Err(ApiError::forbidden(resource, name, &format!("node {node:?} may create the one of its own name only{place}")))
}

/// Checks a TokenRequest: the token has to be bound to a pod that runs on the node as that account.
pub(super) fn check_token(api: &Api, identity: &Identity, at: &Place<'_>, request: &Value) -> Result<(), ApiError> {
    let Some(node) = identity.node() else { return Ok(()) };
    let refused = |why: &str| Err(ApiError::forbidden(at.resource, at.name, &format!("node {node:?}: {why}")));
    let reference = &request["spec"]["boundObjectRef"];
    let (Some("Pod"), Some(name)) = (reference["kind"].as_str(), reference["name"].as_str()) else {
        return refused("the token has to be bound to a pod");
    };
    if reference["uid"].as_str().is_none_or(str::is_empty) {
        return refused("the token has to be bound to a pod by its uid");
    }
    let bound = api.store().object("pods", at.namespace, name);
    let own = bound.is_some_and(|pod| {
        let spec = &pod.value["spec"];
        spec["nodeName"] == node && spec["serviceAccountName"] == at.name
    });
    if own { Ok(()) } else { refused("the token is for a pod that does not run on this node as that account") }
}
