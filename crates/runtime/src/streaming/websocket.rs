//! Exec over WebSocket: `v5.channel.k8s.io` and `v4.channel.k8s.io`. The first byte of each message is its channel.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use futures::{
    Sink, SinkExt, StreamExt,
    stream::{SplitSink, SplitStream},
};
use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    sync::{Notify, oneshot},
    time::{Instant, MissedTickBehavior, interval_at, sleep, timeout},
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Error, Message,
        protocol::{CloseFrame, Role, WebSocketConfig, frame::coding::CloseCode},
    },
};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::{
    exec::{self, ClientEnds, TerminalSize},
    route::ExecQuery,
};
use crate::access::ExecSession;

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;
/// Version 5: the channel named in the payload's byte has ended.
const CLOSE: u8 = 255;

/// The largest message taken from a client. kubectl's are 32 KiB.
const MAX_MESSAGE: usize = 4 * 1024 * 1024;
/// How long a client may take to answer the closing of the session.
const LINGER: Duration = Duration::from_secs(5);
/// How long the connection's own ending may take.
const FAREWELL: Duration = Duration::from_secs(1);
/// How often an unsolicited pong goes out (RFC 6455, 5.5.3). A process that does not read its stdin stops us from reading, and so
/// from answering the client's pings; kubectl gives a session without pongs up after a minute. It also notices clients that are gone.
const HEARTBEAT: Duration = Duration::from_secs(10);

/// How long the first output waits at most for the answer to a ping, and how much longer after it. kubectl of before 1.34 begins to read before
/// it has made its streams, and loses what comes until then (kubernetes/kubernetes#131189): a command that is over at once seems to fail.
const AWAKE_WITHIN: Duration = Duration::from_millis(100);
const STREAMS_WITHIN: Duration = Duration::from_millis(3);

/// A version of the channel protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    /// Has no way to end stdin alone.
    V4,
    /// Has [`CLOSE`].
    V5,
}

impl Version {
    /// What is served, best first.
    pub(super) const NAMES: [&'static str; 2] = ["v5.channel.k8s.io", "v4.channel.k8s.io"];

    /// The best of what a client offers.
    pub(super) fn best(offered: &[&str]) -> Option<Version> {
        [Version::V5, Version::V4].into_iter().find(|version| offered.contains(&version.name()))
    }

    /// Its name in `Sec-WebSocket-Protocol`.
    pub(super) fn name(self) -> &'static str {
        match self {
            Version::V5 => Self::NAMES[0],
            Version::V4 => Self::NAMES[1],
        }
    }
}

/// Serves one session on a socket that has switched protocols.
pub(super) async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    socket: S,
    version: Version,
    session: Result<ExecSession, Value>,
    query: &ExecQuery,
    stop: CancellationToken,
) {
    let config = WebSocketConfig::default()
        .read_buffer_size(16 * 1024)
        .write_buffer_size(0)
        .max_message_size(Some(MAX_MESSAGE))
        .max_frame_size(Some(MAX_MESSAGE));
    let (mut sink, mut stream) = WebSocketStream::from_raw_socket(socket, Role::Server, Some(config)).await.split();
    let (process, client) = exec::wires();
    let ClientEnds { stdin, resize, stdout, stderr } = client;
    let (report, reported) = oneshot::channel();
    let running = async {
        let status = match session {
            Ok(session) => exec::run(session, process).await,
            Err(status) => {
                drop(process);
                status
            }
        };
        // The writer outlives this, or the client has gone.
        let _ = report.send(status);
    };
    let outputs = Outputs { stdout: query.stdout.then_some(stdout), stderr: query.stderr.then_some(stderr) };
    let heard = Notify::new();
    {
        let reading = read(&mut stream, version, (stdin, resize), &heard);
        tokio::pin!(reading);
        tokio::select! {
            ((), told) = async { tokio::join!(running, write(&mut sink, outputs, reported, &heard)) } => match told {
                Ok(()) => { let _ = timeout(LINGER, reading).await; }
                Err(error) => debug!(%error, "exec session over WebSocket broke"),
            },
            () = &mut reading => debug!("the client left its exec session"),
            () = stop.cancelled() => {}
        }
    }
    if let Ok(socket) = sink.reunite(stream) {
        let _ = timeout(FAREWELL, socket.into_inner().shutdown()).await;
    }
}

/// Passes on what the client sends until it has nothing more to say, and tells that it said anything.
async fn read<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut SplitStream<WebSocketStream<S>>,
    version: Version,
    (stdin, resize): (tokio::sync::mpsc::Sender<Bytes>, tokio::sync::mpsc::Sender<(u16, u16)>),
    heard: &Notify,
) {
    let mut stdin = Some(stdin);
    while let Some(Ok(message)) = stream.next().await {
        heard.notify_one();
        let mut payload = match message {
            Message::Binary(bytes) => bytes,
            Message::Text(text) => text.into(),
            _ => continue,
        };
        if payload.is_empty() {
            continue;
        }
        let channel = payload.split_to(1)[0];
        match channel {
            STDIN if !payload.is_empty() => {
                if let Some(stdin) = &stdin {
                    // Fails when the process no longer reads: then its input is thrown away.
                    let _ = stdin.send(payload).await;
                }
            }
            RESIZE => {
                if let Ok(size) = serde_json::from_slice::<TerminalSize>(&payload) {
                    let _ = resize.send(size.columns_and_rows()).await;
                }
            }
            CLOSE if version == Version::V5 && payload.first() == Some(&STDIN) => stdin = None,
            _ => {}
        }
    }
}

/// What the client asked to see.
struct Outputs {
    stdout: Option<tokio::sync::mpsc::Receiver<Bytes>>,
    stderr: Option<tokio::sync::mpsc::Receiver<Bytes>>,
}

/// Sends output as it comes, then the status, then the closing frame.
async fn write<S: AsyncRead + AsyncWrite + Unpin>(
    sink: &mut SplitSink<WebSocketStream<S>, Message>,
    mut outputs: Outputs,
    mut status: oneshot::Receiver<Value>,
    heard: &Notify,
) -> Result<(), Error> {
    // Clients of other languages wait for a first message to know that the session stands.
    if let Some(channel) = outputs.stdout.as_ref().map(|_| STDOUT).or(outputs.stderr.as_ref().map(|_| STDERR)) {
        send(sink, channel, &[]).await?;
    }
    sink.send(Message::Ping(Bytes::new())).await?;
    let _ = timeout(AWAKE_WITHIN, heard.notified()).await;
    sleep(STREAMS_WITHIN).await;
    let mut heartbeat = interval_at(Instant::now() + HEARTBEAT, HEARTBEAT);
    heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let status = loop {
        tokio::select! {
            chunk = receive(&mut outputs.stdout), if outputs.stdout.is_some() => {
                if let Some(chunk) = chunk { send(sink, STDOUT, &chunk).await? }
            }
            chunk = receive(&mut outputs.stderr), if outputs.stderr.is_some() => {
                if let Some(chunk) = chunk { send(sink, STDERR, &chunk).await? }
            }
            status = &mut status, if outputs.stdout.is_none() && outputs.stderr.is_none() => break status,
            _ = heartbeat.tick() => sink.send(Message::Pong(Bytes::new())).await?,
        }
    };
    if let Ok(status) = status {
        send(sink, ERROR, status.to_string().as_bytes()).await?;
    }
    sink.send(Message::Close(Some(CloseFrame { code: CloseCode::Normal, reason: "".into() }))).await
}

/// The next chunk; a stream that has ended is forgotten.
async fn receive(stream: &mut Option<tokio::sync::mpsc::Receiver<Bytes>>) -> Option<Bytes> {
    let chunk = match stream {
        Some(open) => open.recv().await,
        None => None,
    };
    if chunk.is_none() {
        *stream = None;
    }
    chunk
}

async fn send(
    sink: &mut (impl Sink<Message, Error = Error> + Unpin),
    channel: u8,
    payload: &[u8],
) -> Result<(), Error> {
    let mut message = BytesMut::with_capacity(1 + payload.len());
    message.put_u8(channel);
    message.put_slice(payload);
    sink.send(Message::Binary(message.freeze())).await
}
