//! `whoami`: the client's address, and its port and transport as an SRV record, in the additional section.

use std::net::IpAddr;

use crate::{
    answer::{AnswerBuilder, Owner, Section},
    message::rtype,
    name::Name,
    server::{Knowing, Look, Said, Transport},
};

/// The plugin.
#[derive(Clone, Copy, Debug)]
pub struct WhoAmI;

impl Knowing for WhoAmI {
    fn say(&self, look: &Look<'_>) -> Said {
        let owner = Name::from_query(look.name);
        let mut builder = AnswerBuilder::new(&owner);
        let from = match look.arrival.from.ip() {
            IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(IpAddr::V6(v6), IpAddr::V4),
            v4 @ IpAddr::V4(_) => v4,
        };
        builder.push_addr(Section::Additional, Owner::Question, 0, from);
        let transport = if look.arrival.transport == Transport::Udp { "_udp" } else { "_tcp" };
        if let Ok(location) = owner.child(transport) {
            let mut data = vec![0, 0, 0, 0];
            data.extend_from_slice(&look.arrival.from.port().to_be_bytes());
            data.push(0);
            builder.push(Section::Additional, Owner::Other(&location), rtype::SRV, 0, &data);
        }
        Said::Answer(builder.build())
    }
}
