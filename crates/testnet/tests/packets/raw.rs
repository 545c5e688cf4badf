//! Raw sockets: what they give has to be told apart by whoever reads it.

use std::{
    io::{self, ErrorKind},
    net::{IpAddr, UdpSocket},
    time::Instant,
};

use rustix::net::{AddressFamily, RawProtocol, SocketFlags, SocketType, socket_with};

/// One for packets of this protocol to and from addresses of this one's family.
pub(crate) fn socket(of: IpAddr, protocol: RawProtocol) -> io::Result<UdpSocket> {
    let family = if of.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let protocol = rustix::net::Protocol::from_raw(protocol);
    // It is none of UDP, but what can be done with it is the same.
    Ok(socket_with(family, SocketType::RAW, SocketFlags::CLOEXEC, Some(protocol))?.into())
}

/// What a received packet holds: raw sockets of IPv4 give the header too.
pub(crate) fn payload(of: IpAddr, packet: &[u8]) -> &[u8] {
    let header = if of.is_ipv4() { packet.first().map_or(0, |byte| usize::from(byte & 0xf) * 4) } else { 0 };
    packet.get(header..).unwrap_or_default()
}

/// Waits for what `read` finds in a packet; others pass.
///
/// # Errors
/// Of the kind [`ErrorKind::ConnectionRefused`] where ICMP says so, [`ErrorKind::TimedOut`] where nothing fits until then.
pub(crate) fn await_packet<T>(
    socket: &UdpSocket,
    from: IpAddr,
    deadline: Instant,
    read: impl Fn(&[u8]) -> Option<T>,
) -> io::Result<T> {
    let mut buffer = [0; 2048];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        socket.set_read_timeout(Some(left))?;
        let length = match socket.recv(&mut buffer) {
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => continue,
            received => received?,
        };
        if let Some(found) = read(payload(from, &buffer[..length])) {
            return Ok(found);
        }
    }
}
