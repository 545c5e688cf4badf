//! What the ports of bridges may send: a table of family `bridge`, as frames between two ports never come to the chains of `ip`.
//!
//! ```text
//! set senders4   (port, Ethernet address, IPv4 address)   of every container: other IPv4 and ARP from a port is dropped
//! set senders6   (port, Ethernet address, IPv6 address)   the same for IPv6 and for what neighbours are told by it
//! set senders    (port, Ethernet address)                 the same for everything else
//! ```

use std::net::IpAddr;

use netlink_packet_core::{NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL};
use podnet_model::{LinkName, Mac};
use podnet_planner::ruleset::{ChainKind, Hook, HookPoint};

use super::{
    NftError, NftSocket,
    element::DROP,
    expression::{Base, Comparison, Expression, MetaKey, Register},
    object,
    transaction::{Message, Transaction},
};

/// `NFPROTO_BRIDGE`.
const FAMILY_BRIDGE: u8 = 7;
/// Before translation on bridges (`NF_BR_PRI_NAT_DST_BRIDGED`) and before `br_netfilter` shows the frame to the chains of `ip`.
const FIRST_OF_ALL: i32 = -300;
const CHAIN: &str = "senders-checked";
/// Ethernet types, in network byte order.
const IPV4: [u8; 2] = [0x08, 0x00];
const ARP: [u8; 2] = [0x08, 0x06];
const IPV6: [u8; 2] = [0x86, 0xdd];
/// A VLAN's tag, of either kind (IEEE 802.1Q).
const TAGS: [[u8; 2]; 2] = [[0x81, 0x00], [0x88, 0xa8]];
/// `IFNAMSIZ`.
const NAME: usize = 16;

/// A port of a bridge, and whom it may send as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sender {
    /// The port.
    pub port: LinkName,
    /// The Ethernet address of who is behind it.
    pub mac: Mac,
    /// Its addresses.
    pub addrs: Vec<IpAddr>,
}

impl NftSocket {
    /// Makes the table of family `bridge` let through from ports whose names begin with `prefix` only what these senders may send; where
    /// there are none it is removed. Nothing goes to loopback addresses by any bridge, as ports of the node's loopback make it take such.
    ///
    /// # Errors
    /// What the kernel refused; the table is then as it was.
    pub fn check_segments(&mut self, table: &str, prefix: &str, senders: &[Sender]) -> Result<(), NftError> {
        let mut transaction = Transaction::in_family(FAMILY_BRIDGE, table);
        transaction.make_table();
        transaction.remove_table();
        if senders.is_empty() {
            return transaction.commit(self.wire.get()?);
        }
        transaction.make_table();
        let hook = Hook { kind: ChainKind::Filter, point: HookPoint::Prerouting, priority: FIRST_OF_ALL };
        object::make_chain(&mut transaction, CHAIN, Some(hook));
        for (name, length, elements) in sets(senders) {
            make_set(&mut transaction, name, length);
            add_elements(&mut transaction, name, &elements);
        }
        for (comment, expressions) in rules(prefix) {
            add_rule(&mut transaction, comment, &expressions);
        }
        transaction.commit(self.wire.get()?)
    }
}

/// Name, length of the key, and keys of each set. Fields of a key are padded to four bytes.
fn sets(senders: &[Sender]) -> [(&'static str, usize, Vec<Vec<u8>>); 3] {
    let mut all =
        [("senders", NAME + 8, Vec::new()), ("senders4", NAME + 12, Vec::new()), ("senders6", NAME + 24, Vec::new())];
    for sender in senders {
        let mut key = vec![0; NAME + 8];
        let name = sender.port.as_str().as_bytes();
        let length = name.len().min(NAME - 1);
        key[..length].copy_from_slice(&name[..length]);
        key[NAME..NAME + 6].copy_from_slice(&sender.mac.0);
        for addr in &sender.addrs {
            match addr {
                IpAddr::V4(addr) => all[1].2.push([&key[..], &addr.octets()].concat()),
                IpAddr::V6(addr) => all[2].2.push([&key[..], &addr.octets()].concat()),
            }
        }
        all[0].2.push(key);
    }
    all
}

fn make_set(transaction: &mut Transaction<'_>, name: &str, length: usize) {
    // enum nft_set_attributes. The type of the key is for `nft list` alone: it shows what it does not know as numbers.
    const NAME: u16 = 2;
    const FLAGS: u16 = 3;
    const KEY_TYPE: u16 = 4;
    const KEY_LEN: u16 = 5;
    const ID: u16 = 10;
    /// The fields as `nft` numbers them: name of a device, Ethernet address, address; six bits for each.
    const FIELDS: u32 = 41 << 6 | 9;
    const IPV4_ADDR: u32 = 7;
    const IPV6_ADDR: u32 = 8;
    let id = transaction.next_set_id();
    let key_type = match name {
        "senders4" => FIELDS << 6 | IPV4_ADDR,
        "senders6" => FIELDS << 6 | IPV6_ADDR,
        _ => FIELDS,
    };
    transaction.message(Message::NewSet, NLM_F_CREATE | NLM_F_EXCL, format!("make set {name}"), |writer| {
        writer.text(NAME, name);
        writer.be32(FLAGS, 0);
        writer.be32(KEY_TYPE, key_type);
        writer.be32(KEY_LEN, u32::try_from(length).unwrap_or(u32::MAX));
        writer.be32(ID, id);
    });
}

fn add_elements(transaction: &mut Transaction<'_>, set: &str, keys: &[Vec<u8>]) {
    // enum nft_set_elem_list_attributes, nft_set_elem_attributes, nft_data_attributes
    const SET: u16 = 2;
    const ELEMENTS: u16 = 3;
    const ELEMENT: u16 = 1;
    const KEY: u16 = 1;
    const VALUE: u16 = 1;
    /// An attribute's length has 16 bits; this many keys of the longest kind stay below.
    const AT_ONCE: usize = 500;
    for keys in keys.chunks(AT_ONCE) {
        let what = format!("add elements to set {set}");
        transaction.message(Message::NewElements, NLM_F_CREATE | NLM_F_EXCL, what, |writer| {
            writer.text(SET, set);
            writer.nested(ELEMENTS, |writer| {
                for key in keys {
                    writer.nested(ELEMENT, |writer| writer.nested(KEY, |writer| writer.bytes(VALUE, key)));
                }
            });
        });
    }
}

fn add_rule(transaction: &mut Transaction<'_>, comment: &str, expressions: &[Expression<'_>]) {
    // enum nft_rule_attributes
    const IN_CHAIN: u16 = 2;
    const EXPRESSIONS: u16 = 4;
    const USERDATA: u16 = 7;
    let what = format!("add rule ({comment}) to chain {CHAIN}");
    transaction.message(Message::NewRule, NLM_F_CREATE | NLM_F_APPEND, what, |writer| {
        writer.text(IN_CHAIN, CHAIN);
        writer.nested(EXPRESSIONS, |writer| expressions.iter().for_each(|expression| expression.write(writer)));
        writer.bytes(USERDATA, &object::comment(comment));
    });
}

fn rules(prefix: &str) -> Vec<(&'static str, Vec<Expression<'static>>)> {
    const FIRST: Register = Register(0);
    let address = |offset, length| Some(Expression::Payload { to: Register(6), base: Base::Network, offset, length });
    let protocol = |with: [u8; 2]| [Expression::Meta { to: FIRST, key: MetaKey::Protocol }, compare(&with)];
    let unknown = |kind: Vec<Expression<'static>>, set, address: Option<Expression<'static>>| {
        let mut rule = vec![Expression::Meta { to: FIRST, key: MetaKey::InputName }, compare(prefix.as_bytes())];
        rule.extend(kind);
        rule.push(Expression::Meta { to: FIRST, key: MetaKey::InputName });
        rule.push(Expression::Payload { to: Register(4), base: Base::Link, offset: 6, length: 6 });
        rule.extend(address);
        rule.push(Expression::InSet { key: FIRST, set, negated: true });
        rule.extend(dropped());
        rule
    };
    // To 127.0.0.0/8: the first byte of the destination.
    let mut to_loopback = protocol(IPV4).to_vec();
    to_loopback.push(Expression::Payload { to: FIRST, base: Base::Network, offset: 16, length: 1 });
    to_loopback.push(compare(&[127]));
    to_loopback.extend(dropped());
    // The kernel took one tag off. Receivers take the next one off too, so what is behind it would pass all that is asked below.
    let tagged = TAGS.map(|tag| {
        let mut rule = vec![Expression::Meta { to: FIRST, key: MetaKey::InputName }, compare(prefix.as_bytes())];
        rule.extend(protocol(tag));
        rule.extend(dropped());
        ("a container sends with two tags of VLANs", rule)
    });
    let untagged = vec![
        (
            "a container sends IPv4 with addresses that are not its own",
            unknown(protocol(IPV4).into(), "senders4", address(12, 4)),
        ),
        // The sender's address stands behind 8 bytes of head and its Ethernet address (RFC 826).
        (
            "a container says by ARP that it has an address that is not its own",
            unknown(protocol(ARP).into(), "senders4", address(14, 4)),
        ),
        (
            "a container sends IPv6 with addresses that are not its own",
            unknown(protocol(IPV6).into(), "senders6", address(8, 16)),
        ),
        // Neighbours believe the target inside, whoever the sender is (RFC 4861, section 4.4). The transport's header is found behind
        // whatever options come before it.
        (
            "a container says by ND that it has an address that is not its own",
            unknown(
                advertisement(),
                "senders6",
                Some(Expression::Payload { to: Register(6), base: Base::Transport, offset: 8, length: 16 }),
            ),
        ),
        ("a container sends with an Ethernet address that is not its own", unknown(Vec::new(), "senders", None)),
        ("somebody on a bridge sends to the node's loopback", to_loopback),
    ];
    tagged.into_iter().chain(untagged).collect()
}

/// Nobody is told of what is dropped, so it is counted: `nft list table bridge …` shows it.
const fn dropped() -> [Expression<'static>; 2] {
    [Expression::Counter, Expression::Verdict { code: DROP, chain: None }]
}

/// A neighbour advertisement.
fn advertisement() -> Vec<Expression<'static>> {
    /// `IPPROTO_ICMPV6`, and the type of the message.
    const ICMPV6: u8 = 58;
    const ADVERTISEMENT: u8 = 136;
    let to = Register(0);
    vec![
        Expression::Meta { to, key: MetaKey::Protocol },
        compare(&IPV6),
        Expression::Meta { to, key: MetaKey::L4Protocol },
        compare(&[ICMPV6]),
        Expression::Payload { to, base: Base::Transport, offset: 0, length: 1 },
        compare(&[ADVERTISEMENT]),
    ]
}

fn compare(with: &[u8]) -> Expression<'static> {
    Expression::Compare { register: Register(0), how: Comparison::Equal, with: with.to_vec() }
}
