//! Bodies of requests.

use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, header};
use serde_json::Value;

use crate::errors::ApiError;
use crate::patch::PatchKind;
use crate::protobuf::{self, ProtobufError};

mod yaml;

/// How long a client may take to send a body.
const PATIENCE: Duration = Duration::from_secs(60);

/// Bytes of a body at most: what Kubernetes accepts (3 MiB).
pub const LIMIT: usize = crate::shape::MAX_BYTES;

/// Reads a whole body.
pub async fn bytes(body: Body) -> Result<Bytes, ApiError> {
    let read = tokio::time::timeout(PATIENCE, axum::body::to_bytes(body, LIMIT)).await;
    let read = read.map_err(|_| ApiError::timeout(format!("the body did not arrive within {PATIENCE:?}")))?;
    read.map_err(|error| {
        let too_long = std::error::Error::source(&error)
            .is_some_and(<dyn std::error::Error>::is::<http_body_util::LengthLimitError>);
        if too_long { ApiError::too_large(LIMIT) } else { ApiError::bad_request(format!("reading the body: {error}")) }
    })
}

/// The object that a body holds, or nothing when it is empty.
pub async fn object(headers: &HeaderMap, body: Body) -> Result<Option<Value>, ApiError> {
    let bytes = bytes(body).await?;
    if bytes.is_empty() {
        return Ok(None);
    }
    let value = decode(media_type(headers), &bytes)?;
    match value {
        Value::Object(_) => Ok(Some(value)),
        _ => Err(ApiError::bad_request("the body has to be an object")),
    }
}

/// A patch with its kind.
pub async fn patch(headers: &HeaderMap, body: Body) -> Result<(PatchKind, Value), ApiError> {
    let kind = match media_type(headers) {
        "application/merge-patch+json" => PatchKind::JsonMerge,
        "application/strategic-merge-patch+json" => PatchKind::Strategic,
        "application/json-patch+json" => PatchKind::Json,
        "application/apply-patch+yaml" | "application/apply-patch+cbor" => {
            return Err(ApiError::unsupported_media_type(
                "server-side apply is not served: use client-side apply (kubectl apply --server-side=false)",
            ));
        }
        other => {
            return Err(ApiError::unsupported_media_type(format!(
                "the body of the request was in an unknown format {other:?} - accepted media types include: \
                 application/json-patch+json, application/merge-patch+json, application/strategic-merge-patch+json"
            )));
        }
    };
    let bytes = bytes(body).await?;
    // kubectl patch sends YAML converted to JSON, so JSON is all there is.
    let patch =
        serde_json::from_slice(&bytes).map_err(|error| ApiError::bad_request(format!("reading the patch: {error}")))?;
    Ok((kind, patch))
}

fn decode(media_type: &str, bytes: &[u8]) -> Result<Value, ApiError> {
    let malformed = |error: &dyn std::fmt::Display| {
        ApiError::bad_request(format!("the object provided is unrecognized (must be of type {media_type}): {error}"))
    };
    match media_type {
        "" | "application/json" | "*/*" => serde_json::from_slice(bytes).map_err(|error| malformed(&error)),
        "application/yaml" | "text/yaml" | "application/x-yaml" => {
            yaml::decode(bytes).map_err(|error| malformed(&error))
        }
        "application/vnd.kubernetes.protobuf" => protobuf::decode(bytes).map_err(|error| match error {
            ProtobufError::UnknownKind { .. } => ApiError::unsupported_media_type(error.to_string()),
            malformed => ApiError::bad_request(malformed.to_string()),
        }),
        other => Err(ApiError::unsupported_media_type(format!(
            "the body of the request was in an unknown format {other:?} - accepted media types include: \
             application/json, application/yaml, application/vnd.kubernetes.protobuf"
        ))),
    }
}

/// `Content-Type` without parameters.
fn media_type(headers: &HeaderMap) -> &str {
    let text = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    text.split(';').next().unwrap_or_default().trim()
}
