//! What listens everywhere: at every place, at every port that the table names.
//!
//! So whatever a packet is translated to, somebody answers and tells what it saw: the address and port that the packet came to, and
//! its source. One thread serves all. A port that is refused is refused by the node under test, and not for want of a listener.

use std::{
    collections::BTreeSet,
    io::{self, Write},
    net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::net::UnixStream,
    },
    thread::{self, JoinHandle},
};

use podnet_model::Protocol;
use rustix::{
    buffer::spare_capacity,
    event::epoll,
    process::{Resource, Rlimit, getrlimit, setrlimit},
};

use crate::{
    lab::{Lab, Place},
    sctp,
};

/// Listeners at all places of a lab; they end with the value.
pub(crate) struct Listeners {
    stop: UnixStream,
    thread: Option<JoinHandle<()>>,
}

/// A protocol's port.
pub(crate) type Port = (Protocol, u16);

enum Listener {
    /// At every address of its place.
    Tcp(TcpListener),
    Udp(UdpSocket),
    /// All ports of an address.
    Sctp(UdpSocket, IpAddr),
}

/// What a listener saw, as it tells whoever sent it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sight {
    /// Where the packet was addressed to when it came.
    pub(crate) at: SocketAddr,
    /// Where it came from.
    pub(crate) source: SocketAddr,
}

impl Listeners {
    /// Listens at these ports of all places, but at none of some that one place has for itself.
    pub(crate) fn start(lab: &Lab, ports: &BTreeSet<Port>, (taken_at, taken): (&str, &BTreeSet<Port>)) -> Self {
        allow_many_files();
        let left: BTreeSet<Port> = ports.difference(taken).copied().collect();
        let open = |(name, place): (&String, &Place)| {
            let ports = if name == taken_at { &left } else { ports };
            place.namespace.netns.run(|| open(&place.addrs, ports)).unwrap()
        };
        let listeners: Vec<Listener> = lab.places.iter().flat_map(open).collect();
        let (stop, stopped) = UnixStream::pair().unwrap();
        let thread = thread::Builder::new().name("listeners".into()).spawn(move || serve(&listeners, &stopped));
        Self { stop, thread: Some(thread.unwrap()) }
    }
}

impl Drop for Listeners {
    fn drop(&mut self) {
        let _ = self.stop.write_all(b"x");
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Sight {
    pub(crate) fn to_text(self) -> String {
        format!("{} {}", self.at, self.source)
    }

    pub(crate) fn parse(text: &[u8]) -> Option<Self> {
        let (at, source) = str::from_utf8(text).ok()?.split_once(' ')?;
        Some(Self { at: at.parse().ok()?, source: source.parse().ok()? })
    }
}

/// There are some thousands of listeners; 1,024 files are what a process may have open where nobody says otherwise.
fn allow_many_files() {
    const MANY: Option<u64> = Some(20_000);
    if setrlimit(Resource::Nofile, Rlimit { current: MANY, maximum: MANY }).is_err() {
        // Who may not have more than others allow takes all that they allow.
        let maximum = getrlimit(Resource::Nofile).maximum;
        setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap();
    }
}

fn open(addrs: &[IpAddr], ports: &BTreeSet<Port>) -> Vec<Listener> {
    let mut listeners = Vec::new();
    for (protocol, port) in ports {
        match protocol {
            Protocol::Tcp => {
                // Of both families.
                let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, *port)).unwrap();
                listener.set_nonblocking(true).unwrap();
                listeners.push(Listener::Tcp(listener));
            }
            Protocol::Udp => listeners.extend(addrs.iter().map(|addr| {
                let socket = UdpSocket::bind((*addr, *port)).unwrap_or_else(|error| panic!("{addr}:{port}: {error}"));
                socket.set_nonblocking(true).unwrap();
                Listener::Udp(socket)
            })),
            Protocol::Sctp => {}
        }
    }
    listeners.extend(addrs.iter().map(|addr| Listener::Sctp(sctp::listener(*addr).unwrap(), *addr)));
    listeners
}

fn serve(listeners: &[Listener], stopped: &UnixStream) {
    /// No listener has this number.
    const STOP: u64 = u64::MAX;
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
    let add = |number, socket: BorrowedFd<'_>| {
        epoll::add(&epoll, socket, epoll::EventData::new_u64(number), epoll::EventFlags::IN).unwrap();
    };
    add(STOP, stopped.as_fd());
    (0..).zip(listeners).for_each(|(number, listener)| add(number, listener.as_fd()));
    let mut events = Vec::with_capacity(64);
    loop {
        match epoll::wait(&epoll, spare_capacity(&mut events), None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => panic!("cannot wait for packets: {error}"),
        }
        for event in events.drain(..) {
            let number = { event.data }.u64();
            if number == STOP {
                return;
            }
            // Whoever gets no answer says so.
            let _ = usize::try_from(number).map(|number| listeners[number].answer());
        }
    }
}

impl Listener {
    /// Answers what waits.
    fn answer(&self) -> io::Result<()> {
        let mut buffer = [0; 2048];
        match self {
            Self::Tcp(listener) => loop {
                let (mut stream, source) = listener.accept()?;
                let sight = Sight { at: plain(stream.local_addr()?), source: plain(source) };
                let _ = stream.write_all(sight.to_text().as_bytes());
            },
            Self::Udp(socket) => loop {
                let (_, source) = socket.recv_from(&mut buffer)?;
                let sight = Sight { at: socket.local_addr()?, source };
                let _ = socket.send_to(sight.to_text().as_bytes(), source);
            },
            Self::Sctp(socket, addr) => loop {
                let (length, source) = socket.recv_from(&mut buffer)?;
                let _ = sctp::answer(socket, *addr, source.ip(), &buffer[..length]);
            },
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(listener) => listener.as_fd(),
            Self::Udp(socket) | Self::Sctp(socket, _) => socket.as_fd(),
        }
    }
}

/// An IPv4 address that a socket of both families tells is one of IPv4.
fn plain(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}
