//! Queries over connections (RFC 7766): a length before each message, several queries at once, answers in any order.

use std::{
    io,
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use podnet_dns::{
    Arrival, Outcome, Scheme,
    message::{is_padded, pad},
};
use tokio::{
    io::{AsyncBufRead, AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, BufWriter},
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::timeout,
};

use super::{
    door::{Door, Manners, Rest},
    unread::{Account, Charge, refused},
};

/// Queries of one connection that are not answered yet, or whose answers wait to be read: nothing more is read meanwhile.
const PENDING: usize = 128;

/// How often a connection looks whether all its answers are written, while it waits for a query.
const LOOK: Duration = Duration::from_millis(250);

/// How long who was let in just now is waited for, though somebody else needs the place or the port closes: the first query is behind its
/// connection.
const FIRST: Duration = Duration::from_millis(500);

/// An answer, its query's share of what may be pending, and what its bytes count for until they are written.
struct Reply {
    message: Vec<u8>,
    /// A message of a transfer has none.
    _seat: Option<OwnedSemaphorePermit>,
    /// None where the answer was too much: then the message is small.
    _charge: Option<Charge>,
}

/// What the connection's client has to do with its answers.
struct Client<'a> {
    arrival: Arrival,
    rest: &'a Rest,
    account: Arc<Account>,
    seats: Arc<Semaphore>,
}

impl Client<'_> {
    /// Whether nothing is asked and nothing is to be written.
    fn is_idle(&self) -> bool {
        self.seats.available_permits() == PENDING && self.account.is_empty()
    }
}

/// Serves one connection to its end.
pub(super) async fn connection(
    door: &Door,
    manners: &Manners,
    reader: impl AsyncRead + Unpin,
    writer: impl AsyncWrite + Unpin,
    arrival: Arrival,
    rest: &Rest,
) {
    let (replies, pending) = mpsc::channel(PENDING);
    let client = Client { arrival, rest, account: door.unread.account(), seats: Arc::new(Semaphore::new(PENDING)) };
    let mut write = pin!(write(writer, manners.write, pending));
    tokio::select! {
        // The client reads nothing: it is not asked what else it wants.
        () = &mut write => return,
        () = read(door, manners, reader, replies, client) => {}
    }
    // It ends when everything that is being asked for this client has ended.
    write.await;
}

async fn read(
    door: &Door,
    manners: &Manners,
    reader: impl AsyncRead + Unpin,
    replies: mpsc::Sender<Reply>,
    client: Client<'_>,
) {
    let mut reader = BufReader::new(reader);
    let mut packet = Vec::new();
    let Client { arrival, account, seats, .. } = &client;
    let mut left = manners.max_queries.unwrap_or(u32::MAX);
    let mut opened = Some(Instant::now());
    while left > 0 && comes(door, manners, &mut reader, &client, opened).await {
        client.rest.tell(None);
        opened = None;
        if !matches!(timeout(manners.read, message(&mut reader, &mut packet)).await, Ok(Ok(()))) {
            return;
        }
        if manners.max_queries.is_some() {
            left -= 1;
        }
        let Ok(seat) = Arc::clone(seats).acquire_owned().await else { return };
        account.room().await;
        let pads = arrival.scheme != Scheme::Dns && is_padded(&packet);
        let now = Instant::now();
        let server = door.shared.server();
        let mut response = Vec::new();
        match server.handle(&packet, arrival, now, &mut response) {
            Outcome::Answer => {
                if pads {
                    pad(&mut response);
                }
                let charge = account.charged(response.len()).await;
                let reply = Reply { message: response, _seat: Some(seat), _charge: Some(charge) };
                if replies.send(reply).await.is_err() {
                    return;
                }
            }
            Outcome::Later(later) => {
                let (replies, account) = (replies.clone(), Arc::clone(account));
                door.shared.finish(server, later, move |mut response| async move {
                    if pads {
                        pad(&mut response);
                    }
                    // How large it is nobody knew when it was asked.
                    let charge = account.charge(response.len());
                    let message = if charge.is_some() { response } else { refused(&response) };
                    // No longer than the writer is patient: who does not read its answers holds up nobody else.
                    let _ = replies.send(Reply { message, _seat: Some(seat), _charge: charge }).await;
                });
            }
            Outcome::Transfer(mut transfer) => {
                if !transfer.after().is_zero() {
                    tokio::time::sleep(transfer.after()).await;
                }
                if !transfer.begin() {
                    return;
                }
                let (replies, account, runtime) = (replies.clone(), Arc::clone(account), Handle::current());
                // It waits for the client to read, so its pace is the client's; one that reads nothing ends with the writer. Other
                // questions of this client wait meanwhile: there is one transfer at a time for each connection.
                let sent = tokio::task::spawn_blocking(move || {
                    transfer.send(|message| {
                        let charge = runtime.block_on(account.charged(message.len()));
                        replies.blocking_send(Reply { message, _seat: None, _charge: Some(charge) }).is_ok()
                    });
                });
                if sent.await.is_err() {
                    return;
                }
            }
            Outcome::Drop => return,
        }
    }
}

/// Waits for a message to begin; false when the connection ended, or was silent for too long while nothing was asked, or somebody else
/// needs its place meanwhile. `opened` says since when the connection is open; none: it has asked already.
async fn comes(
    door: &Door,
    manners: &Manners,
    reader: &mut (impl AsyncBufRead + Unpin),
    client: &Client<'_>,
    opened: Option<Instant>,
) -> bool {
    let mut since = Instant::now();
    loop {
        let idle = client.is_idle();
        if !idle {
            since = Instant::now();
        }
        client.rest.tell(idle.then_some(since));
        // What is answered meanwhile makes it rest: that is not to be found out late.
        let tick = if idle { Door::tick(manners) } else { Door::tick(manners).min(LOOK) };
        let began = tokio::select! {
            // What has come is answered, whoever is waited for.
            biased;
            began = timeout(tick, reader.fill_buf()) => began.map(has_begun),
            () = client.rest.is_over(), if idle => break,
        };
        match began {
            Ok(began) => return began,
            Err(_) if client.is_idle() && since.elapsed() >= door.idle(manners) => return false,
            Err(_) => {}
        }
    }
    let left = opened.map_or(Duration::ZERO, |opened| FIRST.saturating_sub(opened.elapsed()));
    timeout(left, reader.fill_buf()).await.is_ok_and(has_begun)
}

/// Whether something came; nothing is the end.
fn has_begun(came: io::Result<&[u8]>) -> bool {
    came.is_ok_and(|bytes| !bytes.is_empty())
}

async fn message(reader: &mut (impl AsyncRead + Unpin), packet: &mut Vec<u8>) -> io::Result<()> {
    packet.resize(usize::from(reader.read_u16().await?), 0);
    reader.read_exact(packet).await.map(drop)
}

async fn write(writer: impl AsyncWrite + Unpin, patience: Duration, mut pending: mpsc::Receiver<Reply>) {
    let mut writer = BufWriter::new(writer);
    while let Some(reply) = pending.recv().await {
        let Ok(len) = u16::try_from(reply.message.len()) else { continue };
        let send = async {
            writer.write_u16(len).await?;
            writer.write_all(&reply.message).await?;
            if pending.is_empty() { writer.flush().await } else { Ok(()) }
        };
        if !matches!(timeout(patience, send).await, Ok(Ok(()))) {
            return;
        }
        drop(reply);
    }
    // Over TLS the end is told, so that it cannot be mistaken for a cut (RFC 8446 §6.1).
    let _ = timeout(patience, writer.shutdown()).await;
}

#[cfg(test)]
mod tests;
