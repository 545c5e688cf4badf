//! `any`: who asks for all types gets one short record (RFC 8482 §4.2), so that nobody is flooded with what others asked for.

use crate::{
    answer::{AnswerBuilder, Owner, Section},
    message::rtype,
    name::Name,
    server::{Knowing, Look, Said},
};

/// The time to live of the record, in seconds: as CoreDNS has it.
const TTL: u32 = 8482;

/// The plugin.
#[derive(Clone, Copy, Debug)]
pub struct Any;

impl Knowing for Any {
    fn say(&self, look: &Look<'_>) -> Said {
        if look.qtype != rtype::ANY {
            return Said::Pass;
        }
        let mut data = Vec::new();
        for text in ["ANY obsoleted", "See RFC 8482"] {
            data.push(text.len() as u8);
            data.extend_from_slice(text.as_bytes());
        }
        let mut builder = AnswerBuilder::new(&Name::from_query(look.name));
        builder.push(Section::Answer, Owner::Question, rtype::HINFO, TTL, &data);
        Said::Answer(builder.build())
    }
}
