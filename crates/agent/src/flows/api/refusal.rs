//! Why a request is answered with something else than what it asks for.

use axum::{
    body::Body,
    http::{Response, StatusCode},
};

/// The status, and a sentence for whoever asked.
pub(super) struct Refusal(StatusCode, String);

impl Refusal {
    pub(super) fn new(status: StatusCode, why: impl Into<String>) -> Self {
        Self(status, why.into())
    }

    /// As it is answered.
    pub(super) fn response(self) -> Response<Body> {
        let Self(status, why) = self;
        let mut response = Response::new(Body::from(format!("{why}\n")));
        *response.status_mut() = status;
        response
    }
}
