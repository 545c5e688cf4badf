//! Which groups, versions and resources there are: what clients ask before they ask.
//! <https://kubernetes.io/docs/concepts/overview/kubernetes-api/#discovery-api>

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde_json::{Value, json};

use crate::registry::{Catalog, Resource, Subresource};

/// The version of Kubernetes whose API this is.
pub const GIT_VERSION: &str = "v1.32.0+podnet";

const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// The document at a path, or nothing when the path is not one of discovery.
pub fn document(catalog: &Catalog, path: &str, headers: &HeaderMap) -> Option<Response> {
    let segments: Vec<&str> = path.trim_matches('/').split('/').collect();
    let aggregated = wants_aggregated(headers);
    match segments.as_slice() {
        ["api"] if aggregated => Some(response(aggregated_list(catalog, true), AGGREGATED)),
        ["apis"] if aggregated => Some(response(aggregated_list(catalog, false), AGGREGATED)),
        ["api"] => Some(plain(core_versions())),
        ["apis"] => Some(plain(group_list(catalog))),
        ["api", version] => resource_list(catalog, "", version).map(plain),
        ["apis", group] => group_document(catalog, group).map(plain),
        ["apis", group, version] => resource_list(catalog, group, version).map(plain),
        ["version"] => Some(plain(version())),
        ["healthz" | "livez" | "readyz", ..] => Some((StatusCode::OK, "ok").into_response()),
        _ => None,
    }
}

fn wants_aggregated(headers: &HeaderMap) -> bool {
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    accept.split(',').any(|range| {
        let has = |parameter: &str| range.split(';').any(|part| part.trim() == parameter);
        has("g=apidiscovery.k8s.io") && has("v=v2") && has("as=APIGroupDiscoveryList")
    })
}

fn plain(document: Value) -> Response {
    response(document, "application/json")
}

#[allow(clippy::needless_pass_by_value, reason = "documents are made to be sent")]
fn response(document: Value, content_type: &'static str) -> Response {
    let mut response = Body::from(document.to_string()).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    // The same path has two answers.
    response.headers_mut().insert(header::VARY, HeaderValue::from_static("Accept"));
    response
}

fn version() -> Value {
    json!({
        "major": "1",
        "minor": "32",
        "gitVersion": GIT_VERSION,
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "",
        "compiler": "rustc",
        "platform": format!("{}/{}", std::env::consts::OS, std::env::consts::ARCH),
    })
}

fn core_versions() -> Value {
    json!({ "kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": [] })
}

fn group_list(catalog: &Catalog) -> Value {
    let groups = catalog.groups();
    let groups: Vec<Value> = groups
        .iter()
        .filter(|(group, _)| !group.is_empty())
        .map(|(group, versions)| group_entry(group, versions))
        .collect();
    json!({ "kind": "APIGroupList", "apiVersion": "v1", "groups": groups })
}

fn group_document(catalog: &Catalog, group: &str) -> Option<Value> {
    let groups = catalog.groups();
    let (group, versions) = groups.iter().find(|(name, _)| *name == group && !name.is_empty())?;
    let mut document = group_entry(group, versions);
    document["kind"] = json!("APIGroup");
    document["apiVersion"] = json!("v1");
    Some(document)
}

fn group_entry(group: &str, versions: &[&str]) -> Value {
    let entry = |version: &&str| json!({ "groupVersion": format!("{group}/{version}"), "version": version });
    let versions: Vec<Value> = versions.iter().map(entry).collect();
    json!({ "name": group, "versions": versions, "preferredVersion": versions.first() })
}

fn resource_list(catalog: &Catalog, group: &str, version: &str) -> Option<Value> {
    let served: Vec<_> = catalog.resources().iter().filter(|r| r.group == group && r.version == version).collect();
    let first = served.first()?;
    let entries: Vec<Value> = served.iter().flat_map(|resource| resource_entries(resource)).collect();
    json!({ "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": first.api_version(), "resources": entries })
        .into()
}

/// A resource and its subresources in a plain list.
fn resource_entries(resource: &Resource) -> Vec<Value> {
    let mut own = json!({
        "name": resource.plural,
        "singularName": resource.singular,
        "namespaced": resource.namespaced,
        "kind": resource.kind,
        "verbs": resource.verbs(),
    });
    if !resource.short_names.is_empty() {
        own["shortNames"] = json!(resource.short_names);
    }
    if !resource.categories.is_empty() {
        own["categories"] = json!(resource.categories);
    }
    let below = resource.subresources.iter().map(|subresource| {
        let mut entry = json!({
            "name": format!("{}/{}", resource.plural, subresource.name),
            "singularName": "",
            "namespaced": resource.namespaced,
            "kind": subresource.kind.map_or(resource.kind.as_str(), |(_, _, kind)| kind),
            "verbs": subresource.verbs,
        });
        if let Some((group, version, _)) = subresource.kind {
            entry["group"] = json!(group);
            entry["version"] = json!(version);
        }
        entry
    });
    std::iter::once(own).chain(below).collect()
}

fn aggregated_list(catalog: &Catalog, core: bool) -> Value {
    let groups = catalog.groups();
    let items: Vec<Value> = groups
        .iter()
        .filter(|(group, _)| group.is_empty() == core)
        .map(|(group, versions)| {
            let versions: Vec<Value> =
                versions.iter().map(|version| aggregated_version(catalog, group, version)).collect();
            let metadata = if core {
                json!({ "creationTimestamp": null })
            } else {
                json!({ "name": group, "creationTimestamp": null })
            };
            json!({ "metadata": metadata, "versions": versions })
        })
        .collect();
    json!({ "kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items })
}

fn aggregated_version(catalog: &Catalog, group: &str, version: &str) -> Value {
    let served = catalog.resources().iter().filter(|r| r.group == group && r.version == version);
    let resources: Vec<Value> = served.map(|resource| aggregated_resource(resource)).collect();
    json!({ "version": version, "resources": resources, "freshness": "Current" })
}

fn aggregated_resource(resource: &Resource) -> Value {
    let mut entry = json!({
        "resource": resource.plural,
        "responseKind": { "group": resource.group, "version": resource.version, "kind": resource.kind },
        "scope": if resource.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": resource.singular,
        "verbs": resource.verbs(),
    });
    if !resource.short_names.is_empty() {
        entry["shortNames"] = json!(resource.short_names);
    }
    if !resource.categories.is_empty() {
        entry["categories"] = json!(resource.categories);
    }
    if !resource.subresources.is_empty() {
        entry["subresources"] =
            resource.subresources.iter().map(|below| aggregated_subresource(resource, below)).collect();
    }
    entry
}

fn aggregated_subresource(resource: &Resource, subresource: &Subresource) -> Value {
    let own = (resource.group.as_str(), resource.version.as_str(), resource.kind.as_str());
    let (group, version, kind) = subresource.kind.unwrap_or(own);
    json!({
        "subresource": subresource.name,
        "responseKind": { "group": group, "version": version, "kind": kind },
        "verbs": subresource.verbs,
    })
}
