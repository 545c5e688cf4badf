//! Connections that were opened through a frontend: which there are, and their end where the backend is gone.
//!
//! The kernel lists the sockets of a namespace (`linux/inet_diag.h`) and says of each one of TCP what the programs keep at it; those of UDP stand
//! in a map. The namespaces are those of the processes in the programs' cgroup.

use std::{
    collections::{BTreeMap, HashMap},
    fs::File,
    io,
    net::{IpAddr, Ipv6Addr},
    os::fd::{AsFd, AsRawFd, OwnedFd},
    sync::Arc,
};

use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST};
use netlink_sys::protocols::NETLINK_SOCK_DIAG;
use podnet_ebpf::sockets::Place;
use podnet_model::Protocol;
use podnet_planner::ruleset::{BackendAddress, FrontendKey};
use rustix::io::Errno;

use super::{SocketsError, call, load, protocol_of, refused};
use crate::{
    cgroup::Cgroup,
    netlink::{
        Connection, Frame, NetlinkError, Operation,
        attribute::{Writer, attribute, attributes},
    },
    netns::NetNs,
};

/// `SOCK_DIAG_BY_FAMILY` and `SOCK_DESTROY`.
const LIST: u16 = 20;
const DESTROY: u16 = 21;
/// `INET_DIAG_REQ_SK_BPF_STORAGES`, and the map in it.
const STORAGES: u16 = 2;
const STORAGE_MAP: u16 = 1;
/// `INET_DIAG_SK_BPF_STORAGES`: what is kept at a socket, by map, and the value.
const KEPT: u16 = 20;
const KEPT_IN: u16 = 2;
const KEPT_VALUE: u16 = 3;
/// `struct inet_diag_sockid`, and where it stands in `struct inet_diag_msg`, whose length is the third.
const ID: usize = 48;
const ID_AT: usize = 4;
const HEAD: usize = 72;
/// `idiag_inode` in it: 0 where no process has the socket any more.
const INODE: std::ops::Range<usize> = 68..72;
/// The socket's cookie in its identity.
const COOKIE: std::ops::Range<usize> = 40..48;
/// The length of what the programs write of a connection.
const TALK: usize = 44;
/// The states of a TCP connection that is not at its end for both sides; of UDP the first is that of connected sockets:
/// `ESTABLISHED`, `SYN_SENT`, `FIN_WAIT1`, `FIN_WAIT2`, `CLOSE_WAIT`, `LAST_ACK`, `CLOSING`.
const STATES: u32 = 1 << 1 | 1 << 2 | 1 << 4 | 1 << 5 | 1 << 8 | 1 << 9 | 1 << 11;
/// `AF_INET` and `AF_INET6`.
const FAMILIES: [u8; 2] = [2, 10];

/// A connection that was opened through a frontend.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Opened {
    /// What the process connected to.
    pub frontend: FrontendKey,
    /// What it is connected to.
    pub backend: BackendAddress,
    netns: u64,
    family: u8,
    id: [u8; ID],
}

/// The view of the connections; it can be had on another thread than the programs.
#[derive(Clone, Debug)]
pub struct Connections {
    cgroup: Cgroup,
    tcp: Arc<OwnedFd>,
    tcp_id: u32,
    udp: Arc<OwnedFd>,
}

/// What is known of connected sockets of UDP: by cookie, as the programs write it.
type Udp = HashMap<[u8; 8], [u8; TALK]>;

impl Connections {
    pub(super) fn new(cgroup: Cgroup, (tcp, tcp_id): (OwnedFd, u32), udp: OwnedFd) -> Self {
        Self { cgroup, tcp: Arc::new(tcp), tcp_id, udp: Arc::new(udp) }
    }

    /// Those that are left when no program chooses backends any more: as the programs know them that tell sockets what they speak with. None
    /// where there are no such programs at the cgroup.
    ///
    /// # Errors
    /// Where it cannot be told which programs are there. A cgroup that is not there has none.
    pub fn left(cgroup: &Cgroup) -> Result<Option<Self>, SocketsError> {
        let directory = match File::open(cgroup.path()) {
            Ok(directory) => directory,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(SocketsError::Cgroup { path: cgroup.path().to_path_buf(), source: error }),
        };
        Ok(load::connected(directory.as_fd())?.map(|(tcp, udp)| Self::new(cgroup.clone(), tcp, udp)))
    }

    /// All of them that a process has. A socket of TCP that nobody has any more ends by the kernel's own timers, or, where older kernels are
    /// told to end it, never.
    ///
    /// # Errors
    /// Where the kernel cannot be asked. A process that ends meanwhile, or its namespace, is no error.
    pub fn list(&self) -> Result<Vec<Opened>, SocketsError> {
        let mut found = Vec::new();
        let udp = call::elements(self.udp.as_fd()).map_err(refused("list connected sockets"))?.into_iter().collect();
        for (number, netns) in self.namespaces()? {
            let listed = netns.run(|| self.list_here(number, &udp)).map_err(SocketsError::Namespace)?;
            found.extend(listed.map_err(SocketsError::Connections)?);
        }
        Ok(found)
    }

    /// Ends these connections: whoever reads or writes is told at once (`ECONNABORTED`), and the other side as well where it still is.
    /// How many were still there.
    ///
    /// # Errors
    /// What the kernel refused first, the others being ended: it may lack the feature (`CONFIG_INET_DIAG_DESTROY`).
    pub fn end(&self, connections: &[Opened]) -> Result<usize, SocketsError> {
        let (mut ended, mut failed) = (0, None);
        let namespaces = self.namespaces()?;
        for (number, netns) in &namespaces {
            let here: Vec<&Opened> = connections.iter().filter(|opened| opened.netns == *number).collect();
            if here.is_empty() {
                continue;
            }
            let done = netns.run(|| end_here(&here)).map_err(SocketsError::Namespace);
            match done.and_then(|done| done.map_err(SocketsError::Connections)) {
                Ok(here) => ended += here,
                Err(error) => {
                    failed.get_or_insert(error);
                }
            }
        }
        failed.map_or(Ok(ended), Err)
    }

    fn namespaces(&self) -> Result<BTreeMap<u64, NetNs>, SocketsError> {
        let mut namespaces = BTreeMap::new();
        for pid in self.cgroup.all_pids().map_err(SocketsError::Processes)? {
            // It may have ended.
            let Ok(netns) = NetNs::of_process(pid) else { continue };
            let Ok(number) = netns.inode() else { continue };
            namespaces.entry(number).or_insert(netns);
        }
        Ok(namespaces)
    }

    fn list_here(&self, netns: u64, udp: &Udp) -> Result<Vec<Opened>, NetlinkError> {
        let mut connection = Connection::open(NETLINK_SOCK_DIAG)?;
        let mut found = Vec::new();
        for family in FAMILIES {
            let mut take = |frame: &Frame| found.extend(opened(frame, family, netns, |_| self.kept(frame)));
            self.dump(&mut connection, (family, Protocol::Tcp), &mut take)?;
            if !udp.is_empty() {
                let of = |id: &[u8; ID]| udp.get(id.get(COOKIE)?).copied();
                self.dump(&mut connection, (family, Protocol::Udp), &mut |frame| {
                    found.extend(opened(frame, family, netns, of));
                })?;
            }
        }
        Ok(found)
    }

    /// What the programs keep at the socket.
    fn kept(&self, frame: &Frame) -> Option<[u8; TALK]> {
        if frame.payload.get(INODE)? == [0; 4] {
            return None;
        }
        let kept = attribute(frame.payload.get(HEAD..)?, KEPT)?;
        let is_ours = |kept: &&[u8]| attribute(kept, KEPT_IN) == Some(&self.tcp_id.to_ne_bytes());
        let value = attribute(attributes(kept).map(|(_, kept)| kept).find(is_ours)?, KEPT_VALUE)?;
        value.get(..TALK)?.try_into().ok()
    }

    fn dump(
        &self,
        connection: &mut Connection,
        (family, protocol): (u8, Protocol),
        take: &mut dyn FnMut(&Frame),
    ) -> Result<(), NetlinkError> {
        let sequence = connection.reserve(1);
        let mut writer = Writer::default();
        writer.message(LIST, NLM_F_REQUEST | NLM_F_DUMP, sequence, |writer| {
            writer.raw(&head(family, protocol));
            writer.raw(&[0; ID]);
            writer.nested(STORAGES, |writer| {
                writer.bytes(STORAGE_MAP, &self.tcp.as_fd().as_raw_fd().to_ne_bytes());
            });
        });
        connection.send(&writer.into_bytes())?;
        loop {
            for frame in connection.receive()?.into_iter().filter(|frame| frame.sequence == sequence) {
                match frame.acknowledgement() {
                    Some(Ok(())) => return Ok(()),
                    // Without the module there are no such sockets that could be listed.
                    Some(Err((Errno::NOENT, _))) => return Ok(()),
                    Some(Err((errno, hint))) => {
                        let operation = Operation::new("list sockets of", protocol);
                        return Err(NetlinkError::Refused { operation, hint, errno });
                    }
                    None => take(&frame),
                }
            }
        }
    }
}

fn opened(frame: &Frame, family: u8, netns: u64, talk: impl FnOnce(&[u8; ID]) -> Option<[u8; TALK]>) -> Option<Opened> {
    let id: [u8; ID] = frame.payload.get(ID_AT..ID_AT + ID)?.try_into().ok()?;
    let talk = talk(&id)?;
    let place = |at: usize| Some(Place::from_bytes(talk.get(at..at + Place::SIZE)?.try_into().ok()?));
    let (frontend, backend) = (place(0)?, place(Place::SIZE)?);
    let key = FrontendKey { addr: frontend.addr, protocol: protocol_of(frontend.protocol)?, port: frontend.port };
    // It may be connected elsewhere by now.
    let is_there = peer(family, &id) == (backend.addr, backend.port);
    let backend = BackendAddress { addr: backend.addr, port: backend.port };
    is_there.then_some(Opened { frontend: key, backend, netns, family, id })
}

/// What the socket is connected to: `idiag_dport` and `idiag_dst`.
fn peer(family: u8, id: &[u8; ID]) -> (IpAddr, u16) {
    let port = u16::from_be_bytes([id[2], id[3]]);
    let mut addr = [0; 16];
    addr.copy_from_slice(&id[20..36]);
    let addr = match family {
        2 => IpAddr::from([addr[0], addr[1], addr[2], addr[3]]),
        _ => Ipv6Addr::from(addr).to_canonical(),
    };
    (addr, port)
}

/// `struct inet_diag_req_v2` up to the socket's identity.
fn head(family: u8, protocol: Protocol) -> [u8; 8] {
    let [a, b, c, d] = STATES.to_ne_bytes();
    [family, protocol.number(), 0, 0, a, b, c, d]
}

fn end_here(connections: &[&Opened]) -> Result<usize, NetlinkError> {
    let mut socket = Connection::open(NETLINK_SOCK_DIAG)?;
    let (mut ended, mut refused) = (0, None);
    for opened in connections {
        let sequence = socket.reserve(1);
        let mut writer = Writer::default();
        writer.message(DESTROY, NLM_F_REQUEST | NLM_F_ACK, sequence, |writer| {
            writer.raw(&head(opened.family, opened.frontend.protocol));
            writer.raw(&opened.id);
        });
        socket.send(&writer.into_bytes())?;
        match socket.acknowledged(sequence)? {
            Ok(()) => ended += 1,
            // It ended by itself meanwhile, or is connected to something else.
            Err((Errno::NOENT | Errno::STALE, _)) => {}
            Err((errno, hint)) => {
                let operation = Operation::new("end a connection through", opened.frontend);
                // The others may be ended all the same.
                refused.get_or_insert(NetlinkError::Refused { operation, hint, errno });
            }
        }
    }
    refused.map_or(Ok(ended), Err)
}
