//! Which streaming protocol a client gets: the answer to its upgrade request.

use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_util::sync::CancellationToken;

use super::{route::ExecQuery, server::Body, spdy, status, websocket};
use crate::access::ExecSession;

/// Where SPDY clients say which versions of the remote command protocol they speak, most wanted first.
const STREAM_VERSION: &str = "x-stream-protocol-version";
/// Where they are told what they could have asked for.
const ACCEPTED_VERSIONS: &str = "x-accepted-stream-protocol-versions";

/// What client and server have agreed on.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    /// RFC 6455, one byte of channel number before each message.
    WebSocket { version: websocket::Version, accept: String },
    /// SPDY/3.1, one stream for each channel.
    Spdy(spdy::Version),
}

impl Protocol {
    /// Reads the upgrade request.
    ///
    /// # Errors
    /// The response that says what was wrong with it.
    pub(super) fn negotiate(method: &Method, headers: &HeaderMap) -> Result<Protocol, Box<Response<Body>>> {
        let wants =
            |protocol: &str| listed(headers, header::UPGRADE.as_str()).any(|name| name.eq_ignore_ascii_case(protocol));
        if !listed(headers, header::CONNECTION.as_str()).any(|option| option.eq_ignore_ascii_case("upgrade")) {
            return Err(bad("exec needs a connection upgrade to websocket or SPDY/3.1"));
        }
        if wants("websocket") {
            return if method == Method::GET {
                web_socket(headers)
            } else {
                Err(Box::new(status::refused(
                    StatusCode::METHOD_NOT_ALLOWED,
                    "a WebSocket is opened with GET (RFC 6455, 4.1)",
                )))
            };
        }
        if wants("SPDY/3.1") {
            return spdy(headers);
        }
        Err(bad("exec needs a connection upgrade to websocket or SPDY/3.1"))
    }

    /// The response that switches protocols.
    pub(super) fn switching(&self) -> Response<Body> {
        let mut response = Response::new(status::text(""));
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        match self {
            Protocol::WebSocket { version, accept } => {
                headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
                headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(version.name()));
                if let Ok(accept) = HeaderValue::from_str(accept) {
                    headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
                }
            }
            Protocol::Spdy(version) => {
                headers.insert(header::UPGRADE, HeaderValue::from_static("SPDY/3.1"));
                headers.insert(STREAM_VERSION, HeaderValue::from_static(version.name()));
            }
        }
        response
    }

    /// Serves the session, or tells why there is none, until it has ended, the client has gone or `stop` says so.
    pub(super) async fn serve(
        self,
        socket: Upgraded,
        session: Result<ExecSession, Value>,
        query: &ExecQuery,
        stop: CancellationToken,
    ) {
        let socket = TokioIo::new(socket);
        match self {
            Protocol::WebSocket { version, .. } => websocket::serve(socket, version, session, query, stop).await,
            Protocol::Spdy(version) => spdy::serve(socket, version, session, query, stop).await,
        }
    }
}

fn web_socket(headers: &HeaderMap) -> Result<Protocol, Box<Response<Body>>> {
    let key = headers.get(header::SEC_WEBSOCKET_KEY).ok_or_else(|| bad("the header Sec-WebSocket-Key is missing"))?;
    if headers.get(header::SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        return Err(bad("the header Sec-WebSocket-Version has to be 13"));
    }
    let offered: Vec<&str> = listed(headers, header::SEC_WEBSOCKET_PROTOCOL.as_str()).collect();
    let version = websocket::Version::best(&offered).ok_or_else(|| {
        bad(&format!("no WebSocket subprotocol in common: offered {offered:?}, served {:?}", websocket::Version::NAMES))
    })?;
    Ok(Protocol::WebSocket { version, accept: derive_accept_key(key.as_bytes()) })
}

fn spdy(headers: &HeaderMap) -> Result<Protocol, Box<Response<Body>>> {
    let offered: Vec<&str> = listed(headers, STREAM_VERSION).collect();
    spdy::Version::best(&offered).map(Protocol::Spdy).ok_or_else(|| {
        let message = format!("no {STREAM_VERSION} in common: offered {offered:?}, served {:?}", spdy::Version::NAMES);
        let mut response = status::refused(StatusCode::FORBIDDEN, &message);
        for name in spdy::Version::NAMES {
            response.headers_mut().append(ACCEPTED_VERSIONS, HeaderValue::from_static(name));
        }
        Box::new(response)
    })
}

/// The elements of a list header, however many lines it has.
fn listed<'a>(headers: &'a HeaderMap, name: &str) -> impl Iterator<Item = &'a str> {
    headers
        .get_all(name)
        .into_iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|element| !element.is_empty())
}

fn bad(message: &str) -> Box<Response<Body>> {
    Box::new(status::refused(StatusCode::BAD_REQUEST, message))
}
