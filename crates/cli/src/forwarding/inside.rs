//! What pods' own namespaces tell, where they are on this machine.

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket},
    path::{Path, PathBuf},
    time::Duration,
};

use podnet_kernel::{addr, netlink::RtSocket, netns::NetNs};
use podnet_model::Protocol;

use crate::{
    layout::NETNS_DIR,
    report::{Doing, Failure},
};

/// How a sandbox's namespace is called.
const PREFIX: &str = "podnet-pod-";
/// How long a connection may take.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long an answer to a query may take, and how often it is asked: a datagram may be lost.
const ANSWER: Duration = Duration::from_millis(1500);
const TRIES: usize = 2;

/// The namespace of the pod with this address; none where there is no such on this machine.
pub(super) fn namespace_of(pod: IpAddr) -> Option<PathBuf> {
    let entries = fs::read_dir(NETNS_DIR).ok()?.flatten();
    let sandboxes = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(PREFIX));
    let mut paths = sandboxes.map(|entry| entry.path());
    paths.find(|path| {
        let listed = NetNs::open(path).ok().and_then(|netns| {
            let mut socket = RtSocket::open_in(&netns).ok()?;
            addr::list_all(&mut socket).ok()
        });
        listed.is_some_and(|all| all.iter().any(|(_, net)| net.addr() == pod))
    })
}

/// Whether a socket of the namespace takes what comes to the port at one of its addresses; none where that cannot be read.
pub(super) fn listens(netns: &Path, protocol: Protocol, port: u16) -> Option<bool> {
    // proc(5), /proc/net/tcp: the local address, the other one, and the state, of which 0A is LISTEN; of UDP it says nothing.
    let (files, state) = match protocol {
        Protocol::Tcp => (["tcp", "tcp6"], Some("0A")),
        Protocol::Udp => (["udp", "udp6"], None),
        Protocol::Sctp => return None,
    };
    let read = || files.map(|file| fs::read_to_string(format!("/proc/thread-self/net/{file}")).unwrap_or_default());
    let texts = NetNs::open(netns).ok()?.run(read).ok()?;
    let is_it = |line: &str| {
        let mut words = line.split_whitespace().skip(1);
        let (Some(local), Some(_), Some(found)) = (words.next(), words.next(), words.next()) else { return false };
        let is_port = local.rsplit(':').next().and_then(|port| u16::from_str_radix(port, 16).ok()) == Some(port);
        // What is bound to the loopback alone hears nobody else.
        let is_loopback = local.starts_with("0100007F:") || local.starts_with("00000000000000000000000001000000:");
        is_port && !is_loopback && state.is_none_or(|state| found == state)
    };
    Some(texts.iter().flat_map(|text| text.lines().skip(1)).any(is_it))
}

/// Opens a connection of TCP from the namespace, and closes it.
pub(super) fn connect(netns: &Path, to: SocketAddr) -> Result<io::Result<()>, Failure> {
    let what = || format!("cannot enter the namespace {}", netns.display());
    let namespace = NetNs::open(netns).doing(what)?;
    namespace.run(move || TcpStream::connect_timeout(&to, PATIENCE).map(drop)).doing(what)
}

/// Asks a name server for an address of a name from the namespace: whether it answers, whatever it says.
pub(super) fn ask(netns: &Path, server: SocketAddr, name: &str) -> Result<io::Result<()>, Failure> {
    let what = || format!("cannot enter the namespace {}", netns.display());
    let (namespace, query) = (NetNs::open(netns).doing(what)?, query(name));
    namespace.run(move || answered(server, &query, ANSWER)).doing(what)
}

fn answered(server: SocketAddr, query: &[u8], patience: Duration) -> io::Result<()> {
    let any: IpAddr = if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(server)?;
    socket.set_read_timeout(Some(patience))?;
    for _ in 0..TRIES {
        socket.send(query)?;
        let mut answer = [0; 512];
        match socket.recv(&mut answer) {
            // The identifier, and the bit QR.
            Ok(_) if answer.get(..2) == query.get(..2) && answer[2] & 0x80 != 0 => return Ok(()),
            Ok(_) => return Err(io::Error::other("what comes back is no answer to the query")),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::new(io::ErrorKind::TimedOut, "nothing comes back"))
}

/// RFC 1035, section 4.1: one question, for an address, of who wants the server to ask others.
fn query(name: &str) -> Vec<u8> {
    let mut query = vec![0x70, 0x6e, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.').filter(|label| !label.is_empty()) {
        // A label has 63 bytes at most.
        query.push(u8::try_from(label.len()).unwrap_or(u8::MAX));
        query.extend(label.bytes());
    }
    query.extend([0, 0, 1, 0, 1]);
    query
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn a_query_asks_for_an_address_of_the_name() {
        let asked = query("web.shop");
        assert_eq!(asked[12..], [&[3][..], b"web", &[4], b"shop", &[0, 0, 1, 0, 1]].concat());
    }

    #[test]
    fn a_name_server_that_says_anything_answers_and_one_that_is_gone_or_says_nothing_does_not() {
        const LITTLE: Duration = Duration::from_millis(50);
        let server = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let (at, asked) = (server.local_addr().unwrap(), query("web.shop"));
        assert_eq!(answered(at, &asked, LITTLE).unwrap_err().kind(), io::ErrorKind::TimedOut, "it hears and is silent");
        let answers = |server: UdpSocket| {
            let mut buffer = [0; 512];
            // What was sent before is answered to nobody.
            for _ in 0..=TRIES {
                let (length, from) = server.recv_from(&mut buffer).unwrap();
                buffer[2] |= 0x80;
                let _ = server.send_to(&buffer[..length], from);
            }
        };
        let answering = thread::spawn(move || answers(server));
        assert!(answered(at, &asked, Duration::from_secs(20)).is_ok());
        answering.join().unwrap();
        let gone = answered(at, &asked, Duration::from_secs(20)).unwrap_err();
        assert_eq!(gone.kind(), io::ErrorKind::ConnectionRefused, "it is gone");
    }
}
