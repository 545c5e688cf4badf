//! One connection to a sandbox's socket.

use std::{
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
};

use podnet_kernel::process::Child;

use super::{
    protocol::{Reply, Request},
    wire,
};

/// No request is longer; a peer that sends more is not ours.
const MAX_REQUEST: usize = 1 << 20;

/// A peer, what it sent so far, and what it has a hold on.
pub(super) struct Connection {
    stream: UnixStream,
    input: Vec<u8>,
    pub(super) descriptors: Vec<OwnedFd>,
    /// It wants to hear of every change.
    pub(super) watching: bool,
    /// The process that it started.
    pub(super) exec: Option<Child>,
}

impl Connection {
    pub(super) fn new(stream: UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self { stream, input: Vec::new(), descriptors: Vec::new(), watching: false, exec: None })
    }

    /// What to wait for: the peer, then the process that it started.
    pub(super) fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        std::iter::once(self.stream.as_fd()).chain(self.exec.iter().map(Child::descriptor))
    }

    /// Reads what there is; none where the peer is gone or talks nonsense, otherwise whole requests.
    pub(super) fn read(&mut self) -> Option<Vec<Request>> {
        let mut buffer = [0; 4096];
        match wire::receive(&self.stream, &mut buffer, &mut self.descriptors) {
            Ok(0) => return None,
            Ok(count) => self.input.extend_from_slice(&buffer[..count]),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(_) => return None,
        }
        let mut requests = Vec::new();
        while let Some(end) = self.input.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.input.drain(..=end).collect();
            requests.push(serde_json::from_slice(&line).ok()?);
        }
        (self.input.len() <= MAX_REQUEST).then_some(requests)
    }

    /// Tells the peer; false where it cannot take it and should be dropped. Answers fit into a socket's buffer many times over.
    pub(super) fn tell(&self, reply: &Reply) -> bool {
        let Ok(mut line) = serde_json::to_vec(reply) else { return false };
        line.push(b'\n');
        wire::send(&self.stream, &line, &[]).is_ok()
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if let Some(child) = &self.exec {
            let _ = child.signal(9);
        }
    }
}
