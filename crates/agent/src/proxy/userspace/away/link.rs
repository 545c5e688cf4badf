//! A connection to a program that listens to agents.

use std::{io, os::unix::net::UnixStream, path::Path, time::Duration};

use podnet_kernel::cni_wire;
use rustix::{
    net::{
        AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with,
        sockopt::{Timeout, set_socket_timeout},
    },
    process::geteuid,
};

use super::super::wire::{self, Purpose, Reply, Request, VERSION};

/// How long a program may take until it takes a connection and says who it is: that needs a thread of its own, and waits for nothing. Who
/// connects does nothing else meanwhile, whatever became of the program.
const HELLO: Duration = Duration::from_secs(3);

/// A connection to a program.
#[derive(Debug)]
pub(in crate::proxy::userspace) struct Link {
    stream: UnixStream,
    /// The version that the program is of.
    pub(super) version: String,
}

impl Link {
    /// Connects to the program that listens there; it has to be the same user's. It may take so long for an answer, and no longer than
    /// [`HELLO`] for the first one.
    ///
    /// # Errors
    /// Where there is none, or it does not answer.
    pub(in crate::proxy::userspace) fn open(socket: &Path, purpose: Purpose, patience: Duration) -> io::Result<Self> {
        let first = Some(patience.min(HELLO));
        let own = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        // It bounds connect(2), too (EAGAIN): that waits where too many connections were not taken yet.
        set_socket_timeout(&own, Timeout::Send, first)?;
        connect(&own, &SocketAddrUnix::new(socket)?)?;
        let stream = UnixStream::from(own);
        stream.set_read_timeout(first)?;
        let uid = cni_wire::peer_uid(&stream)?;
        if uid != geteuid().as_raw() {
            let what = format!("who listens there is user {uid}");
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, what));
        }
        wire::send(&stream, &Request::Hello { purpose, version: VERSION.to_owned() })?;
        match wire::receive(&stream)? {
            Some(Reply::Here { version }) => {
                stream.set_read_timeout(Some(patience))?;
                stream.set_write_timeout(Some(patience))?;
                Ok(Self { stream, version })
            }
            Some(_) => Err(io::ErrorKind::InvalidData.into()),
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    /// Whether what is said here is understood there.
    pub(in crate::proxy::userspace) fn is_own_version(&self) -> bool {
        self.version == VERSION
    }

    /// Says something, and hears the answer.
    ///
    /// # Errors
    /// Where the program is gone, or takes too long.
    pub(in crate::proxy::userspace) fn ask(&self, request: &Request) -> io::Result<Reply> {
        self.ask_at_last(std::slice::from_ref(request))
    }

    /// Says all of it, and hears the answer to the last.
    ///
    /// # Errors
    /// As [`Link::ask`].
    pub(super) fn ask_at_last(&self, requests: &[Request]) -> io::Result<Reply> {
        requests.iter().try_for_each(|request| wire::send(&self.stream, request))?;
        wire::receive(&self.stream)?.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }
}

/// There is nobody at a path of a socket.
pub(super) fn is_nobody(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}

/// Who was there ended, or did not want to hear more.
pub(super) fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn a_program_that_is_stopped_is_waited_for_no_longer_than_asked() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("proxy.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        // One connection may wait to be taken, and the next one until it may wait.
        rustix::net::listen(&listener, 0).unwrap();
        for waits in ["for the answer", "for the connection"] {
            let error = Link::open(&socket, Purpose::ServeV4, Duration::from_millis(10)).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::WouldBlock, "{waits}: {error}");
            assert!(!is_nobody(&error) && !is_gone(&error), "{waits}: {error}");
        }
    }
}
