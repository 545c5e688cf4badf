//! Minimal clients of both streaming protocols, behind one face.

use std::{collections::HashMap, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use futures::{SinkExt, StreamExt};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::{body::Incoming, upgrade::Upgraded};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::TlsConnector;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Message, protocol::Role},
};
use tokio_util::codec::Framed;

use super::fixture::Fixture;
use crate::streaming::spdy::wire::{Decoder, Encoder, Frame};

/// Nothing in these tests takes this long.
pub(super) const DEADLINE: Duration = Duration::from_secs(30);

/// Sends a request as a client of this organisation.
pub(super) async fn request(
    fixture: &Fixture,
    organisation: &str,
    request: Request<Empty<Bytes>>,
) -> Response<Incoming> {
    let stream = TcpStream::connect(fixture.address).await.unwrap();
    let name = fixture.address.ip().into();
    let tls = TlsConnector::from(Arc::new(fixture.client(organisation)));
    let stream = tls.connect(rustls::pki_types::ServerName::IpAddress(name), stream).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection.with_upgrades());
    timeout(DEADLINE, sender.send_request(request)).await.unwrap().unwrap()
}

pub(super) async fn get(fixture: &Fixture, uri: &str) -> Response<Incoming> {
    let request_of = Request::get(uri).header("host", "node").body(Empty::new()).unwrap();
    request(fixture, "system:masters", request_of).await
}

pub(super) async fn body(response: Response<Incoming>) -> Vec<u8> {
    timeout(DEADLINE, response.into_body().collect()).await.unwrap().unwrap().to_bytes().into()
}

/// A protocol that both server and tests speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    WebSocket5,
    WebSocket4,
    Spdy,
}

pub(super) const DIALECTS: [Dialect; 3] = [Dialect::WebSocket5, Dialect::WebSocket4, Dialect::Spdy];

/// A channel, in the numbers of the WebSocket protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Channel {
    Stdin = 0,
    Stdout = 1,
    Stderr = 2,
    Error = 3,
    Resize = 4,
}

const CHANNELS: [Channel; 5] = [Channel::Stdin, Channel::Stdout, Channel::Stderr, Channel::Error, Channel::Resize];

impl Channel {
    fn name(self) -> &'static str {
        match self {
            Channel::Stdin => "stdin",
            Channel::Stdout => "stdout",
            Channel::Stderr => "stderr",
            Channel::Error => "error",
            Channel::Resize => "resize",
        }
    }

    fn number(self) -> u8 {
        self as u8
    }

    /// In the tests' SPDY client.
    fn stream(self) -> u32 {
        u32::from(self.number()) * 2 + 1
    }
}

/// An open exec session.
pub(super) enum Session {
    WebSocket(Box<WebSocketStream<TokioIo<Upgraded>>>, Dialect),
    Spdy(Box<Framed<TokioIo<Upgraded>, Both>>),
}

/// What a session gave.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub(super) stdout: Vec<u8>,
    pub(super) stderr: Vec<u8>,
    pub(super) status: Value,
}

impl Outcome {
    pub(super) fn exit_code(&self) -> i32 {
        if self.status["status"] == "Success" {
            return 0;
        }
        assert_eq!(self.status["reason"], "NonZeroExitCode", "{}", self.status);
        assert_eq!(self.status["details"]["causes"][0]["reason"], "ExitCode");
        self.status["details"]["causes"][0]["message"].as_str().unwrap().parse().unwrap()
    }
}

/// Opens a session for `sh -c script`. `streams` is the query without the command.
pub(super) async fn open(fixture: &Fixture, dialect: Dialect, streams: &str, command: &[&str]) -> Session {
    let mut query = form_urlencoded::Serializer::new(streams.to_owned());
    query.extend_pairs(command.iter().map(|argument| ("command", argument)));
    let uri = format!("/exec/default/web/main?{}", query.finish());
    let response = request(fixture, "system:masters", upgrade(dialect, &uri)).await;
    assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
    let socket = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
    if dialect != Dialect::Spdy {
        return Session::WebSocket(
            Box::new(WebSocketStream::from_raw_socket(socket, Role::Client, None).await),
            dialect,
        );
    }
    let mut frames = Box::new(Framed::new(socket, Both::default()));
    let wanted = |channel: Channel| channel == Channel::Error || streams.contains(channel.name());
    for channel in CHANNELS.into_iter().filter(|channel| wanted(*channel)).rev() {
        let headers = vec![("streamtype".to_owned(), channel.name().to_owned())];
        frames.send(Frame::SynStream { stream: channel.stream(), fin: false, headers }).await.unwrap();
        let reply = timeout(DEADLINE, frames.next()).await.unwrap().unwrap().unwrap();
        assert_eq!(reply, Frame::SynReply { stream: channel.stream(), fin: false, headers: Vec::new() });
    }
    Session::Spdy(frames)
}

/// The request that opens a session.
pub(super) fn upgrade(dialect: Dialect, uri: &str) -> Request<Empty<Bytes>> {
    let builder = match dialect {
        Dialect::Spdy => Request::post(uri)
            .header("upgrade", "SPDY/3.1")
            .header("x-stream-protocol-version", "v4.channel.k8s.io")
            .header("x-stream-protocol-version", "v3.channel.k8s.io"),
        Dialect::WebSocket4 | Dialect::WebSocket5 => Request::get(uri)
            .header("upgrade", "websocket")
            .header("sec-websocket-version", "13")
            .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
            .header(
                "sec-websocket-protocol",
                if dialect == Dialect::WebSocket4 {
                    "v4.channel.k8s.io"
                } else {
                    "v5.channel.k8s.io, v4.channel.k8s.io"
                },
            ),
    };
    builder.header("connection", "Upgrade").header("host", "node").body(Empty::new()).unwrap()
}

impl Session {
    pub(super) async fn send(&mut self, channel: Channel, payload: &[u8]) {
        let sent = match self {
            Session::WebSocket(socket, _) => {
                let mut message = vec![channel.number()];
                message.extend_from_slice(payload);
                timeout(DEADLINE, socket.send(Message::binary(message))).await.unwrap().is_ok()
            }
            Session::Spdy(frames) => {
                let payload = Bytes::copy_from_slice(payload);
                let data = Frame::Data { stream: channel.stream(), payload, fin: false };
                timeout(DEADLINE, frames.send(data)).await.unwrap().is_ok()
            }
        };
        assert!(sent, "sending on {channel:?}");
    }

    /// Ends stdin and nothing else. Version 4 over WebSocket cannot.
    pub(super) async fn close_stdin(&mut self) {
        match self {
            Session::WebSocket(socket, dialect) => {
                assert_eq!(*dialect, Dialect::WebSocket5);
                socket.send(Message::binary(vec![255, Channel::Stdin.number()])).await.unwrap();
            }
            Session::Spdy(frames) => {
                let stream = Channel::Stdin.stream();
                frames.send(Frame::Data { stream, payload: Bytes::new(), fin: true }).await.unwrap();
            }
        }
    }

    /// The next piece of output; none at the session's end.
    pub(super) async fn receive(&mut self) -> Option<(Channel, Bytes)> {
        timeout(DEADLINE, self.receive_unbounded()).await.expect("output in time")
    }

    async fn receive_unbounded(&mut self) -> Option<(Channel, Bytes)> {
        loop {
            match self {
                Session::WebSocket(socket, _) => match socket.next().await? {
                    Ok(Message::Binary(mut message)) => {
                        let number = message.split_to(1)[0];
                        return Some((*CHANNELS.get(usize::from(number)).unwrap(), message));
                    }
                    Ok(_) => {}
                    Err(_) => return None,
                },
                Session::Spdy(frames) => match frames.next().await?.unwrap() {
                    Frame::Data { stream, payload, fin } => {
                        let channel = CHANNELS.into_iter().find(|channel| channel.stream() == stream).unwrap();
                        // The error stream's end is the session's; a client then hangs up.
                        if channel == Channel::Error && fin && payload.is_empty() {
                            return None;
                        }
                        return Some((channel, payload));
                    }
                    Frame::GoAway { .. } => return None,
                    _ => {}
                },
            }
        }
    }

    /// Reads until the status is there.
    pub(super) async fn outcome(mut self) -> Outcome {
        let mut outputs: HashMap<Channel, BytesMut> = HashMap::new();
        while !outputs.contains_key(&Channel::Error) {
            let Some((channel, payload)) = self.receive().await else { break };
            outputs.entry(channel).or_default().extend_from_slice(&payload);
        }
        let mut take = |channel| Vec::from(outputs.remove(&channel).unwrap_or_default());
        Outcome {
            stdout: take(Channel::Stdout),
            stderr: take(Channel::Stderr),
            status: serde_json::from_slice(&take(Channel::Error)).expect("a status"),
        }
    }
}

/// Both directions of the codec.
#[derive(Default)]
pub(super) struct Both(Decoder, Encoder);

impl tokio_util::codec::Decoder for Both {
    type Item = Frame;
    type Error = <Decoder as tokio_util::codec::Decoder>::Error;
    fn decode(&mut self, source: &mut BytesMut) -> Result<Option<Frame>, Self::Error> {
        self.0.decode(source)
    }
}

impl tokio_util::codec::Encoder<Frame> for Both {
    type Error = <Encoder as tokio_util::codec::Encoder<Frame>>::Error;
    fn encode(&mut self, frame: Frame, target: &mut BytesMut) -> Result<(), Self::Error> {
        self.1.encode(frame, target)
    }
}
