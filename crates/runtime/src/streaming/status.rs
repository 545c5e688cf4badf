//! `v1.Status` objects: the answer at the end of an exec session, and the body of every HTTP error.

use bytes::Bytes;
use http::{Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};

use super::server::Body;
use crate::access::AccessError;

/// The process ended with `code`.
pub(super) fn exited(code: i32) -> Value {
    if code == 0 {
        return json!({ "metadata": {}, "status": "Success" });
    }
    json!({
        "metadata": {},
        "status": "Failure",
        "message": format!("command terminated with non-zero exit code: exit status {code}"),
        "reason": "NonZeroExitCode",
        "details": { "causes": [{ "reason": "ExitCode", "message": code.to_string() }] },
    })
}

/// The process could not be started, or how it ended is not known.
pub(super) fn failed(message: &str) -> Value {
    json!({
        "metadata": {},
        "status": "Failure",
        "message": message,
        "reason": "InternalError",
        "details": { "causes": [{ "message": message }] },
        "code": 500,
    })
}

/// An HTTP error that clients of the API understand, also when the API server passes it on unread.
pub(super) fn refused(code: StatusCode, message: &str) -> Response<Body> {
    let reason = match code {
        StatusCode::BAD_REQUEST => "BadRequest",
        StatusCode::FORBIDDEN => "Forbidden",
        StatusCode::NOT_FOUND => "NotFound",
        StatusCode::METHOD_NOT_ALLOWED => "MethodNotAllowed",
        StatusCode::NOT_IMPLEMENTED => "NotImplemented",
        _ => "InternalError",
    };
    let status = json!({
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": message,
        "reason": reason,
        "code": code.as_u16(),
    });
    let mut response = Response::new(text(status.to_string()));
    *response.status_mut() = code;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    response
}

/// The HTTP error for a container that cannot be reached.
pub(super) fn unreachable(error: &AccessError) -> Response<Body> {
    let code = match error {
        AccessError::NoPod { .. } | AccessError::NoContainer { .. } => StatusCode::NOT_FOUND,
        AccessError::NotRunning { .. } => StatusCode::BAD_REQUEST,
        AccessError::Start { .. } => StatusCode::INTERNAL_SERVER_ERROR,
    };
    refused(code, &error.to_string())
}

/// A body that is there at once.
pub(super) fn text(content: impl Into<Bytes>) -> Body {
    Full::new(content.into()).map_err(|never| match never {}).boxed_unsync()
}
