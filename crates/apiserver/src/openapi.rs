//! As much of OpenAPI as kubectl needs in order to apply.
//!
//! Newer clients look into the v3 document of a group to see whether a kind's PATCH takes `fieldValidation`, and then leave
//! validation to the server. Older ones download the v2 document for validation of their own and skip kinds that it does not define.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, header};
use serde_json::{Map, Value, json};

use crate::discovery::GIT_VERSION;
use crate::registry::{Catalog, Resource};

/// Clients ask for `…spec.v2@v1.0+protobuf`, but newer ones read the answer's type strictly, and `@` is not allowed in one.
const V2_PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

/// The document at a path, or nothing when the path is not one of OpenAPI.
pub fn document(catalog: &Catalog, path: &str, headers: &HeaderMap) -> Option<Response> {
    let segments: Vec<&str> = path.trim_matches('/').split('/').collect();
    match segments.as_slice() {
        ["openapi", "v2"] => Some(version_2(headers)),
        ["openapi", "v3"] => Some(json_response(&index(catalog))),
        ["openapi", "v3", "api", version] => group_version(catalog, "", version),
        ["openapi", "v3", "apis", group, version] => group_version(catalog, group, version),
        _ => None,
    }
}

fn json_response(document: &Value) -> Response {
    let mut response = Body::from(document.to_string()).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn index(catalog: &Catalog) -> Value {
    let mut paths = Map::new();
    for (group, versions) in catalog.groups() {
        for version in versions {
            let path = if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") };
            let url = format!("/openapi/v3/{path}");
            paths.insert(path, json!({ "serverRelativeURL": url }));
        }
    }
    json!({ "paths": paths })
}

fn group_version(catalog: &Catalog, group: &str, version: &str) -> Option<Response> {
    let served: Vec<_> =
        catalog.resources().iter().filter(|r| r.group == group && r.version == version && r.is_stored()).collect();
    if served.is_empty() {
        return None;
    }
    let paths: Map<String, Value> =
        served.iter().map(|resource| (object_path(resource), operations(resource))).collect();
    let document = json!({
        "openapi": "3.0.0",
        "info": { "title": "podnet", "version": GIT_VERSION },
        "paths": paths,
        "components": { "schemas": {} },
    });
    Some(json_response(&document))
}

fn object_path(resource: &Resource) -> String {
    let root = if resource.group.is_empty() { "api" } else { "apis" };
    let namespace = if resource.namespaced { "/namespaces/{namespace}" } else { "" };
    format!("/{root}/{}{namespace}/{}/{{name}}", resource.api_version(), resource.plural)
}

fn operations(resource: &Resource) -> Value {
    let kind = json!({ "group": resource.group, "version": resource.version, "kind": resource.kind });
    let parameter =
        |name: &str| json!({ "name": name, "in": "query", "schema": { "type": "string", "uniqueItems": true } });
    let operation = |action: &str| {
        json!({
            "parameters": [parameter("dryRun"), parameter("fieldManager"), parameter("fieldValidation")],
            "responses": { "200": { "description": "OK" } },
            "x-kubernetes-action": action,
            "x-kubernetes-group-version-kind": kind,
        })
    };
    // No request bodies: a client that finds none computes its patches from the types that it was built with.
    json!({ "put": operation("put"), "patch": operation("patch") })
}

fn version_2(headers: &HeaderMap) -> Response {
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !accept.contains("protobuf") {
        let info = json!({ "title": "podnet", "version": GIT_VERSION });
        return json_response(&json!({ "swagger": "2.0", "info": info, "paths": {}, "definitions": {} }));
    }
    let mut response = Body::from(empty_document()).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(V2_PROTOBUF));
    response
}

/// The message `openapi.v2.Document` without definitions. Field numbers are those of gnostic's `OpenAPIv2.proto`.
fn empty_document() -> Vec<u8> {
    let info: Vec<u8> = [text(1, "podnet"), text(2, GIT_VERSION)].concat();
    [text(1, "2.0"), bytes(2, &info), bytes(8, &[]), bytes(9, &[])].concat()
}

fn text(field: u8, value: &str) -> Vec<u8> {
    bytes(field, value.as_bytes())
}

/// A length-delimited protobuf field; all of ours are shorter than 128 bytes, so that lengths are one byte.
fn bytes(field: u8, value: &[u8]) -> Vec<u8> {
    const LENGTH_DELIMITED: u8 = 2;
    let length = u8::try_from(value.len()).unwrap_or(127).min(127);
    let mut out = vec![field << 3 | LENGTH_DELIMITED, length];
    out.extend(value.iter().take(usize::from(length)));
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::Catalog;

    #[test]
    fn the_empty_document_is_well_formed_protobuf() {
        let document = empty_document();
        assert_eq!(&document[..5], b"\x0a\x032.0");
        assert_eq!(&document[document.len() - 4..], [0x42, 0, 0x4a, 0]);
    }

    #[test]
    fn every_group_version_is_in_the_index() {
        let index = index(&Catalog::builtin());
        assert_eq!(index["paths"]["api/v1"]["serverRelativeURL"], "/openapi/v3/api/v1");
        assert!(index["paths"]["apis/apps/v1"].is_object());
    }

    #[test]
    fn patching_takes_field_validation() {
        let catalog = Catalog::builtin();
        let pods = catalog.resource("", "v1", "pods").unwrap();
        assert_eq!(object_path(&pods), "/api/v1/namespaces/{namespace}/pods/{name}");
        let parameters = operations(&pods)["patch"]["parameters"].as_array().unwrap().clone();
        assert!(parameters.iter().any(|parameter| parameter["name"] == "fieldValidation"));
    }
}
