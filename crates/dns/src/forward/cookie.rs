//! DNS cookies towards upstreams (RFC 7873): a number of ours in each query, which comes back with one of theirs.

use crate::{
    message::{HEADER, Rcode, rtype, u16_at, walk},
    name::QueryName,
};

/// The EDNS option.
const COOKIE: u16 = 10;
/// The length of our part; theirs has 8 to 32 bytes (RFC 7873 §4).
pub(super) const CLIENT: usize = 8;
/// The code with which a server wants its own cookie back.
pub(super) const BADCOOKIE: Rcode = Rcode::BADCOOKIE;

/// Puts a cookie into a query that ends with an OPT record without options.
pub(super) fn append(message: &mut Vec<u8>, cookie: &[u8]) {
    let Some(length) = message.len().checked_sub(2) else { return };
    message[length..].copy_from_slice(&(4 + cookie.len() as u16).to_be_bytes());
    message.extend_from_slice(&COOKIE.to_be_bytes());
    message.extend_from_slice(&(cookie.len() as u16).to_be_bytes());
    message.extend_from_slice(cookie);
}

/// The cookie in a response: our part, and the server's. One that is malformed is none.
pub(super) fn find(message: &[u8]) -> Option<([u8; CLIENT], &[u8])> {
    let (_, end) = QueryName::parse(message, HEADER).ok()?;
    let opt = walk(message, end + 4).map_while(Result::ok).find(|record| record.rtype == rtype::OPT)?;
    let mut options = message.get(opt.rdata..opt.end)?;
    loop {
        let (code, size) = (u16_at(options, 0)?, usize::from(u16_at(options, 2)?));
        let value = options.get(4..4 + size)?;
        if code == COOKIE {
            let (client, server) = value.split_first_chunk::<CLIENT>()?;
            return (8..=32).contains(&server.len()).then_some((*client, server));
        }
        options = &options[4 + size..];
    }
}
