//! What the stack translates of a connection: whom it asked, and who answers.

use std::net::{IpAddr, SocketAddr};

use netlink_packet_core::{NLM_F_ACK, NLM_F_REQUEST};
use netlink_sys::protocols::NETLINK_NETFILTER;
use podnet_flow::{Key, Translations, Transport};
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

    /// The connection that has these addresses and ports in one of its directions, with those of both.
    fn ask(&mut self, direction: u16, key: &Key) -> Result<Option<Directions>, NetlinkError> {
        let Key { source, destination, transport } = *key;
        let sequence = self.0.reserve(1);
        let mut writer = Writer::default();
        let family = if source.is_ipv4() { Family::V4 } else { Family::V6 };
        writer.message(GET, NLM_F_REQUEST | NLM_F_ACK, sequence, |writer| {
            writer.raw(&head(family));
            writer.nested(direction, |writer| {
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
                found = Directions::of(frame.payload.get(HEAD..).unwrap_or_default(), transport);
            }
        }
    }
}

impl Translations for Backends {
    fn onward(&mut self, key: &Key) -> Option<Key> {
        let Directions { original, reply } = self.ask(TUPLE_ORIGINAL, key).ok()??;
        // The kernel looks among the tuples of both directions.
        (original == *key).then(|| turned(reply)).filter(|onward| onward != key)
    }

    fn origin(&mut self, key: &Key) -> Option<Key> {
        let Directions { original, reply } = self.ask(TUPLE_REPLY, &turned(*key)).ok()??;
        (turned(reply) == *key).then_some(original).filter(|origin| origin != key)
    }
}

/// The way back.
const fn turned(key: Key) -> Key {
    Key { source: key.destination, destination: key.source, transport: key.transport }
}

/// A connection as who began it sends, and as who answers does.
struct Directions {
    original: Key,
    reply: Key,
}

impl Directions {
    fn of(attributes: &[u8], transport: Transport) -> Option<Self> {
        // CTA_IP_V4_SRC, CTA_IP_V6_SRC; CTA_IP_V4_DST, CTA_IP_V6_DST
        const SOURCES: [u16; 2] = [1, 3];
        const DESTINATIONS: [u16; 2] = [2, 4];
        let direction = |kind| {
            let tuple = attribute(attributes, kind)?;
            let (addrs, ports) = (attribute(tuple, TUPLE_ADDRESSES)?, attribute(tuple, TUPLE_PROTOCOL)?);
            Some(Key {
                source: SocketAddr::new(address(addrs, SOURCES)?, port(ports, SOURCE_PORT)?),
                destination: SocketAddr::new(address(addrs, DESTINATIONS)?, port(ports, DESTINATION_PORT)?),
                transport,
            })
        };
        Some(Self { original: direction(TUPLE_ORIGINAL)?, reply: direction(TUPLE_REPLY)? })
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream, UdpSocket};

    use super::*;
    use crate::testing::TestNs;

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn both_ends_of_a_translated_connection_are_told_and_nothing_of_others() {
        let netns = TestNs::new("ct-backend");
        netns.command("ip link set lo up");
        netns.command("nft add table ip t");
        netns.command("nft -- add chain ip t out { type nat hook output priority -100 ; }");
        netns.command("nft add rule ip t out ip daddr 127.0.0.9 tcp dport 80 dnat to 127.0.0.2:8080");
        netns.command("nft add rule ip t out ip daddr 127.0.0.10 tcp dport 80 dnat to 127.0.0.3:8080");
        netns.command("nft -- add chain ip t post { type nat hook postrouting priority 100 ; }");
        // Another source, as masquerading has it.
        netns.command("nft add rule ip t post ip daddr 127.0.0.2 tcp dport 8080 snat to 127.0.0.5");
        let run = || {
            let mut backends = Backends::open().unwrap();
            for (asked, backend, masked) in [
                ("127.0.0.9:80", "127.0.0.2:8080", Some("127.0.0.5")),
                ("127.0.0.10:80", "127.0.0.3:8080", None),
                ("127.0.0.1:8080", "127.0.0.1:8080", None),
            ] {
                let listener = TcpListener::bind(backend).unwrap();
                let stream = TcpStream::connect(asked).unwrap();
                let (_accepted, seen) = listener.accept().unwrap();
                let own = stream.local_addr().unwrap();
                assert_eq!(seen.ip(), masked.map_or(own.ip(), |addr| addr.parse().unwrap()));
                let begun = Key { source: own, destination: at(asked), transport: Transport::TCP };
                let answered = Key { source: seen, destination: at(backend), transport: Transport::TCP };
                let is_translated = begun != answered;
                assert_eq!(backends.onward(&begun), Some(answered).filter(|_| is_translated), "{asked}");
                assert_eq!(backends.origin(&answered), Some(begun).filter(|_| is_translated), "{asked}");
                // Who answers began nothing.
                assert_eq!(backends.onward(&turned(answered)), None, "{asked}");
                assert_eq!(backends.origin(&turned(begun)), None, "{asked}");
            }
            let unknown = Key { source: at("127.0.0.1:1"), destination: at("127.0.0.1:1"), transport: Transport::UDP };
            assert_eq!((backends.onward(&unknown), backends.origin(&unknown)), (None, None));
        };
        netns.run(run).unwrap();
    }

    #[test]
    fn datagrams_over_ipv6_are_told_of_as_well() {
        let netns = TestNs::new("ct-backend6");
        for addr in ["fd00::1", "fd00::5", "fd00::9"] {
            netns.command(&format!("ip addr add {addr}/128 dev lo nodad"));
        }
        netns.command("nft add table ip6 t");
        netns.command("nft -- add chain ip6 t out { type nat hook output priority -100 ; }");
        netns.command("nft add rule ip6 t out ip6 daddr fd00::9 udp dport 53 dnat to [fd00::1]:5353");
        netns.command("nft -- add chain ip6 t post { type nat hook postrouting priority 100 ; }");
        netns.command("nft add rule ip6 t post ip6 daddr fd00::1 udp dport 5353 snat to fd00::5");
        let run = || {
            let (server, client) =
                (UdpSocket::bind("[fd00::1]:5353").unwrap(), UdpSocket::bind("[fd00::1]:0").unwrap());
            server.set_read_timeout(Some(std::time::Duration::from_secs(5))).unwrap();
            client.send_to(b"?", "[fd00::9]:53").unwrap();
            let (_, seen) = server.recv_from(&mut [0; 8]).unwrap();
            assert_eq!(seen.ip(), at("[fd00::5]:1").ip());
            let key = |source, destination| Key { source, destination: at(destination), transport: Transport::UDP };
            let begun = key(client.local_addr().unwrap(), "[fd00::9]:53");
            let answered = key(seen, "[fd00::1]:5353");
            let mut backends = Backends::open().unwrap();
            assert_eq!((backends.onward(&begun), backends.origin(&answered)), (Some(answered), Some(begun)));
        };
        netns.run(run).unwrap();
    }
}
