//! First packets, and what becomes of them.

use std::{
    io::{self, ErrorKind, Read},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket},
    os::fd::OwnedFd,
    sync::atomic::{AtomicU16, Ordering},
    thread,
    time::{Duration, Instant},
};

use podnet_model::Protocol;
use rustix::net::{
    AddressFamily, RawProtocol, SocketFlags, SocketType, socket_with,
    sockopt::{Timeout, set_socket_reuseaddr, set_socket_timeout},
};

use crate::{listeners::Sight, raw, sctp};

/// What a first datagram begins with, and the data of a request for an echo; behind it is a word by which it is known: the datagram's port, the
/// request's identifier.
pub(crate) const GREETING: &[u8] = b"first";
/// `ENOBUFS`.
const NO_ROOM: i32 = 105;
/// So long a queue on the way may be full, and between two looks at it.
const FULL: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(10);

/// What became of a first packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It was answered by a listener, and the answer came from where the packet was sent to.
    Arrived(Sight),
    /// The echo came from where it was asked for.
    Answered,
    /// It was refused after that time.
    Refused(Duration),
    /// The sender was told that there is no way.
    Unreachable,
    /// Nothing was heard of it.
    Nothing,
    /// Something that should not be.
    Wrong(String),
}

/// How a datagram is sent. Modes that work at the socket see them differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Datagram {
    /// Through a socket that is connected to where it goes; such a one alone is told of a refusal.
    Connected,
    /// Through one that is not.
    Unconnected,
}

/// Sends a first packet from the calling thread's namespace, always from another port, and waits so long for what becomes of it.
pub(crate) fn send(protocol: Protocol, to: SocketAddr, how: Datagram, patience: Duration) -> Outcome {
    send_from(next_port(), protocol, to, how, patience)
}

/// The same from a port of [`next_port`].
pub(crate) fn send_from(port: u16, protocol: Protocol, to: SocketAddr, how: Datagram, patience: Duration) -> Outcome {
    let start = Instant::now();
    let sight = match protocol {
        Protocol::Tcp => tcp(port, to, patience),
        Protocol::Udp => udp(port, to, how, patience),
        Protocol::Sctp => sctp::open(port, to, start + patience),
    };
    match sight {
        Ok(sight) => Outcome::Arrived(sight),
        Err(error) => match error.kind() {
            ErrorKind::ConnectionRefused => Outcome::Refused(start.elapsed()),
            ErrorKind::HostUnreachable => Outcome::Unreachable,
            ErrorKind::TimedOut | ErrorKind::WouldBlock => Outcome::Nothing,
            _ => Outcome::Wrong(error.to_string()),
        },
    }
}

/// Asks for an echo from the calling thread's namespace, and waits so long for it.
pub(crate) fn ping(to: IpAddr, patience: Duration) -> Outcome {
    ping_as(next_port(), to, patience)
}

/// The same with a number of [`next_port`] as the identifier.
pub(crate) fn ping_as(number: u16, to: IpAddr, patience: Duration) -> Outcome {
    let start = Instant::now();
    match echo(number, to, start + patience) {
        Ok(()) => Outcome::Answered,
        Err(error) => match error.kind() {
            ErrorKind::ConnectionRefused => Outcome::Refused(start.elapsed()),
            ErrorKind::TimedOut => Outcome::Nothing,
            _ => Outcome::Wrong(error.to_string()),
        },
    }
}

/// ICMP (RFC 792) and ICMPv6 (RFC 4443), of which the kernel makes the check sum itself.
fn echo(number: u16, to: IpAddr, deadline: Instant) -> io::Result<()> {
    const ICMP: RawProtocol = RawProtocol::new(1).expect("not zero");
    const ICMPV6: RawProtocol = RawProtocol::new(58).expect("not zero");
    let (protocol, request, reply) = match to {
        IpAddr::V4(_) => (ICMP, 8, 0),
        IpAddr::V6(_) => (ICMPV6, 128, 129),
    };
    let socket = raw::socket(to, protocol)?;
    socket.connect((to, 0))?;
    let identifier = number.to_be_bytes();
    let header = [request, 0, 0, 0, identifier[0], identifier[1], 0, 1];
    let mut packet = [&header[..], GREETING, &u32::from(number).to_be_bytes()].concat();
    let sum = |packet: &[u8]| {
        // The last byte may be half a word.
        let low = |word: &[u8]| word.get(1).copied().map_or(0, u32::from);
        let words = packet.chunks(2).map(|word| u32::from(word[0]) << 8 | low(word)).sum::<u32>();
        !u16::try_from(words % 0xffff).expect("below 2^16")
    };
    let sum = sum(&packet).to_be_bytes();
    packet[2..4].copy_from_slice(&sum);
    send_unless_dropped_here(|| socket.send(&packet))?;
    raw::await_packet(&socket, to, deadline, |message| {
        (message.first() == Some(&reply) && message.get(4..6) == Some(&identifier)).then_some(())
    })
}

/// Connection tracking remembers a source port for minutes: none is used twice before all were.
pub(crate) fn next_port() -> u16 {
    /// Above the NodePorts, below those that the kernel gives away for a masqueraded connection when its own port is taken.
    const FIRST: u16 = 33_000;
    const LAST: u16 = 60_999;
    static NEXT: AtomicU16 = AtomicU16::new(FIRST);
    let next = |port| Some(if port == LAST { FIRST } else { port + 1 });
    NEXT.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).expect("there is always a next one")
}

fn tcp(port: u16, to: SocketAddr, patience: Duration) -> io::Result<Sight> {
    let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket: OwnedFd = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    set_socket_timeout(&socket, Timeout::Send, Some(patience))?;
    set_socket_reuseaddr(&socket, true)?;
    rustix::net::bind(&socket, &SocketAddr::new(unspecified(to.ip()), port))?;
    match rustix::net::connect(&socket, &to) {
        // The time is up.
        Err(rustix::io::Errno::INPROGRESS) => return Err(ErrorKind::TimedOut.into()),
        outcome => outcome?,
    }
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(patience))?;
    let mut answer = Vec::new();
    // A connection that was made and fails then is no refusal.
    stream.read_to_end(&mut answer).map_err(|error| io::Error::other(format!("connected, then: {error}")))?;
    if stream.peer_addr()? != to {
        return Err(io::Error::other(format!("connected to {to}, but the peer is {}", stream.peer_addr()?)));
    }
    parse(&answer)
}

fn udp(port: u16, to: SocketAddr, how: Datagram, patience: Duration) -> io::Result<Sight> {
    let socket = UdpSocket::bind((unspecified(to.ip()), port))?;
    let first = [GREETING, &u32::from(port).to_be_bytes()].concat();
    socket.set_read_timeout(Some(patience))?;
    let mut buffer = [0; 512];
    let length = match how {
        Datagram::Connected => {
            socket.connect(to)?;
            send_unless_dropped_here(|| socket.send(&first))?;
            socket.recv(&mut buffer)?
        }
        Datagram::Unconnected => {
            send_unless_dropped_here(|| socket.send_to(&first, to))?;
            let (length, from) = socket.recv_from(&mut buffer)?;
            if from != to {
                return Err(io::Error::other(format!("sent to {to}, but {from} answers")));
            }
            length
        }
    };
    parse(&buffer[..length])
}

/// What netfilter drops at the output hook is told to the sender as "not permitted". Whether it was refused (and the refusal waits at
/// the socket) or only dropped is not known by that.
pub(crate) fn send_unless_dropped_here(mut send: impl FnMut() -> io::Result<usize>) -> io::Result<()> {
    let deadline = Instant::now() + FULL;
    loop {
        match send() {
            Err(error) if error.kind() == ErrorKind::PermissionDenied => return Ok(()),
            // So many send at once that a queue on the way is full.
            Err(error) if error.raw_os_error() == Some(NO_ROOM) && Instant::now() < deadline => thread::sleep(PAUSE),
            sent => return sent.map(drop),
        }
    }
}

fn parse(answer: &[u8]) -> io::Result<Sight> {
    Sight::parse(answer)
        .ok_or_else(|| io::Error::other(format!("an answer of no listener: {}", String::from_utf8_lossy(answer))))
}

fn unspecified(of: IpAddr) -> IpAddr {
    if of.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() }
}
