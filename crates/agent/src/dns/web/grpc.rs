//! DNS over gRPC, as CoreDNS speaks it: the service `coredns.dns.DnsService` has one method, `Query`, whose request and response
//! are a message with the bytes of a DNS message as its first field.

use std::{future::ready, sync::Arc, time::Duration};

use axum::{
    body::{Body, Bytes},
    http::{HeaderMap, HeaderValue, Request, Response, header},
};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use podnet_dns::Arrival;
use tokio::time::timeout;

use super::{Account, MESSAGE, Shared, ask};
use crate::dns::{
    protobuf::{self, HEAD},
    unread::refused,
};

/// How a call ended, by gRPC's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Status {
    Done = 0,
    InvalidArgument = 3,
    DeadlineExceeded = 4,
    ResourceExhausted = 8,
    Unimplemented = 12,
    Unavailable = 14,
}

/// The response to a request.
pub(super) async fn answer(
    shared: &Shared,
    unread: &Arc<Account>,
    read: Duration,
    request: Request<Incoming>,
    arrival: &Arrival,
) -> Response<Body> {
    let called = match message(request, read).await {
        Ok(message) => ask(shared, unread, &message, arrival).await.map_err(|_| Status::Unavailable),
        Err(status) => Err(status),
    };
    let (body, status) = match called {
        Ok(answer) => {
            let kept = unread.keep(protobuf::framed(&answer));
            (kept.unwrap_or_else(|_| protobuf::framed(&refused(&answer)).into()), Status::Done)
        }
        Err(status) => (Bytes::new(), status),
    };
    let mut trailers = HeaderMap::new();
    trailers.insert(protobuf::STATUS, HeaderValue::from(status as u16));
    let mut response = Response::new(Body::new(Full::new(body).with_trailers(ready(Some(Ok(trailers))))));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

/// The DNS message of a request.
async fn message(request: Request<Incoming>, read: Duration) -> Result<Vec<u8>, Status> {
    if request.uri().path() != protobuf::METHOD {
        return Err(Status::Unimplemented);
    }
    // Beside the message there may be fields that are not known.
    let limit = HEAD + 2 * MESSAGE;
    let body = timeout(read, Limited::new(request.into_body(), limit).collect()).await;
    let body = body.map_err(|_| Status::DeadlineExceeded)?.map_err(|_| Status::ResourceExhausted)?;
    protobuf::unframed(&body.to_bytes()).ok_or(Status::InvalidArgument)
}
