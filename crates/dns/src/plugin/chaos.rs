//! `chaos`: what the server tells of itself, in class CH (RFC 4892).

use crate::{
    answer::{AnswerBuilder, Owner, Section},
    chain::ChaosOptions,
    message::{CLASS_CH, rtype},
    name::Name,
    server::{Knowing, Look, Said},
};

/// The plugin.
#[derive(Clone, Debug)]
pub struct Chaos {
    /// What the Corefile says.
    pub options: ChaosOptions,
    /// What this machine is called.
    pub host: String,
}

impl Knowing for Chaos {
    fn takes_chaos(&self) -> bool {
        true
    }

    fn say(&self, look: &Look<'_>) -> Said {
        if look.qclass != CLASS_CH || look.qtype != rtype::TXT {
            return Said::Pass;
        }
        let own = || concat!("podnet-", env!("CARGO_PKG_VERSION")).to_owned();
        let texts = match look.name.wire() {
            b"\x07version\x04bind\0" | b"\x07version\x06server\0" => {
                vec![self.options.version.clone().unwrap_or_else(own)]
            }
            b"\x07authors\x04bind\0" => self.options.authors.clone(),
            b"\x08hostname\x04bind\0" | b"\x02id\x06server\0" => vec![self.host.clone()],
            _ => return Said::Pass,
        };
        let mut builder = AnswerBuilder::of_class(&Name::from_query(look.name), CLASS_CH);
        for text in texts {
            let text = text.get(..text.len().min(255)).unwrap_or_default();
            let mut data = vec![text.len() as u8];
            data.extend_from_slice(text.as_bytes());
            builder.push(Section::Answer, Owner::Question, rtype::TXT, 0, &data);
        }
        Said::Answer(builder.build())
    }
}
