//! Queries over connections (RFC 7766): a length before each message, several queries at once, answers in any order.

use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use podnet_dns::{Arrival, Outcome};
use tokio::{
    io::{AsyncBufRead, AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, BufWriter},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::timeout,
};

use super::door::{Door, Manners};

/// Queries of one connection that are not answered yet, or whose answers wait to be read: nothing more is read meanwhile.
const PENDING: usize = 128;

/// An answer, and its query's share of what may be pending; a message of a transfer has none.
type Reply = (Vec<u8>, Option<OwnedSemaphorePermit>);

/// Serves one connection to its end.
pub(super) async fn connection(
    door: &Door,
    manners: &Manners,
    reader: impl AsyncRead + Unpin,
    writer: impl AsyncWrite + Unpin,
    arrival: Arrival,
) {
    let (replies, pending) = mpsc::channel(PENDING);
    // The writer ends when the reader and everything that is being asked for this client have ended.
    tokio::join!(read(door, manners, reader, replies, arrival), write(writer, manners.write, pending));
}

async fn read(
    door: &Door,
    manners: &Manners,
    reader: impl AsyncRead + Unpin,
    replies: mpsc::Sender<Reply>,
    arrival: Arrival,
) {
    let mut reader = BufReader::new(reader);
    let mut packet = Vec::new();
    let seats = Arc::new(Semaphore::new(PENDING));
    let mut left = manners.max_queries.unwrap_or(u32::MAX);
    while left > 0 && comes(door, manners, &mut reader, &seats).await {
        if !matches!(timeout(manners.read, message(&mut reader, &mut packet)).await, Ok(Ok(()))) {
            return;
        }
        if manners.max_queries.is_some() {
            left -= 1;
        }
        let Ok(seat) = Arc::clone(&seats).acquire_owned().await else { return };
        let now = Instant::now();
        let server = door.shared.server();
        let mut response = Vec::new();
        match server.handle(&packet, &arrival, now, &mut response) {
            Outcome::Answer => {
                if replies.send((response, Some(seat))).await.is_err() {
                    return;
                }
            }
            Outcome::Later(later) => {
                let replies = replies.clone();
                door.shared.finish(server, later, move |response| async move {
                    // No longer than the writer is patient: who does not read its answers holds up nobody else.
                    let _ = replies.send((response, Some(seat))).await;
                });
            }
            Outcome::Transfer(transfer) => {
                let replies = replies.clone();
                // It waits for the client to read, so its pace is the client's; one that reads nothing ends with the writer. Other
                // questions of this client wait meanwhile: there is one transfer at a time for each connection.
                let sent = tokio::task::spawn_blocking(move || {
                    transfer.send(|message| replies.blocking_send((message, None)).is_ok());
                });
                if sent.await.is_err() {
                    return;
                }
            }
            Outcome::Drop => return,
        }
    }
}

/// Waits for a message to begin; false when the connection ended, or was silent for too long while nothing was asked.
async fn comes(door: &Door, manners: &Manners, reader: &mut (impl AsyncBufRead + Unpin), seats: &Semaphore) -> bool {
    let mut since = Instant::now();
    loop {
        match timeout(Door::tick(manners), reader.fill_buf()).await {
            Ok(began) => return began.is_ok_and(|bytes| !bytes.is_empty()),
            Err(_) if seats.available_permits() < PENDING => since = Instant::now(),
            Err(_) if since.elapsed() >= door.idle(manners) => return false,
            Err(_) => {}
        }
    }
}

async fn message(reader: &mut (impl AsyncRead + Unpin), packet: &mut Vec<u8>) -> io::Result<()> {
    packet.resize(usize::from(reader.read_u16().await?), 0);
    reader.read_exact(packet).await.map(drop)
}

async fn write(writer: impl AsyncWrite + Unpin, patience: Duration, mut pending: mpsc::Receiver<Reply>) {
    let mut writer = BufWriter::new(writer);
    while let Some((message, seat)) = pending.recv().await {
        let Ok(len) = u16::try_from(message.len()) else { continue };
        let send = async {
            writer.write_u16(len).await?;
            writer.write_all(&message).await?;
            if pending.is_empty() { writer.flush().await } else { Ok(()) }
        };
        if !matches!(timeout(patience, send).await, Ok(Ok(()))) {
            return;
        }
        drop(seat);
    }
    // Over TLS the end is told, so that it cannot be mistaken for a cut (RFC 8446 §6.1).
    let _ = timeout(patience, writer.shutdown()).await;
}
