//! What is said by neighbour discovery (RFC 4861) about addresses of IPv6.

use std::net::Ipv6Addr;

use podnet_model::Mac;

use super::{
    Heard,
    frames::{HEADER, Message},
};
use crate::socket_filter::{answer as verdict, instruction};

pub(super) const ETHERTYPE: u16 = 0x86dd;
/// Length of a header of IPv6.
const IPV6: usize = 40;
/// Of a message before its options: type, code, checksum, flags, the address that it is about.
const BODY: usize = 24;
const ICMPV6: u8 = 58;
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
/// Whoever sends less has been forwarded, and is not on this link (RFC 4861, 6.1 and 7.1).
const HOP_LIMIT: u8 = 255;
/// It was asked for.
const SOLICITED: u8 = 0x40;
/// It takes the place of what was known.
const OVERRIDE: u8 = 0x20;
const SOURCE_ADDRESS: u8 = 1;
const TARGET_ADDRESS: u8 = 2;
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// The group that is asked for an address (the solicited-node address, RFC 4291, 2.7.1).
pub(super) const fn group_of(addr: Ipv6Addr) -> Ipv6Addr {
    let last = addr.to_bits() & 0x00ff_ffff;
    Ipv6Addr::from_bits(0xff02_0000_0000_0000_0000_0001_ff00_0000 | last)
}

/// To those of the address's group, as whoever wants the address for itself asks (RFC 4862, 5.4): without telling of an own address.
pub(super) fn question(addr: Ipv6Addr) -> Message {
    let group = group_of(addr);
    message(ethernet(group), Ipv6Addr::UNSPECIFIED, group, &body(SOLICITATION, 0, addr))
}

/// To the asker. Where it told of no own address, all nodes are its address (RFC 4861, 7.2.4), but the frame is for it alone (RFC 6085):
/// standby nodes ask again and again.
pub(super) fn answer(mac: Mac, addr: Ipv6Addr, asker: (Mac, Ipv6Addr)) -> Message {
    let (to, flags) = if asker.1.is_unspecified() { (ALL_NODES, OVERRIDE) } else { (asker.1, SOLICITED | OVERRIDE) };
    message(asker.0, addr, to, &advertisement(mac, addr, flags))
}

/// To all nodes.
pub(super) fn claim(mac: Mac, addr: Ipv6Addr) -> Message {
    message(ethernet(ALL_NODES), addr, ALL_NODES, &advertisement(mac, addr, OVERRIDE))
}

fn advertisement(mac: Mac, addr: Ipv6Addr, flags: u8) -> Vec<u8> {
    let mut body = body(ADVERTISEMENT, flags, addr);
    // Its length is counted in 8 bytes.
    body.extend([TARGET_ADDRESS, 1]);
    body.extend(mac.0);
    body
}

/// A message without options and without its checksum.
fn body(kind: u8, flags: u8, about: Ipv6Addr) -> Vec<u8> {
    let mut body = vec![kind, 0, 0, 0, flags, 0, 0, 0];
    body.extend(about.octets());
    body
}

/// The Ethernet address of a group (RFC 2464, 7).
const fn ethernet(group: Ipv6Addr) -> Mac {
    let [.., a, b, c, d] = group.octets();
    Mac([0x33, 0x33, a, b, c, d])
}

fn message(to: Mac, source: Ipv6Addr, destination: Ipv6Addr, body: &[u8]) -> Message {
    let length = u16::try_from(body.len()).unwrap_or(u16::MAX);
    let mut content = Vec::with_capacity(IPV6 + body.len());
    content.extend([0x60, 0, 0, 0]);
    content.extend(length.to_be_bytes());
    content.extend([ICMPV6, HOP_LIMIT]);
    content.extend(source.octets());
    content.extend(destination.octets());
    content.extend(body);
    let sum = checksum(source, destination, body);
    content[IPV6 + 2..IPV6 + 4].copy_from_slice(&sum.to_be_bytes());
    Message { to, content }
}

/// Over the pseudo-header and the message (RFC 8200, 8.1): what to write where the checksum is 0; 0 where the one that is there is right.
fn checksum(source: Ipv6Addr, destination: Ipv6Addr, body: &[u8]) -> u16 {
    let words = |bytes: &[u8]| -> u32 {
        bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |low| u32::from(*low))).sum()
    };
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
    let mut sum = words(&source.octets()) + words(&destination.octets()) + length + u32::from(ICMPV6) + words(body);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or_default()
}

/// What a frame says; none where it is no right solicitation or advertisement (RFC 4861, 7.1).
pub(super) fn parse(frame: &[u8]) -> Option<Heard> {
    let sender = Mac(frame.get(6..12)?.try_into().ok()?);
    let header = frame.get(HEADER..HEADER + IPV6)?;
    let length = usize::from(u16::from_be_bytes(header.get(4..6)?.try_into().ok()?));
    let body = frame.get(HEADER + IPV6..HEADER + IPV6 + length)?;
    let addr = |bytes: Option<&[u8]>| Some(Ipv6Addr::from(<[u8; 16]>::try_from(bytes?).ok()?));
    let (source, destination) = (addr(header.get(8..24))?, addr(header.get(24..40))?);
    let about = addr(body.get(8..BODY))?;
    let is_ours = frame.get(12..HEADER)? == ETHERTYPE.to_be_bytes()
        && header.first()? >> 4 == 6
        && header.get(6..8)? == [ICMPV6, HOP_LIMIT]
        && body.get(1)? == &0;
    if !is_ours || checksum(source, destination, body) != 0 || about.is_multicast() || source.is_multicast() {
        return None;
    }
    let options = body.get(BODY..)?;
    match *body.first()? {
        SOLICITATION => {
            let mac = link_address(options, SOURCE_ADDRESS)?.unwrap_or(sender);
            Some(Heard::Asks { addr: about.into(), asker: (mac, source.into()) })
        }
        ADVERTISEMENT => {
            let by = link_address(options, TARGET_ADDRESS)?.unwrap_or(sender);
            Some(Heard::Claims { addr: about.into(), by })
        }
        _ => None,
    }
}

/// The Ethernet address that an option tells, where there is one; none at all where the options are none.
fn link_address(mut options: &[u8], kind: u8) -> Option<Option<Mac>> {
    let mut found = None;
    while let [this, eights, ..] = options {
        let length = 8 * usize::from(*eights);
        // One of no length would never end; one that is cut off is none.
        let option = options.get(2..length)?;
        if *this == kind && *eights == 1 {
            found = Some(Mac(option.try_into().ok()?));
        }
        options = options.get(length..)?;
    }
    options.is_empty().then_some(found)
}

/// Lets only solicitations and advertisements through: without it each packet of IPv6 would come to the socket.
pub(super) fn filter() -> [libc::sock_filter; 7] {
    let byte = |at: usize| {
        instruction(libc::BPF_LD | libc::BPF_B | libc::BPF_ABS, 0, 0, u32::try_from(at).unwrap_or(u32::MAX))
    };
    let equals = |value: u8, yes: u8, no: u8| {
        instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, yes, no, u32::from(value))
    };
    [
        byte(HEADER + 6),
        equals(ICMPV6, 0, 3),
        byte(HEADER + IPV6),
        equals(SOLICITATION, 2, 0),
        equals(ADVERTISEMENT, 1, 0),
        verdict(0),
        verdict(u32::MAX),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    const VIP: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0x12, 0x3456);
    const MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);
    const OTHER: Mac = Mac([2, 0, 0, 0, 0, 2]);

    fn frame(from: Mac, message: &Message) -> Vec<u8> {
        [&message.to.0[..], &from.0, &ETHERTYPE.to_be_bytes(), &message.content].concat()
    }

    #[test]
    fn what_is_said_is_understood() {
        assert_eq!(group_of(VIP), "ff02::1:ff12:3456".parse::<Ipv6Addr>().unwrap());
        let asked = question(VIP);
        assert_eq!(asked.to, Mac([0x33, 0x33, 0xff, 0x12, 0x34, 0x56]));
        let asker = (OTHER, Ipv6Addr::UNSPECIFIED);
        assert_eq!(
            parse(&frame(OTHER, &asked)),
            Some(Heard::Asks { addr: VIP.into(), asker: (OTHER, asker.1.into()) })
        );
        let link_local = "fe80::2".parse().unwrap();
        for said in [claim(MAC, VIP), answer(MAC, VIP, asker), answer(MAC, VIP, (OTHER, link_local))] {
            assert_eq!(parse(&frame(MAC, &said)), Some(Heard::Claims { addr: VIP.into(), by: MAC }), "{said:?}");
        }
        assert_eq!(answer(MAC, VIP, asker).to, OTHER, "for the asker alone");
    }

    #[test]
    fn the_checksum_is_the_internets() {
        // A neighbour solicitation as Linux sends it, from fe80::ff:fe00:1 for 2001:db8::1, worked out by hand.
        let (source, group) = ("fe80::ff:fe00:1".parse().unwrap(), "ff02::1:ff00:1".parse().unwrap());
        let about = "2001:db8::1".parse().unwrap();
        let mut solicitation = body(SOLICITATION, 0, about);
        solicitation.extend([SOURCE_ADDRESS, 1, 2, 0, 0, 0, 0, 1]);
        // All words of the pseudo-header and of the message add up to 0x4b39a.
        assert_eq!(checksum(source, group, &solicitation), !0xb39e);
    }

    #[test]
    fn what_is_no_neighbour_discovery_says_nothing() {
        let good = frame(MAC, &claim(MAC, VIP));
        assert!(parse(&good).is_some());
        assert_eq!(parse(&[]), None);
        for length in 0..good.len() {
            assert_eq!(parse(&good[..length]), None, "cut off at {length}");
        }
        for (place, value) in
            [(12, 8), (14, 0x45), (20, 17), (21, 254), (54, 128), (55, 1), (56, 0), (62, 0xff), (79, 0)]
        {
            let mut bad = good.clone();
            bad[place] = value;
            assert_eq!(parse(&bad), None, "byte {place}");
        }
    }

    #[test]
    fn options_that_never_end_or_are_cut_off_are_none() {
        assert_eq!(link_address(&[], 2), Some(None));
        assert_eq!(link_address(&[2, 0, 0, 0, 0, 0, 0, 0], 2), None);
        assert_eq!(link_address(&[2, 2, 0, 0, 0, 0, 0, 0], 2), None);
        assert_eq!(link_address(&[2], 2), None);
        let after_another = [14, 1, 9, 9, 9, 9, 9, 9, 2, 1, 2, 0, 0, 0, 0, 1];
        assert_eq!(link_address(&after_another, 2), Some(Some(MAC)));
        assert_eq!(link_address(&after_another, 1), Some(None));
    }
}
