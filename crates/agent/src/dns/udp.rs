//! Queries in datagrams, many at once: received, answered from what is known, and sent with one system call each.
//!
//! Each socket has a thread, and is none of the runtime's: that hears of each datagram that comes or has gone by itself, and wakes a
//! thread for it, which costs more than the answer.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
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
/// For as long as it took to answer those, to which the kernel adds some 50 µs (its slack with timers), and at most for this long: nobody
/// notices it, and it makes 30 to 40 questions of 150,000 in a second. Where as many came as are received at once, none is let wait.
const GATHER: Duration = Duration::from_micros(250);
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
    let local = Some(socket.local_addr()?.ip().to_canonical()).filter(|local| !local.is_unspecified());
    let socket = Arc::new(socket);
    shared.sockets.note(&socket);
    // The end of the process waits for what was received.
    let (open, runtime) = (shared.ports.token(), Handle::current());
    let thread = Thread { shared: Arc::clone(shared), socket, local, port, end: Arc::clone(&end) };
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
    /// Its address where it has a single one; else the kernel tells where each datagram went to.
    local: Option<IpAddr>,
    port: Port,
    end: Arc<End>,
}

impl Thread {
    fn run(&self) {
        // Where nobody asks, no room for questions is needed.
        self.wait();
        let mut questions = Questions::default();
        while !self.end.ended.load(Ordering::Acquire) {
            match questions.receive(self.socket.as_fd()) {
                Ok(count) => {
                    let now = Instant::now();
                    self.answer(&mut questions, count, now);
                    match count {
                        Questions::MOST => {}
                        BUSY.. => thread::sleep(now.elapsed().min(GATHER)),
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
                Ok(count) => self.answer(questions, count, Instant::now()),
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

    /// Answers the questions that were received at `now`.
    fn answer(&self, questions: &mut Questions, count: usize, now: Instant) {
        let Self { shared, socket, local, port, .. } = self;
        let server = shared.server();
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
                local: local.or_else(|| questions.destination(number)),
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

    /// Of a server that answers who asked it at 127.0.0.1, and refuses others.
    fn shared() -> Arc<Shared> {
        let text = ".:53 {\n view here {\n  expr server_ip() == '127.0.0.1'\n }\n whoami\n}\n";
        let config = Config::load("Corefile", text, &Environment::EMPTY).unwrap();
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
            if socket.local_addr().unwrap().ip().is_unspecified() {
                tell_destinations(socket.as_fd(), local.starts_with('[')).unwrap();
            }
            for one in [&socket, &client] {
                rustix::net::sockopt::set_socket_recv_buffer_size(one, 1 << 20).unwrap();
            }
            client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            client.connect((Ipv4Addr::LOCALHOST, socket.local_addr().unwrap().port())).unwrap();
            // More than are received at once.
            for id in 0..=u8::MAX {
                client.send(&[0, id, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, b'a', 0, 0, 1, 0, 1]).unwrap();
            }
            drop(serve(&shared(), socket, port).unwrap());
            let mut ids = Vec::new();
            for _ in 0..=u8::MAX {
                let mut answer = [0; 512];
                let length = client.recv(&mut answer).unwrap();
                assert!(length > 19 && answer[2] & 0x80 != 0, "{local}");
                ids.push(answer[1]);
            }
            ids.sort_unstable();
            assert_eq!(ids, (0..=u8::MAX).collect::<Vec<u8>>(), "{local}");
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
