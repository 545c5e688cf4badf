//! Many packets whose headers are the sender's affair with one system call (`raw(7)`, `sendmmsg(2)`).

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    os::fd::{AsRawFd, OwnedFd},
};

use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, ipproto, socket_with};

use super::header;

/// A socket that sends packets of IPv4 as they are; only their checksum is the kernel's, and their identification where that is 0. Nothing comes in by it.
#[derive(Debug)]
pub struct Packets(OwnedFd);

impl Packets {
    /// Opens a socket in the calling thread's namespace, where it stays, for packets to an address.
    ///
    /// # Errors
    /// Where the process may not, or there is no route.
    pub fn to(addr: Ipv4Addr) -> io::Result<Self> {
        let socket = socket_with(AddressFamily::INET, SocketType::RAW, SocketFlags::CLOEXEC, Some(ipproto::RAW))?;
        // A port would be taken for a protocol (raw(7)).
        connect(&socket, &SocketAddr::from((addr, 0)))?;
        Ok(Self(socket))
    }

    /// Sends packets in order, and waits where the socket has no room. What a device has no room for is lost, and counted there (`tx_dropped`).
    ///
    /// # Errors
    /// What the kernel refused; the packets before that one are sent.
    pub fn send<const N: usize>(&self, packets: &[[u8; N]]) -> io::Result<()> {
        let mut vectors: Vec<libc::iovec> = packets
            .iter()
            .map(|packet| libc::iovec { iov_base: packet.as_ptr().cast_mut().cast(), iov_len: packet.len() })
            .collect();
        let mut headers: Vec<libc::mmsghdr> = vectors.iter_mut().map(header).collect();
        let mut at = 0;
        while at < headers.len() {
            let rest = &mut headers[at..];
            let count = libc::c_uint::try_from(rest.len()).unwrap_or(libc::c_uint::MAX);
            // SAFETY: `rest` holds at least `count` headers whose vectors live in `vectors`, untouched until the call returns; each vector names a packet
            // and its length, and the kernel only reads packets.
            let done = unsafe { libc::sendmmsg(self.0.as_raw_fd(), rest.as_mut_ptr(), count, 0) };
            match usize::try_from(done) {
                Ok(done) => at += done,
                Err(_) => {
                    let error = io::Error::last_os_error();
                    if error.kind() != io::ErrorKind::Interrupted {
                        return Err(error);
                    }
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::{net::UdpSocket, time::Duration};

    use super::*;
    use crate::testing::TestNs;

    #[test]
    fn packets_come_as_they_are_and_in_their_order() {
        let netns = TestNs::new("packets");
        netns.command("ip link set lo up");
        let receiver = netns.run(|| UdpSocket::bind("127.0.0.1:9")).unwrap().unwrap();
        receiver.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let packet = |number: u8| {
            let mut packet = [0; 29];
            packet[..10].copy_from_slice(&[0x45, 0, 0, 29, 0, 0, 0x40, 0, 64, 17]);
            packet[12..20].copy_from_slice(&[127, 0, 0, 1, 127, 0, 0, 1]);
            // From port 7; without a checksum.
            packet[20..28].copy_from_slice(&[0, 7, 0, 9, 0, 9, 0, 0]);
            packet[28] = number;
            packet
        };
        let sent: Vec<[u8; 29]> = (0..100).map(packet).collect();
        let socket = netns.run(|| Packets::to(Ipv4Addr::LOCALHOST)).unwrap().unwrap();
        socket.send(&sent).unwrap();
        for number in 0..100 {
            let mut byte = [0];
            let (_, from) = receiver.recv_from(&mut byte).unwrap();
            assert_eq!((byte, from), ([number], "127.0.0.1:7".parse().unwrap()));
        }
    }

    #[test]
    fn where_there_is_no_route_there_is_no_socket() {
        let netns = TestNs::new("packets-nowhere");
        let refused = netns.run(|| Packets::to(Ipv4Addr::new(192, 0, 2, 1))).unwrap().unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::NetworkUnreachable);
    }
}
