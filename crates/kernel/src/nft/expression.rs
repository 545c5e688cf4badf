//! The expressions that rules are made of, and their registers.

use podnet_model::Family;

use super::{element::verdict, transaction::protocol_family};
use crate::netlink::attribute::Writer;

/// A 32-bit register (`NFT_REG32_00` and following); concatenations lie in consecutive ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Register(pub(super) u32);

impl Register {
    fn number(self) -> u32 {
        const NFT_REG32_00: u32 = 8;
        NFT_REG32_00 + self.0
    }
}

/// `NFT_REG_VERDICT`.
const VERDICT: u32 = 0;

/// `enum nft_payload_bases`.
#[derive(Clone, Copy, Debug)]
pub(super) enum Base {
    Link = 0,
    Network = 1,
    Transport = 2,
}

/// `enum nft_meta_keys`.
#[derive(Clone, Copy, Debug)]
pub(super) enum MetaKey {
    Protocol = 1,
    Priority = 2,
    Mark = 3,
    InputName = 6,
    OutputName = 7,
    NfProtocol = 15,
    L4Protocol = 16,
}

/// `enum nft_ct_keys`.
#[derive(Clone, Copy, Debug)]
pub(super) enum CtKey {
    State = 0,
    Status = 2,
    OriginalDestinationPort = 12,
    OriginalDestinationV4 = 20,
    OriginalDestinationV6 = 22,
}

impl CtKey {
    /// Whom the connection was opened to, before translation.
    pub(super) const fn original_destination(family: Family) -> Self {
        match family {
            Family::V4 => Self::OriginalDestinationV4,
            Family::V6 => Self::OriginalDestinationV6,
        }
    }

    /// It is of one of the connection's directions: here always of the one that it was opened in.
    const fn is_of_direction(self) -> bool {
        !matches!(self, Self::State | Self::Status)
    }
}

/// `enum nft_cmp_ops`.
#[derive(Clone, Copy, Debug)]
pub(super) enum Comparison {
    Equal = 0,
    NotEqual = 1,
}

/// How a packet is refused (`enum nft_reject_types`).
#[derive(Clone, Copy, Debug)]
pub(super) enum Rejection {
    /// ICMP or ICMPv6 port unreachable.
    PortUnreachable(Family),
    /// A TCP reset.
    TcpReset,
}

/// An expression. Numbers of one to four bytes are compared as they lie in the register.
#[derive(Clone, Debug)]
pub(super) enum Expression<'a> {
    Payload {
        to: Register,
        base: Base,
        offset: u32,
        length: u32,
    },
    Meta {
        to: Register,
        key: MetaKey,
    },
    SetMark {
        from: Register,
    },
    SetPriority {
        from: Register,
    },
    Ct {
        to: Register,
        key: CtKey,
    },
    /// Whether the packet's socket takes others' packets, too; a rule ends where there is no socket.
    SocketTransparent {
        to: Register,
    },
    NoTrack,
    /// The kind of the destination address, as routing sees it.
    FibDestinationType {
        to: Register,
    },
    Constant {
        to: Register,
        /// At most 16.
        bytes: Vec<u8>,
    },
    /// A number below `modulus`, a new one for each packet that comes here.
    Random {
        to: Register,
        modulus: u32,
    },
    /// `to = (from & mask) ^ flip`.
    Bitwise {
        register: Register,
        mask: u32,
        flip: u32,
    },
    /// The same for as many bytes as the mask has, at most 16.
    Mask {
        register: Register,
        mask: Vec<u8>,
    },
    Compare {
        register: Register,
        how: Comparison,
        with: Vec<u8>,
    },
    /// Whether the key is in the set, or, negated, is not.
    InSet {
        key: Register,
        set: &'a str,
        negated: bool,
    },
    /// The map's verdict for the key.
    VerdictOf {
        key: Register,
        map: &'a str,
    },
    /// The map's value for the key.
    ValueOf {
        key: Register,
        map: &'a str,
        to: Register,
    },
    Verdict {
        code: i32,
        chain: Option<&'a str>,
    },
    /// Makes, or renews, the memory's element of the key; a rule ends where it is full. What the element holds stays where there is one.
    Remember {
        memory: &'a str,
        key: Register,
        value: Register,
        seconds: u32,
    },
    /// Removes the memory's element of the key; the kernel wants a value named that it does not look at.
    Forget {
        memory: &'a str,
        key: Register,
        value: Register,
    },
    /// Makes, or renews, the set's element of the key; a rule ends where it is full.
    Note {
        set: &'a str,
        key: Register,
        seconds: u32,
    },
    DestinationNat {
        family: Family,
        addr: Register,
        port: Option<Register>,
    },
    Masquerade,
    /// Counts the packets that come here.
    Counter,
    /// Counts the connections that are open of those whose packets came here, and goes on where there are more.
    ConnectionsOver(u32),
    Reject(Rejection),
}

impl Expression<'_> {
    /// Writes the expression as an element of a list: its name, then its attributes.
    pub(super) fn write(&self, writer: &mut Writer) {
        const LIST_ELEMENT: u16 = 1;
        const NAME: u16 = 1;
        const DATA: u16 = 2;
        writer.nested(LIST_ELEMENT, |writer| {
            writer.text(NAME, self.name());
            writer.nested(DATA, |writer| self.write_attributes(writer));
        });
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Payload { .. } => "payload",
            Self::Meta { .. } | Self::SetMark { .. } | Self::SetPriority { .. } => "meta",
            Self::Ct { .. } => "ct",
            Self::SocketTransparent { .. } => "socket",
            Self::NoTrack => "notrack",
            Self::FibDestinationType { .. } => "fib",
            Self::Random { .. } => "numgen",
            Self::Bitwise { .. } | Self::Mask { .. } => "bitwise",
            Self::Compare { .. } => "cmp",
            Self::InSet { .. } | Self::VerdictOf { .. } | Self::ValueOf { .. } => "lookup",
            Self::Verdict { .. } | Self::Constant { .. } => "immediate",
            Self::Remember { .. } | Self::Forget { .. } | Self::Note { .. } => "dynset",
            Self::DestinationNat { .. } => "nat",
            Self::Masquerade => "masq",
            Self::Counter => "counter",
            Self::ConnectionsOver(_) => "connlimit",
            Self::Reject(_) => "reject",
        }
    }

    /// The attribute numbers are those of each expression's own enumeration in `linux/netfilter/nf_tables.h`.
    fn write_attributes(&self, writer: &mut Writer) {
        match self {
            Self::Payload { to, base, offset, length } => {
                numbers(writer, &[(1, to.number()), (2, *base as u32), (3, *offset), (4, *length)]);
            }
            Self::Meta { to, key } => numbers(writer, &[(1, to.number()), (2, *key as u32)]),
            Self::SetMark { from } => numbers(writer, &[(2, MetaKey::Mark as u32), (3, from.number())]),
            Self::SetPriority { from } => numbers(writer, &[(2, MetaKey::Priority as u32), (3, from.number())]),
            Self::Ct { to, key } => {
                const IP_CT_DIR_ORIGINAL: u8 = 0;
                numbers(writer, &[(1, to.number()), (2, *key as u32)]);
                if key.is_of_direction() {
                    writer.bytes(3, &[IP_CT_DIR_ORIGINAL]);
                }
            }
            Self::SocketTransparent { to } => {
                const NFT_SOCKET_TRANSPARENT: u32 = 0;
                numbers(writer, &[(1, NFT_SOCKET_TRANSPARENT), (2, to.number())]);
            }
            Self::FibDestinationType { to } => {
                const RESULT_ADDRTYPE: u32 = 3;
                const FLAG_DADDR: u32 = 2;
                numbers(writer, &[(1, to.number()), (2, RESULT_ADDRTYPE), (3, FLAG_DADDR)]);
            }
            Self::Constant { to, bytes } => {
                writer.be32(1, to.number());
                data(writer, 2, bytes);
            }
            Self::Random { to, modulus } => {
                const NFT_NG_RANDOM: u32 = 1;
                numbers(writer, &[(1, to.number()), (2, *modulus), (3, NFT_NG_RANDOM)]);
            }
            Self::Bitwise { register, mask, flip } => {
                numbers(writer, &[(1, register.number()), (2, register.number()), (3, 4)]);
                data(writer, 4, &mask.to_ne_bytes());
                data(writer, 5, &flip.to_ne_bytes());
            }
            Self::Mask { register, mask } => {
                let length = u32::try_from(mask.len()).unwrap_or_default();
                numbers(writer, &[(1, register.number()), (2, register.number()), (3, length)]);
                data(writer, 4, mask);
                data(writer, 5, &vec![0; mask.len()]);
            }
            Self::Compare { register, how, with } => {
                numbers(writer, &[(1, register.number()), (2, *how as u32)]);
                data(writer, 3, with);
            }
            Self::InSet { key, set, negated } => {
                const NFT_LOOKUP_F_INV: u32 = 1;
                lookup(writer, set, *key);
                numbers(writer, if *negated { &[(5, NFT_LOOKUP_F_INV)] } else { &[] });
            }
            Self::VerdictOf { key, map } => {
                lookup(writer, map, *key);
                writer.be32(3, VERDICT);
            }
            Self::ValueOf { key, map, to } => {
                lookup(writer, map, *key);
                writer.be32(3, to.number());
            }
            _ => self.write_statement(writer),
        }
    }

    fn write_statement(&self, writer: &mut Writer) {
        const NFT_DYNSET_OP_UPDATE: u32 = 1;
        match self {
            Self::Verdict { code, chain } => {
                writer.be32(1, VERDICT);
                writer.nested(2, |writer| verdict(writer, *code, *chain));
            }
            Self::DestinationNat { family, addr, port } => {
                const NFT_NAT_DNAT: u32 = 1;
                numbers(writer, &[(1, NFT_NAT_DNAT), (2, protocol_family(*family).into()), (3, addr.number())]);
                port.iter().for_each(|port| writer.be32(5, port.number()));
            }
            // enum nft_dynset_attributes
            Self::Remember { memory, key, value, seconds } => {
                writer.text(1, memory);
                numbers(writer, &[(3, NFT_DYNSET_OP_UPDATE), (4, key.number()), (5, value.number())]);
                writer.bytes(6, &(u64::from(*seconds) * 1000).to_be_bytes());
            }
            Self::Note { set, key, seconds } => {
                writer.text(1, set);
                numbers(writer, &[(3, NFT_DYNSET_OP_UPDATE), (4, key.number())]);
                writer.bytes(6, &(u64::from(*seconds) * 1000).to_be_bytes());
            }
            Self::Forget { memory, key, value } => {
                const NFT_DYNSET_OP_DELETE: u32 = 2;
                writer.text(1, memory);
                numbers(writer, &[(3, NFT_DYNSET_OP_DELETE), (4, key.number()), (5, value.number())]);
            }
            Self::ConnectionsOver(most) => {
                const NFT_CONNLIMIT_F_INV: u32 = 1;
                numbers(writer, &[(1, *most), (2, NFT_CONNLIMIT_F_INV)]);
            }
            Self::Masquerade => {
                const NF_NAT_RANGE_PROTO_RANDOM_FULLY: u32 = 1 << 4;
                writer.be32(1, NF_NAT_RANGE_PROTO_RANDOM_FULLY);
            }
            Self::Reject(Rejection::PortUnreachable(family)) => {
                const ICMP_PORT_UNREACH: u8 = 3;
                const ICMPV6_PORT_UNREACH: u8 = 4;
                let code = match family {
                    Family::V4 => ICMP_PORT_UNREACH,
                    Family::V6 => ICMPV6_PORT_UNREACH,
                };
                writer.be32(1, 0);
                writer.bytes(2, &[code]);
            }
            Self::Reject(Rejection::TcpReset) => writer.be32(1, 1),
            _ => {}
        }
    }
}

fn numbers(writer: &mut Writer, attributes: &[(u16, u32)]) {
    for (kind, value) in attributes {
        writer.be32(*kind, *value);
    }
}

fn data(writer: &mut Writer, kind: u16, bytes: &[u8]) {
    const DATA_VALUE: u16 = 1;
    writer.nested(kind, |writer| writer.bytes(DATA_VALUE, bytes));
}

fn lookup(writer: &mut Writer, set: &str, key: Register) {
    writer.text(1, set);
    writer.be32(2, key.number());
}
