//! Many requests in one send, of which the kernel speaks only where it refuses one.

use netlink_packet_core::{NLM_F_ACK, NLM_F_REQUEST};
use rustix::io::Errno;

use super::{Connection, NetlinkError, attribute::Writer, connection::Refusal};

/// How many requests go out at once. Were all of them refused, the words about it, about 1 KiB each with the kernel's accounting, would still
/// have room in the receive buffer.
const CHUNK: usize = 1024;

/// A request of a batch that the kernel refused.
#[derive(Debug)]
pub(crate) struct Refused {
    /// Its place in the batch, from 0.
    pub(crate) index: usize,
    /// Why.
    pub(crate) refusal: Refusal,
}

/// Sends `count` requests, each written by `write` as type, flags beyond `NLM_F_REQUEST`, and body. All are tried, whichever are refused; a
/// refusal is told whether an acknowledgement is asked for or not, so only the last request of each send asks. The kernel does the work
/// before the send returns: all its answers are there then.
///
/// # Errors
/// Where the socket fails; what was sent by then is done.
pub(crate) fn send_all(
    connection: &mut Connection,
    count: usize,
    mut write: impl FnMut(usize, &mut Message<'_>),
) -> Result<Vec<Refused>, NetlinkError> {
    let mut refused = Vec::new();
    for start in (0..count).step_by(CHUNK) {
        let chunk = start..count.min(start + CHUNK);
        let first = connection.reserve(chunk.len());
        let mut writer = Writer::default();
        for (sequence, index) in (first..).zip(chunk.clone()) {
            let asks = if index + 1 == chunk.end { NLM_F_ACK } else { 0 };
            write(index, &mut Message { writer: &mut writer, flags: NLM_F_REQUEST | asks, sequence });
        }
        connection.send(&writer.into_bytes())?;
        let before = refused.len();
        let mut acknowledged = false;
        while let Some(frames) = connection.receive_pending()? {
            for frame in frames {
                let place = usize::try_from(frame.sequence.wrapping_sub(first)).unwrap_or(usize::MAX);
                let Some(said) = frame.said().filter(|_| place < chunk.len()) else { continue };
                acknowledged |= place + 1 == chunk.len();
                refused.extend(said.err().map(|refusal| Refused { index: start + place, refusal }));
            }
        }
        refused[before..].sort_by_key(|refused| refused.index);
        if !acknowledged {
            let source = std::io::Error::from(Errno::NOBUFS);
            return Err(NetlinkError::Socket { action: "hear what became of a batch from", source });
        }
    }
    Ok(refused)
}

/// One request that is to be written.
pub(crate) struct Message<'a> {
    writer: &'a mut Writer,
    flags: u16,
    sequence: u32,
}

impl Message<'_> {
    /// Writes it; to be called once.
    pub(crate) fn write(&mut self, kind: u16, flags: u16, body: impl FnOnce(&mut Writer)) {
        self.writer.message(kind, self.flags | flags, self.sequence, body);
    }
}
