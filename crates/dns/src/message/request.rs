//! Reading a query.

use std::time::Instant;

use super::{
    CLASS_CH, CLASS_IN, Cookie, HEADER, OPT, PLAIN_UDP_SIZE, Rcode, UDP_SIZE, cookie::COOKIE, flag, rtype, u16_at,
    u32_at, walk::skip_name,
};
use crate::{
    name::QueryName,
    server::{Arrival, Look, Transport},
};

/// One question, as it came.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// What a response to it repeats.
    pub head: Head,
    /// The question's bytes, with the spelling that was asked.
    pub question: &'a [u8],
    /// The name.
    pub name: QueryName,
    /// The type.
    pub qtype: u16,
    /// The class.
    pub qclass: u16,
    /// The options of its OPT record, as they came.
    pub options: &'a [u8],
    /// What follows the question, with how many records each section has: where that is more than an OPT record.
    pub records: Option<([u16; 3], &'a [u8])>,
}

/// What a response takes from its query beside the question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// The message's id.
    pub id: u16,
    /// The header's flags.
    pub flags: u16,
    /// The OPT record, where there was one.
    pub edns: Option<Edns>,
    /// The largest response, in bytes.
    pub limit: u16,
    /// Whether it is signed with a shared secret.
    pub signature: Signature,
}

/// What is known of a message's signature (TSIG).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Signature {
    /// It has none.
    #[default]
    Absent,
    /// It is by one of the server's keys.
    Valid,
    /// It is not what it should be.
    Wrong,
}

impl Head {
    /// Whether the client wants signatures (DO).
    #[must_use]
    pub fn dnssec_ok(&self) -> bool {
        self.edns.is_some_and(|edns| edns.dnssec_ok)
    }

    /// Whether the client checks signatures itself (CD).
    #[must_use]
    pub fn checking_disabled(&self) -> bool {
        self.flags & flag::CD != 0
    }
}

/// What a client's OPT record says (RFC 6891 §6.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edns {
    /// The largest UDP payload that it takes; what is below 512 counts as 512.
    pub size: u16,
    /// DO (RFC 3225).
    pub dnssec_ok: bool,
    /// The server's identity is asked for (NSID, RFC 5001).
    pub nsid: bool,
    /// Its cookie (RFC 7873).
    pub cookie: Option<Cookie>,
    /// It asks how long the connection is kept while nothing is asked (RFC 7828), and this, in tenths of a second, is the answer.
    pub keepalive: Option<u16>,
}

impl Edns {
    /// The size of the OPT record of a response, before other options are added to it, in bytes.
    #[must_use]
    pub(crate) fn size_back(&self) -> usize {
        OPT + self.cookie.map_or(0, |cookie| cookie.size())
    }
}

/// Why a packet gets no answer, or only a code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reject {
    /// It is no query (too short, or a response): answering could bounce between servers for ever.
    Drop,
    /// It is answered with the code; with the question where it could be read, up to the given length of the packet.
    Code {
        /// What the response repeats.
        head: Head,
        /// The code.
        rcode: Rcode,
        /// Where the question ends in the packet.
        question_end: usize,
    },
}

impl<'a> Request<'a> {
    /// What plugins look at.
    #[must_use]
    pub fn look<'b>(&'b self, arrival: &'b Arrival, now: Instant) -> Look<'b> {
        Look { name: &self.name, qtype: self.qtype, qclass: self.qclass, head: &self.head, arrival, now }
    }

    /// Reads a packet.
    ///
    /// # Errors
    /// With what to do about a packet that is not a single question of class IN or another.
    pub fn parse(packet: &'a [u8], transport: Transport) -> Result<Self, Reject> {
        let (Some(id), Some(flags)) = (u16_at(packet, 0), u16_at(packet, 2)) else { return Err(Reject::Drop) };
        if packet.len() < HEADER || flags & flag::QR != 0 {
            return Err(Reject::Drop);
        }
        let mut head = Head { id, flags, edns: None, limit: limit(transport, None), signature: Signature::Absent };
        let refuse = |head, rcode| Reject::Code { head, rcode, question_end: HEADER };
        if flags & flag::OPCODE != 0 {
            return Err(refuse(head, Rcode::NOTIMP));
        }
        if u16_at(packet, 4) != Some(1) {
            // RFC 7873 §5.4: without a question, a cookie is what is asked for.
            let alone = u16_at(packet, 4) == Some(0) && u16_at(packet, 6) == Some(0) && u16_at(packet, 8) == Some(0);
            if let Some((edns, 0, _)) =
                options(packet, HEADER).ok().flatten().filter(|(edns, ..)| alone && edns.cookie.is_some())
            {
                head.edns = Some(edns);
                return Err(refuse(head, Rcode::NOERROR));
            }
            return Err(refuse(head, Rcode::FORMERR));
        }
        let Ok((name, end)) = QueryName::parse(packet, HEADER) else { return Err(refuse(head, Rcode::FORMERR)) };
        let (Some(qtype), Some(qclass)) = (u16_at(packet, end), u16_at(packet, end + 2)) else {
            return Err(refuse(head, Rcode::FORMERR));
        };
        let question_end = end + 4;
        let code = |head, rcode| Reject::Code { head, rcode, question_end };
        let mut told: &[u8] = &[];
        match options(packet, question_end) {
            Ok(None) => {}
            Ok(Some((edns, version, options))) => {
                told = options;
                head.edns = Some(edns);
                head.limit = limit(transport, Some(edns));
                if version != 0 {
                    return Err(code(head, Rcode::BADVERS));
                }
            }
            Err(BadOptions) => return Err(code(head, Rcode::FORMERR)),
        }
        if qtype == rtype::OPT {
            return Err(code(head, Rcode::FORMERR));
        }
        // All that a name has goes out whole over connections alone: in a datagram somebody else may have asked for it (RFC 8482 §4.4).
        if transport == Transport::Udp && qtype == rtype::ANY {
            head.limit = PLAIN_UDP_SIZE;
        }
        if !matches!(qclass, CLASS_IN | CLASS_CH) || matches!(qtype, rtype::AXFR | rtype::IXFR) {
            return Err(code(head, Rcode::REFUSED));
        }
        let counts = [6, 8, 10].map(|at| u16_at(packet, at).unwrap_or(0));
        let records = (counts != [0, 0, u16::from(head.edns.is_some())]).then_some((counts, &packet[question_end..]));
        Ok(Self { head, question: &packet[HEADER..question_end], name, qtype, qclass, options: told, records })
    }
}

fn limit(transport: Transport, edns: Option<Edns>) -> u16 {
    match (transport, edns) {
        (Transport::Tcp, _) => u16::MAX,
        (Transport::Udp, None) => PLAIN_UDP_SIZE,
        (Transport::Udp, Some(edns)) => edns.size.clamp(PLAIN_UDP_SIZE, UDP_SIZE),
    }
}

/// The number of the option that asks for a server's identity.
const NSID: u16 = 3;
/// That of the option that asks how long a connection is kept (RFC 7828 §3.1).
pub(crate) const KEEPALIVE: u16 = 11;

struct BadOptions;

/// Whether a list of options (RFC 6891 §6.1.2) asks for the server's identity, the first cookie that it has, and whether it
/// asks how long its connection is kept.
fn asked(mut options: &[u8]) -> Result<(bool, Option<Cookie>, Option<u16>), BadOptions> {
    let (mut nsid, mut cookie, mut keepalive) = (false, None, None);
    while !options.is_empty() {
        let code = u16_at(options, 0).ok_or(BadOptions)?;
        let length = usize::from(u16_at(options, 2).ok_or(BadOptions)?);
        let value = options.get(4..4 + length).ok_or(BadOptions)?;
        options = &options[4 + length..];
        nsid |= code == NSID;
        if code == KEEPALIVE {
            keepalive = Some(0);
        }
        if code == COOKIE && cookie.is_none() {
            cookie = Some(Cookie::parse(value).map_err(|_| BadOptions)?);
        }
    }
    Ok((nsid, cookie, keepalive))
}

/// What an OPT record says, its version, and its options.
type Told<'a> = (Edns, u8, &'a [u8]);

/// The OPT record among the records that follow the question, its version and its options.
fn options(packet: &[u8], mut at: usize) -> Result<Option<Told<'_>>, BadOptions> {
    let count = |index| u16_at(packet, index).ok_or(BadOptions);
    let before = u32::from(count(6)?) + u32::from(count(8)?);
    let records = before + u32::from(count(10)?);
    let mut found = None;
    // Each record takes at least 11 bytes, so a lying count ends at the packet's end.
    for index in 0..records {
        let fixed = skip_name(packet, at).ok_or(BadOptions)?;
        let kind = u16_at(packet, fixed).ok_or(BadOptions)?;
        let size = u16_at(packet, fixed + 8).ok_or(BadOptions)?;
        let end = fixed + 10 + usize::from(size);
        if end > packet.len() {
            return Err(BadOptions);
        }
        if kind == rtype::OPT {
            // RFC 6891 §6.1.1: one at most, in the additional section, owned by the root.
            if found.is_some() || index < before || packet.get(at) != Some(&0) {
                return Err(BadOptions);
            }
            let ttl = u32_at(packet, fixed + 4).ok_or(BadOptions)?;
            let size = u16_at(packet, fixed + 2).ok_or(BadOptions)?;
            let told = packet.get(fixed + 10..end).unwrap_or_default();
            let (nsid, cookie, keepalive) = asked(told)?;
            found =
                Some((Edns { size, dnssec_ok: ttl & 0x8000 != 0, nsid, cookie, keepalive }, (ttl >> 16) as u8, told));
        }
        at = end;
    }
    Ok(found)
}
