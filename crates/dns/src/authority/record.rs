//! One record of a zone.

use std::fmt;

use super::rdata;
use crate::name::Name;

/// A record of class IN.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Record {
    /// Whose it is.
    pub owner: Name,
    /// Its type.
    pub rtype: u16,
    /// Its time to live, in seconds.
    pub ttl: u32,
    /// Its data without compression, names in the spelling that was given.
    pub rdata: Box<[u8]>,
}

/// How many bytes a record takes in a message that does not compress: its owner, type, class, time to live, and data behind its length
/// (RFC 1035 §4.1.3).
pub(crate) fn size(owner: &Name, rdata: &[u8]) -> usize {
    owner.wire().len() + 10 + rdata.len()
}

impl fmt::Display for Record {
    /// Writes it as a line of a zone file (RFC 1035 §5.1).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut owner = String::new();
        rdata::print_name(self.owner.wire(), &mut owner);
        let kind = rdata::mnemonic(self.rtype);
        write!(f, "{owner}\t{}\tIN\t{kind}\t{}", self.ttl, rdata::print(self.rtype, &self.rdata))
    }
}

/// Types that a zone's logic knows beside those of [`crate::message::rtype`] (IANA, DNS parameters).
pub(crate) mod kind {
    pub(crate) use crate::message::rtype::MX;

    pub(crate) const AFSDB: u16 = 18;
    pub(crate) const SIG: u16 = 24;
    pub(crate) const KEY: u16 = 25;
    pub(crate) const DNAME: u16 = 39;
    pub(crate) const DS: u16 = 43;
    pub(crate) const RRSIG: u16 = 46;
    pub(crate) const NSEC: u16 = 47;
    pub(crate) const DNSKEY: u16 = 48;
    pub(crate) const NSEC3: u16 = 50;
    pub(crate) const NSEC3PARAM: u16 = 51;
    pub(crate) const CDS: u16 = 59;
    pub(crate) const CDNSKEY: u16 = 60;
    pub(crate) const SVCB: u16 = 64;
    pub(crate) const HTTPS: u16 = 65;
    /// What a compact denial says of a name that does not exist (RFC 9824 §3.4).
    pub(crate) const NXNAME: u16 = 128;
    pub(crate) const TSIG: u16 = 250;

    /// Whether it is a type of questions and messages, never of data (RFC 6895 §3.1).
    pub(crate) fn is_meta(rtype: u16) -> bool {
        rtype == 0 || rtype == 41 || (128..=255).contains(&rtype)
    }
}
