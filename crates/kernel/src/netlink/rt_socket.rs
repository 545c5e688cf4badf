//! The route family's socket.

use std::error::Error;
use std::os::fd::BorrowedFd;

use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, ParseableParametrized};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::protocols::NETLINK_ROUTE;
use rustix::io::Errno;

use super::{BatchError, Connection, Frame, NetlinkError, Operation, Request};
use crate::netns::NetNs;

/// How many requests go out before their acknowledgements are read: few enough for the smallest receive buffer, enough that system
/// calls do not count.
const CHUNK: usize = 128;
/// How often a dump is begun anew because what it shows changed meanwhile.
const DUMP_ATTEMPTS: usize = 8;

/// A blocking socket of the route family, in one namespace.
#[derive(Debug)]
pub struct RtSocket {
    connection: Connection,
    netns: NetNs,
}

/// The messages that the kernel sent for each request of a batch, in order.
pub type Replies = Vec<Vec<RouteNetlinkMessage>>;

impl RtSocket {
    /// Opens a socket in the calling thread's namespace.
    ///
    /// # Errors
    /// Where the process may not, or has too many open files.
    pub fn open() -> Result<Self, NetlinkError> {
        let netns = NetNs::current()?;
        Self::open_here(netns)
    }

    /// Opens a socket in a namespace; it stays there, whoever uses it.
    ///
    /// # Errors
    /// Where the namespace cannot be entered, and as [`RtSocket::open`].
    pub fn open_in(netns: &NetNs) -> Result<Self, NetlinkError> {
        netns.run(|| Self::open_here(netns.clone()))?
    }

    fn open_here(netns: NetNs) -> Result<Self, NetlinkError> {
        let connection = Connection::open(NETLINK_ROUTE)?;
        connection.filter_dumps_in_kernel();
        Ok(Self { connection, netns })
    }

    /// The namespace that the socket speaks for.
    #[must_use]
    pub fn netns(&self) -> &NetNs {
        &self.netns
    }

    /// The number by which the kernel tells this socket's doings from others'.
    pub(crate) fn port(&self) -> Result<u32, NetlinkError> {
        self.connection.port()
    }

    /// The socket's descriptor, for what netlink does not offer.
    pub(crate) fn descriptor(&self) -> BorrowedFd<'_> {
        self.connection.descriptor()
    }

    /// Does one request.
    ///
    /// # Errors
    /// Why the kernel refused.
    pub fn perform(&mut self, request: Request) -> Result<(), NetlinkError> {
        Ok(self.perform_all(&[request])?)
    }

    /// Does many requests with one system call for each 128. All are tried, whichever fail.
    ///
    /// # Errors
    /// The first request that failed.
    pub fn perform_all(&mut self, requests: &[Request]) -> Result<(), BatchError> {
        self.exchange(requests).map(|_| ())
    }

    /// As [`RtSocket::perform_all`], with the messages that the kernel sent in answer.
    ///
    /// # Errors
    /// The first request that failed.
    pub fn exchange(&mut self, requests: &[Request]) -> Result<Replies, BatchError> {
        let outcomes = self.outcomes(requests)?;
        outcomes
            .into_iter()
            .enumerate()
            .map(|(index, outcome)| outcome.map_err(|source| BatchError { index, source }))
            .collect()
    }

    /// What became of each request.
    pub(crate) fn outcomes(
        &mut self,
        requests: &[Request],
    ) -> Result<Vec<Result<Vec<RouteNetlinkMessage>, NetlinkError>>, BatchError> {
        let mut outcomes = Vec::with_capacity(requests.len());
        for chunk in requests.chunks(CHUNK) {
            let index = outcomes.len();
            outcomes.extend(self.exchange_chunk(chunk).map_err(|source| BatchError { index, source })?);
        }
        Ok(outcomes)
    }

    fn exchange_chunk(
        &mut self,
        requests: &[Request],
    ) -> Result<Vec<Result<Vec<RouteNetlinkMessage>, NetlinkError>>, NetlinkError> {
        let first = self.connection.reserve(requests.len());
        let mut bytes = Vec::with_capacity(requests.len() * 128);
        for (sequence, request) in (first..).zip(requests) {
            request.encode(sequence, 0, &mut bytes);
        }
        self.connection.send(&bytes)?;
        let mut replies = vec![Vec::new(); requests.len()];
        let mut outcomes: Vec<Option<Result<(), NetlinkError>>> = requests.iter().map(|_| None).collect();
        let mut waiting = requests.len();
        while waiting > 0 {
            for frame in self.connection.receive()? {
                // Anything older is the rest of an exchange that an error ended.
                let index = usize::try_from(frame.sequence.wrapping_sub(first)).unwrap_or(usize::MAX);
                let Some(request) = requests.get(index) else { continue };
                match frame.acknowledgement() {
                    None => replies[index].push(decode(&request.operation, &frame)?),
                    Some(said) if outcomes[index].is_none() => {
                        waiting -= 1;
                        outcomes[index] = Some(judge(request, said));
                    }
                    Some(_) => {}
                }
            }
        }
        let outcomes = outcomes.into_iter().map(|outcome| outcome.unwrap_or(Ok(())));
        Ok(outcomes.zip(replies).map(|(outcome, replies)| outcome.map(|()| replies)).collect())
    }

    /// Asks for all objects of a kind; begins anew where they change under the kernel's hands.
    ///
    /// # Errors
    /// Why the kernel refused.
    pub(crate) fn dump(&mut self, request: &Request) -> Result<Vec<RouteNetlinkMessage>, NetlinkError> {
        for _ in 0..DUMP_ATTEMPTS {
            if let Some(found) = self.dump_once(request)? {
                return Ok(found);
            }
        }
        Err(NetlinkError::Refused {
            operation: request.operation.clone(),
            hint: Some("it changes faster than it can be read".into()),
            errno: Errno::INTR,
        })
    }

    fn dump_once(&mut self, request: &Request) -> Result<Option<Vec<RouteNetlinkMessage>>, NetlinkError> {
        let sequence = self.connection.reserve(1);
        let mut bytes = Vec::new();
        request.encode(sequence, NLM_F_DUMP, &mut bytes);
        // A dump ends with a message of its own; an acknowledgement besides would be one message too many.
        let flags = u16::from_ne_bytes([bytes[6], bytes[7]]) & !NLM_F_ACK;
        bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
        self.connection.send(&bytes)?;
        let (mut found, mut interrupted) = (Vec::new(), false);
        loop {
            for frame in self.connection.receive()? {
                if frame.sequence != sequence {
                    continue;
                }
                interrupted |= frame.was_interrupted();
                match frame.acknowledgement() {
                    None => match decode(&request.operation, &frame) {
                        Ok(message) => found.push(message),
                        // Somebody else's device or route of a new form must not hide all others.
                        Err(error) => {
                            tracing::warn!(%error, cause = ?error.source(), "an object of the kernel is passed over");
                        }
                    },
                    Some(said) => {
                        judge(request, said)?;
                        return Ok((!interrupted).then_some(found));
                    }
                }
            }
        }
    }
}

fn judge(request: &Request, said: Result<(), (Errno, Option<String>)>) -> Result<(), NetlinkError> {
    match said {
        Err((errno, hint)) if !request.is_done_at(errno) => {
            Err(NetlinkError::Refused { operation: request.operation.clone(), hint, errno })
        }
        _ => Ok(()),
    }
}

fn decode(operation: &Operation, frame: &Frame) -> Result<RouteNetlinkMessage, NetlinkError> {
    RouteNetlinkMessage::parse_with_param(&frame.payload, frame.kind)
        .map_err(|source| NetlinkError::Decode { operation: operation.clone(), source })
}
