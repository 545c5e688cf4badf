//! Traffic between pods.

use std::{
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    num::NonZeroU32,
    os::fd::OwnedFd,
    thread,
    time::Duration,
};

use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SocketType, ipproto, recv, socket,
    sockopt::{Timeout, set_socket_timeout},
};

use crate::namespace::Namespace;

/// On a loaded machine, and in an emulated one, an answer takes its time.
const PATIENCE: Duration = Duration::from_secs(20);
/// A TCP exchange: many segments, quick in an emulated machine too.
const BYTES: usize = 300_000;
const UDP_PORT: u16 = 7;

/// One echo request, answered.
pub(crate) fn ping(from: &Namespace, to: IpAddr, options: &[&str]) {
    from.command(&format!("ping -c 1 -w 20 {} {to}", options.join(" ")));
}

/// Datagrams of these sizes come back as they were sent.
pub(crate) fn udp_echo(from: &Namespace, to: &Namespace, address: IpAddr, sizes: &[usize]) {
    for size in sizes {
        udp_exchange(from, to, address, &pattern(*size));
    }
}

/// A datagram comes back as it was sent.
pub(crate) fn udp_exchange(from: &Namespace, to: &Namespace, address: IpAddr, sent: &[u8]) {
    Datagrams::open(from, to, address).exchange(sent);
}

/// A socket of one pod that sends, and one of another that answers.
pub(crate) struct Datagrams {
    client: UdpSocket,
    server: UdpSocket,
}

impl Datagrams {
    pub(crate) fn open(from: &Namespace, to: &Namespace, address: IpAddr) -> Self {
        let server = to.netns.run(|| UdpSocket::bind((address, UDP_PORT))).unwrap().unwrap();
        let any: IpAddr = if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let client = from.netns.run(|| UdpSocket::bind((any, 0))).unwrap().unwrap();
        for socket in [&server, &client] {
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
        }
        client.connect((address, UDP_PORT)).unwrap();
        Self { client, server }
    }

    /// A datagram comes back as it was sent.
    pub(crate) fn exchange(&self, sent: &[u8]) {
        let (size, mut buffer) = (sent.len(), vec![0; 65_536]);
        self.client.send(sent).unwrap();
        let (length, peer) = self.server.recv_from(&mut buffer).unwrap();
        assert!(buffer[..length] == *sent, "{size} bytes arrived as {length} others");
        self.server.send_to(&buffer[..length], peer).unwrap();
        let length = self.client.recv(&mut buffer).unwrap();
        assert!(buffer[..length] == *sent, "{size} bytes came back as {length} others");
    }
}

/// All that a namespace's devices see.
pub(crate) struct Capture {
    socket: OwnedFd,
}

impl Capture {
    pub(crate) fn start(place: &Namespace) -> Self {
        // All protocols (`packet(7)`), in network byte order.
        const EVERYTHING: u32 = 3_u16.to_be() as u32;
        let open =
            || socket(AddressFamily::PACKET, SocketType::RAW, NonZeroU32::new(EVERYTHING).map(Protocol::from_raw));
        Self { socket: place.netns.run(open).unwrap().unwrap() }
    }

    /// What was seen until now.
    pub(crate) fn frames(&self) -> Vec<Vec<u8>> {
        let mut buffer = vec![0; 65_536];
        let next = || match recv(&self.socket, &mut buffer[..], RecvFlags::DONTWAIT) {
            Ok((_, length)) => Some(buffer[..length].to_vec()),
            Err(_) => None,
        };
        std::iter::from_fn(next).collect()
    }
}

/// A TCP connection between two pods.
pub(crate) struct Connection {
    client: TcpStream,
    server: TcpStream,
}

impl Connection {
    pub(crate) fn open(from: &Namespace, to: &Namespace, address: IpAddr) -> Self {
        let listener = to.netns.run(|| TcpListener::bind((address, 0))).unwrap().unwrap();
        let target: SocketAddr = listener.local_addr().unwrap();
        let client = from.netns.run(|| TcpStream::connect_timeout(&target, PATIENCE)).unwrap().unwrap();
        let (server, _) = listener.accept().unwrap();
        for stream in [&client, &server] {
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream.set_write_timeout(Some(PATIENCE)).unwrap();
        }
        Self { client, server }
    }

    /// Much goes through in both directions and arrives as it was sent.
    pub(crate) fn exchange(&mut self) {
        let sent = pattern(BYTES);
        for (mut from, mut to) in [(&self.client, &self.server), (&self.server, &self.client)] {
            let mut received = vec![0; BYTES];
            thread::scope(|scope| {
                scope.spawn(|| from.write_all(&sent).unwrap());
                to.read_exact(&mut received).unwrap();
            });
            assert!(received == sent, "the bytes arrived changed");
        }
    }
}

fn pattern(size: usize) -> Vec<u8> {
    (0..size).map(|index| u8::try_from(index * 7 % 251).unwrap()).collect()
}

/// An ICMP echo request in an IPv4 packet, as it stands in flannel's UDP tunnel.
pub(crate) fn echo_request(source: [u8; 4], destination: [u8; 4]) -> Vec<u8> {
    let mut packet = vec![0x45, 0, 0, 28, 0, 1, 0, 0, 64, 1, 0, 0];
    packet.extend(source.into_iter().chain(destination));
    packet.extend([8, 0, 0, 0, 0, 7, 0, 1]);
    for range in [0..20, 20..28] {
        let sum = checksum(&packet[range.clone()]).to_be_bytes();
        let at = if range.start == 0 { 10 } else { 22 };
        packet[at..at + 2].copy_from_slice(&sum);
    }
    packet
}

/// The Internet's check sum (RFC 1071).
fn checksum(bytes: &[u8]) -> u16 {
    let sum: u32 = bytes.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    !u16::try_from((sum >> 16) + (sum & 0xffff)).unwrap()
}

/// Hears the ICMP packets that a pod gets.
pub(crate) struct IcmpListener {
    socket: OwnedFd,
}

impl IcmpListener {
    pub(crate) fn start(place: &Namespace) -> Self {
        let open = || socket(AddressFamily::INET, SocketType::RAW, Some(ipproto::ICMP));
        let socket = place.netns.run(open).unwrap().unwrap();
        set_socket_timeout(&socket, Timeout::Recv, Some(PATIENCE)).unwrap();
        Self { socket }
    }

    /// Where the next one comes from.
    pub(crate) fn next_source(&self) -> [u8; 4] {
        let mut buffer = [0; 1500];
        let (_, length) = recv(&self.socket, &mut buffer[..], RecvFlags::empty()).unwrap();
        buffer[12..length.min(16)].try_into().unwrap()
    }
}
