//! Exec over SPDY/3.1, which kubectl spoke before it learnt WebSocket and falls back to today: a stream for each of stdin, stdout,
//! stderr, resize and error, opened by the client and told apart by their `streamtype` header.

mod flow;
mod frame;
mod headers;
mod reader;

use std::time::Duration;

use bytes::Bytes;
use futures::SinkExt;
use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{mpsc, oneshot},
    time::{sleep, timeout},
};
use tokio_util::{
    codec::{FramedRead, FramedWrite},
    sync::CancellationToken,
};
use tracing::debug;

use self::{
    flow::{Flow, Output},
    frame::{Decoder, Encoder, Frame, FrameError},
    reader::{Reader, Wanted},
};
use super::{exec, route::ExecQuery};
use crate::access::ExecSession;

#[cfg(test)]
pub(super) mod wire {
    //! The codec, for the tests' client.
    pub(in crate::streaming) use super::frame::{Decoder, Encoder, Frame};
}

/// How long a client may take to open the streams of its session.
const STREAM_CREATION: Duration = Duration::from_secs(30);
/// How long a client may take to close the connection once it has been told how its command ended. Closing it ourselves at once would
/// race with what is under way: Go's client throws away frames that it has received and not yet looked at when the connection ends.
const LINGER: Duration = Duration::from_secs(10);
/// How long the last frame may take.
const FAREWELL: Duration = Duration::from_secs(1);
/// How many frames wait for the socket.
const WIRE_DEPTH: usize = 16;

/// A version of the remote command protocol, as `X-Stream-Protocol-Version` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Version {
    /// Errors are text.
    V1,
    /// Errors are text.
    V2,
    /// Has the resize stream.
    V3,
    /// Ends with a `v1.Status`, and so tells exit codes.
    V4,
}

impl Version {
    /// What is served, best first.
    pub(super) const NAMES: [&'static str; 4] =
        ["v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io"];

    /// The best of what a client offers.
    pub(super) fn best(offered: &[&str]) -> Option<Version> {
        [Version::V4, Version::V3, Version::V2, Version::V1]
            .into_iter()
            .find(|version| offered.contains(&version.name()))
    }

    /// Its name.
    pub(super) fn name(self) -> &'static str {
        match self {
            Version::V4 => Self::NAMES[0],
            Version::V3 => Self::NAMES[1],
            Version::V2 => Self::NAMES[2],
            Version::V1 => Self::NAMES[3],
        }
    }

    /// What goes over the error stream. Before version 4 that was nothing, or a message.
    fn report(self, status: &Value) -> Bytes {
        if self == Version::V4 {
            return status.to_string().into();
        }
        if status["status"] == "Success" {
            return Bytes::new();
        }
        status["message"].as_str().unwrap_or("the command failed").to_owned().into()
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
    let (read_half, write_half) = tokio::io::split(socket);
    let mut socket = FramedWrite::new(write_half, Encoder::default());
    let (wire, frames) = mpsc::channel(WIRE_DEPTH);
    let (process, client) = exec::wires();
    let (ready, opened) = oneshot::channel();
    let flow = Flow::default();
    let wanted = Wanted::by(query, version);
    let reader = Reader::new(wanted, ready, client.stdin, client.resize, wire.clone(), &flow);
    let running = async {
        let streams = match timeout(STREAM_CREATION, opened).await {
            Ok(Ok(streams)) => streams,
            Ok(Err(_)) | Err(_) => return debug!("the client did not open the streams of its exec session"),
        };
        let stdout = forward(client.stdout, streams.stdout, Output::Stdout, &wire, &flow);
        let stderr = forward(client.stderr, streams.stderr, Output::Stderr, &wire, &flow);
        let command = async {
            match session {
                Ok(session) => exec::run(session, process).await,
                Err(status) => {
                    drop(process);
                    status
                }
            }
        };
        let (status, (), ()) = tokio::join!(command, stdout, stderr);
        let error = streams.error.unwrap_or_default();
        let _ = wire.send(Frame::Data { stream: error, payload: version.report(&status), fin: true }).await;
        sleep(LINGER).await;
    };
    let leave = async {
        tokio::select! {
            () = running => {}
            () = stop.cancelled() => {}
        }
        let _ = wire.send(Frame::GoAway { last: 0, status: 0 }).await;
        // The writer ends with that frame, unless the client does not read.
        sleep(FAREWELL).await;
    };
    let ended = tokio::select! {
        ended = reader.run(FramedRead::new(read_half, Decoder::default())) => ended,
        ended = write(&mut socket, frames) => ended,
        () = leave => Ok(()),
    };
    if let Err(error) = ended {
        debug!(%error, "exec session over SPDY broke");
    }
    let _ = timeout(FAREWELL, socket.close()).await;
}

/// Sends one output as the client's window allows, and its end.
async fn forward(
    mut chunks: mpsc::Receiver<Bytes>,
    stream: Option<u32>,
    output: Output,
    wire: &mpsc::Sender<Frame>,
    flow: &Flow,
) {
    let Some(stream) = stream else { return };
    while let Some(mut chunk) = chunks.recv().await {
        while !chunk.is_empty() {
            let payload = chunk.split_to(flow.take(output, chunk.len()).await);
            if wire.send(Frame::Data { stream, payload, fin: false }).await.is_err() {
                return;
            }
        }
    }
    let _ = wire.send(Frame::Data { stream, payload: Bytes::new(), fin: true }).await;
}

/// Writes frames until the one that says good-bye.
async fn write<W: AsyncWrite + Unpin>(
    socket: &mut FramedWrite<W, Encoder>,
    mut frames: mpsc::Receiver<Frame>,
) -> Result<(), FrameError> {
    while let Some(frame) = frames.recv().await {
        let last = matches!(frame, Frame::GoAway { .. });
        socket.feed(frame).await?;
        if frames.is_empty() || last {
            socket.flush().await?;
        }
        if last {
            return Ok(());
        }
    }
    Ok(())
}
