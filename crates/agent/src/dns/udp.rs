//! Queries in datagrams.

use std::{io, net::SocketAddr, sync::Arc, time::Instant};

use podnet_dns::{Arrival, Outcome, Transport};
use tokio::net::UdpSocket;
use tracing::debug;

use super::Shared;

/// A query is never longer than this: one question, an OPT record with options.
const QUERY: usize = 4096;
/// Datagrams that are answered before other tasks get their turn.
const BATCH: usize = 64;

/// Answers what comes to a socket, for good.
pub(super) async fn serve(shared: Arc<Shared>, socket: Arc<UdpSocket>, port: u16) {
    let mut packet = vec![0; QUERY];
    let mut response = Vec::with_capacity(QUERY);
    loop {
        if socket.readable().await.is_err() {
            return;
        }
        let server = shared.server();
        for _ in 0..BATCH {
            let (len, from) = match socket.try_recv_from(&mut packet) {
                Ok(received) => received,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // Errors of earlier responses come up here (ICMP unreachable); the socket is as good as before.
                Err(_) => continue,
            };
            let now = Instant::now();
            let arrival = Arrival { from: canonical(from), transport: Transport::Udp, port };
            match server.handle(&packet[..len], &arrival, now, &mut response) {
                Outcome::Answer => {
                    send(&socket, &response, from).await;
                    server.metrics().took(now.elapsed());
                }
                Outcome::Later(later) => {
                    let socket = Arc::clone(&socket);
                    shared.finish(Arc::clone(&server), later, now, move |response| async move {
                        send(&socket, &response, from).await;
                    });
                }
                Outcome::Drop => {}
            }
        }
        tokio::task::yield_now().await;
    }
}

/// Sends a response; when the network does not take it, the client asks again.
pub(super) async fn send(socket: &UdpSocket, response: &[u8], to: SocketAddr) {
    let sent = match socket.try_send_to(response, to) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => socket.send_to(response, to).await,
        other => other,
    };
    if let Err(error) = sent {
        debug!(%to, %error, "a response could not be sent");
    }
}

/// An IPv4 client of a socket for both families, as what it is.
pub(super) fn canonical(from: SocketAddr) -> SocketAddr {
    SocketAddr::new(from.ip().to_canonical(), from.port())
}
