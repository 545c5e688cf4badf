//! Sockets that go from the process that serves to the one that takes its place (`--handover`).
//!
//! Both name the same path of a unix socket. The new process asks there for the sockets, and gets the very ones that the old one has
//! (`SCM_RIGHTS`), so that what waits in them is answered whoever reads it. Once it reads them itself it says so; then the old one
//! reads no more, answers what it has read, and ends. A new process that ends before has taken nothing.

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    net::SocketAddr,
    os::fd::{AsFd, OwnedFd},
    os::unix::{fs::PermissionsExt, net::UnixStream},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    SocketType, sockopt,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixListener,
    task::spawn_blocking,
};
use tracing::{info, warn};

/// How long one side waits for the other while sockets are on their way.
const PATIENCE: Duration = Duration::from_secs(5);
/// The most sockets that are taken: the Corefile's bounds (`multisocket`, ports) leave this far behind.
const MOST: usize = 65_536;
/// What goes along with each socket, what stands at the end, and what says that they are read.
const SOCKET: u8 = b's';
const END: u8 = b'.';
const TAKEN: u8 = b't';

type AnySocket = dyn AsFd + Send + Sync;

/// The sockets of this process, as long as somebody serves them.
#[derive(Default)]
pub(super) struct Sockets(Mutex<Held>);

#[derive(Default)]
struct Held {
    sockets: Vec<Weak<AnySocket>>,
    /// Another process has them as well, and reads them.
    shared: bool,
}

impl Sockets {
    /// Notes a socket.
    pub(super) fn note<S: AsFd + Send + Sync + 'static>(&self, socket: &Arc<S>) {
        let mut held = self.held();
        held.sockets.retain(|socket| socket.strong_count() > 0);
        let socket: Weak<S> = Arc::downgrade(socket);
        held.sockets.push(socket);
    }

    /// Takes a socket out: it is given to nobody from now on. False where another process may have it already, and reads it.
    pub(super) fn withdraw<S>(&self, socket: &Arc<S>) -> bool {
        let mut held = self.held();
        let place = Arc::as_ptr(socket).cast::<()>();
        held.sockets.retain(|socket| Weak::as_ptr(socket).cast::<()>() != place);
        !held.shared
    }

    /// Those that another process is to have.
    pub(super) fn give(&self) -> Vec<Arc<AnySocket>> {
        let mut held = self.held();
        held.shared = true;
        held.sockets.iter().filter_map(Weak::upgrade).collect()
    }

    /// Those that come from the process before are that one's until it is told otherwise.
    pub(super) fn share(&self) {
        self.held().shared = true;
    }

    /// The other process ended with what it had, or ends.
    pub(super) fn have_alone(&self) {
        self.held().shared = false;
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sockets that came from the process before, and are not used yet.
#[derive(Debug, Default)]
pub(super) struct Inherited(Mutex<Vec<OwnedFd>>);

impl Inherited {
    #[cfg(test)]
    pub(super) fn of(sockets: Vec<OwnedFd>) -> Self {
        Self(Mutex::new(sockets))
    }

    /// One of this type and address, of IPv6 alone or not.
    pub(super) fn take(&self, kind: SocketType, address: SocketAddr, v6_only: bool) -> Option<OwnedFd> {
        let mut sockets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = |socket: &OwnedFd| {
            let bound = rustix::net::getsockname(socket).ok().and_then(|bound| SocketAddr::try_from(bound).ok());
            bound == Some(address)
                && sockopt::socket_type(socket) == Ok(kind)
                && (address.is_ipv4() || sockopt::ipv6_v6only(socket) == Ok(v6_only))
        };
        let place = sockets.iter().position(fits)?;
        Some(sockets.swap_remove(place))
    }

    /// Closes what is left: the Corefile has no use for it.
    pub(super) fn close(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

/// The process that serves, from the moment on that it gave its sockets.
pub(super) struct Before(UnixStream);

impl Before {
    /// Tells it that its sockets are read here.
    pub(super) fn taken(self) {
        if let Err(error) = send(&self.0, TAKEN, None) {
            warn!(%error, "the process before cannot be told that its sockets are served here");
        }
    }
}

/// Asks the process that serves for its sockets; none where there is no such process.
pub(super) async fn ask(path: &Path) -> Option<(Before, Inherited)> {
    let at = path.to_owned();
    let asked = spawn_blocking(move || receive_all(&at)).await;
    match asked {
        Ok(Ok((before, sockets))) => {
            info!(path = %path.display(), sockets = sockets.len(), "sockets come from the process that serves");
            Some((before, Inherited(Mutex::new(sockets))))
        }
        Ok(Err(error)) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => None,
        Ok(Err(error)) => {
            warn!(path = %path.display(), %error, "the process that serves gave no sockets; new ones are opened");
            None
        }
        Err(_) => None,
    }
}

fn receive_all(path: &Path) -> io::Result<(Before, Vec<OwnedFd>)> {
    let stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut sockets = Vec::new();
    loop {
        match receive(&stream)? {
            (SOCKET, Some(socket)) if sockets.len() < MOST => sockets.push(socket),
            (END, None) => return Ok((Before(stream), sockets)),
            _ => return Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

/// The place where the next process asks; it goes on when another process has made its own there.
pub(super) struct Offer {
    listener: UnixListener,
}

impl Offer {
    /// Takes the place, whoever had it.
    ///
    /// # Errors
    /// When there can be no socket at the path.
    pub(super) fn new(path: &Path) -> io::Result<Self> {
        let mut name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_owned();
        name.push(format!(".{}", std::process::id()));
        let own: PathBuf = path.with_file_name(name);
        let _ = std::fs::remove_file(&own);
        let listener = UnixListener::bind(&own)?;
        std::fs::set_permissions(&own, std::fs::Permissions::from_mode(0o600))?;
        std::fs::rename(&own, path)?;
        Ok(Self { listener })
    }

    /// Gives the sockets to those who ask, and is done when one of them has taken them over.
    pub(super) async fn taken(self, sockets: &Sockets) {
        loop {
            let Ok((stream, _)) = self.listener.accept().await else {
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            };
            // The path's mode keeps others out as well.
            let own = rustix::process::geteuid().as_raw();
            if !stream.peer_cred().is_ok_and(|peer| peer.uid() == own) {
                continue;
            }
            match give(stream, sockets.give()).await {
                Ok(true) => return,
                Ok(false) => warn!("the process that asked for the sockets ended before it served them"),
                Err(error) => warn!(%error, "the sockets could not be handed over"),
            }
            sockets.have_alone();
        }
    }
}

/// Whether the other side says that it reads the sockets, however long it takes to get ready.
async fn give(stream: tokio::net::UnixStream, sockets: Vec<Arc<AnySocket>>) -> io::Result<bool> {
    let stream = stream.into_std()?;
    stream.set_nonblocking(false)?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let sent = spawn_blocking(move || {
        for socket in sockets {
            send(&stream, SOCKET, Some(&*socket))?;
        }
        send(&stream, END, None)?;
        stream.set_nonblocking(true)?;
        Ok::<_, io::Error>(stream)
    });
    let stream = sent.await.map_err(io::Error::other)??;
    let mut stream = tokio::net::UnixStream::from_std(stream)?;
    let mut said = [0];
    let told = stream.read(&mut said).await.is_ok_and(|count| count == 1) && said[0] == TAKEN;
    let _ = stream.shutdown().await;
    Ok(told)
}

fn send(stream: &UnixStream, what: u8, socket: Option<&AnySocket>) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let sockets: Vec<_> = socket.iter().map(|socket| socket.as_fd()).collect();
    if !sockets.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(&sockets)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    rustix::net::sendmsg(stream, &[IoSlice::new(&[what])], &mut ancillary, SendFlags::NOSIGNAL)?;
    Ok(())
}

fn receive(stream: &UnixStream) -> io::Result<(u8, Option<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut what = [0];
    let flags = RecvFlags::CMSG_CLOEXEC;
    let received = rustix::net::recvmsg(stream, &mut [IoSliceMut::new(&mut what)], &mut ancillary, flags)?;
    if received.bytes == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let mut sockets = ancillary.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut rights) => rights.next(),
        _ => None,
    });
    Ok((what[0], sockets.next()))
}
