//! Messages: reading what anybody may send, writing what we answer (RFC 1035 §4, RFC 6891, RFC 9267).

mod cookie;
mod expand;
mod padding;
mod request;
mod response;
mod size;
mod walk;

pub use cookie::Cookie;
pub use expand::{Expanded, expand};
pub use padding::{is_padded, pad};
pub(crate) use request::KEEPALIVE;
pub use request::{Edns, Head, Reject, Request, Signature};
pub(crate) use response::OPT;
pub use response::{negative, records, rejection};
pub(crate) use size::uncompressed;
pub(crate) use walk::question;
pub use walk::{Malformed, Record, Times, Upstream, max_age, truncate, walk};

/// Length of a message's header.
pub const HEADER: usize = 12;
/// The class of the Internet.
pub const CLASS_IN: u16 = 1;
/// The class in which servers tell of themselves (RFC 4892).
pub const CLASS_CH: u16 = 3;
/// The largest message that we send or ask for over UDP: fits the smallest IPv6 MTU, so it is never fragmented.
pub const UDP_SIZE: u16 = 1232;
/// What a client without EDNS takes over UDP (RFC 1035 §4.2.1).
pub const PLAIN_UDP_SIZE: u16 = 512;

/// Bits of a header's second 16-bit word.
pub mod flag {
    /// It is a response.
    pub const QR: u16 = 0x8000;
    /// The operation's code.
    pub const OPCODE: u16 = 0x7800;
    /// The answer is authoritative.
    pub const AA: u16 = 0x0400;
    /// The answer was cut.
    pub const TC: u16 = 0x0200;
    /// Recursion is wanted.
    pub const RD: u16 = 0x0100;
    /// Recursion is offered.
    pub const RA: u16 = 0x0080;
    /// The data is authentic.
    pub const AD: u16 = 0x0020;
    /// The client checks authenticity itself.
    pub const CD: u16 = 0x0010;
    /// The response code.
    pub const RCODE: u16 = 0x000f;
}

/// Record types that the server itself knows (IANA, DNS parameters).
pub mod rtype {
    /// An IPv4 address.
    pub const A: u16 = 1;
    /// A name server.
    pub const NS: u16 = 2;
    /// An alias.
    pub const CNAME: u16 = 5;
    /// The start of a zone's authority.
    pub const SOA: u16 = 6;
    /// A pointer to a name.
    pub const PTR: u16 = 12;
    /// Host information; asked for by the loop probe.
    pub const HINFO: u16 = 13;
    /// A mail exchanger.
    pub const MX: u16 = 15;
    /// Text.
    pub const TXT: u16 = 16;
    /// An IPv6 address.
    pub const AAAA: u16 = 28;
    /// A service's location.
    pub const SRV: u16 = 33;
    /// The EDNS pseudo-record.
    pub const OPT: u16 = 41;
    /// Incremental zone transfer.
    pub const IXFR: u16 = 251;
    /// Zone transfer.
    pub const AXFR: u16 = 252;
    /// All types.
    pub const ANY: u16 = 255;

    /// The type's mnemonic, as metrics and query logs spell it; `other` for those without a row here.
    #[must_use]
    pub const fn mnemonic(rtype: u16) -> &'static str {
        match rtype {
            A => "A",
            NS => "NS",
            CNAME => "CNAME",
            SOA => "SOA",
            PTR => "PTR",
            HINFO => "HINFO",
            MX => "MX",
            TXT => "TXT",
            AAAA => "AAAA",
            SRV => "SRV",
            43 => "DS",
            46 => "RRSIG",
            47 => "NSEC",
            48 => "DNSKEY",
            50 => "NSEC3",
            64 => "SVCB",
            65 => "HTTPS",
            IXFR => "IXFR",
            AXFR => "AXFR",
            ANY => "ANY",
            _ => "other",
        }
    }
}

/// A response code, the extended ones of EDNS included (RFC 6895 §2.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Rcode(pub u16);

impl Rcode {
    /// No error.
    pub const NOERROR: Self = Self(0);
    /// The query cannot be understood.
    pub const FORMERR: Self = Self(1);
    /// The server failed.
    pub const SERVFAIL: Self = Self(2);
    /// The name does not exist.
    pub const NXDOMAIN: Self = Self(3);
    /// The operation is not implemented.
    pub const NOTIMP: Self = Self(4);
    /// The server does not want to.
    pub const REFUSED: Self = Self(5);
    /// The server is not the authority of the zone.
    pub const NOTAUTH: Self = Self(9);
    /// The EDNS version is not known.
    pub const BADVERS: Self = Self(16);
    /// The cookie is not the server's (RFC 7873 §8).
    pub const BADCOOKIE: Self = Self(23);

    /// The code's mnemonic, as metrics and logs spell it.
    #[must_use]
    pub const fn mnemonic(self) -> &'static str {
        match self.0 {
            0 => "NOERROR",
            1 => "FORMERR",
            2 => "SERVFAIL",
            3 => "NXDOMAIN",
            4 => "NOTIMP",
            5 => "REFUSED",
            9 => "NOTAUTH",
            16 => "BADVERS",
            23 => "BADCOOKIE",
            _ => "other",
        }
    }
}

/// The 16-bit number at `at`.
pub(crate) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2).map(|pair| u16::from_be_bytes([pair[0], pair[1]]))
}

/// The 32-bit number at `at`.
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4).map(|quad| u32::from_be_bytes([quad[0], quad[1], quad[2], quad[3]]))
}

#[cfg(test)]
mod tests;
