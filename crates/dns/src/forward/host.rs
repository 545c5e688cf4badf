//! Asking for a host's addresses where no server of ours is there yet that could: for upstreams that a Corefile names.

use std::net::IpAddr;

use super::query;
use crate::{
    answer::Section,
    message::{HEADER, Rcode, Upstream, expand, flag, question, rtype},
    name::Name,
};

/// Why an answer tells no addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    /// It is no answer to the question.
    #[error("its answer cannot be read")]
    Malformed,
    /// The server did not answer the question.
    #[error("it answers {}", .0.mnemonic())]
    Code(Rcode),
}

/// The question for a host's addresses of a type (A, AAAA), which the server has to ask others for.
#[must_use]
pub fn host_query(name: &Name, qtype: u16, id: u16) -> Vec<u8> {
    query(id, &question(name.wire(), qtype), false, false, flag::RD)
}

/// The addresses that the answer to [`host_query`] tells, whatever aliases lead there; none at all where the answer was cut.
///
/// # Errors
/// When it is no answer, or another code than that the name is there or is not.
pub fn host_addrs(name: &Name, qtype: u16, message: &[u8]) -> Result<Option<Vec<IpAddr>>, HostError> {
    // A bare header says no more than its code.
    let code = message.get(2..4).map(|flags| Rcode(u16::from_be_bytes([flags[0], flags[1]]) & flag::RCODE));
    match code {
        Some(Rcode::NOERROR | Rcode::NXDOMAIN) => {}
        Some(code) if message.len() >= HEADER => return Err(HostError::Code(code)),
        _ => return Err(HostError::Malformed),
    }
    let upstream = Upstream::parse(message, &question(name.wire(), qtype)).map_err(|_| HostError::Malformed)?;
    if upstream.truncated {
        return Ok(None);
    }
    let records = expand(name, &upstream.answer).into_iter();
    let told = records.filter(|record| record.section == Section::Answer && record.rtype == qtype);
    let addrs = told.filter_map(|record| match qtype {
        rtype::A => <[u8; 4]>::try_from(record.rdata.as_slice()).ok().map(IpAddr::from),
        _ => <[u8; 16]>::try_from(record.rdata.as_slice()).ok().map(IpAddr::from),
    });
    Ok(Some(addrs.collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALIAS: &[u8] = &[0xc0, 12, 0, 5, 0, 1, 0, 0, 0, 60, 0, 4, 1, b'b', 0xc0, 14];

    /// A response to the question with flags and records of the answer.
    fn response(query: &[u8], flags: u16, records: &[&[u8]]) -> Vec<u8> {
        let mut message = query.to_vec();
        message[2..4].copy_from_slice(&(flag::QR | flags).to_be_bytes());
        message[7] = records.len() as u8;
        message.extend(records.concat());
        message
    }

    #[test]
    fn addresses_are_told_behind_aliases_and_none_where_the_name_has_none() {
        let name = Name::parse("a.example").unwrap();
        let ask = host_query(&name, rtype::A, 7);
        assert_eq!(ask[..4], [0, 7, 1, 0]);
        // The alias b.example, whose address it is: its name stands in the alias' data, at byte 39.
        let addr = [0xc0, 39, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 1];
        let told = |flags, records: &[&[u8]]| host_addrs(&name, rtype::A, &response(&ask, flags, records));
        assert_eq!(told(0, &[ALIAS, &addr]), Ok(Some(vec![IpAddr::from([192, 0, 2, 1])])));
        assert_eq!(told(0, &[ALIAS]), Ok(Some(Vec::new())));
        assert_eq!(told(3, &[]), Ok(Some(Vec::new())));
        assert_eq!(told(flag::TC, &[]), Ok(None));
        assert_eq!(told(2, &[]), Err(HostError::Code(Rcode::SERVFAIL)));
        assert_eq!(HostError::Code(Rcode::REFUSED).to_string(), "it answers REFUSED");
    }

    #[test]
    fn what_is_no_answer_to_the_question_tells_nothing() {
        let name = Name::parse("a.example").unwrap();
        let ask = host_query(&name, rtype::AAAA, 7);
        let other = host_query(&Name::parse("b.example").unwrap(), rtype::AAAA, 7);
        let malformed = Err(HostError::Malformed);
        assert_eq!(host_addrs(&name, rtype::AAAA, &response(&other, 0, &[])), malformed);
        assert_eq!(host_addrs(&name, rtype::AAAA, &ask), malformed, "it is no response");
        assert_eq!(host_addrs(&name, rtype::AAAA, &[0, 7, 0x80]), malformed);
        assert_eq!(host_addrs(&name, rtype::AAAA, &response(&ask, 0, &[&ALIAS[..9]])), malformed);
    }
}
