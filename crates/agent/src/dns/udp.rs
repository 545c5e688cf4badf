//! Queries in datagrams, many at once: received, answered from what is known, and sent with one system call each.

use std::{io, net::SocketAddr, os::fd::AsFd, sync::Arc, time::Instant};

use podnet_dns::{Arrival, Outcome, Port, Transport};
use podnet_kernel::datagrams::{Back, Questions};
use tokio::{io::Interest, net::UdpSocket};
use tracing::debug;

use super::Shared;

/// Batches that are answered before other tasks get their turn.
const TURNS: usize = 4;

/// Answers what comes to a socket, for good.
pub(super) async fn serve(shared: Arc<Shared>, socket: Arc<UdpSocket>, port: Port) {
    let mut questions = Questions::default();
    loop {
        if socket.readable().await.is_err() {
            return;
        }
        for _ in 0..TURNS {
            let received = socket.try_io(Interest::READABLE, || questions.receive(socket.as_fd()));
            match received {
                Ok(count) => answer(&shared, &socket, port, &mut questions, count),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // Errors of earlier responses come up here (ICMP unreachable); the socket is as good as before.
                Err(_) => {}
            }
        }
        tokio::task::yield_now().await;
    }
}

fn answer(shared: &Arc<Shared>, socket: &Arc<UdpSocket>, port: Port, questions: &mut Questions, count: usize) {
    let server = shared.server();
    let now = Instant::now();
    for number in 0..count {
        let Some(from) = questions.sender(number) else { continue };
        let arrival = Arrival {
            from: canonical(from),
            transport: Transport::Udp,
            port: port.number,
            scheme: port.scheme,
            bound: port.address,
            local: questions.destination(number),
            keepalive: None,
        };
        let Some((question, response)) = questions.question(number) else { continue };
        match server.handle(question, &arrival, now, response) {
            Outcome::Answer => {}
            Outcome::Later(later) => {
                response.clear();
                let (Some(mut back), socket) = (questions.back(number), Arc::clone(socket)) else { continue };
                shared.finish(Arc::clone(&server), later, move |response| async move {
                    send(&socket, &mut back, &response).await;
                });
            }
            // A transfer only goes over a connection.
            Outcome::Drop | Outcome::Transfer(_) => response.clear(),
        }
    }
    let _ = questions.send(socket.as_fd());
}

/// Sends a response; when the network does not take it, the client asks again.
async fn send(socket: &UdpSocket, back: &mut Back, response: &[u8]) {
    let sent = socket.async_io(Interest::WRITABLE, || back.send(socket.as_fd(), response)).await;
    if let Err(error) = sent {
        debug!(to = ?back, %error, "a response could not be sent");
    }
}

/// An IPv4 client of a socket for both families, as what it is.
pub(super) fn canonical(from: SocketAddr) -> SocketAddr {
    SocketAddr::new(from.ip().to_canonical(), from.port())
}
