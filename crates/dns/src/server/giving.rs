//! Zones on their way to those who may fetch them.

use std::{fmt, net::IpAddr};

use super::{Block, Given, Look, Outcome, Parts, Transport, parts::PlaceInLine, signed::Signer};
use crate::{
    authority::{held::Version, transfer},
    chain::Peer,
    message::{Head, Rcode, Signature, flag, rejection},
};

/// How many zones are given away at once: each holds a zone, and a thread. Who is turned away comes again (RFC 1034 §4.3.5).
const MOST: usize = 32;

/// A zone on its way to a client, over a connection.
pub struct Transfer {
    given: Given,
    request: transfer::Request,
    pub(super) signer: Option<Box<Signer>>,
    /// Held until it is through.
    _place: PlaceInLine,
}

impl fmt::Debug for Transfer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transfer").field("request", &self.request).finish_non_exhaustive()
    }
}

impl Transfer {
    /// Makes the messages one after the other; `send` says whether it wants more. Runs as long as that takes.
    pub fn send(self, mut send: impl FnMut(Vec<u8>) -> bool) {
        let Self { given, request, mut signer, _place } = self;
        let version = match given {
            Given::Held(version) => version,
            Given::Made(make) => make(),
        };
        let mut give = |mut message| {
            if let Some(signer) = &mut signer {
                signer.sign(&mut message);
            }
            send(message)
        };
        match version {
            Some(Version { zone, journal }) => {
                let _ = transfer::ixfr(&zone, &journal, &request, None).all(&mut give);
            }
            None => {
                give(transfer::failed(&request));
            }
        }
    }
}

/// Gives a zone away, if the client may have it; else the code that says why not. Who may be somebody else than it says gets no more
/// by a datagram than the zone's version, upon which it comes by TCP (RFC 1995 §2).
pub(super) fn asked_for(
    block: &Block,
    parts: &Parts,
    request: &transfer::Request,
    look: &Look<'_>,
    question: &[u8],
    out: &mut Vec<u8>,
) -> Result<Outcome, Rcode> {
    if !block.peers(&request.zone).any(|peer| may_fetch(peer, look.arrival.from.ip())) {
        return Err(Rcode::REFUSED);
    }
    let given = block.links.iter().find_map(|link| link.transfers(&request.zone)).ok_or(Rcode::NOTAUTH)?;
    match (look.arrival.transport, request.serial, given) {
        (_, _, Given::Held(None)) => Err(Rcode::SERVFAIL),
        // RFC 5936 §4.2: there is no AXFR over UDP.
        (Transport::Udp, None, _) => Err(Rcode::REFUSED),
        (Transport::Udp, Some(_), Given::Held(Some(version))) => {
            let limit = if verified(look.head) { look.head.limit } else { 0 };
            let mut messages = transfer::ixfr(&version.zone, &version.journal, request, Some(limit));
            *out = messages.next().ok_or(Rcode::SERVFAIL)?;
            Ok(Outcome::Answer)
        }
        (Transport::Udp, Some(_), Given::Made(_)) => {
            rejection(look.head, question, Rcode::NOERROR, out);
            out[2] |= (flag::TC >> 8) as u8;
            Ok(Outcome::Answer)
        }
        (Transport::Tcp, _, given) => {
            let place = parts.giving(MOST).ok_or(Rcode::SERVFAIL)?;
            let transfer = Transfer { given, request: request.clone(), signer: None, _place: place };
            Ok(Outcome::Transfer(Box::new(transfer)))
        }
    }
}

/// Whether a datagram's sender is where it says it is: it has a cookie of ours, or a key.
fn verified(head: &Head) -> bool {
    head.signature == Signature::Valid || head.edns.and_then(|edns| edns.cookie).is_some_and(|cookie| cookie.verified)
}

fn may_fetch(peer: &Peer, from: IpAddr) -> bool {
    match peer {
        Peer::All => true,
        Peer::Network(network) => network.contains(&from),
        Peer::Server(server) => server.ip() == from,
    }
}
