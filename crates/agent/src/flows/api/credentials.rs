//! Who asks: whose certificate TLS has verified, or whose bearer token it is.

use axum::http::{Request, StatusCode, header};
use hyper::body::Incoming;
use podnet_model::errors::chain;

use super::{
    Refusal, Server,
    asker::{Asker, ReviewError},
};

pub(super) const NOBODY: &str = "show a certificate of the cluster's authority or a bearer token";

impl Server {
    /// Who asks, by their certificate or their token.
    pub(super) async fn asker(
        &self,
        request: &Request<Incoming>,
        by_certificate: Option<Option<Asker>>,
    ) -> Result<Asker, Refusal> {
        let asker = match by_certificate {
            Some(asker) => asker,
            None => self.by_token(request).await?,
        };
        asker.ok_or_else(|| Refusal::new(StatusCode::UNAUTHORIZED, NOBODY))
    }

    async fn by_token(&self, request: &Request<Incoming>) -> Result<Option<Asker>, Refusal> {
        let Some(token) = token(request) else { return Ok(None) };
        self.tokens.owner(&self.answers.client, token).await.map_err(|error| {
            let status = match error {
                ReviewError::Busy => StatusCode::TOO_MANY_REQUESTS,
                ReviewError::Slow | ReviewError::Failed(_) => StatusCode::SERVICE_UNAVAILABLE,
            };
            Refusal::new(status, chain(&error))
        })
    }
}

/// The bearer token of a request.
pub(super) fn token(request: &Request<Incoming>) -> Option<&str> {
    let header = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    header.and_then(|header| header.strip_prefix("Bearer "))
}
