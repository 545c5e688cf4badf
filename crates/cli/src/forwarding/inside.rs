//! What pods' own namespaces tell, where they are on this machine.

use std::{
    fs,
    net::{IpAddr, SocketAddr, TcpStream},
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
pub(super) fn connect(netns: &Path, to: SocketAddr) -> Result<std::io::Result<()>, Failure> {
    let what = || format!("cannot enter the namespace {}", netns.display());
    let namespace = NetNs::open(netns).doing(what)?;
    namespace.run(move || TcpStream::connect_timeout(&to, PATIENCE).map(drop)).doing(what)
}
