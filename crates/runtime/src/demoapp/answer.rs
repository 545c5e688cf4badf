//! What is answered.

use std::{
    convert::Infallible,
    fmt::Write,
    net::IpAddr,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
};

use bytes::Bytes;
use futures::stream;
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::{Frame, Incoming};
use serde_json::{Value, json};

use super::{DemoappError, DemoappOptions};

/// The longest request body that is echoed.
const MAX_ECHO: usize = 16 * 1024 * 1024;
/// The most that `/bytes` gives: 1 GiB.
const MAX_BYTES: u64 = 1 << 30;
/// What `/bytes` sends over and over.
static ZEROES: [u8; 64 * 1024] = [0; 64 * 1024];

/// The statuses of failed probes, as ikubernetes/demoapp has them.
const NOT_LIVE: StatusCode = StatusCode::VARIANT_ALSO_NEGOTIATES;
const NOT_READY: StatusCode = StatusCode::INSUFFICIENT_STORAGE;

pub(super) type Body = UnsyncBoxBody<Bytes, Infallible>;

/// What answers depend on.
pub(super) struct App {
    name: String,
    address: Option<IpAddr>,
    release: String,
    text: Option<String>,
    live: Probe,
    ready: Probe,
}

/// Something that is asked for, and can be made to fail.
struct Probe {
    name: &'static str,
    good: AtomicBool,
    failure: StatusCode,
}

impl App {
    pub(super) fn new(options: DemoappOptions, hostname: &Path) -> Result<App, DemoappError> {
        let name = match options.pod_name {
            Some(name) => name,
            None => std::fs::read_to_string(hostname)
                .map_err(|source| DemoappError::Hostname { path: hostname.to_owned(), source })?
                .trim()
                .to_owned(),
        };
        let probe = |name, failure| Probe { name, good: AtomicBool::new(true), failure };
        Ok(App {
            name,
            address: options.pod_ip,
            release: options.release.unwrap_or_else(|| "v1".to_owned()),
            text: options.text,
            live: probe("livez", NOT_LIVE),
            ready: probe("readyz", NOT_READY),
        })
    }
}

/// Answers one request of `client` that came to `server`.
pub(super) async fn answer(app: &App, request: Request<Incoming>, client: IpAddr, server: IpAddr) -> Response<Body> {
    let (client, server) = (client.to_canonical(), app.address.unwrap_or(server).to_canonical());
    let path = request.uri().path().to_owned();
    match path.trim_end_matches('/') {
        "/livez" => probe(&app.live, request).await,
        "/readyz" => probe(&app.ready, request).await,
        "/healthz" => text(StatusCode::OK, "OK\n"),
        "/echo" => echo(request).await,
        "/hostname" => text(StatusCode::OK, format!("{}\n", app.name)),
        "/clientip" => text(StatusCode::OK, format!("{client}\n")),
        "/user-agent" => text(StatusCode::OK, format!("{}\n", header_text(request.headers(), &header::USER_AGENT))),
        "/headers" => headers(request.headers()),
        path => match path.strip_prefix("/bytes/") {
            Some(count) => bytes(count),
            None => home(app, &request, client, server),
        },
    }
}

fn home(app: &App, request: &Request<Incoming>, client: IpAddr, server: IpAddr) -> Response<Body> {
    let App { name, release, .. } = app;
    if wants_json(request.headers()) {
        return json_text(&json!({
            "application": "podnet demoapp",
            "release": release,
            "clientIP": client.to_string(),
            "serverName": name,
            "serverIP": server.to_string(),
            "method": request.method().as_str(),
            "path": request.uri().path(),
            "host": header_text(request.headers(), &header::HOST),
        }));
    }
    match &app.text {
        Some(own) => text(StatusCode::OK, format!("{own}\n")),
        None => text(
            StatusCode::OK,
            format!("podnet demoapp {release} !! ClientIP: {client}, ServerName: {name}, ServerIP: {server}\n"),
        ),
    }
}

/// GET says how it is; POST of `name=FAIL` or `name=OK` (a form, as curl -d sends it) decides it.
async fn probe(probe: &Probe, request: Request<Incoming>) -> Response<Body> {
    if request.method() == Method::POST {
        let Ok(body) = Limited::new(request.into_body(), 4096).collect().await else {
            return text(StatusCode::PAYLOAD_TOO_LARGE, "the form is longer than 4096 bytes\n");
        };
        let body = body.to_bytes();
        let Some((_, value)) = form_urlencoded::parse(&body).find(|(name, _)| name == probe.name) else {
            return text(StatusCode::BAD_REQUEST, format!("POST {0}=OK or {0}=FAIL\n", probe.name));
        };
        probe.good.store(value.trim() == "OK", Ordering::Relaxed);
    }
    if probe.good.load(Ordering::Relaxed) { text(StatusCode::OK, "OK\n") } else { text(probe.failure, "FAIL\n") }
}

async fn echo(request: Request<Incoming>) -> Response<Body> {
    let query = request.uri().query().unwrap_or_default();
    if let Some((_, message)) = form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "msg") {
        return text(StatusCode::OK, message.into_owned());
    }
    let kind = request.headers().get(header::CONTENT_TYPE).cloned();
    match Limited::new(request.into_body(), MAX_ECHO).collect().await {
        Ok(body) => {
            let mut response = Response::new(Full::new(body.to_bytes()).boxed_unsync());
            if let Some(kind) = kind {
                response.headers_mut().insert(header::CONTENT_TYPE, kind);
            }
            response
        }
        Err(_) => text(StatusCode::PAYLOAD_TOO_LARGE, format!("at most {MAX_ECHO} bytes are echoed\n")),
    }
}

fn headers(headers: &HeaderMap) -> Response<Body> {
    let lossy = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    if wants_json(headers) {
        let object = headers.iter().map(|(name, value)| (name.to_string(), Value::from(lossy(value)))).collect();
        return json_text(&Value::Object(object));
    }
    let mut lines = String::new();
    for (name, value) in headers {
        let _ = writeln!(lines, "{name}: {}", lossy(value));
    }
    text(StatusCode::OK, lines)
}

fn bytes(count: &str) -> Response<Body> {
    let Some(count) = count.parse::<u64>().ok().filter(|count| *count <= MAX_BYTES) else {
        return text(StatusCode::BAD_REQUEST, format!("/bytes/N gives N bytes, from 0 to {MAX_BYTES}\n"));
    };
    let pieces = stream::unfold(count, |left| async move {
        let length = left.min(ZEROES.len() as u64);
        let piece = Bytes::from_static(&ZEROES[..usize::try_from(length).unwrap_or(ZEROES.len())]);
        (length > 0).then(|| (Ok(Frame::data(piece)), left - length))
    });
    let mut response = Response::new(StreamBody::new(pieces).boxed_unsync());
    response.headers_mut().insert(header::CONTENT_LENGTH, count.into());
    let kind = header::HeaderValue::from_static("application/octet-stream");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

fn wants_json(headers: &HeaderMap) -> bool {
    header_text(headers, &header::ACCEPT).contains("application/json")
}

fn header_text<'a>(headers: &'a HeaderMap, name: &header::HeaderName) -> &'a str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

fn text(status: StatusCode, content: impl Into<Bytes>) -> Response<Body> {
    with_type(status, content.into(), "text/plain; charset=utf-8")
}

fn json_text(value: &Value) -> Response<Body> {
    with_type(StatusCode::OK, format!("{value}\n").into(), "application/json")
}

fn with_type(status: StatusCode, content: Bytes, kind: &'static str) -> Response<Body> {
    let mut response = Response::new(Full::new(content).boxed_unsync());
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    response
}
