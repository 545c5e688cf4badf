//! The program behind the UDP tunnel: it carries a TUN device's packets to other nodes in UDP, and back.
//!
//! A datagram is an IPv4 packet and nothing else, as flannel's backend of that name has it, so that its nodes understand it. Two
//! threads carry, one for each direction, up to 32 packets with one system call where the kernel can (`recvmmsg(2)`,
//! `sendmmsg(2)`). A packet is taken in only from a node that has the packet's source.

mod batch;
mod ranges;

use std::{
    fs::File,
    io::{self, Read, Write},
    net::UdpSocket,
    os::fd::{AsFd, OwnedFd},
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
};

use podnet_planner::overlay::Carrier;
use rustix::{
    event::{EventfdFlags, PollFd, PollFlags, eventfd, poll},
    io::{Errno, ioctl_fionbio},
    net::sockopt::{Ipv4PathMtuDiscovery, set_ip_mtu_discover},
};

use self::{batch::Batch, ranges::Ranges};
use crate::{
    netlink::NetlinkError,
    netns::{NetNs, NetNsError},
    tun,
};

/// Why the tunnel cannot run.
#[derive(Debug, thiserror::Error)]
pub enum CarrierError {
    /// The device cannot be had.
    #[error("cannot have the UDP tunnel's device")]
    Device(#[from] NetlinkError),
    /// The port cannot be had.
    #[error("cannot listen on {local}:{port} for the UDP tunnel")]
    Listen {
        /// The address.
        local: std::net::Ipv4Addr,
        /// The port.
        port: u16,
        /// Why not.
        source: io::Error,
    },
    /// Threads or descriptors ran out.
    #[error("cannot start the UDP tunnel")]
    Start(#[source] io::Error),
    /// The namespace cannot be entered.
    #[error(transparent)]
    Namespace(#[from] NetNsError),
}

/// What was carried, and what was not.
#[derive(Debug, Default)]
pub struct Carried {
    /// Packets sent to other nodes.
    pub sent: AtomicU64,
    /// Packets from other nodes.
    pub received: AtomicU64,
    /// Packets from this node that nobody has the destination of, or that could not be sent.
    pub unsent: AtomicU64,
    /// Datagrams that are no packets, or whose sender does not have the packet's source.
    pub refused: AtomicU64,
}

/// A running tunnel; dropping it ends it. The device stays.
#[derive(Debug)]
pub struct RunningCarrier {
    carrier: Carrier,
    device: Arc<File>,
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    ranges: RwLock<Arc<Ranges>>,
    stop: OwnedFd,
    carried: Carried,
}

impl RunningCarrier {
    /// Starts to carry, in that namespace, for a device that is there.
    ///
    /// # Errors
    /// Where the device or the port cannot be had.
    pub fn start(netns: &NetNs, carrier: &Carrier) -> Result<Self, CarrierError> {
        let (local, port) = (carrier.local, carrier.port);
        let device = Arc::new(tun::attach(netns, &carrier.device)?);
        let listen = |source| CarrierError::Listen { local, port, source };
        let socket = Arc::new(netns.run(|| UdpSocket::bind((local, port)))?.map_err(listen)?);
        let prepared = prepare(&device, &socket).map_err(CarrierError::Start)?;
        let shared = Arc::new(Shared {
            ranges: RwLock::new(Arc::new(Ranges::new(&carrier.ranges))),
            stop: prepared,
            carried: Carried::default(),
        });
        let mut running =
            Self { carrier: carrier.clone(), device: device.clone(), shared: shared.clone(), threads: Vec::new() };
        for (name, work) in [("udp-outward", outward as Work), ("udp-inward", inward as Work)] {
            let (device, socket, shared) = (device.clone(), socket.clone(), shared.clone());
            let port = carrier.port;
            let thread = thread::Builder::new().name(name.into()).spawn(move || {
                // The device is gone, or the tunnel was told to end: whoever looks after it sees that the thread has ended.
                if let Err(error) = work(&device, &socket, port, &shared) {
                    tracing::warn!(%error, "the UDP tunnel stopped");
                }
            });
            running.threads.push(thread.map_err(CarrierError::Start)?);
        }
        Ok(running)
    }

    /// Takes over what is planned now; tells whether that can be done without starting anew.
    #[must_use]
    pub fn follow(&mut self, carrier: &Carrier) -> bool {
        let same = |one: &Carrier| (one.device.clone(), one.local, one.port);
        let works = tun::is_attached(&self.device) && !self.threads.iter().any(JoinHandle::is_finished);
        if same(&self.carrier) != same(carrier) || !works {
            return false;
        }
        if self.carrier.ranges != carrier.ranges {
            let ranges = Arc::new(Ranges::new(&carrier.ranges));
            *self.shared.ranges.write().unwrap_or_else(PoisonError::into_inner) = ranges;
            self.carrier = carrier.clone();
        }
        true
    }

    /// What was carried.
    #[must_use]
    pub fn carried(&self) -> &Carried {
        &self.shared.carried
    }
}

impl Drop for RunningCarrier {
    fn drop(&mut self) {
        let _ = rustix::io::write(&self.shared.stop, &1_u64.to_ne_bytes());
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

type Work = fn(&File, &UdpSocket, u16, &Shared) -> io::Result<()>;

/// The device is read until it is empty; and what is sent may be cut into pieces on a way that is narrower than the device thinks.
fn prepare(device: &File, socket: &UdpSocket) -> io::Result<OwnedFd> {
    ioctl_fionbio(device, true)?;
    set_ip_mtu_discover(socket, Ipv4PathMtuDiscovery::DONT)?;
    Ok(eventfd(0, EventfdFlags::CLOEXEC)?)
}

impl Shared {
    fn ranges(&self) -> Arc<Ranges> {
        self.ranges.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits for something to read; false when the tunnel shall end.
    fn wait(&self, source: impl AsFd) -> io::Result<bool> {
        let mut watched = [PollFd::new(&source, PollFlags::IN), PollFd::new(&self.stop, PollFlags::IN)];
        loop {
            match poll(&mut watched, None) {
                Ok(_) => return Ok(watched[1].revents().is_empty()),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

fn outward(mut device: &File, socket: &UdpSocket, port: u16, shared: &Shared) -> io::Result<()> {
    let mut batch = Batch::new();
    while shared.wait(device)? {
        let ranges = shared.ranges();
        batch.clear();
        while let Some(buffer) = batch.next() {
            match device.read(buffer) {
                Ok(length) => match ranges.destination(&buffer[..length]) {
                    Some(node) => batch.push(length, node, port),
                    None => count(&shared.carried.unsent, 1),
                },
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        let sent = batch.send(socket);
        count(&shared.carried.sent, sent);
        count(&shared.carried.unsent, batch.len() - sent);
    }
    Ok(())
}

fn inward(mut device: &File, socket: &UdpSocket, _: u16, shared: &Shared) -> io::Result<()> {
    let mut batch = Batch::new();
    while shared.wait(socket)? {
        let ranges = shared.ranges();
        for (packet, node) in batch.receive(socket)? {
            // The kernel refuses what only looks like a packet.
            if ranges.may_send(packet, node) && write_packet(&mut device, packet)? {
                count(&shared.carried.received, 1);
            } else {
                count(&shared.carried.refused, 1);
            }
        }
    }
    Ok(())
}

/// Whether the device took the packet. One that is down or full takes none: the sender's business, as on any way.
fn write_packet(device: &mut &File, packet: &[u8]) -> io::Result<bool> {
    match device.write(packet) {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(Errno::BADFD.raw_os_error()) => Err(error),
        Err(_) => Ok(false),
    }
}

fn count(counter: &AtomicU64, number: usize) {
    counter.fetch_add(number as u64, Ordering::Relaxed);
}
