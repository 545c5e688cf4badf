//! What is said by ARP (RFC 826) about addresses of IPv4.

use std::net::{IpAddr, Ipv4Addr};

use podnet_model::Mac;

use super::{
    Heard,
    frames::{HEADER, Message},
};

pub(super) const ETHERTYPE: u16 = 0x0806;
/// Length of ARP for IPv4.
const LENGTH: usize = 28;
/// What is before the addresses: Ethernet (1), IPv4, 6 and 4 bytes.
const ETHERNET_IPV4: [u8; 6] = [0, 1, 8, 0, 6, 4];
const REQUEST: u8 = 1;
const REPLY: u8 = 2;
const EVERYBODY: Mac = Mac([0xff; 6]);
const NOBODY: Mac = Mac([0; 6]);

/// To everybody, without telling of an own address.
pub(super) fn question(mac: Mac, addr: Ipv4Addr) -> Message {
    message(EVERYBODY, REQUEST, (mac, Ipv4Addr::UNSPECIFIED), (NOBODY, addr))
}

pub(super) fn answer(mac: Mac, addr: Ipv4Addr, asker: (Mac, Ipv4Addr)) -> Message {
    message(asker.0, REPLY, (mac, addr), asker)
}

/// As a question, which most take as news, and as an answer, which the others do.
pub(super) fn claims(mac: Mac, addr: Ipv4Addr) -> [Message; 2] {
    [
        message(EVERYBODY, REQUEST, (mac, addr), (NOBODY, addr)),
        message(EVERYBODY, REPLY, (mac, addr), (EVERYBODY, addr)),
    ]
}

fn message(to: Mac, operation: u8, sender: (Mac, Ipv4Addr), target: (Mac, Ipv4Addr)) -> Message {
    let mut content = Vec::with_capacity(LENGTH);
    content.extend(ETHERNET_IPV4);
    content.extend([0, operation]);
    for (mac, addr) in [sender, target] {
        content.extend(mac.0);
        content.extend(addr.octets());
    }
    Message { to, content }
}

/// What a frame says; none where it is not ARP for IPv4.
pub(super) fn parse(frame: &[u8]) -> Option<Heard> {
    let message = frame.get(HEADER..HEADER + LENGTH)?;
    if frame.get(12..HEADER)? != ETHERTYPE.to_be_bytes() || message.get(..6)? != ETHERNET_IPV4 {
        return None;
    }
    let mac = |at: usize| Some(Mac(message.get(at..at + 6)?.try_into().ok()?));
    let addr = |at: usize| Some(IpAddr::from(<[u8; 4]>::try_from(message.get(at..at + 4)?).ok()?));
    let (sender, from, target) = (mac(8)?, addr(14)?, addr(24)?);
    match message.get(6..8)? {
        [0, REQUEST] if from == target => Some(Heard::Claims { addr: from, by: sender }),
        [0, REQUEST] => Some(Heard::Asks { addr: target, asker: (sender, from) }),
        [0, REPLY] => Some(Heard::Claims { addr: from, by: sender }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_arp_says_nothing() {
        const FRAME: usize = HEADER + LENGTH;
        assert_eq!(parse(&[]), None);
        assert_eq!(parse(&[0; FRAME]), None);
        let mut frame = [0; FRAME];
        frame[12..14].copy_from_slice(&ETHERTYPE.to_be_bytes());
        frame[14..20].copy_from_slice(&ETHERNET_IPV4);
        assert_eq!(parse(&frame), None, "no operation");
        frame[21] = REQUEST;
        frame[41] = 7;
        let asked =
            Heard::Asks { addr: Ipv4Addr::new(0, 0, 0, 7).into(), asker: (NOBODY, Ipv4Addr::UNSPECIFIED.into()) };
        assert_eq!(parse(&frame), Some(asked));
        assert_eq!(parse(&frame[..FRAME - 1]), None, "cut off");
    }
}
