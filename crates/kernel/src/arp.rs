//! Answering for addresses that this node does not have itself (ARP, RFC 826; RFC 5227 on announcing and asking).
//!
//! The kernel answers for its own addresses only. An address of a load balancer must not be one of them: it is translated before the node
//! asks whether a packet is for itself, other nodes stand ready for it too, and who stops answering has given it up at once, be it
//! because its agent is gone.

use std::{
    io,
    net::Ipv4Addr,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
};

use podnet_model::Mac;
use rustix::{
    io::Errno,
    net::{RecvFlags, SendFlags, recv, send},
};

use crate::{
    link,
    netlink::{NetlinkError, Operation, RtSocket},
};

/// Length of an Ethernet header and of ARP for IPv4 behind it.
const FRAME: usize = 42;
/// What is before the addresses: Ethernet (1), IPv4, 6 and 4 bytes.
const ETHERNET_IPV4: [u8; 6] = [0, 1, 8, 0, 6, 4];
const ETHERTYPE: [u8; 2] = [8, 6];
const REQUEST: u8 = 1;
const REPLY: u8 = 2;
const EVERYBODY: Mac = Mac([0xff; 6]);
const NOBODY: Mac = Mac([0; 6]);

/// What somebody on the network said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// It asks who has the address.
    Asks {
        /// The address.
        addr: Ipv4Addr,
        /// Who asks: the answer goes there.
        asker: (Mac, Ipv4Addr),
    },
    /// It says that it has the address.
    Claims {
        /// The address.
        addr: Ipv4Addr,
        /// Who says so.
        by: Mac,
    },
}

/// Hears and speaks ARP on one device.
#[derive(Debug)]
pub struct ArpSocket {
    socket: OwnedFd,
    mac: Mac,
    index: u32,
}

impl ArpSocket {
    /// Opens a socket on a device of the calling thread's namespace.
    ///
    /// # Errors
    /// Where there is no such device, or it is none of Ethernet, or the process may not.
    pub fn open(device: &str) -> Result<Self, NetlinkError> {
        let operation = || Operation::new("listen to ARP on", device);
        let refused = |errno| NetlinkError::Refused { operation: operation(), hint: None, errno };
        let (index, mac) = identity(device)?.ok_or_else(|| refused(Errno::NODEV))?;
        let socket = packet_socket(index)
            .map_err(|error| refused(error.raw_os_error().map_or(Errno::IO, Errno::from_raw_os_error)))?;
        Ok(Self { socket, mac, index })
    }

    /// The device's index.
    #[must_use]
    pub const fn index(&self) -> u32 {
        self.index
    }

    /// Whether the device of that name is still the one that the socket was opened on, with the same Ethernet address.
    ///
    /// # Errors
    /// Where the kernel cannot be asked.
    pub fn is_current(&self, device: &str) -> Result<bool, NetlinkError> {
        Ok(identity(device)? == Some((self.index, self.mac)))
    }

    /// The device's Ethernet address when the socket was opened.
    #[must_use]
    pub const fn mac(&self) -> Mac {
        self.mac
    }

    /// The next thing that was said; none where there is nothing more for now. What this node says itself is left out.
    ///
    /// # Errors
    /// Where the device is gone or down.
    pub fn hear(&self) -> io::Result<Option<Heard>> {
        loop {
            let mut frame = [0; 128];
            let length = match recv(&self.socket, frame.as_mut_slice(), RecvFlags::DONTWAIT) {
                Ok((length, _)) => length,
                Err(Errno::AGAIN) => return Ok(None),
                Err(Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            };
            if let Some(heard) = frame.get(..length).and_then(parse).filter(|heard| !self.is_own(heard)) {
                return Ok(Some(heard));
            }
        }
    }

    /// Answers whoever asked: this node has the address.
    ///
    /// # Errors
    /// Where the device is gone or down.
    pub fn answer(&self, addr: Ipv4Addr, asker: (Mac, Ipv4Addr)) -> io::Result<()> {
        self.say(asker.0, &message(REPLY, (self.mac, addr), asker))
    }

    /// Tells everybody that this node has the address: as a question, which most take as news, and as an answer, which the others do.
    ///
    /// # Errors
    /// Where the device is gone or down.
    pub fn claim(&self, addr: Ipv4Addr) -> io::Result<()> {
        self.say(EVERYBODY, &message(REQUEST, (self.mac, addr), (NOBODY, addr)))?;
        self.say(EVERYBODY, &message(REPLY, (self.mac, addr), (EVERYBODY, addr)))
    }

    /// Asks everybody who has the address, without telling of an own one.
    ///
    /// # Errors
    /// Where the device is gone or down.
    pub fn ask(&self, addr: Ipv4Addr) -> io::Result<()> {
        self.say(EVERYBODY, &message(REQUEST, (self.mac, Ipv4Addr::UNSPECIFIED), (NOBODY, addr)))
    }

    fn say(&self, to: Mac, message: &[u8; FRAME - 14]) -> io::Result<()> {
        let mut frame = Vec::with_capacity(FRAME);
        frame.extend(to.0);
        frame.extend(self.mac.0);
        frame.extend(ETHERTYPE);
        frame.extend(message);
        send(&self.socket, &frame, SendFlags::DONTWAIT).map(drop).map_err(io::Error::from)
    }

    fn is_own(&self, heard: &Heard) -> bool {
        match heard {
            Heard::Asks { asker: (mac, _), .. } | Heard::Claims { by: mac, .. } => *mac == self.mac,
        }
    }
}

impl AsFd for ArpSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// A device's index and Ethernet address; none where there is no such device, or it has none.
fn identity(device: &str) -> Result<Option<(u32, Mac)>, NetlinkError> {
    let found = link::find(&mut RtSocket::open()?, device)?;
    Ok(found.and_then(|link| Some((link.index, link.mac?))))
}

/// A socket for whole frames of ARP on a device (`packet(7)`).
fn packet_socket(index: u32) -> io::Result<OwnedFd> {
    let protocol = u16::try_from(libc::ETH_P_ARP).unwrap_or_default().to_be();
    let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: the call takes numbers; what it returns is checked before it is used.
    let number = unsafe { libc::socket(libc::AF_PACKET, kind, i32::from(protocol)) };
    if number < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just given this descriptor, and nobody else has it.
    let socket = unsafe { OwnedFd::from_raw_fd(number) };
    // SAFETY: all-zero bytes are a valid `sockaddr_ll`, which is made of numbers and arrays.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = u16::try_from(libc::AF_PACKET).unwrap_or_default();
    address.sll_protocol = protocol;
    address.sll_ifindex = i32::try_from(index).unwrap_or_default();
    let length = libc::socklen_t::try_from(size_of::<libc::sockaddr_ll>()).unwrap_or_default();
    // SAFETY: the address is a `sockaddr_ll` of that length and lives until the call is done; the descriptor is open.
    let bound = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) };
    if bound == 0 { Ok(socket) } else { Err(io::Error::last_os_error()) }
}

fn message(operation: u8, sender: (Mac, Ipv4Addr), target: (Mac, Ipv4Addr)) -> [u8; FRAME - 14] {
    let mut message = [0; FRAME - 14];
    message[..6].copy_from_slice(&ETHERNET_IPV4);
    message[7] = operation;
    for (place, (mac, addr)) in [(8, sender), (18, target)] {
        message[place..place + 6].copy_from_slice(&mac.0);
        message[place + 6..place + 10].copy_from_slice(&addr.octets());
    }
    message
}

/// What a frame says; none where it is not ARP for IPv4.
fn parse(frame: &[u8]) -> Option<Heard> {
    let message = frame.get(14..FRAME)?;
    if frame.get(12..14)? != ETHERTYPE || message.get(..6)? != ETHERNET_IPV4 {
        return None;
    }
    let mac = |at: usize| Some(Mac(message.get(at..at + 6)?.try_into().ok()?));
    let addr = |at: usize| Some(Ipv4Addr::from(<[u8; 4]>::try_from(message.get(at..at + 4)?).ok()?));
    let (sender, from, target) = (mac(8)?, addr(14)?, addr(24)?);
    match message.get(6..8)? {
        [0, REQUEST] if from == target => Some(Heard::Claims { addr: from, by: sender }),
        [0, REQUEST] => Some(Heard::Asks { addr: target, asker: (sender, from) }),
        [0, REPLY] => Some(Heard::Claims { addr: from, by: sender }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;
    use crate::testing::{TestNs, eventually};

    const VIP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 200);

    /// Two namespaces joined by a link, with addresses 192.0.2.1 and .2.
    fn pair(tag: &str) -> (TestNs, TestNs) {
        let (one, other) = (TestNs::new(&format!("{tag}a")), TestNs::new(&format!("{tag}b")));
        one.command(&format!("ip link add eth0 type veth peer name eth0 netns {}", other.path.display()));
        for (namespace, addr) in [(&one, "192.0.2.1/24"), (&other, "192.0.2.2/24")] {
            namespace.command(&format!("ip address add {addr} dev eth0"));
            namespace.command("ip link set eth0 up");
        }
        (one, other)
    }

    fn next(socket: &ArpSocket, what: &str, wanted: impl Fn(&Heard) -> bool) -> Heard {
        let mut found = None;
        eventually(what, || {
            found = socket.hear().unwrap().filter(&wanted);
            found.is_some()
        });
        found.unwrap()
    }

    #[test]
    fn a_kernel_that_asks_is_answered_and_believes_a_claim() {
        let (node, client) = pair("arp");
        let socket = node.run(|| ArpSocket::open("eth0")).unwrap().unwrap();
        let mac = socket.mac.to_string();
        thread::scope(|scope| {
            scope.spawn(|| {
                let asked = next(&socket, "a question", |heard| matches!(heard, Heard::Asks { addr: VIP, .. }));
                let Heard::Asks { asker, .. } = asked else { panic!("{asked:?}") };
                socket.answer(VIP, asker).unwrap();
            });
            client.run(|| std::net::UdpSocket::bind("0.0.0.0:0").unwrap().send_to(b"x", (VIP, 9)).unwrap()).unwrap();
            eventually("a neighbour", || client.command("ip neigh show 192.0.2.200").contains(&mac));
        });

        client.command("ip neigh replace 192.0.2.200 lladdr 02:00:00:00:00:99 dev eth0 nud stale");
        socket.claim(VIP).unwrap();
        eventually("the new neighbour", || client.command("ip neigh show 192.0.2.200").contains(&mac));
    }

    #[test]
    fn two_nodes_hear_each_other_and_not_themselves() {
        let (one, other) = pair("arq");
        let open = |namespace: &TestNs| namespace.run(|| ArpSocket::open("eth0")).unwrap().unwrap();
        let (first, second) = (open(&one), open(&other));
        second.ask(VIP).unwrap();
        let asked = next(&first, "a question", |heard| matches!(heard, Heard::Asks { addr: VIP, .. }));
        assert_eq!(asked, Heard::Asks { addr: VIP, asker: (second.mac, Ipv4Addr::UNSPECIFIED) });
        first.answer(VIP, (second.mac, Ipv4Addr::UNSPECIFIED)).unwrap();
        first.claim(VIP).unwrap();
        for _ in 0..3 {
            let claimed = next(&second, "a claim", |heard| matches!(heard, Heard::Claims { .. }));
            assert_eq!(claimed, Heard::Claims { addr: VIP, by: first.mac });
        }
        assert!(one.run(|| ArpSocket::open("eth9")).unwrap().is_err());
    }

    #[test]
    fn a_device_with_another_address_or_of_another_name_is_another_one() {
        let (one, _other) = pair("arr");
        let socket = one.run(|| ArpSocket::open("eth0")).unwrap().unwrap();
        let is_current = || one.run(|| socket.is_current("eth0").unwrap()).unwrap();
        assert!(is_current());
        one.command("ip link set eth0 address 02:00:00:00:00:42");
        assert!(!is_current());
        let socket = one.run(|| ArpSocket::open("eth0")).unwrap().unwrap();
        let is_current = || one.run(|| socket.is_current("eth0").unwrap()).unwrap();
        assert!(is_current());
        one.command("ip link set eth0 down");
        one.command("ip link set eth0 name eth1");
        assert!(!is_current());
    }

    #[test]
    fn what_is_no_arp_says_nothing() {
        assert_eq!(parse(&[]), None);
        assert_eq!(parse(&[0; FRAME]), None);
        let mut frame = [0; FRAME];
        frame[12..14].copy_from_slice(&ETHERTYPE);
        frame[14..20].copy_from_slice(&ETHERNET_IPV4);
        assert_eq!(parse(&frame), None, "no operation");
        frame[21] = REQUEST;
        frame[41] = 7;
        let asked = Heard::Asks { addr: Ipv4Addr::new(0, 0, 0, 7), asker: (NOBODY, Ipv4Addr::UNSPECIFIED) };
        assert_eq!(parse(&frame), Some(asked));
        assert_eq!(parse(&frame[..FRAME - 1]), None, "cut off");
    }
}
