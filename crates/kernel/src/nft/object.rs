//! Chains, sets and maps, and a whole rule set in the order that the kernel needs.

mod form;

use netlink_packet_core::{NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL};
use podnet_model::{Family, limits::PacketRate};
use podnet_planner::ruleset::{Chain, ChainKind, Hook, HookPoint, RuleSet, Set};

use super::{
    element::{self, Stateful, backend_element, set_elements, verdict_element},
    rule,
    transaction::{Message, Transaction},
};
use crate::netlink::attribute::Writer;
pub(super) use form::{Form, HookForm};

/// Everything: chains first, as elements refer to them; then sets and maps, as rules refer to them; then rules.
pub(super) fn render(transaction: &mut Transaction<'_>, rules: &RuleSet) {
    for (name, chain) in &rules.chains {
        make_chain(transaction, name, chain.hook);
    }
    for (name, map) in &rules.verdict_maps {
        make_set(transaction, rules.family, name, Kind::VerdictMap);
        let elements: Vec<_> = map.elements.iter().map(|(key, chain)| verdict_element(*key, chain)).collect();
        element::add(transaction, name, &elements, &format!("add elements to map {name}"));
    }
    for (name, map) in &rules.backend_maps {
        make_set(transaction, rules.family, name, Kind::BackendMap);
        let elements: Vec<_> = map.elements.iter().map(|(key, to)| backend_element(*key, *to)).collect();
        element::add(transaction, name, &elements, &format!("add elements to map {name}"));
    }
    for name in &rules.memories {
        make_set(transaction, rules.family, name, Kind::Memory);
    }
    for (name, set) in &rules.sets {
        fill_new_set(transaction, rules.family, name, set);
    }
    for (name, chain) in &rules.chains {
        add_rules(transaction, rules.family, name, chain);
    }
}

pub(super) fn fill_new_set(transaction: &mut Transaction<'_>, family: Family, name: &str, set: &Set) {
    make_set(transaction, family, name, Kind::of(set));
    element::add(transaction, name, &set_elements(set), &format!("add elements to set {name}"));
}

/// The policy of base chains.
const NF_ACCEPT: u32 = 1;
/// Elements are evaluated (`NFT_SET_EVAL`): the kernel takes a hash table that collects what has ended.
const EVALUATED: u32 = 0x20;
/// Elements end by themselves (`NFT_SET_TIMEOUT`).
const TIMEOUT: u32 = 0x10;

/// What a set is, and what it maps to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    VerdictMap,
    BackendMap,
    Memory,
    Numbers,
    Sources,
    Addresses,
    Ranges,
    Pairs,
    Ports,
    Senders,
    PacketRates,
    Counters,
    Flows,
}

impl Kind {
    pub(super) fn of(set: &Set) -> Self {
        match set {
            Set::Addresses(_) => Self::Addresses,
            Set::Ranges(_) => Self::Ranges,
            Set::Pairs(_) => Self::Pairs,
            Set::Ports(_) => Self::Ports,
            Set::Numbers(_) => Self::Numbers,
            Set::Sources(_) => Self::Sources,
            Set::Senders(_) => Self::Senders,
            Set::PacketRates(_) => Self::PacketRates,
            Set::Counters(_) => Self::Counters,
            Set::Flows => Self::Flows,
        }
    }

    /// The fields of the key. The kernel does not care; `nft list` prints elements by it.
    fn key(self, family: Family) -> Vec<u32> {
        let addr = addr_type(family);
        match self {
            Self::VerdictMap => vec![addr, INET_PROTO, INET_SERVICE],
            Self::BackendMap => vec![addr, INET_PROTO, INET_SERVICE, MARK],
            Self::Addresses | Self::Ranges | Self::PacketRates | Self::Counters => vec![addr],
            Self::Memory => vec![addr, MARK],
            Self::Numbers => vec![addr, INET_PROTO, INET_SERVICE, MARK],
            Self::Sources => vec![addr, INET_PROTO, INET_SERVICE, addr],
            Self::Pairs => vec![addr, addr],
            Self::Ports => vec![INET_SERVICE],
            Self::Senders => vec![INTERFACE_NAME, ETHER_ADDR, addr],
            Self::Flows => vec![addr, INET_PROTO, INET_SERVICE, addr, INET_SERVICE],
        }
    }

    /// Its flags (`enum nft_set_flags`), and the number and size of what it maps to.
    fn flags_and_data(self, family: Family) -> (u32, Option<(u32, u32)>) {
        const INTERVAL: u32 = 4;
        const MAP: u32 = 8;
        /// Ranges of concatenations.
        const CONCATENATED: u32 = 0x80;
        let backend = || Some(typed(&[addr_type(family), INET_SERVICE]));
        let number = Some((MARK, 4));
        match self {
            Self::VerdictMap => (MAP, Some((VERDICT, 4))),
            Self::BackendMap => (MAP, backend()),
            Self::Numbers => (MAP, number),
            Self::Memory => (MAP | TIMEOUT | EVALUATED, number),
            Self::Ranges => (INTERVAL, None),
            Self::Sources => (INTERVAL | CONCATENATED, None),
            Self::Addresses | Self::Pairs | Self::Ports | Self::Senders => (0, None),
            Self::PacketRates | Self::Counters => (EVALUATED, None),
            Self::Flows => (TIMEOUT | EVALUATED, None),
        }
    }

    /// Its elements have a state of their own.
    pub(super) fn is_stateful(self) -> bool {
        self.state().is_some()
    }

    pub(super) fn has_ranges(self) -> bool {
        matches!(self, Self::Ranges | Self::Sources)
    }

    /// How many elements it may hold, where that has to be said.
    fn size(self) -> Option<u32> {
        /// The kernel makes room for as many at once: 4 MiB.
        const CLIENTS: u32 = 1 << 18;
        /// Those of some seconds. What finds no room is told by interface alone: 64 KiB, and 1 MiB where all is taken.
        const FLOWS: u32 = 1 << 13;
        match self {
            Self::Memory => Some(CLIENTS),
            Self::Flows => Some(FLOWS),
            _ => None,
        }
    }

    /// How many bytes of each field of a key count, where that has to be said: of ranges of concatenations.
    fn fields(self, family: Family) -> Vec<u32> {
        if self == Self::Sources { self.key(family).into_iter().map(bytes).collect() } else { Vec::new() }
    }

    /// What an element does that names nothing of its own. There is none: the kernel takes limits and counters of elements only in a set that
    /// has one.
    fn state(self) -> Option<Stateful> {
        match self {
            Self::PacketRates => Some(Stateful::Packets(PacketRate { rate: 1, burst: 1 })),
            Self::Counters => Some(Stateful::Counter),
            _ => None,
        }
    }
}

// The types that `nft` knows (nftables, `include/datatype.h`); a concatenation's number has six bits for each.
const IPV4_ADDR: u32 = 7;
const IPV6_ADDR: u32 = 8;
const ETHER_ADDR: u32 = 9;
const INET_PROTO: u32 = 12;
const INET_SERVICE: u32 = 13;
const MARK: u32 = 19;
const INTERFACE_NAME: u32 = 41;
const VERDICT: u32 = 0xffff_ff00;

fn addr_type(family: Family) -> u32 {
    match family {
        Family::V4 => IPV4_ADDR,
        Family::V6 => IPV6_ADDR,
    }
}

fn concatenated(types: &[u32]) -> u32 {
    types.iter().fold(0, |all, one| all << 6 | one)
}

/// In a concatenation each part begins at a word; a type alone has just its own size, which `nft` insists on.
fn length(types: &[u32]) -> u32 {
    if *types == [INET_SERVICE] {
        return 2;
    }
    let bytes = |kind: &u32| match *kind {
        INTERFACE_NAME | IPV6_ADDR => 16,
        ETHER_ADDR => 8,
        _ => 4,
    };
    types.iter().map(bytes).sum()
}

/// The number of a concatenation, and how many bytes it takes.
fn typed(types: &[u32]) -> (u32, u32) {
    (concatenated(types), length(types))
}

pub(super) fn make_set(transaction: &mut Transaction<'_>, family: Family, name: &str, kind: Kind) {
    // enum nft_set_attributes
    const NAME: u16 = 2;
    const FLAGS: u16 = 3;
    const KEY_TYPE: u16 = 4;
    const KEY_LEN: u16 = 5;
    const DATA_TYPE: u16 = 6;
    const DATA_LEN: u16 = 7;
    const ID: u16 = 10;
    const EXPRESSION: u16 = 17;
    let (flags, data) = kind.flags_and_data(family);
    let (key_type, key_length) = typed(&kind.key(family));
    let id = transaction.next_set_id();
    transaction.message(Message::NewSet, NLM_F_CREATE | NLM_F_EXCL, format!("make set {name}"), |writer| {
        writer.text(NAME, name);
        writer.be32(FLAGS, flags);
        writer.be32(KEY_TYPE, key_type);
        writer.be32(KEY_LEN, key_length);
        if let Some((data_type, length)) = data {
            writer.be32(DATA_TYPE, data_type);
            writer.be32(DATA_LEN, length);
        }
        writer.be32(ID, id);
        describe(writer, kind, family);
        if let Some(state) = kind.state() {
            writer.nested(EXPRESSION, |writer| state.write(writer));
        }
    });
}

/// What the kernel has to know of a set beyond its key's length (`enum nft_set_attributes`, `nft_set_desc_attributes`,
/// `nft_set_field_attributes`).
mod description {
    pub(super) const ATTRIBUTE: u16 = 9;
    pub(super) const SIZE: u16 = 1;
    pub(super) const FIELDS: u16 = 2;
    pub(super) const FIELD: u16 = 1;
    pub(super) const FIELD_LENGTH: u16 = 1;
}

fn describe(writer: &mut Writer, kind: Kind, family: Family) {
    let (size, fields) = (kind.size(), kind.fields(family));
    if size.is_none() && fields.is_empty() {
        return;
    }
    writer.nested(description::ATTRIBUTE, |writer| {
        if let Some(size) = size {
            writer.be32(description::SIZE, size);
        }
        if !fields.is_empty() {
            writer.nested(description::FIELDS, |writer| {
                for length in fields {
                    writer.nested(description::FIELD, |writer| writer.be32(description::FIELD_LENGTH, length));
                }
            });
        }
    });
}

/// How many bytes of a type count.
const fn bytes(kind: u32) -> u32 {
    match kind {
        INET_PROTO => 1,
        INET_SERVICE => 2,
        IPV6_ADDR => 16,
        _ => 4,
    }
}

pub(super) fn remove_set(transaction: &mut Transaction<'_>, name: &str) {
    const NAME: u16 = 2;
    transaction.message(Message::DelSet, 0, format!("remove set {name}"), |writer| writer.text(NAME, name));
}

/// Makes a chain without rules; one that is there stays.
pub(super) fn make_chain(transaction: &mut Transaction<'_>, name: &str, hook: Option<Hook>) {
    // enum nft_chain_attributes, nft_hook_attributes
    const NAME: u16 = 3;
    const HOOK: u16 = 4;
    const POLICY: u16 = 5;
    const TYPE: u16 = 7;
    const HOOK_NUMBER: u16 = 1;
    const HOOK_PRIORITY: u16 = 2;
    transaction.message(Message::NewChain, NLM_F_CREATE, format!("make chain {name}"), |writer| {
        writer.text(NAME, name);
        if let Some(hook) = hook {
            writer.nested(HOOK, |writer| {
                writer.be32(HOOK_NUMBER, hook_number(hook.point));
                writer.bytes(HOOK_PRIORITY, &hook.priority.to_be_bytes());
            });
            writer.be32(POLICY, NF_ACCEPT);
            writer.text(TYPE, chain_type(hook.kind));
        }
    });
}

/// `enum nf_inet_hooks`.
fn hook_number(point: HookPoint) -> u32 {
    match point {
        HookPoint::Prerouting => 0,
        HookPoint::Input => 1,
        HookPoint::Forward => 2,
        HookPoint::Output => 3,
        HookPoint::Postrouting => 4,
    }
}

fn chain_type(kind: ChainKind) -> &'static str {
    match kind {
        ChainKind::Nat => "nat",
        ChainKind::Filter => "filter",
    }
}

pub(super) fn remove_chain(transaction: &mut Transaction<'_>, name: &str) {
    const NAME: u16 = 3;
    transaction.message(Message::DelChain, 0, format!("remove chain {name}"), |writer| writer.text(NAME, name));
}

pub(super) fn remove_rules(transaction: &mut Transaction<'_>, chain: &str) {
    const CHAIN: u16 = 2;
    transaction
        .message(Message::DelRule, 0, format!("remove the rules of chain {chain}"), |writer| writer.text(CHAIN, chain));
}

pub(super) fn add_rules(transaction: &mut Transaction<'_>, family: Family, name: &str, chain: &Chain) {
    // enum nft_rule_attributes
    const CHAIN: u16 = 2;
    const EXPRESSIONS: u16 = 4;
    const USERDATA: u16 = 7;
    for (index, rule) in chain.rules.iter().enumerate() {
        for expressions in rule::expressions(family, rule) {
            let what = format!("add rule {index} ({}) to chain {name}", rule.comment);
            transaction.message(Message::NewRule, NLM_F_CREATE | NLM_F_APPEND, what, |writer| {
                writer.text(CHAIN, name);
                writer.nested(EXPRESSIONS, |writer| expressions.iter().for_each(|expression| expression.write(writer)));
                if !rule.comment.is_empty() {
                    writer.bytes(USERDATA, &comment(rule.comment));
                }
            });
        }
    }
}

/// How `nft` keeps a comment: type 0 (`NFTNL_UDATA_RULE_COMMENT`), length, and text with its terminator, of which it takes 128 bytes.
pub(super) fn comment(text: &str) -> Vec<u8> {
    const LONGEST: usize = 127;
    let mut end = text.len().min(LONGEST);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let length = u8::try_from(end + 1).unwrap_or(u8::MAX);
    [&[0, length], &text.as_bytes()[..end], &[0]].concat()
}
