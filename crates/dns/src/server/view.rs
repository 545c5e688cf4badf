//! Which questions a server block takes (`view`).

use std::net::{IpAddr, Ipv4Addr};

use super::{Look, Transport};
use crate::{
    authority::rdata::mnemonic,
    chain::{Expression, ExpressionData},
    message::{CLASS_CH, PLAIN_UDP_SIZE, flag},
};

/// Whether all conditions hold for a question in a message of `size` bytes.
pub(super) fn takes(conditions: &[Expression], look: &Look<'_>, size: usize) -> bool {
    if conditions.is_empty() {
        return true;
    }
    let (from, head) = (look.arrival.from, look.head);
    let (name, rtype) = (look.name.to_string(), mnemonic(look.qtype));
    let data = ExpressionData {
        bufsize: head.edns.map_or(PLAIN_UDP_SIZE, |edns| edns.size),
        class: if look.qclass == CLASS_CH { "CH" } else { "IN" },
        client_ip: from.ip().to_canonical(),
        port: from.port(),
        dnssec_ok: head.dnssec_ok(),
        id: head.id,
        name: &name,
        opcode: ((head.flags & flag::OPCODE) >> 11) as u8,
        proto: match look.arrival.transport {
            Transport::Udp => "udp",
            Transport::Tcp => "tcp",
        },
        // Not known here: conditions on it are refused when they are read.
        server_ip: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        server_port: look.arrival.port,
        size,
        rtype: &rtype,
        meta: &|_| None,
    };
    conditions.iter().all(|condition| condition.holds(&data))
}
