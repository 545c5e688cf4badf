//! A connection to a program that listens to agents.

use std::{io, os::unix::net::UnixStream, path::Path, time::Duration};

use podnet_kernel::cni_wire;
use rustix::process::geteuid;

use super::super::wire::{self, Purpose, Reply, Request, VERSION};

/// A connection to a program.
#[derive(Debug)]
pub(in crate::proxy::userspace) struct Link {
    stream: UnixStream,
    /// The version that the program is of.
    pub(super) version: String,
}

impl Link {
    /// Connects to the program that listens there; it has to be the same user's.
    ///
    /// # Errors
    /// Where there is none, or it does not answer.
    pub(in crate::proxy::userspace) fn open(socket: &Path, purpose: Purpose, patience: Duration) -> io::Result<Self> {
        let stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(patience))?;
        let uid = cni_wire::peer_uid(&stream)?;
        if uid != geteuid().as_raw() {
            let what = format!("who listens there is user {uid}");
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, what));
        }
        wire::send(&stream, &Request::Hello { purpose, version: VERSION.to_owned() })?;
        match wire::receive(&stream)? {
            Some(Reply::Here { version }) => Ok(Self { stream, version }),
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
