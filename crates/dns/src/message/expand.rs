//! Taking an answer apart into records whose names are spelled out: for answers that are put together from several.

use domain::{
    base::{Message, ToName, name::ParsedName, rdata::ComposeRecordData},
    rdata::AllRecordData,
};

use super::{HEADER, question};
use crate::{
    answer::{Answer, Section},
    name::{Name, QueryName},
};

/// One record of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expanded {
    /// Where it stands.
    pub section: Section,
    /// Whose it is.
    pub owner: Name,
    /// Its type.
    pub rtype: u16,
    /// Its time to live, in seconds.
    pub ttl: u32,
    /// Its data, without compression.
    pub rdata: Vec<u8>,
}

/// The records of an answer for `name`. A record that cannot be read ends the list.
#[must_use]
pub fn expand(name: &Name, answer: &Answer) -> Vec<Expanded> {
    let mut message = Vec::with_capacity(HEADER + name.wire().len() + 4 + answer.body.len());
    message.extend_from_slice(&[0, 0, 0x80, 0, 0, 1]);
    for count in answer.counts {
        message.extend_from_slice(&count.to_be_bytes());
    }
    message.extend_from_slice(&question(name.wire(), super::rtype::A));
    message.extend_from_slice(&answer.body);
    let Ok(message) = Message::from_octets(message) else { return Vec::new() };
    let Ok((_, answers, authority, additional)) = message.sections() else { return Vec::new() };
    let sections = [(Section::Answer, answers), (Section::Authority, authority), (Section::Additional, additional)];
    let mut records = Vec::new();
    for (section, parsed) in sections {
        for record in parsed.map_while(Result::ok) {
            let Ok(Some(full)) = record.to_record::<AllRecordData<_, ParsedName<_>>>() else { return records };
            let mut rdata = Vec::new();
            let Ok(()) = full.data().compose_rdata(&mut rdata);
            let mut owner = Vec::new();
            let Ok(()) = full.owner().compose(&mut owner);
            let Ok((owner, _)) = QueryName::parse(&owner, 0) else { return records };
            records.push(Expanded {
                section,
                owner: Name::from_query(&owner),
                rtype: record.rtype().to_int(),
                ttl: record.ttl().as_secs(),
                rdata,
            });
        }
    }
    records
}
