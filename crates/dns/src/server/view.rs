//! Which questions a server block takes (`view`).

use std::net::{IpAddr, Ipv4Addr};

use super::{Look, Server, Transport};
use crate::{
    authority::rdata::mnemonic,
    chain::{Expression, ExpressionData},
    message::{CLASS_CH, PLAIN_UDP_SIZE, flag},
};

impl Server {
    /// The server block, and its key, that a question belongs to: of those that take it, the one with the longest zone that its name
    /// lies in, and of several for one zone the first. `size` is that of the message, in bytes.
    pub(super) fn block(&self, look: &Look<'_>, size: usize) -> Option<(usize, usize)> {
        let port = look.arrival.port();
        let mut best: Option<(usize, usize, usize)> = None;
        for (index, block) in self.blocks.iter().enumerate() {
            for (place, (zone, at)) in block.keys.iter().enumerate() {
                let longer = best.is_none_or(|(.., labels)| zone.labels() > labels);
                if longer
                    && *at == port
                    && look.name.within(zone).is_some()
                    && takes(&block.views, look, size, &|label| self.label(index, label, look))
                {
                    best = Some((index, place, zone.labels()));
                }
            }
        }
        best.map(|(index, place, _)| (index, place))
    }
}

/// Whether all conditions hold for a question in a message of `size` bytes, of which `meta` tells more.
pub(super) fn takes(
    conditions: &[Expression],
    look: &Look<'_>,
    size: usize,
    meta: &dyn Fn(&str) -> Option<String>,
) -> bool {
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
        // Known wherever the kernel tells of it, which it does on all that podnet opens.
        server_ip: look.arrival.local.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
        server_port: look.arrival.port,
        size,
        rtype: &rtype,
        meta,
    };
    conditions.iter().all(|condition| condition.holds(&data))
}
