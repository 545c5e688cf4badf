//! How an answer looks: the object, its metadata alone, or a table.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use chrono::Utc;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde_json::{Value, json};

use super::query::Query;
use crate::errors::ApiError;
use crate::registry::{Resource, to_view};
use crate::store::Object;
use crate::table::{self, IncludeObject};

/// What the client wants to see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Representation {
    /// All of an object.
    Whole,
    /// `meta.k8s.io` PartialObjectMetadata.
    Metadata,
    /// `meta.k8s.io` Table.
    Table(IncludeObject),
}

impl Representation {
    /// The first of the accepted media types that is served.
    pub(super) fn negotiate(headers: &HeaderMap, query: &Query) -> Result<Self, ApiError> {
        let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
        if accept.trim().is_empty() {
            return Ok(Self::Whole);
        }
        let found = accept.split(',').find_map(|range| of_media_type(range, query));
        found.ok_or_else(ApiError::not_acceptable)
    }

    /// Whether stored JSON can be sent as it is.
    pub(super) fn is_stored_form(self, resource: &Resource) -> bool {
        self == Self::Whole && resource.view == crate::registry::View::Stored && !has_versions(resource)
    }

    /// One object, as JSON.
    pub(super) fn object(self, resource: &Resource, object: &Object) -> Bytes {
        let viewed = to_view(resource, &object.value);
        match (self, &viewed) {
            (Self::Whole, None) => object.json.clone(),
            (Self::Whole, Some(value)) => Bytes::from(value.to_string()),
            _ => Bytes::from(self.value(resource, viewed.as_ref().unwrap_or(&object.value)).to_string()),
        }
    }

    /// One object in the spelling that the resource serves, represented.
    pub(super) fn value(self, resource: &Resource, object: &Value) -> Value {
        match self {
            Self::Whole => object.clone(),
            Self::Metadata => partial(object),
            Self::Table(include) => {
                let metadata = json!({ "resourceVersion": object["metadata"]["resourceVersion"] });
                self::table(resource, &[object], include, metadata)
            }
        }
    }
}

/// Custom kinds may be stored under another version than they are asked for.
fn has_versions(resource: &Resource) -> bool {
    resource.custom.is_some()
}

fn of_media_type(range: &str, query: &Query) -> Option<Representation> {
    let mut parts = range.split(';').map(str::trim);
    let media_type = parts.next()?;
    if !matches!(media_type, "application/json" | "*/*" | "application/*") {
        return None;
    }
    let parameter = |name: &str| {
        range
            .split(';')
            .map(str::trim)
            .filter_map(|part| part.split_once('='))
            .find(|(key, _)| *key == name)
            .map(|(_, v)| v)
    };
    match parameter("as") {
        None => Some(Representation::Whole),
        Some("PartialObjectMetadata" | "PartialObjectMetadataList") => Some(Representation::Metadata),
        Some("Table") if parameter("v") == Some("v1") => Some(Representation::Table(include_object(query))),
        Some(_) => None,
    }
}

fn include_object(query: &Query) -> IncludeObject {
    match query.text("includeObject") {
        Some("None") => IncludeObject::None,
        Some("Object") => IncludeObject::Object,
        _ => IncludeObject::Metadata,
    }
}

/// An object's metadata alone.
pub(super) fn partial(object: &Value) -> Value {
    json!({ "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object["metadata"] })
}

/// Objects as a table.
pub(super) fn table(resource: &Resource, objects: &[&Value], include: IncludeObject, metadata: Value) -> Value {
    table::render(&resource.group, &resource.kind, resource.columns(), objects, Utc::now(), include, metadata)
}

/// A JSON answer.
pub(super) fn json_response(code: StatusCode, json: impl Into<Bytes>) -> Response {
    let mut response = (code, Body::from(json.into())).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// A JSON answer with warnings (RFC 7234, 5.5: code 299).
pub(super) fn with_warnings(mut response: Response, warnings: &[String]) -> Response {
    for warning in warnings {
        let text = warning.replace('\\', "\\\\").replace('"', "\\\"");
        if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{text}\"")) {
            response.headers_mut().append(header::WARNING, value);
        }
    }
    response
}
