//! Queries in datagrams, many at once: received, answered from what is known, and sent with one system call each.
//!
//! Each socket has a thread, and is none of the runtime's: that hears of each datagram that comes or has gone by itself, and wakes a
//! thread for it, which costs more than the answer.

use std::{
    io,
    net::{SocketAddr, UdpSocket},
    os::fd::{AsFd, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Instant,
};

use podnet_dns::{Arrival, Outcome, Port, Transport};
use podnet_kernel::datagrams::{Back, Questions};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use tokio::{io::Interest, runtime::Handle};
use tracing::debug;

use super::Shared;

/// After a failure that is none of a response's.
const PAUSE: Timespec = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };

/// A socket whose datagrams are answered; nothing more is received once this is dropped.
pub(super) struct Answered {
    end: Arc<End>,
}

struct End {
    ended: AtomicBool,
    bell: OwnedFd,
}

impl Drop for Answered {
    fn drop(&mut self) {
        self.end.ended.store(true, Ordering::Release);
        // Its counter is far from full, which is all that could fail.
        let _ = rustix::io::write(&self.end.bell, &1_u64.to_ne_bytes());
    }
}

/// Answers what comes to a socket. To be called within the runtime that is to finish what takes time.
///
/// # Errors
/// When threads or descriptors have run out.
pub(super) fn serve(shared: &Arc<Shared>, socket: UdpSocket, port: Port) -> io::Result<Answered> {
    let end = Arc::new(End { ended: AtomicBool::new(false), bell: eventfd(0, EventfdFlags::CLOEXEC)? });
    let socket = Arc::new(socket);
    shared.sockets.note(&socket);
    // The end of the process waits for what was received.
    let (open, runtime) = (shared.ports.token(), Handle::current());
    let thread = Thread { shared: Arc::clone(shared), socket, port, end: Arc::clone(&end) };
    thread::Builder::new().name("datagrams".to_owned()).spawn(move || {
        let _runtime = runtime.enter();
        thread.run();
        drop(open);
    })?;
    Ok(Answered { end })
}

/// Whether a peer, or who is on the way to it, refused what it was sent.
fn is_of_response(error: &io::Error) -> bool {
    use io::ErrorKind::{
        ConnectionRefused, ConnectionReset, HostUnreachable, Interrupted, NetworkUnreachable, PermissionDenied,
    };
    matches!(
        error.kind(),
        ConnectionRefused | ConnectionReset | HostUnreachable | Interrupted | NetworkUnreachable | PermissionDenied
    )
}

struct Thread {
    shared: Arc<Shared>,
    socket: Arc<UdpSocket>,
    port: Port,
    end: Arc<End>,
}

impl Thread {
    fn run(&self) {
        let mut questions = Questions::default();
        while !self.end.ended.load(Ordering::Acquire) {
            match questions.receive(self.socket.as_fd()) {
                Ok(count) => {
                    self.answer(&mut questions, count);
                    if count < Questions::MOST {
                        self.wait();
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.wait(),
                // Errors of earlier responses come up here (ICMP unreachable); the socket is as good as before.
                Err(error) if is_of_response(&error) => {}
                Err(error) => {
                    debug!(%error, "datagrams could not be received; it is tried again");
                    self.rest();
                }
            }
        }
    }

    /// Waits a little, or for the end: what fails at once would fail all the time.
    fn rest(&self) {
        let mut watched = [PollFd::from_borrowed_fd(self.end.bell.as_fd(), PollFlags::IN)];
        let _ = poll(&mut watched, Some(&PAUSE));
    }

    /// Waits until something is there to receive, or the end.
    fn wait(&self) {
        let mut watched =
            [&*self.socket as &dyn AsFd, &self.end.bell].map(|fd| PollFd::from_borrowed_fd(fd.as_fd(), PollFlags::IN));
        // What fails here is tried again: only a signal can interrupt it.
        let _ = poll(&mut watched, None);
    }

    fn answer(&self, questions: &mut Questions, count: usize) {
        let Self { shared, socket, port, .. } = self;
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
                        if let Err(error) = send(&socket, &mut back, &response).await {
                            debug!(to = ?back, %error, "a response could not be sent");
                        }
                    });
                }
                // A transfer only goes over a connection.
                Outcome::Drop | Outcome::Transfer(_) => response.clear(),
            }
        }
        let _ = questions.send(socket.as_fd());
    }
}

/// Sends a response; when the network does not take it, the client asks again.
async fn send(socket: &UdpSocket, back: &mut Back, response: &[u8]) -> io::Result<()> {
    match back.send(socket.as_fd(), response) {
        // The runtime hears of the socket only as long as somebody waits for room in it.
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            let socket = tokio::net::UdpSocket::from_std(socket.try_clone()?)?;
            socket.async_io(Interest::WRITABLE, || back.send(socket.as_fd(), response)).await
        }
        sent => sent,
    }
}

/// An IPv4 client of a socket for both families, as what it is.
pub(super) fn canonical(from: SocketAddr) -> SocketAddr {
    SocketAddr::new(from.ip().to_canonical(), from.port())
}
