//! Queries over connections (RFC 7766): a length before each message, several queries at once, answers in any order.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use podnet_dns::{Arrival, Outcome, Transport};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, BufReader, BufWriter},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{Semaphore, mpsc},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{Shared, udp::canonical};

/// Connections at once, for each port.
const CONNECTIONS: usize = 1000;
/// How long a connection may be silent; also how long a client may take to accept an answer.
const IDLE: Duration = Duration::from_secs(10);
/// Answers that wait for one client to read them.
const PENDING: usize = 128;

/// Serves connections, for good. Those that are open end with `token`.
pub(super) async fn serve(shared: Arc<Shared>, listener: TcpListener, port: u16, token: CancellationToken) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let (stream, from) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(_) => {
                // Out of descriptors: those that close meanwhile make room.
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let shared = Arc::clone(&shared);
        let serve = async move {
            connection(shared, stream, from, port).await;
            drop(place);
        };
        tokio::spawn(token.clone().run_until_cancelled_owned(serve));
    }
}

async fn connection(shared: Arc<Shared>, stream: TcpStream, from: SocketAddr, port: u16) {
    // Answers are small and complete: waiting to fill a segment only delays them.
    let _ = stream.set_nodelay(true);
    let local = stream.local_addr().ok().map(|local| canonical(local).ip());
    let (reader, writer) = stream.into_split();
    let (replies, pending) = mpsc::channel(PENDING);
    let arrival = Arrival { from: canonical(from), transport: Transport::Tcp, port, local };
    // The writer ends when the reader and everything that is being asked for this client have ended.
    tokio::join!(read(shared, reader, replies, arrival), write(writer, pending));
}

async fn read(shared: Arc<Shared>, reader: OwnedReadHalf, replies: mpsc::Sender<Vec<u8>>, arrival: Arrival) {
    let mut reader = BufReader::new(reader);
    let mut packet = Vec::new();
    while let Ok(Ok(len)) = timeout(IDLE, reader.read_u16()).await {
        packet.resize(usize::from(len), 0);
        let Ok(Ok(_)) = timeout(IDLE, reader.read_exact(&mut packet)).await else { return };
        let now = Instant::now();
        let server = shared.server();
        let mut response = Vec::new();
        match server.handle(&packet, &arrival, now, &mut response) {
            Outcome::Answer => {
                if replies.send(response).await.is_err() {
                    return;
                }
            }
            Outcome::Later(later) => {
                let replies = replies.clone();
                shared.finish(server, later, move |response| async move {
                    // Who does not read its answers does without: it must not hold up the others.
                    let _ = replies.try_send(response);
                });
            }
            Outcome::Transfer(transfer) => {
                let replies = replies.clone();
                // It waits for the client to read, so its pace is the client's; one that reads nothing ends with the writer. Other
                // questions of this client wait meanwhile: there is one transfer at a time for each connection.
                let sent = tokio::task::spawn_blocking(move || {
                    transfer.send(|message| replies.blocking_send(message).is_ok());
                });
                if sent.await.is_err() {
                    return;
                }
            }
            Outcome::Drop => return,
        }
    }
}

async fn write(writer: OwnedWriteHalf, mut pending: mpsc::Receiver<Vec<u8>>) {
    let mut writer = BufWriter::new(writer);
    while let Some(message) = pending.recv().await {
        let Ok(len) = u16::try_from(message.len()) else { continue };
        let send = async {
            writer.write_u16(len).await?;
            writer.write_all(&message).await?;
            if pending.is_empty() { writer.flush().await } else { Ok(()) }
        };
        if !matches!(timeout(IDLE, send).await, Ok(Ok(()))) {
            return;
        }
    }
}
