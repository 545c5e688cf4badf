//! One connection: questions go out as they come, answers come back in any order.

use std::{
    collections::HashMap,
    io,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use podnet_dns::Exchange;
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader},
    net::TcpStream,
    sync::{mpsc, oneshot},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{NEW, Place, SHARED, lock, tls};

/// How long opening a connection may take; who waits for it may give up before.
const CONNECT: Duration = Duration::from_secs(5);
/// How long a connection with open questions may be silent until others are asked elsewhere: it may be dead.
const SILENT: Duration = Duration::from_secs(1);

/// One connection to an upstream.
#[derive(Debug)]
pub(super) struct Line {
    opened: Instant,
    /// It was opened for a message that had to have a new one.
    fresh: bool,
    queue: mpsc::Sender<Vec<u8>>,
    state: Mutex<State>,
    end: CancellationToken,
}

#[derive(Debug)]
struct State {
    waiting: HashMap<u16, Waiting>,
    /// When something came last, or the first of those who wait began to.
    heard: Instant,
    was_open: bool,
    /// A question was given up on it while nothing came: it takes no more.
    retired: bool,
    /// Why it ended.
    ended: Option<(io::ErrorKind, String)>,
}

/// A question that is not answered yet.
#[derive(Debug)]
struct Waiting {
    /// With the id that it has on this connection.
    exchange: Exchange,
    back: oneshot::Sender<Vec<u8>>,
}

/// Takes a question off the connection when nobody waits for its answer any more.
struct Seat<'a> {
    line: &'a Line,
    id: u16,
    since: Instant,
}

impl Line {
    /// A connection that is being opened: questions may be asked on it at once.
    pub(super) fn open(place: Place, idle: Duration, fresh: bool) -> Arc<Self> {
        let (queue, messages) = mpsc::channel(SHARED);
        let state =
            State { waiting: HashMap::new(), heard: Instant::now(), was_open: false, retired: false, ended: None };
        let (state, end) = (Mutex::new(state), CancellationToken::new());
        let line = Arc::new(Self { opened: Instant::now(), fresh, queue, state, end });
        let own = Arc::clone(&line);
        tokio::spawn(async move {
            let end = own.end.clone();
            let ended = end.run_until_cancelled(own.run(place, messages, idle)).await;
            let reason = ended.unwrap_or_else(|| io::ErrorKind::ConnectionAborted.into());
            let mut state = lock(&own.state);
            state.ended = Some((reason.kind(), reason.to_string()));
            // Those who wait learn it by their channels' end.
            state.waiting.clear();
        });
        line
    }

    /// It ended.
    pub(super) fn closed(&self) -> bool {
        lock(&self.state).ended.is_some()
    }

    /// It was there, at some time.
    pub(super) fn was_open(&self) -> bool {
        lock(&self.state).was_open
    }

    /// It was opened just now for a message that had to have a new one.
    pub(super) fn is_new(&self) -> bool {
        self.fresh && self.opened.elapsed() < NEW
    }

    /// It was opened longer ago.
    pub(super) fn is_older_than(&self, age: Option<Duration>) -> bool {
        age.is_some_and(|age| self.opened.elapsed() > age)
    }

    /// How many questions are not answered yet.
    pub(super) fn load(&self) -> usize {
        lock(&self.state).waiting.len()
    }

    /// Whether it is worth asking on it.
    pub(super) fn takes_more(&self) -> bool {
        let state = lock(&self.state);
        let silent = !state.waiting.is_empty() && state.heard.elapsed() > SILENT;
        state.ended.is_none() && !state.retired && !silent
    }

    /// Closes it once nobody waits for an answer.
    pub(super) fn retire(&self) {
        let mut state = lock(&self.state);
        state.retired = true;
        if state.waiting.is_empty() {
            self.end.cancel();
        }
    }

    /// Closes it.
    pub(super) fn end(&self) {
        self.end.cancel();
        lock(&self.state).retired = true;
    }

    /// Asks a question on it.
    pub(super) async fn ask(&self, exchange: &Exchange) -> io::Result<Vec<u8>> {
        let (back, answer) = oneshot::channel();
        let (place, frame) = self.enter(exchange, back)?;
        if self.queue.send(frame).await.is_err() {
            return Err(self.reason());
        }
        let answered = answer.await;
        drop(place);
        let mut message = answered.map_err(|_| self.reason())?;
        message.splice(..2, exchange.message.iter().copied().take(2));
        Ok(message)
    }

    /// Gives a question an id of its own on this connection.
    fn enter(&self, exchange: &Exchange, back: oneshot::Sender<Vec<u8>>) -> io::Result<(Seat<'_>, Vec<u8>)> {
        let length = u16::try_from(exchange.message.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        let [high, low, ..] = exchange.message[..] else { return Err(io::ErrorKind::InvalidInput.into()) };
        let mut state = lock(&self.state);
        if let Some((kind, reason)) = &state.ended {
            return Err(io::Error::new(*kind, reason.clone()));
        }
        // Where each id is somebody's, the search for a free one would not end.
        if state.waiting.len() > usize::from(u16::MAX) {
            return Err(io::Error::other("the connection has as many open questions as it can tell apart"));
        }
        let mut id = u16::from_be_bytes([high, low]);
        while state.waiting.contains_key(&id) {
            id = id.wrapping_add(1);
        }
        let mut exchange = exchange.clone();
        exchange.message[..2].copy_from_slice(&id.to_be_bytes());
        let mut frame = length.to_be_bytes().to_vec();
        frame.extend_from_slice(&exchange.message);
        let since = Instant::now();
        if state.waiting.is_empty() {
            state.heard = since;
        }
        state.waiting.insert(id, Waiting { exchange, back });
        Ok((Seat { line: self, id, since }, frame))
    }

    fn reason(&self) -> io::Error {
        match &lock(&self.state).ended {
            Some((kind, reason)) => io::Error::new(*kind, reason.clone()),
            None => io::ErrorKind::ConnectionAborted.into(),
        }
    }

    /// Opens the connection and serves it; tells why it ended.
    async fn run(&self, (server, secure): Place, messages: mpsc::Receiver<Vec<u8>>, idle: Duration) -> io::Error {
        // At unix sockets gRPC alone is spoken.
        let Some(address) = server.socket_addr() else { return io::ErrorKind::Unsupported.into() };
        let stream = match timeout(CONNECT, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return error,
            Err(_) => return io::ErrorKind::TimedOut.into(),
        };
        // Questions are small and complete: waiting to fill a segment only delays them.
        let _ = stream.set_nodelay(true);
        let Some(secure) = secure else { return self.serve(stream, messages, idle).await };
        match timeout(CONNECT, tls::connect(stream, &server, &secure, &[])).await {
            Ok(Ok(stream)) => self.serve(stream, messages, idle).await,
            Ok(Err(error)) => {
                tracing::warn!(upstream = %address, %error, "an upstream cannot be asked over TLS");
                error
            }
            Err(_) => io::ErrorKind::TimedOut.into(),
        }
    }

    async fn serve(
        &self,
        stream: impl AsyncRead + AsyncWrite,
        messages: mpsc::Receiver<Vec<u8>>,
        idle: Duration,
    ) -> io::Error {
        lock(&self.state).was_open = true;
        let (reader, writer) = tokio::io::split(stream);
        let ended = tokio::select! {
            ended = self.read(BufReader::new(reader), idle) => ended,
            ended = write(writer, messages) => ended,
        };
        ended.err().unwrap_or_else(|| io::ErrorKind::ConnectionAborted.into())
    }

    async fn read(&self, mut reader: impl AsyncBufReadExt + Unpin, idle: Duration) -> io::Result<()> {
        loop {
            let patience = if self.load() == 0 { idle } else { idle.max(SILENT) };
            match timeout(patience, reader.fill_buf()).await {
                Ok(Ok([])) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(Ok(_)) => {}
                Ok(Err(error)) => return Err(error),
                Err(_) if self.ends_idle() => return Ok(()),
                Err(_) => continue,
            }
            let message = timeout(CONNECT, async {
                let mut message = vec![0; usize::from(reader.read_u16().await?)];
                reader.read_exact(&mut message).await?;
                Ok::<_, io::Error>(message)
            });
            let Ok(message) = message.await else { return Err(io::ErrorKind::TimedOut.into()) };
            self.came(message?);
        }
    }

    /// Ends where nobody waits, so that nobody can begin to meanwhile.
    fn ends_idle(&self) -> bool {
        let mut state = lock(&self.state);
        if state.waiting.is_empty() {
            state.ended = Some((io::ErrorKind::ConnectionAborted, "the connection was idle".to_owned()));
        }
        state.ended.is_some()
    }

    fn came(&self, message: Vec<u8>) {
        let mut state = lock(&self.state);
        state.heard = Instant::now();
        let id = message.first_chunk().map(|id| u16::from_be_bytes(*id));
        // Nobody waits for it: it comes too late.
        let Some((id, waiting)) = id.and_then(|id| Some((id, state.waiting.get(&id)?))) else { return };
        let exchange = &waiting.exchange;
        if !exchange.accepts(&message) {
            exchange.debug.dump(|| format!("what {} sends is for another question", exchange.upstream), &message);
            return;
        }
        if let Some(waiting) = state.waiting.remove(&id) {
            let _ = waiting.back.send(message);
        }
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        let mut state = lock(&self.line.state);
        let given_up = state.waiting.remove(&self.id).is_some();
        if given_up && state.heard <= self.since && self.since.elapsed() > SILENT {
            state.retired = true;
        }
        if state.retired && state.waiting.is_empty() {
            self.line.end.cancel();
        }
    }
}

async fn write(mut writer: impl AsyncWrite + Unpin, mut messages: mpsc::Receiver<Vec<u8>>) -> io::Result<()> {
    while let Some(message) = messages.recv().await {
        writer.write_all(&message).await?;
        writer.flush().await?;
    }
    Ok(())
}
