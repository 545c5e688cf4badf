//! Zones on their way to those who may fetch them.

use std::{fmt, net::IpAddr, time::Duration};

use super::{Block, Gift, Given, Look, Outcome, Parts, Transport, parts::PlaceInLine, signed::Signer};
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
    after: Duration,
    unfinished: bool,
    pub(super) signer: Option<Box<Signer>>,
    /// Held until it is through. Who is made to wait before has none meanwhile.
    place: Option<PlaceInLine>,
    parts: Parts,
}

impl fmt::Debug for Transfer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transfer").field("request", &self.request).finish_non_exhaustive()
    }
}

impl Transfer {
    /// How long the client is made to wait before the first message: zero, but where the Corefile wants it otherwise (`erratic`).
    #[must_use]
    pub const fn after(&self) -> Duration {
        self.after
    }

    /// To be called after that time: whether there is room for it now. Where it is zero there is.
    #[must_use]
    pub fn begin(&mut self) -> bool {
        if self.place.is_none() {
            self.place = self.parts.giving(MOST);
        }
        self.place.is_some()
    }

    /// Makes the messages one after the other; `send` says whether it wants more. Runs as long as that takes. A panic on the way is
    /// survived: it is the last that there is of the zone.
    pub fn send(self, send: impl FnMut(Vec<u8>) -> bool) {
        let (recovery, zone) = (self.parts.recovery.clone(), self.request.zone.clone());
        if let Err(panicked) = recovery.catch(|| self.sent(send)) {
            recovery.tell(&format!("the transfer of {zone}"), &panicked);
        }
    }

    fn sent(self, mut send: impl FnMut(Vec<u8>) -> bool) {
        let Self { given, request, after: _, unfinished, mut signer, place: _place, parts: _ } = self;
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
                let mut messages = match unfinished {
                    true => transfer::unfinished(&zone, &request),
                    false => transfer::ixfr(&zone, &journal, &request, None),
                };
                let _ = messages.all(&mut give);
            }
            None => {
                give(transfer::failed(&request));
            }
        }
    }
}

/// Gives a zone away, if the client may have it; else the code that says why not. Who may be somebody else than it says gets no more
/// by a datagram than the zone's version, upon which it comes by TCP (RFC 1995 §2). `giver` becomes the link that gives away what nobody
/// has.
pub(super) fn asked_for(
    block: &Block,
    parts: &Parts,
    request: &transfer::Request,
    look: &Look<'_>,
    question: &[u8],
    out: &mut Vec<u8>,
    giver: &mut Option<usize>,
) -> Result<Outcome, Rcode> {
    let may = block.peers(&request.zone).any(|peer| may_fetch(peer, look.arrival.from.ip()));
    let Some(given) = block.links.iter().find_map(|link| link.transfers(&request.zone)) else {
        let refused = if may { Rcode::NOTAUTH } else { Rcode::REFUSED };
        return gift(block, parts, request, look.arrival.transport, may, giver).unwrap_or(Err(refused));
    };
    if !may {
        return Err(Rcode::REFUSED);
    }
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
            let place = Some(parts.giving(MOST).ok_or(Rcode::SERVFAIL)?);
            let (request, after, parts) = (request.clone(), Duration::ZERO, parts.clone());
            let transfer = Transfer { given, request, after, unfinished: false, signer: None, place, parts };
            Ok(Outcome::Transfer(Box::new(transfer)))
        }
    }
}

/// What a link gives to whoever asks for a whole zone over a connection, where no `transfer` says that this one may not have it; none:
/// no link does.
fn gift(
    block: &Block,
    parts: &Parts,
    request: &transfer::Request,
    transport: Transport,
    may: bool,
    giver: &mut Option<usize>,
) -> Option<Result<Outcome, Rcode>> {
    let closed = !may && block.transfers_of(&request.zone).next().is_some();
    if closed || transport == Transport::Udp || request.serial.is_some() {
        return None;
    }
    let mut gifts = block.links.iter().enumerate().filter_map(|(link, own)| Some((link, own.gives(&request.zone)?)));
    let (link, gift) = gifts.next()?;
    *giver = Some(link);
    let Gift::Zone { version, after, unfinished } = gift else { return Some(Ok(Outcome::Drop)) };
    let place = if after.is_zero() { parts.giving(MOST) } else { None };
    if after.is_zero() && place.is_none() {
        return Some(Err(Rcode::SERVFAIL));
    }
    let (given, request, parts) = (Given::Held(Some(version)), request.clone(), parts.clone());
    let transfer = Transfer { given, request, after, unfinished, signer: None, place, parts };
    Some(Ok(Outcome::Transfer(Box::new(transfer))))
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
