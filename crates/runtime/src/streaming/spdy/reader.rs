//! The client's side of a SPDY session: the streams that it opens, and what comes in on them.

use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use tokio::{
    io::AsyncRead,
    sync::{mpsc, oneshot},
};
use tokio_util::codec::FramedRead;

use super::{
    Version,
    flow::{Flow, Output},
    frame::{Decoder, Frame, FrameError},
};
use crate::streaming::{exec::TerminalSize, route::ExecQuery};

/// The longest resize message.
const MAX_RESIZE: usize = 4096;

/// `RST_STREAM` status codes.
const INVALID_STREAM: u32 = 2;
const REFUSED_STREAM: u32 = 3;

/// Takes what the client sends.
pub(super) struct Reader<'a> {
    wanted: Wanted,
    streams: Streams,
    ready: Option<oneshot::Sender<Streams>>,
    stdin: Option<mpsc::Sender<Bytes>>,
    resize: mpsc::Sender<(u16, u16)>,
    resizes: BytesMut,
    wire: mpsc::Sender<Frame>,
    flow: &'a Flow,
}

impl<'a> Reader<'a> {
    /// `ready` is told the streams when all that are wanted are there.
    pub(super) fn new(
        wanted: Wanted,
        ready: oneshot::Sender<Streams>,
        stdin: mpsc::Sender<Bytes>,
        resize: mpsc::Sender<(u16, u16)>,
        wire: mpsc::Sender<Frame>,
        flow: &'a Flow,
    ) -> Reader<'a> {
        let (streams, resizes) = (Streams::default(), BytesMut::new());
        Reader { wanted, streams, ready: Some(ready), stdin: Some(stdin), resize, resizes, wire, flow }
    }

    /// Until the client closes the connection or gives one of its streams up.
    pub(super) async fn run<R: AsyncRead + Unpin>(
        mut self,
        mut frames: FramedRead<R, Decoder>,
    ) -> Result<(), FrameError> {
        while let Some(frame) = frames.next().await {
            match frame? {
                Frame::SynStream { stream, fin, headers } => self.open(stream, fin, &headers).await,
                Frame::Data { stream, payload, fin } => self.data(stream, payload, fin).await,
                Frame::Reset { stream, .. } if Some(stream) == self.streams.stdin => self.stdin = None,
                Frame::Reset { stream, .. } if self.streams.knows(stream) => return Ok(()),
                // The client's pings are odd, and come back as they are.
                Frame::Ping(id) if id % 2 == 1 => self.send(Frame::Ping(id)).await,
                Frame::Settings(settings) => self.flow.settings(&settings),
                Frame::WindowUpdate { stream: 0, delta } => self.flow.grant_session(delta),
                Frame::WindowUpdate { stream, delta } => {
                    if let Some(output) = self.streams.output(stream) {
                        self.flow.grant(output, delta);
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    async fn open(&mut self, stream: u32, fin: bool, headers: &[(String, String)]) {
        let stream_type = headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("streamtype"));
        let slot = stream_type.and_then(|(_, stream_type)| self.streams.slot(stream_type));
        let Some(slot @ None) = slot else {
            return self.send(Frame::Reset { stream, status: REFUSED_STREAM }).await;
        };
        *slot = Some(stream);
        self.send(Frame::SynReply { stream, fin: false, headers: Vec::new() }).await;
        if fin && self.streams.stdin == Some(stream) {
            self.stdin = None;
        }
        if self.streams.complete(self.wanted)
            && let Some(ready) = self.ready.take()
        {
            // No one waits for a session that has already ended.
            let _ = ready.send(self.streams);
        }
    }

    async fn data(&mut self, stream: u32, payload: Bytes, fin: bool) {
        if Some(stream) == self.streams.stdin {
            self.input(stream, payload).await;
            if fin {
                self.stdin = None;
            }
        } else if Some(stream) == self.streams.resize {
            self.resized(&payload).await;
        } else if !self.streams.knows(stream) {
            self.send(Frame::Reset { stream, status: INVALID_STREAM }).await;
        }
    }

    async fn input(&mut self, stream: u32, payload: Bytes) {
        let Ok(delta) = u32::try_from(payload.len()) else { return };
        if delta == 0 {
            return;
        }
        if let Some(stdin) = &self.stdin {
            // Fails when the process no longer reads: then its input is thrown away.
            let _ = stdin.send(payload).await;
        }
        self.send(Frame::WindowUpdate { stream, delta }).await;
        if self.flow.is_spoken() {
            self.send(Frame::WindowUpdate { stream: 0, delta }).await;
        }
    }

    /// Sizes follow each other in one byte stream, whatever frames they came in.
    async fn resized(&mut self, payload: &[u8]) {
        if self.resizes.len() + payload.len() > MAX_RESIZE {
            self.resizes.clear();
            return;
        }
        self.resizes.extend_from_slice(payload);
        let mut sizes = serde_json::Deserializer::from_slice(&self.resizes).into_iter::<TerminalSize>();
        let mut last = None;
        while let Some(Ok(size)) = sizes.next() {
            last = Some(size.columns_and_rows());
        }
        let used = sizes.byte_offset();
        drop(self.resizes.split_to(used));
        if let Some(size) = last {
            let _ = self.resize.send(size).await;
        }
    }

    /// A writer that is gone ends the session, so nothing is to be done when this fails.
    async fn send(&self, frame: Frame) {
        let _ = self.wire.send(frame).await;
    }
}

/// The streams that a session needs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    stdin: bool,
    stdout: bool,
    stderr: bool,
    resize: bool,
}

impl Wanted {
    pub(super) fn by(query: &ExecQuery, version: Version) -> Wanted {
        Wanted {
            stdin: query.stdin,
            stdout: query.stdout,
            stderr: query.stderr,
            resize: query.tty && version >= Version::V3,
        }
    }
}

/// The identifiers of the streams that the client has opened.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Streams {
    pub(super) error: Option<u32>,
    stdin: Option<u32>,
    pub(super) stdout: Option<u32>,
    pub(super) stderr: Option<u32>,
    resize: Option<u32>,
}

impl Streams {
    fn complete(&self, wanted: Wanted) -> bool {
        self.error.is_some()
            && self.stdin.is_some() >= wanted.stdin
            && self.stdout.is_some() >= wanted.stdout
            && self.stderr.is_some() >= wanted.stderr
            && self.resize.is_some() >= wanted.resize
    }

    /// Where the identifier of a stream of this type is kept.
    fn slot(&mut self, stream_type: &str) -> Option<&mut Option<u32>> {
        match stream_type {
            "error" => Some(&mut self.error),
            "stdin" => Some(&mut self.stdin),
            "stdout" => Some(&mut self.stdout),
            "stderr" => Some(&mut self.stderr),
            "resize" => Some(&mut self.resize),
            _ => None,
        }
    }

    fn output(&self, stream: u32) -> Option<Output> {
        match Some(stream) {
            id if id == self.stdout => Some(Output::Stdout),
            id if id == self.stderr => Some(Output::Stderr),
            _ => None,
        }
    }

    fn knows(&self, stream: u32) -> bool {
        [self.error, self.stdin, self.stdout, self.stderr, self.resize].contains(&Some(stream))
    }
}
