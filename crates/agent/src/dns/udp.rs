//! Queries in datagrams, many at once: received, answered from what is known, and sent with one system call each.
//!
//! Each socket has a thread, and is none of the runtime's: that hears of each datagram that comes or has gone by itself, and wakes a
//! thread for it, which costs more than the answer.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    os::fd::{AsFd, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use podnet_dns::{Arrival, Outcome, Port, Transport};
use podnet_kernel::datagrams::{Back, Questions};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use tokio::{io::Interest, runtime::Handle};
use tracing::debug;

use super::Shared;

/// So many questions at once mean that more are on their way: they are let come together, instead of waking the thread for each.
const BUSY: usize = 8;
/// For how long, which the kernel makes some 60 µs of (its slack with timers). That many questions take longer to be answered.
const GATHER: Duration = Duration::from_micros(10);
/// After a failure that is none of a response's.
const PAUSE: Timespec = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };

/// How often what waits in a socket is received at its end: many times what the kernel queues for one.
const LAST: usize = 1024;
/// How long an empty socket is left at its end: the kernel may have chosen it just before for a datagram that is still on its way into it.
const LINGER: Duration = Duration::from_millis(5);
/// The port of the discard service: whoever listens there says nothing (RFC 863).
const DISCARD: u16 = 9;

/// A socket whose datagrams are answered; once this is dropped, those that came before are, and nothing more is received.
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
                    match count {
                        Questions::MOST => {}
                        BUSY.. => thread::sleep(GATHER),
                        _ => self.wait(),
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
        self.empty(&mut questions);
    }

    /// Answers what waits in a socket that is to be closed, with which it would be lost. Where another process has the socket as well, it
    /// is that one's to read.
    fn empty(&self, questions: &mut Questions) {
        if !self.shared.sockets.withdraw(&self.socket) {
            return;
        }
        if let Err(error) = self.hear_nobody() {
            debug!(%error, "a socket that is closed is sent datagrams to the end");
        }
        let mut lingered = false;
        for _ in 0..LAST {
            match questions.receive(self.socket.as_fd()) {
                Ok(count) => self.answer(questions, count),
                Err(error) if is_of_response(&error) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && !lingered => {
                    lingered = true;
                    thread::sleep(LINGER);
                }
                Err(_) => return,
            }
        }
    }

    /// Has the kernel lead what comes from now on to the other sockets of the port: a socket that is connected gets what its peer sends
    /// (udp(7)), and nobody else's datagrams (for sockets that share a port since Linux 5.4).
    fn hear_nobody(&self) -> io::Result<()> {
        let nobody = match self.socket.local_addr()? {
            SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::LOCALHOST, DISCARD)),
            SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::LOCALHOST, DISCARD)),
        };
        self.socket.connect(nobody)
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
            let Some(from) = questions.sender(number).map(canonical) else { continue };
            if !shared.neighbours.may_ask(from.ip()) {
                continue;
            }
            let arrival = Arrival {
                from,
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

#[cfg(test)]
mod tests {
    use podnet_dns::{Config, Environment, Scheme, Server, zone::Cluster};
    use podnet_kernel::datagrams::tell_destinations;

    use super::*;
    use crate::dns::{keeper::observer, outside::Network};

    fn shared() -> Arc<Shared> {
        let config = Config::load("Corefile", ".:53 {\n whoami\n}\n", &Environment::EMPTY).unwrap();
        let network = Arc::new(Network::new(Arc::default()));
        let server = Server::new(config, &Cluster::default(), 1, Arc::default(), network, observer());
        server.set_synced();
        Arc::new(Shared::new(Arc::new(server)))
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_waits_in_a_socket_is_answered_before_it_closes() {
        let port = Port { scheme: Scheme::Dns, address: None, number: 53 };
        for local in ["127.0.0.1:0", "0.0.0.0:0", "[::]:0"] {
            let (socket, client) = (UdpSocket::bind(local).unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
            tell_destinations(socket.as_fd(), local.starts_with('[')).unwrap();
            client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            client.connect((Ipv4Addr::LOCALHOST, socket.local_addr().unwrap().port())).unwrap();
            // More than are received at once.
            for id in 0..150_u8 {
                client.send(&[0, id, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, b'a', 0, 0, 1, 0, 1]).unwrap();
            }
            drop(serve(&shared(), socket, port).unwrap());
            let mut ids = Vec::new();
            for _ in 0..150 {
                let mut answer = [0; 512];
                let length = client.recv(&mut answer).unwrap();
                assert!(length > 19 && answer[2] & 0x80 != 0, "{local}");
                ids.push(answer[1]);
            }
            ids.sort_unstable();
            assert_eq!(ids, (0..150).collect::<Vec<u8>>(), "{local}");
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_another_process_has_as_well_is_left_to_it() {
        let port = Port { scheme: Scheme::Dns, address: None, number: 53 };
        let shared = shared();
        let (socket, client) = (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
        let (local, theirs) = (socket.local_addr().unwrap(), socket.try_clone().unwrap());
        let answered = serve(&shared, socket, port).unwrap();
        drop(shared.sockets.give());
        drop(answered);
        shared.ports.close();
        tokio::time::timeout(Duration::from_secs(20), shared.ports.wait()).await.expect("its thread goes on");
        client.send_to(b"a", local).unwrap();
        theirs.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        assert_eq!(theirs.recv(&mut [0; 9]).unwrap(), 1);
    }
}
