//! DNS over HTTPS (RFC 8484).

use std::{sync::Arc, time::Duration};

use axum::{
    body::Body,
    http::{HeaderValue, Method, Request, Response, StatusCode, header},
};
use data_encoding::BASE64URL_NOPAD;
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use podnet_dns::{Arrival, message::max_age};
use tokio::time::timeout;

use super::{Account, MESSAGE, Shared, Silent, ask};
use crate::dns::unread::refused;

/// The one path; CoreDNS's, and that of the RFC's examples.
const PATH: &str = "/dns-query";
const MEDIA_TYPE: &str = "application/dns-message";

/// The response to a request.
pub(super) async fn answer(
    shared: &Shared,
    unread: &Arc<Account>,
    read: Duration,
    request: Request<Incoming>,
    arrival: &Arrival,
) -> Result<Response<Body>, Silent> {
    let message = match message(request, read).await {
        Ok(message) => message,
        Err(status) => return Ok(refusal(status)),
    };
    // Too short for a header, or a response.
    if message.len() < 12 || message[2] & 0x80 != 0 {
        return Ok(refusal(StatusCode::BAD_REQUEST));
    }
    let answer = ask(shared, unread, &message, arrival).await?;
    // RFC 8484 §5.1: caches of HTTP keep it no longer than those of DNS.
    let age = format!("max-age={}", max_age(&answer));
    let body = unread.keep(answer).unwrap_or_else(|answer| refused(&answer).into());
    let mut response = Response::new(Body::from(body));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
    if let Ok(age) = HeaderValue::try_from(age) {
        headers.insert(header::CACHE_CONTROL, age);
    }
    Ok(response)
}

/// The DNS message of a request (§4.1).
async fn message(request: Request<Incoming>, read: Duration) -> Result<Vec<u8>, StatusCode> {
    if request.uri().path() != PATH {
        return Err(StatusCode::NOT_FOUND);
    }
    match *request.method() {
        Method::GET | Method::HEAD => {
            let mut parameters = request.uri().query().unwrap_or_default().split('&');
            let text = parameters.find_map(|pair| pair.strip_prefix("dns=")).ok_or(StatusCode::BAD_REQUEST)?;
            let message = BASE64URL_NOPAD.decode(text.as_bytes()).map_err(|_| StatusCode::BAD_REQUEST)?;
            if message.len() <= MESSAGE { Ok(message) } else { Err(StatusCode::URI_TOO_LONG) }
        }
        Method::POST => {
            let kind = request.headers().get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
            if kind.is_none_or(|kind| !kind.eq_ignore_ascii_case(MEDIA_TYPE.as_bytes())) {
                return Err(StatusCode::UNSUPPORTED_MEDIA_TYPE);
            }
            let body = timeout(read, Limited::new(request.into_body(), MESSAGE).collect()).await;
            let body = body.map_err(|_| StatusCode::REQUEST_TIMEOUT)?.map_err(|_| StatusCode::PAYLOAD_TOO_LARGE)?;
            Ok(body.to_bytes().to_vec())
        }
        _ => Err(StatusCode::METHOD_NOT_ALLOWED),
    }
}

fn refusal(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    if status == StatusCode::METHOD_NOT_ALLOWED {
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD, POST"));
    }
    response
}
