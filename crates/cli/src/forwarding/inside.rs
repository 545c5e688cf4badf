//! What pods' own namespaces tell, where they are on this machine.

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket},
    path::{Path, PathBuf},
    time::Duration,
};

use podnet_kernel::{addr, netlink::RtSocket, netns::NetNs};
use podnet_model::{Family, Pod, Protocol};

use super::state::State;
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

/// The namespace of a pod that has one of its own; none where its node is not on this machine.
pub(super) fn namespace_of_pod(state: &State, pod: &Pod) -> Option<PathBuf> {
    pod.node.as_ref().filter(|node| state.here.contains_key(*node))?;
    namespace_of(pod.addrs.first()?.0)
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
    let (namespace, query) = (NetNs::open(netns).doing(what)?, query(name, Family::V4));
    namespace.run(move || answered(server, &query, ANSWER).map(drop)).doing(what)
}

/// Asks a name server for the addresses of a name from the namespace: those that it tells.
pub(super) fn resolve(
    netns: &Path,
    server: SocketAddr,
    name: &str,
    family: Family,
) -> Result<io::Result<Vec<IpAddr>>, Failure> {
    let what = || format!("cannot enter the namespace {}", netns.display());
    let (namespace, query) = (NetNs::open(netns).doing(what)?, query(name, family));
    namespace.run(move || addresses(&answered(server, &query, ANSWER)?)).doing(what)
}

/// What it says, as soon as it is an answer to the query.
fn answered(server: SocketAddr, query: &[u8], patience: Duration) -> io::Result<Vec<u8>> {
    let any: IpAddr = if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(server)?;
    socket.set_read_timeout(Some(patience))?;
    for _ in 0..TRIES {
        socket.send(query)?;
        let mut answer = [0; 512];
        match socket.recv(&mut answer) {
            // The identifier, and the bit QR.
            Ok(length) if answer.get(..2) == query.get(..2) && answer[2] & 0x80 != 0 => {
                return Ok(answer.get(..length).unwrap_or_default().to_vec());
            }
            Ok(_) => return Err(io::Error::other("what comes back is no answer to the query")),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::new(io::ErrorKind::TimedOut, "nothing comes back"))
}

/// RFC 1035, section 4.1: one question, for an address, of who wants the server to ask others.
fn query(name: &str, family: Family) -> Vec<u8> {
    let mut query = vec![0x70, 0x6e, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.').filter(|label| !label.is_empty()) {
        // A label has 63 bytes at most.
        query.push(u8::try_from(label.len()).unwrap_or(u8::MAX));
        query.extend(label.bytes());
    }
    query.extend([0, 0, record(family), 0, 1]);
    query
}

/// The type of the records that have addresses of a family: A, and AAAA (RFC 3596).
const fn record(family: Family) -> u8 {
    match family {
        Family::V4 => 1,
        Family::V6 => 28,
    }
}

/// The addresses of an answer (RFC 1035, section 4.1).
fn addresses(answer: &[u8]) -> io::Result<Vec<IpAddr>> {
    const NO_SUCH_NAME: u8 = 3;
    const CUT: u8 = 2;
    let cut_off = || io::Error::other("its answer is cut off");
    match answer.get(3).map(|flags| flags & 15) {
        Some(0) => {}
        Some(NO_SUCH_NAME) => return Err(io::Error::new(io::ErrorKind::NotFound, "there is no such name")),
        Some(code) => return Err(io::Error::other(format!("it answers with the error {code} (RCODE)"))),
        None => return Err(cut_off()),
    }
    // What it has is told where it has any.
    match records(answer) {
        Some(found) if !found.is_empty() || answer[2] & CUT == 0 => Ok(found),
        _ => Err(cut_off()),
    }
}

fn records(answer: &[u8]) -> Option<Vec<IpAddr>> {
    let number = |at: usize| Some(u16::from_be_bytes(answer.get(at..at + 2)?.try_into().ok()?));
    let (questions, answers) = (number(4)?, number(6)?);
    let mut at = 12;
    for _ in 0..questions {
        // Type and class.
        at = behind_name(answer, at)? + 4;
    }
    let mut found = Vec::new();
    for _ in 0..answers {
        // Type, class, time to live, length.
        at = behind_name(answer, at)?;
        let (kind, length) = (number(at)?, usize::from(number(at + 8)?));
        let data = answer.get(at + 10..at + 10 + length)?;
        found.extend(match kind {
            1 => <[u8; 4]>::try_from(data).ok().map(IpAddr::from),
            28 => <[u8; 16]>::try_from(data).ok().map(IpAddr::from),
            _ => None,
        });
        at += 10 + length;
    }
    Some(found)
}

/// A name ends with the root, or points to where it goes on (RFC 1035, section 4.1.4).
fn behind_name(answer: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *answer.get(at)? {
            0 => return Some(at + 1),
            0xc0.. => return Some(at + 2),
            length => at += 1 + usize::from(length),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn a_query_asks_for_an_address_of_the_name() {
        for (family, record) in [(Family::V4, 1), (Family::V6, 28)] {
            let asked = query("web.shop", family);
            assert_eq!(asked[12..], [&[3][..], b"web", &[4], b"shop", &[0, 0, record, 0, 1]].concat());
        }
    }

    #[test]
    fn of_an_answer_the_addresses_are_read_behind_other_names_that_it_goes_by() {
        let mut answer = query("web.shop", Family::V4);
        (answer[2], answer[3], answer[7]) = (0x81, 0x80, 3);
        let record = |kind: u8, data: &[u8]| {
            let head = [0xc0, 12, 0, kind, 0, 1, 0, 0, 0, 30, 0, u8::try_from(data.len()).unwrap()];
            [&head[..], data].concat()
        };
        // Another name of it, and an address of each family.
        answer.extend(record(5, &[1, b'w', 0xc0, 16]));
        answer.extend(record(1, &[192, 0, 2, 7]));
        answer.extend(record(28, &Ipv6Addr::LOCALHOST.octets()));
        let expected: [IpAddr; 2] = ["192.0.2.7".parse().unwrap(), "::1".parse().unwrap()];
        assert_eq!(addresses(&answer).unwrap(), expected);
        for length in 0..answer.len() {
            assert!(addresses(&answer[..length]).is_err(), "{length}");
        }
        // Of one that had no room for any address none is known.
        let cut = [&[0x70, 0x6e, 0x83, 0x80, 0, 1, 0, 0, 0, 0, 0, 0][..], &answer[12..26]].concat();
        assert_eq!(addresses(&cut).unwrap_err().to_string(), "its answer is cut off");
        for (code, words) in [(3, "there is no such name"), (2, "it answers with the error 2 (RCODE)")] {
            answer[3] = 0x80 | code;
            assert_eq!(addresses(&answer).unwrap_err().to_string(), words);
        }
    }

    #[test]
    fn a_name_server_that_says_anything_answers_and_one_that_is_gone_or_says_nothing_does_not() {
        const LITTLE: Duration = Duration::from_millis(50);
        let server = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let (at, asked) = (server.local_addr().unwrap(), query("web.shop", Family::V4));
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
