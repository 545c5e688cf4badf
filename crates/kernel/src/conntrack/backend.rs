//! Who answers a connection that the stack translates.

use std::net::{IpAddr, SocketAddr};

use netlink_packet_core::{NLM_F_ACK, NLM_F_REQUEST};
use netlink_sys::protocols::NETLINK_NETFILTER;
use podnet_flow::{Key, Translations};
use podnet_model::Family;

use super::{
    DESTINATION_PORT, GET, HEAD, PROTOCOL_NUMBER, SOURCE_PORT, TUPLE_ADDRESSES, TUPLE_ORIGINAL, TUPLE_PROTOCOL,
    TUPLE_REPLY, address, head, port,
};
use crate::netlink::{
    Connection, NetlinkError,
    attribute::{Writer, attribute},
};

/// Asks for single connections, of the namespace that it was opened in.
pub struct Backends(Connection);

impl Backends {
    /// Opens the socket in the calling thread's namespace.
    ///
    /// # Errors
    /// Where the process can have no descriptor more, or the kernel no netfilter.
    pub fn open() -> Result<Self, NetlinkError> {
        Ok(Self(Connection::open(NETLINK_NETFILTER)?))
    }

    fn ask(&mut self, key: &Key) -> Result<Option<SocketAddr>, NetlinkError> {
        let Key { source, destination, transport } = *key;
        let sequence = self.0.reserve(1);
        let mut writer = Writer::default();
        let family = if source.is_ipv4() { Family::V4 } else { Family::V6 };
        writer.message(GET, NLM_F_REQUEST | NLM_F_ACK, sequence, |writer| {
            writer.raw(&head(family));
            writer.nested(TUPLE_ORIGINAL, |writer| {
                writer.nested(TUPLE_ADDRESSES, |writer| {
                    // CTA_IP_V4_SRC, CTA_IP_V4_DST, CTA_IP_V6_SRC, CTA_IP_V6_DST
                    for (kind, addr) in [(1, source.ip()), (2, destination.ip())] {
                        match addr {
                            IpAddr::V4(addr) => writer.bytes(kind, &addr.octets()),
                            IpAddr::V6(addr) => writer.bytes(kind + 2, &addr.octets()),
                        }
                    }
                });
                writer.nested(TUPLE_PROTOCOL, |writer| {
                    writer.bytes(PROTOCOL_NUMBER, &[transport.0]);
                    writer.bytes(SOURCE_PORT, &source.port().to_be_bytes());
                    writer.bytes(DESTINATION_PORT, &destination.port().to_be_bytes());
                });
            });
        });
        self.0.send(&writer.into_bytes())?;
        let mut found = None;
        loop {
            for frame in self.0.receive()?.into_iter().filter(|frame| frame.sequence == sequence) {
                // No such connection is as good as none that is translated.
                if frame.acknowledgement().is_some() {
                    return Ok(found);
                }
                found = answers(frame.payload.get(HEAD..).unwrap_or_default());
            }
        }
    }
}

impl Translations for Backends {
    fn backend(&mut self, key: &Key) -> Option<SocketAddr> {
        self.ask(key).ok().flatten().filter(|backend| *backend != key.destination)
    }
}

/// Who sends the answers.
fn answers(attributes: &[u8]) -> Option<SocketAddr> {
    // CTA_IP_V4_SRC, CTA_IP_V6_SRC
    const SOURCES: [u16; 2] = [1, 3];
    let back = attribute(attributes, TUPLE_REPLY)?;
    let addr = address(attribute(back, TUPLE_ADDRESSES)?, SOURCES)?;
    Some(SocketAddr::new(addr, port(attribute(back, TUPLE_PROTOCOL)?, SOURCE_PORT)?))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use podnet_flow::Transport;

    use super::*;
    use crate::testing::TestNs;

    #[test]
    fn the_backend_of_a_translated_connection_is_told_and_none_of_others() {
        let netns = TestNs::new("ct-backend");
        netns.command("ip link set lo up");
        netns.command("nft add table ip t");
        netns.command("nft -- add chain ip t out { type nat hook output priority -100 ; }");
        netns.command("nft add rule ip t out ip daddr 127.0.0.9 tcp dport 80 dnat to 127.0.0.1:8080");
        let found = netns.run(|| {
            let listener = TcpListener::bind("127.0.0.1:8080").unwrap();
            let asked = |to: &str| {
                let stream = TcpStream::connect(to).unwrap();
                let (source, destination) = (stream.local_addr().unwrap(), to.parse().unwrap());
                let key = Key { source, destination, transport: Transport::TCP };
                (Backends::open().unwrap().backend(&key), stream)
            };
            let (translated, _kept) = asked("127.0.0.9:80");
            let (plain, _also) = asked("127.0.0.1:8080");
            drop(listener);
            let unknown: SocketAddr = "127.0.0.1:1".parse().unwrap();
            let none = Key { source: unknown, destination: unknown, transport: Transport::UDP };
            (translated, plain, Backends::open().unwrap().backend(&none))
        });
        assert_eq!(found.unwrap(), (Some("127.0.0.1:8080".parse().unwrap()), None, None));
    }
}
