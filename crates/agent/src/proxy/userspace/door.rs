//! A socket that listens for a frontend.

use std::{
    collections::BTreeSet,
    io,
    net::{IpAddr, SocketAddr},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::Arc,
};

use podnet_kernel::socket_filter;
use podnet_model::{Family, Protocol};
use podnet_planner::{
    ruleset::FrontendKey,
    services::userspace::{Guard, Place},
};
use rustix::net::{
    AddressFamily, SocketFlags, SocketType, bind, listen, socket_with,
    sockopt::{Ipv4PathMtuDiscovery, set_ip_mtu_discover, set_ipv6_v6only, set_socket_reuseaddr},
};
use tokio::{
    net::{TcpListener, UdpSocket},
    runtime::Handle,
    task::AbortHandle,
};
use tracing::warn;

use super::{front::Front, program::Life, room::Listening, tcp, udp};

/// As many may wait to be taken (the kernel takes `net.core.somaxconn` if that is less).
const BACKLOG: i32 = 4096;

/// A socket, and the task that takes what comes. Dropping it closes it, and resets what waits there to be taken; connections go on.
#[derive(Debug)]
pub(super) struct Door {
    pub(super) place: Place,
    pub(super) front: Arc<Front>,
    /// Of TCP.
    listener: Option<Arc<TcpListener>>,
    task: AbortHandle,
    life: Life,
    runtime: Handle,
    _room: Listening,
}

/// Files that it has: one to listen, and of TCP a connection that waits for room.
pub(super) const fn files(key: &FrontendKey) -> usize {
    if matches!(key.protocol, Protocol::Tcp) { 2 } else { 1 }
}

/// Makes a socket in the calling thread's namespace.
pub(super) fn open(key: &FrontendKey, guard: &Guard, insiders: &BTreeSet<IpAddr>) -> io::Result<OwnedFd> {
    let addr = SocketAddr::new(key.addr, key.port);
    let family = if addr.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let kind = if key.protocol == Protocol::Tcp { SocketType::STREAM } else { SocketType::DGRAM };
    let socket = socket_with(family, kind, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?;
    if addr.is_ipv6() {
        set_ipv6_v6only(&socket, true)?;
    }
    // Connections of an earlier one may not be over, and datagrams may be heard a moment longer by one that is closed. Another program
    // that listens is met all the same.
    set_socket_reuseaddr(&socket, true)?;
    if key.protocol == Protocol::Tcp {
        bind(&socket, &addr)?;
        // Nobody comes in before it is known who may.
        set_guard(key, socket.as_fd(), guard, insiders);
        listen(&socket, BACKLOG)?;
    } else {
        bind(&socket, &addr)?;
        if addr.is_ipv4() {
            // What does not fit on a client's way is cut into pieces.
            set_ip_mtu_discover(&socket, Ipv4PathMtuDiscovery::DONT)?;
        }
    }
    Ok(socket)
}

/// Who may not come is not heard: not even that there is somebody. Where there are more ranges than a filter holds, connections are taken
/// and reset. What a socket of UDP hears is judged when it is there.
fn set_guard(key: &FrontendKey, socket: BorrowedFd<'_>, guard: &Guard, insiders: &BTreeSet<IpAddr>) {
    let lists = guard.lists(insiders);
    if let Err(error) = socket_filter::let_in(socket, Family::of(&key.addr), &lists) {
        warn!(frontend = %key, %error, "who may not come to a Service is refused instead of ignored");
        let _ = socket_filter::let_in(socket, Family::of(&key.addr), &[]);
    }
}

impl Door {
    /// Begins to take what comes to a socket; where tokio runs.
    pub(super) fn new(
        place: Place,
        front: Arc<Front>,
        socket: OwnedFd,
        life: &Life,
        room: Listening,
    ) -> io::Result<Self> {
        let (listener, task) = if front.key.protocol == Protocol::Tcp {
            let listener = Arc::new(TcpListener::from_std(socket.into())?);
            let task = tokio::spawn(tcp::serve(listener.clone(), front.clone(), life.clone()));
            (Some(listener), task)
        } else {
            let socket = Arc::new(UdpSocket::from_std(socket.into())?);
            let task = tokio::spawn(udp::serve(socket.clone(), front.clone(), life.room.clone()));
            (None, task)
        };
        let runtime = Handle::current();
        Ok(Self { place, front, listener, task: task.abort_handle(), life: life.clone(), runtime, _room: room })
    }

    /// Closes it for the sake of nobody who is connected: what waits to be taken is passed on.
    pub(super) fn hand_over(self) {
        if let Some(listener) = &self.listener {
            tcp::take_all(listener, &self.front, &self.life, &self.runtime);
        }
    }

    /// Lets in whom the frontend's guard lets in now.
    pub(super) fn guard(&self, insiders: &BTreeSet<IpAddr>) {
        if let Some(listener) = &self.listener {
            set_guard(&self.front.key, listener.as_fd(), &self.front.guard(), insiders);
        }
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.front.close();
        match &self.listener {
            // From now on, and not when the task has ended: another one may be opened at once. It may have taken a connection for which there
            // is no room yet, and ends with what it hears from the socket.
            Some(listener) => drop(rustix::net::shutdown(listener.as_fd(), rustix::net::Shutdown::Both)),
            None => self.task.abort(),
        }
    }
}
