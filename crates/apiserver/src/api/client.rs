//! The API as a library: a router, and a Kubernetes client that calls it without a socket.

use std::convert::Infallible;

use axum::Router;
use axum::body::Body;
use axum::response::Response;
use http::Request;
use tower::{Service, ServiceExt};

use super::Api;
use crate::auth::Identity;

impl Api {
    /// Answers requests. Who asks is the [`Identity`] in the request's extensions, or the bearer token's.
    pub fn router(&self) -> Router {
        crate::http::router(self.clone())
    }

    /// A client of this very API, as `system:masters`, for the controllers in this process.
    pub fn in_process_client(&self) -> kube::Client {
        let router = self.router();
        let service = tower::service_fn(move |request: Request<kube::client::Body>| {
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(Identity::in_process());
            call(router.clone(), request)
        });
        kube::Client::new(service, "default")
    }
}

async fn call(mut router: Router, request: Request<Body>) -> Result<Response, Infallible> {
    let service = ServiceExt::<Request<Body>>::ready(&mut router).await?;
    service.call(request).await
}
