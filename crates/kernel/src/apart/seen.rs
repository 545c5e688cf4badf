//! What there is of a namespace apart, for who did not make it: its program is a node's agent, and others want to know what that did.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use podnet_model::{Family, LinkName, Protocol};
use podnet_planner::{ruleset::FrontendKey, services::userspace::Led};

use super::{ApartError, INSIDE, device, ways::There};
use crate::{
    link::{self, Link},
    netlink::{NetlinkError, RtSocket},
    netns::NetNs,
    pod_interface::inside::{end_of, id_of},
};

/// This process, among all others.
const SELF: &str = "/proc/self";

/// What leads to such a namespace, and what its program listens at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// What is led there.
    pub led: BTreeSet<Led>,
    /// Where it listens in the node's own namespace.
    pub at_node: BTreeSet<FrontendKey>,
    /// And in the one apart; none where there is no such namespace, or no program that has it is seen from here.
    pub inside: Option<BTreeSet<FrontendKey>>,
}

/// Looks at the namespace of a family that hangs at a node's, whoever made it.
///
/// # Errors
/// Where the kernel cannot be asked.
pub fn look(node: &NetNs, family: Family) -> Result<Seen, ApartError> {
    let mut socket = RtSocket::open_in(node)?;
    let Some(ours) = link::find(&mut socket, device(family))? else { return Ok(Seen::default()) };
    let led = There::read(&mut socket, family)?.led(ours.index);
    let Some(Program { netns, sockets }) = program(node, &ours)? else { return Ok(Seen { led, ..Seen::default() }) };
    let at_node = node.run(|| listening(family, &sockets))?;
    let inside = netns.run(|| listening(family, &sockets))?;
    Ok(Seen { led, at_node, inside: Some(inside) })
}

/// What a program has open.
struct Program {
    netns: NetNs,
    /// The inodes of its sockets.
    sockets: HashSet<u64>,
}

/// The program that has the namespace at the other end of a device: this one, or another in the node's namespace. No namespace is listed
/// anywhere that has no name.
fn program(node: &NetNs, ours: &Link) -> Result<Option<Program>, ApartError> {
    let home = node.inode()?;
    let is_at_home = |process: &PathBuf| fs::metadata(process.join("ns/net")).is_ok_and(|found| found.ino() == home);
    let all = fs::read_dir("/proc").into_iter().flatten().flatten().map(|entry| entry.path());
    for process in [PathBuf::from(SELF)].into_iter().chain(all.filter(is_at_home)) {
        let (namespaces, sockets) = held(&process);
        for path in namespaces.values() {
            // It may have closed it, or be gone, since it was listed.
            let Ok(netns) = NetNs::open(path) else { continue };
            if is_behind(node, &netns, ours).unwrap_or(false) {
                return Ok(Some(Program { netns, sockets }));
            }
        }
    }
    Ok(None)
}

/// The network namespaces that a process has open, each once, and its sockets; nothing of one that may not be looked at.
fn held(process: &Path) -> (BTreeMap<u64, PathBuf>, HashSet<u64>) {
    let (mut namespaces, mut sockets) = (BTreeMap::new(), HashSet::new());
    for entry in fs::read_dir(process.join("fd")).into_iter().flatten().flatten() {
        let Ok(target) = fs::read_link(entry.path()) else { continue };
        let target = target.to_string_lossy();
        if let Some(inode) = inode_in(&target, "net:[") {
            namespaces.insert(inode, entry.path());
        } else if let Some(inode) = inode_in(&target, "socket:[") {
            sockets.insert(inode);
        }
    }
    (namespaces, sockets)
}

/// `socket:[123]` (proc(5), `/proc/PID/fd`).
fn inode_in(target: &str, kind: &str) -> Option<u64> {
    target.strip_prefix(kind)?.strip_suffix(']')?.parse().ok()
}

/// Whether a namespace has the other end of a device of the node's.
fn is_behind(node: &NetNs, netns: &NetNs, ours: &Link) -> Result<bool, NetlinkError> {
    let mut socket = RtSocket::open_in(netns)?;
    let Some((end, number)) = end_of(&mut socket, &LinkName::from(INSIDE))? else { return Ok(false) };
    Ok(end.peer == Some(ours.index) && id_of(&mut socket, node) == Some(number))
}

/// Where these sockets listen in the calling thread's namespace (proc(5), `/proc/PID/net/tcp`). A socket of UDP that is connected is no
/// frontend's.
fn listening(family: Family, sockets: &HashSet<u64>) -> BTreeSet<FrontendKey> {
    let [tcp, udp] = match family {
        Family::V4 => ["tcp", "udp"],
        Family::V6 => ["tcp6", "udp6"],
    };
    let mut all = BTreeSet::new();
    // `TCP_LISTEN`; `TCP_CLOSE`, which stands for a socket without a peer.
    for (file, protocol, state) in [(tcp, Protocol::Tcp, "0A"), (udp, Protocol::Udp, "07")] {
        // There is none where the kernel has no such family.
        let text = fs::read_to_string(format!("/proc/thread-self/net/{file}")).unwrap_or_default();
        let lines = text.lines().skip(1);
        all.extend(lines.filter_map(|line| frontend(line, protocol, state, sockets)));
    }
    all
}

fn frontend(line: &str, protocol: Protocol, state: &str, sockets: &HashSet<u64>) -> Option<FrontendKey> {
    let words: Vec<&str> = line.split_ascii_whitespace().collect();
    let (local, found, inode) = (words.get(1)?, words.get(3)?, words.get(9)?);
    if *found != state || !sockets.contains(&inode.parse().ok()?) {
        return None;
    }
    let (addr, port) = local.split_once(':')?;
    Some(FrontendKey { addr: address(addr)?, protocol, port: u16::from_str_radix(port, 16).ok()? })
}

/// Words of 32 bits in hexadecimal digits, each as it stands in memory.
fn address(digits: &str) -> Option<IpAddr> {
    let word = |at: usize| Some(u32::from_str_radix(digits.get(at * 8..at * 8 + 8)?, 16).ok()?.to_ne_bytes());
    match digits.len() {
        8 => Some(Ipv4Addr::from(word(0)?).into()),
        32 => {
            let mut octets = [0; 16];
            for (at, part) in octets.chunks_exact_mut(4).enumerate() {
                part.copy_from_slice(&word(at)?);
            }
            Some(Ipv6Addr::from(octets).into())
        }
        _ => None,
    }
}
