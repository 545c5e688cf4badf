//! The kinds that are always served. A new kind is a new row.

use std::sync::Arc;

use super::resource::{Resource, ScalePaths, Subresource, View, group_resource};

const OBJECT: &[&str] = &["get", "patch", "update"];

const STATUS: Subresource = Subresource { name: "status", kind: None, verbs: OBJECT };
const SCALE: Subresource = Subresource { name: "scale", kind: Some(("autoscaling", "v1", "Scale")), verbs: OBJECT };
const FINALIZE: Subresource = Subresource { name: "finalize", kind: None, verbs: &["update"] };
const LOG: Subresource = Subresource { name: "log", kind: None, verbs: &["get"] };
const EXEC: Subresource =
    Subresource { name: "exec", kind: Some(("", "v1", "PodExecOptions")), verbs: &["create", "get"] };
const ATTACH: Subresource =
    Subresource { name: "attach", kind: Some(("", "v1", "PodAttachOptions")), verbs: &["create", "get"] };
const BINDING: Subresource = Subresource { name: "binding", kind: Some(("", "v1", "Binding")), verbs: &["create"] };
const EVICTION: Subresource =
    Subresource { name: "eviction", kind: Some(("policy", "v1", "Eviction")), verbs: &["create"] };
const TOKEN: Subresource =
    Subresource { name: "token", kind: Some(("authentication.k8s.io", "v1", "TokenRequest")), verbs: &["create"] };

/// One kind, as short as it can be said.
struct Row {
    gvk: (&'static str, &'static str, &'static str),
    /// Plural and singular.
    names: (&'static str, &'static str),
    namespaced: bool,
    short: &'static [&'static str],
    categories: &'static [&'static str],
    subresources: &'static [Subresource],
    view: View,
}

const ROW: Row = Row {
    gvk: ("", "", ""),
    names: ("", ""),
    namespaced: true,
    short: &[],
    categories: &[],
    subresources: &[],
    view: View::Stored,
};

const ALL: &[&str] = &["all"];

#[rustfmt::skip]
const ROWS: &[Row] = &[
    Row { gvk: ("", "v1", "Namespace"), names: ("namespaces", "namespace"), namespaced: false, short: &["ns"], subresources: &[STATUS, FINALIZE], ..ROW },
    Row { gvk: ("", "v1", "Node"), names: ("nodes", "node"), namespaced: false, short: &["no"], subresources: &[STATUS], ..ROW },
    Row { gvk: ("", "v1", "Pod"), names: ("pods", "pod"), short: &["po"], categories: ALL, subresources: &[STATUS, LOG, EXEC, ATTACH, BINDING, EVICTION], ..ROW },
    Row { gvk: ("", "v1", "Service"), names: ("services", "service"), short: &["svc"], categories: ALL, subresources: &[STATUS], ..ROW },
    Row { gvk: ("", "v1", "Endpoints"), names: ("endpoints", "endpoints"), short: &["ep"], ..ROW },
    Row { gvk: ("", "v1", "ConfigMap"), names: ("configmaps", "configmap"), short: &["cm"], ..ROW },
    Row { gvk: ("", "v1", "Secret"), names: ("secrets", "secret"), ..ROW },
    Row { gvk: ("", "v1", "ServiceAccount"), names: ("serviceaccounts", "serviceaccount"), short: &["sa"], subresources: &[TOKEN], ..ROW },
    Row { gvk: ("", "v1", "Event"), names: ("events", "event"), short: &["ev"], ..ROW },
    Row { gvk: ("events.k8s.io", "v1", "Event"), names: ("events", "event"), short: &["ev"], view: View::EventsV1, ..ROW },
    Row { gvk: ("apps", "v1", "Deployment"), names: ("deployments", "deployment"), short: &["deploy"], categories: ALL, subresources: &[STATUS, SCALE], ..ROW },
    Row { gvk: ("apps", "v1", "ReplicaSet"), names: ("replicasets", "replicaset"), short: &["rs"], categories: ALL, subresources: &[STATUS, SCALE], ..ROW },
    Row { gvk: ("apps", "v1", "StatefulSet"), names: ("statefulsets", "statefulset"), short: &["sts"], categories: ALL, subresources: &[STATUS, SCALE], ..ROW },
    Row { gvk: ("apps", "v1", "ControllerRevision"), names: ("controllerrevisions", "controllerrevision"), ..ROW },
    Row { gvk: ("discovery.k8s.io", "v1", "EndpointSlice"), names: ("endpointslices", "endpointslice"), ..ROW },
    Row { gvk: ("coordination.k8s.io", "v1", "Lease"), names: ("leases", "lease"), ..ROW },
    Row { gvk: ("apiextensions.k8s.io", "v1", "CustomResourceDefinition"), names: ("customresourcedefinitions", "customresourcedefinition"),
          namespaced: false, short: &["crd", "crds"], categories: &["api-extensions"], subresources: &[STATUS], ..ROW },
    Row { gvk: ("authorization.k8s.io", "v1", "SelfSubjectAccessReview"), names: ("selfsubjectaccessreviews", "selfsubjectaccessreview"),
          namespaced: false, view: View::Review, ..ROW },
    Row { gvk: ("authorization.k8s.io", "v1", "SubjectAccessReview"), names: ("subjectaccessreviews", "subjectaccessreview"),
          namespaced: false, view: View::Review, ..ROW },
    Row { gvk: ("authentication.k8s.io", "v1", "TokenReview"), names: ("tokenreviews", "tokenreview"),
          namespaced: false, view: View::Review, ..ROW },
    Row { gvk: ("authentication.k8s.io", "v1", "SelfSubjectReview"), names: ("selfsubjectreviews", "selfsubjectreview"),
          namespaced: false, view: View::Review, ..ROW },
];

/// The table's rows as they are served.
pub(super) fn resources() -> impl Iterator<Item = Resource> {
    ROWS.iter().map(served)
}

fn served(row: &Row) -> Resource {
    let (group, version, kind) = row.gvk;
    let (plural, singular) = row.names;
    let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    // Both kinds of events are views of one table.
    let storage = if row.view == View::EventsV1 { "events".to_owned() } else { group_resource(group, plural) };
    Resource {
        group: group.to_owned(),
        version: version.to_owned(),
        kind: kind.to_owned(),
        list_kind: format!("{kind}List"),
        plural: plural.to_owned(),
        singular: singular.to_owned(),
        namespaced: row.namespaced,
        short_names: owned(row.short),
        categories: owned(row.categories),
        subresources: row.subresources.to_vec(),
        scale: row.subresources.contains(&SCALE).then(workload_scale),
        storage: Arc::from(storage),
        view: row.view,
        custom: None,
    }
}

/// Deployments and ReplicaSets keep their numbers in the same places.
fn workload_scale() -> ScalePaths {
    let path = |a: &str, b: &str| vec![a.to_owned(), b.to_owned()];
    ScalePaths {
        spec: path("spec", "replicas"),
        status: path("status", "replicas"),
        selector: Some(path("spec", "selector")),
    }
}

/// The `status` and `scale` subresources of custom kinds.
pub(crate) fn custom_subresources(status: bool, scale: bool) -> Vec<Subresource> {
    let status = status.then_some(STATUS);
    status.into_iter().chain(scale.then_some(SCALE)).collect()
}
