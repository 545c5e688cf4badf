//! Pods' packets through other people's chains.
//!
//! A verdict of nf_tables is final only where it drops: what podnet's own chains accept, a `FORWARD` chain with policy drop (Docker's, an
//! administrator's `iptables -P FORWARD DROP`) drops all the same. So rules of podnet's own stand at the head of such chains, one pair
//! for each range of pods and each device that leads to where Services are served, known by their comments. Nothing else in those chains is
//! touched.

use std::{fmt, net::IpAddr};

use ipnet::IpNet;
use netlink_packet_core::NLM_F_CREATE;
use podnet_model::Family;
use serde::{Deserialize, Serialize};

use super::{
    NftError, NftSocket,
    element::ACCEPT,
    expression::{Base, Comparison, Expression, MetaKey, Register},
    listing, object,
    transaction::{FAMILY_INET, FAMILY_IP, Message, Transaction},
};
use crate::netlink::{
    Operation,
    attribute::{Writer, attribute, text},
};

/// How the comments of these rules begin.
const MARK: &str = "podnet: ";
/// `NFPROTO_IPV6`.
const FAMILY_IP6: u8 = 10;
const FIRST: Register = Register(0);

/// A base chain of somebody else at the hook `forward`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ForwardChain {
    family: u8,
    table: String,
    name: String,
    /// Whether it drops what none of its rules accepts.
    pub drops: bool,
    /// podnet's rules in it: handle and comment.
    passages: Vec<(u64, String)>,
}

impl fmt::Display for ForwardChain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let family = match self.family {
            FAMILY_INET => "inet",
            FAMILY_IP6 => "ip6",
            _ => "ip",
        };
        write!(f, "{family} {} {}", self.table, self.name)
    }
}

impl ForwardChain {
    /// Whether podnet's rules in it are those that these need: a pair for each where the chain drops, and none otherwise.
    #[must_use]
    pub fn lets_pass(&self, all: &[Passing]) -> bool {
        let wanted = self.wanted(all);
        self.passages.len() == wanted.len()
            && wanted.iter().all(|(comment, ..)| self.passages.iter().any(|(_, found)| found == comment))
    }

    /// The rules that are needed: comment, which way, and for what.
    fn wanted<'a>(&self, all: &'a [Passing]) -> Vec<(String, Way, &'a Passing)> {
        let sees = |what: &&Passing| self.drops && (self.family == FAMILY_INET || self.family == family_of(what));
        let pair = |what: &'a Passing| {
            [(format!("{MARK}from {what}"), Way::From, what), (format!("{MARK}to {what}"), Way::To, what)]
        };
        all.iter().filter(sees).flat_map(pair).collect()
    }
}

/// What is to be let pass in both directions.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Passing {
    /// What comes from, and goes to, addresses of a range.
    Range(IpNet),
    /// What of a family comes in, and goes out, by a device.
    Device(Family, &'static str),
}

impl fmt::Display for Passing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Range(range) => range.fmt(f),
            Self::Device(_, name) => f.write_str(name),
        }
    }
}

/// In which direction.
#[derive(Clone, Copy, Debug)]
enum Way {
    From,
    To,
}

const fn family_of(what: &Passing) -> u8 {
    match what {
        Passing::Range(IpNet::V4(_)) | Passing::Device(Family::V4, _) => FAMILY_IP,
        Passing::Range(IpNet::V6(_)) | Passing::Device(Family::V6, _) => FAMILY_IP6,
    }
}

impl NftSocket {
    /// The base chains at the hook `forward` of families `ip`, `ip6` and `inet`, less those of the tables `own`; none on a kernel without
    /// nf_tables.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn forward_chains(&mut self, own: &[&str]) -> Result<Vec<ForwardChain>, NftError> {
        let mut chains = Vec::new();
        if !self.is_there()? {
            return Ok(chains);
        }
        for family in [FAMILY_IP, FAMILY_IP6, FAMILY_INET] {
            let operation = Operation::new("list", "chains");
            let found = listing::dump(self.wire.get()?, family, Message::GetChain, &operation, |_| {})?;
            chains.extend(found.iter().filter_map(|message| forward_chain(family, message)));
        }
        chains.retain(|chain| chain.family == FAMILY_INET || !own.contains(&chain.table.as_str()));
        for chain in &mut chains {
            let operation = Operation::new("list the rules of chain", &chain);
            let name = |writer: &mut Writer| {
                writer.text(1, &chain.table);
                writer.text(2, &chain.name);
            };
            let rules = listing::dump(self.wire.get()?, chain.family, Message::GetRule, &operation, name)?;
            chain.passages = rules.iter().filter_map(|message| passage(message)).collect();
        }
        Ok(chains)
    }

    /// Makes podnet's rules in the chain those that these need (see [`ForwardChain::lets_pass`]).
    ///
    /// # Errors
    /// What the kernel refused; the chain is then as it was.
    pub fn let_pass(&mut self, chain: &ForwardChain, all: &[Passing]) -> Result<(), NftError> {
        const CHAIN: u16 = 2;
        const HANDLE: u16 = 3;
        const EXPRESSIONS: u16 = 4;
        const USERDATA: u16 = 7;
        let mut transaction = Transaction::in_family(chain.family, &chain.table);
        for (handle, comment) in &chain.passages {
            transaction.message(Message::DelRule, 0, format!("remove rule {comment:?} from chain {chain}"), |writer| {
                writer.text(CHAIN, &chain.name);
                writer.bytes(HANDLE, &handle.to_be_bytes());
            });
        }
        for (comment, way, what) in chain.wanted(all) {
            // Without NLM_F_APPEND it becomes the first rule.
            transaction.message(Message::NewRule, NLM_F_CREATE, format!("add rule to chain {chain}"), |writer| {
                writer.text(CHAIN, &chain.name);
                writer.nested(EXPRESSIONS, |writer| {
                    expressions(chain.family, way, what).iter().for_each(|expression| expression.write(writer));
                });
                writer.bytes(USERDATA, &object::comment(&comment));
            });
        }
        transaction.commit(self.wire.get()?)
    }
}

/// In a form that `iptables` understands too, which refuses to work on a table with rules that it cannot read.
fn expressions<'a>(family: u8, way: Way, what: &Passing) -> Vec<Expression<'a>> {
    let mut expressions = Vec::new();
    if family == FAMILY_INET {
        let nfproto = family_of(what);
        expressions.extend([Expression::Meta { to: FIRST, key: MetaKey::NfProtocol }, equal(&[nfproto])]);
    }
    match what {
        Passing::Range(range) => expressions.extend(within(way, *range)),
        Passing::Device(_, name) => {
            let key = if matches!(way, Way::From) { MetaKey::InputName } else { MetaKey::OutputName };
            let name: Vec<u8> = name.bytes().chain([0]).collect();
            expressions.extend([Expression::Meta { to: FIRST, key }, equal(&name)]);
        }
    }
    expressions.push(Expression::Verdict { code: ACCEPT, chain: None });
    expressions
}

fn within<'a>(way: Way, range: IpNet) -> [Expression<'a>; 3] {
    let offset = match (range, way) {
        (IpNet::V4(_), Way::From) => 12,
        (IpNet::V4(_), Way::To) => 16,
        (IpNet::V6(_), Way::From) => 8,
        (IpNet::V6(_), Way::To) => 24,
    };
    let (network, mask) = (octets(range.network()), octets(range.netmask()));
    let length = u32::try_from(network.len()).unwrap_or_default();
    [
        Expression::Payload { to: FIRST, base: Base::Network, offset, length },
        Expression::Mask { register: FIRST, mask },
        equal(&network),
    ]
}

fn equal<'a>(with: &[u8]) -> Expression<'a> {
    Expression::Compare { register: FIRST, how: Comparison::Equal, with: with.to_vec() }
}

fn octets(addr: IpAddr) -> Vec<u8> {
    match addr {
        IpAddr::V4(addr) => addr.octets().to_vec(),
        IpAddr::V6(addr) => addr.octets().to_vec(),
    }
}

fn forward_chain(family: u8, message: &[u8]) -> Option<ForwardChain> {
    // enum nft_chain_attributes, nft_hook_attributes
    const TABLE: u16 = 1;
    const NAME: u16 = 3;
    const HOOK: u16 = 4;
    const POLICY: u16 = 5;
    const TYPE: u16 = 7;
    const HOOK_NUMBER: u16 = 1;
    const FORWARD: u32 = 2;
    const NF_DROP: u32 = 0;
    let hook = attribute(attribute(message, HOOK)?, HOOK_NUMBER)?;
    if be32(hook)? != FORWARD || text(attribute(message, TYPE)?) != "filter" {
        return None;
    }
    Some(ForwardChain {
        family,
        table: text(attribute(message, TABLE)?),
        name: text(attribute(message, NAME)?),
        drops: attribute(message, POLICY).and_then(be32) == Some(NF_DROP),
        passages: Vec::new(),
    })
}

/// A rule's handle and comment, where it is one of podnet's.
fn passage(message: &[u8]) -> Option<(u64, String)> {
    const HANDLE: u16 = 3;
    const USERDATA: u16 = 7;
    let handle = u64::from_be_bytes(attribute(message, HANDLE)?.try_into().ok()?);
    // See `object::comment`: type, length, text.
    let comment = text(attribute(message, USERDATA)?.get(2..)?);
    comment.starts_with(MARK).then_some((handle, comment))
}

fn be32(bytes: &[u8]) -> Option<u32> {
    bytes.try_into().ok().map(u32::from_be_bytes)
}
