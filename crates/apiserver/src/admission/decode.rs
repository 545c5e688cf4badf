//! Are an object's fields of the right types, and known? The Kubernetes types of k8s-openapi say.

use k8s_openapi::{
    api::{
        apps::v1 as apps, batch::v1 as batch, coordination::v1 as coordination, core::v1 as core,
        discovery::v1 as discovery,
    },
    api::{events::v1 as events, networking::v1 as networking, policy::v1 as policy, rbac::v1 as rbac},
    apiextensions_apiserver::pkg::apis::apiextensions::v1 as apiextensions,
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Checks that the fields of an object have the types that they have to have.
///
/// # Errors
/// A sentence for a 400 BadRequest that names the field and the value.
pub fn decode_check(group: &str, kind: &str, object: &Value) -> Result<(), String> {
    if !object.is_object() {
        return Err(format!("{kind} cannot be handled: a JSON object is expected"));
    }
    let mismatch = dispatch(group, kind, &TypeMismatch, object)
        .unwrap_or_else(|| TypeMismatch.look::<ObjectMeta>(&object["metadata"]).map(|m| format!("metadata.{m}")));
    match mismatch {
        None => Ok(()),
        Some(mismatch) => {
            let version = object["apiVersion"].as_str().unwrap_or_default();
            let version = version.rsplit('/').next().unwrap_or_default();
            Err(format!("{kind} in version {version:?} cannot be handled as a {kind}: {mismatch}"))
        }
    }
}

/// The fields of an object that its kind does not have, as paths (`spec.template.spec.containers[0].imagee`). Of custom
/// resources only the metadata is looked at: the rest is for their schema to say.
pub fn unknown_fields(group: &str, kind: &str, object: &Value) -> Vec<String> {
    dispatch(group, kind, &Ignored, object).unwrap_or_else(|| {
        let unknown = Ignored.look::<ObjectMeta>(&object["metadata"]);
        unknown.into_iter().map(|path| format!("metadata.{path}")).collect()
    })
}

/// A question that can be asked of an object of any type.
trait Look {
    type Answer;

    fn look<T: DeserializeOwned>(&self, object: &Value) -> Self::Answer;
}

/// Asks of the type that a group and kind have; none where they are not built in.
fn dispatch<L: Look>(group: &str, kind: &str, look: &L, object: &Value) -> Option<L::Answer> {
    Some(match (group, kind) {
        ("", "Namespace") => look.look::<core::Namespace>(object),
        ("", "Node") => look.look::<core::Node>(object),
        ("", "Pod") => look.look::<core::Pod>(object),
        ("", "Service") => look.look::<core::Service>(object),
        ("", "Endpoints") => look.look::<core::Endpoints>(object),
        ("", "ConfigMap") => look.look::<core::ConfigMap>(object),
        ("", "Secret") => look.look::<core::Secret>(object),
        ("", "ServiceAccount") => look.look::<core::ServiceAccount>(object),
        ("", "Event") => look.look::<core::Event>(object),
        ("events.k8s.io", "Event") => look.look::<events::Event>(object),
        ("discovery.k8s.io", "EndpointSlice") => look.look::<discovery::EndpointSlice>(object),
        ("coordination.k8s.io", "Lease") => look.look::<coordination::Lease>(object),
        ("apps", "Deployment") => look.look::<apps::Deployment>(object),
        ("apps", "ReplicaSet") => look.look::<apps::ReplicaSet>(object),
        ("apps", "StatefulSet") => look.look::<apps::StatefulSet>(object),
        ("apps", "ControllerRevision") => look.look::<apps::ControllerRevision>(object),
        ("apps", "DaemonSet") => look.look::<apps::DaemonSet>(object),
        ("batch", "Job") => look.look::<batch::Job>(object),
        ("batch", "CronJob") => look.look::<batch::CronJob>(object),
        ("networking.k8s.io", "NetworkPolicy") => look.look::<networking::NetworkPolicy>(object),
        ("networking.k8s.io", "Ingress") => look.look::<networking::Ingress>(object),
        ("policy", "PodDisruptionBudget") => look.look::<policy::PodDisruptionBudget>(object),
        ("rbac.authorization.k8s.io", "Role") => look.look::<rbac::Role>(object),
        ("rbac.authorization.k8s.io", "RoleBinding") => look.look::<rbac::RoleBinding>(object),
        ("rbac.authorization.k8s.io", "ClusterRole") => look.look::<rbac::ClusterRole>(object),
        ("rbac.authorization.k8s.io", "ClusterRoleBinding") => look.look::<rbac::ClusterRoleBinding>(object),
        ("apiextensions.k8s.io", "CustomResourceDefinition") => {
            look.look::<apiextensions::CustomResourceDefinition>(object)
        }
        _ => return None,
    })
}

/// The first field of a wrong type: `spec.replicas: invalid type: string "three", expected i32`.
struct TypeMismatch;

impl Look for TypeMismatch {
    type Answer = Option<String>;

    fn look<T: DeserializeOwned>(&self, object: &Value) -> Option<String> {
        if object.is_null() {
            return None;
        }
        let error = serde_path_to_error::deserialize::<_, T>(object).err()?;
        let path = error.path().to_string();
        let inner = error.into_inner();
        Some(if path == "." { inner.to_string() } else { format!("{path}: {inner}") })
    }
}

/// All fields that deserialising passes over.
struct Ignored;

impl Look for Ignored {
    type Answer = Vec<String>;

    fn look<T: DeserializeOwned>(&self, object: &Value) -> Vec<String> {
        let mut ignored = Vec::new();
        if !object.is_null() {
            // A wrong type is `decode_check`'s to report; the fields passed over until then are named all the same.
            let _: Result<T, _> = serde_ignored::deserialize(object, |path| ignored.push(written(&path)));
        }
        ignored
    }
}

fn written(path: &serde_ignored::Path<'_>) -> String {
    use serde_ignored::Path;
    match path {
        Path::Root => String::new(),
        Path::Seq { parent, index } => format!("{}[{index}]", written(parent)),
        Path::Map { parent, key } => match written(parent) {
            parent if parent.is_empty() => key.clone(),
            parent => format!("{parent}.{key}"),
        },
        Path::Some { parent } | Path::NewtypeStruct { parent } | Path::NewtypeVariant { parent } => written(parent),
    }
}
