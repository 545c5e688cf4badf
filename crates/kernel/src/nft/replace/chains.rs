//! The rules of chains, as the kernel tells them and as they are written there.
//!
//! Of an expression that is compared which podnet writes: its name, and its attributes but for those that the kernel keeps in a way of its own
//! (numbers of sets, counts, times) or fills in itself. A rule of expressions that podnet does not use is another one by their names alone.

use std::{collections::BTreeMap, fmt::Write};

use podnet_model::Family;
use podnet_planner::ruleset::{Chain, Rule};
use serde::{Deserialize, Serialize};

use super::super::{
    NftError, listing, rule,
    transaction::{Message, protocol_family},
};
use crate::netlink::{
    Connection, Operation,
    attribute::{Writer, attribute, attributes, text},
};

/// Rules of a table that are told at most: podnet's own have some for each number of backends that a Service has.
const MOST: usize = 20_000;

/// A rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ListedRule {
    /// What it is called by; each of a table has another one.
    handle: u64,
    comment: Option<String>,
    /// In their order, with what of them is compared.
    expressions: Vec<String>,
}

/// The rules of a table by their chains, in their order; none where there are too many to be told.
pub(super) fn read(
    connection: &mut Connection,
    family: Family,
    table: &str,
) -> Result<Option<BTreeMap<String, Vec<ListedRule>>>, NftError> {
    // enum nft_rule_attributes
    const TABLE: u16 = 1;
    const CHAIN: u16 = 2;
    let operation = Operation::new("list the rules of", format_args!("table {table}"));
    let name = |writer: &mut Writer| writer.text(TABLE, table);
    let messages = match listing::dump(connection, protocol_family(family), Message::GetRule, &operation, name) {
        // It went since it was looked for.
        Err(error) if error.is_missing() => Vec::new(),
        messages => messages?,
    };
    if messages.len() > MOST {
        return Ok(None);
    }
    let mut chains: BTreeMap<String, Vec<ListedRule>> = BTreeMap::new();
    for message in messages {
        let is_of_table = attribute(&message, TABLE).is_some_and(|name| text(name) == table);
        if let (true, Some(chain), Some(rule)) = (is_of_table, attribute(&message, CHAIN), ListedRule::of(&message)) {
            chains.entry(text(chain)).or_default().push(rule);
        }
    }
    Ok(Some(chains))
}

/// What is not as it has to be in a chain that has these rules, in words.
pub(super) fn differences(family: Family, chain: &Chain, found: &[ListedRule]) -> Vec<String> {
    let all = between(written(family, chain), &found.iter().collect::<Vec<_>>());
    all.into_iter().map(|(_, what)| what).collect()
}

/// The same of a chain in which there may be rules with this comment that are not asked for; each with whether it is missing.
pub(super) fn differences_of_some(
    family: Family,
    chain: &Chain,
    found: &[ListedRule],
    comment: &str,
) -> Vec<(bool, String)> {
    let wanted = written(family, chain);
    let is_wanted = |rule: &ListedRule| wanted.iter().any(|(_, wanted)| *wanted == rule.expressions);
    let is_asked = |rule: &&ListedRule| rule.comment.as_deref() != Some(comment) || is_wanted(rule);
    let found: Vec<&ListedRule> = found.iter().filter(is_asked).collect();
    between(wanted, &found)
}

/// The rules of a chain as the kernel tells of them where they were just written.
pub(super) fn told(family: Family, chain: &Chain) -> Vec<ListedRule> {
    let rule = |(handle, (comment, expressions)): (u64, (&str, Vec<String>))| ListedRule {
        handle,
        comment: Some(comment.to_owned()),
        expressions,
    };
    (1..).zip(written(family, chain)).map(rule).collect()
}

/// What is compared of a chain's rules, with their comments.
fn written(family: Family, chain: &Chain) -> Vec<(&'static str, Vec<String>)> {
    let written = |rule: &Rule| -> Vec<(&'static str, Vec<String>)> {
        let each = rule::expressions(family, rule).into_iter().map(|expressions| {
            let mut writer = Writer::default();
            expressions.iter().for_each(|expression| expression.write(&mut writer));
            (rule.comment, compared(&writer.into_bytes()))
        });
        each.collect()
    };
    chain.rules.iter().flat_map(written).collect()
}

/// What of the rules that were found is not as it has to be, each with whether it is missing.
fn between(mut missing: Vec<(&'static str, Vec<String>)>, found: &[&ListedRule]) -> Vec<(bool, String)> {
    if missing.iter().map(|(_, wanted)| wanted).eq(found.iter().map(|rule| &rule.expressions)) {
        return Vec::new();
    }
    let mut told = Vec::new();
    for rule in found {
        match missing.iter().position(|(_, wanted)| *wanted == rule.expressions) {
            Some(at) => drop(missing.remove(at)),
            None => told.push((false, format!("has a rule that is none of podnet's: {}", rule.name()))),
        }
    }
    told.extend(missing.iter().map(|(comment, _)| (true, format!("lacks the rule {comment:?}"))));
    if told.is_empty() {
        told.push((false, "has its rules in another order".to_owned()));
    }
    told
}

impl ListedRule {
    /// Of a message of the kernel.
    fn of(message: &[u8]) -> Option<Self> {
        const HANDLE: u16 = 3;
        const EXPRESSIONS: u16 = 4;
        const USERDATA: u16 = 7;
        let handle = u64::from_be_bytes(attribute(message, HANDLE)?.try_into().ok()?);
        let expressions = compared(attribute(message, EXPRESSIONS).unwrap_or_default());
        Some(Self { handle, comment: attribute(message, USERDATA).and_then(comment), expressions })
    }

    /// By which people find it in what `nft -a list` prints.
    fn name(&self) -> String {
        let mut name = format!("handle {}", self.handle);
        match &self.comment {
            Some(comment) => name.push_str(&format!(", {comment:?}")),
            None => {
                let names = self.expressions.iter().filter_map(|expression| expression.split(' ').next());
                name.push_str(&format!(" ({})", names.collect::<Vec<_>>().join(", ")));
            }
        }
        name
    }
}

/// As `object::comment` writes it: type, length, text.
fn comment(userdata: &[u8]) -> Option<String> {
    let [0, length, rest @ ..] = userdata else { return None };
    Some(text(rest.get(..usize::from(*length))?))
}

/// How an attribute is compared.
#[derive(Clone, Copy)]
enum Form {
    /// Byte by byte.
    Bytes,
    /// A register, of which the kernel tells by the number of four where it can (`nft_dump_register`).
    Register,
    /// Flags, none of which is the same as no attribute.
    Flags,
    /// A value, or a verdict.
    Data,
}

/// What podnet writes of an expression, by the numbers of its own enumeration in `linux/netfilter/nf_tables.h`.
fn attributes_of(name: &str) -> &'static [(u16, Form)] {
    use Form::{Bytes as B, Data as D, Flags as F, Register as R};
    match name {
        "payload" => &[(1, R), (2, B), (3, B), (4, B)],
        "meta" => &[(1, R), (2, B), (3, R)],
        "ct" => &[(1, R), (2, B)],
        "socket" => &[(1, B), (2, R)],
        "fib" | "numgen" => &[(1, R), (2, B), (3, B)],
        "bitwise" => &[(1, R), (2, R), (3, B), (4, D), (5, D)],
        "cmp" => &[(1, R), (2, B), (3, D)],
        "lookup" => &[(1, B), (2, R), (3, R), (5, F)],
        "immediate" => &[(1, R), (2, D)],
        "dynset" => &[(1, B), (3, B), (4, R), (5, R)],
        "nat" => &[(1, B), (2, B), (3, R), (5, R)],
        "masq" => &[(1, F)],
        "reject" | "connlimit" => &[(1, B), (2, B)],
        _ => &[],
    }
}

/// A list of expressions.
fn compared(list: &[u8]) -> Vec<String> {
    // enum nft_expr_attributes
    const NAME: u16 = 1;
    const DATA: u16 = 2;
    let one = |(_, expression): (u16, &[u8])| {
        let mut told = attribute(expression, NAME).map(text).unwrap_or_default();
        let data = attribute(expression, DATA).unwrap_or_default();
        for (kind, form) in attributes_of(&told) {
            if let Some(value) = attribute(data, *kind).and_then(|value| form.told(value)) {
                told.push_str(&format!(" {kind}={value}"));
            }
        }
        told
    };
    attributes(list).map(one).collect()
}

impl Form {
    fn told(self, value: &[u8]) -> Option<String> {
        // enum nft_data_attributes, nft_verdict_attributes
        const VALUE: u16 = 1;
        const VERDICT: u16 = 2;
        const CODE: u16 = 1;
        const CHAIN: u16 = 2;
        match self {
            Self::Bytes => Some(hex(value)),
            Self::Register => Some(register(value)),
            Self::Flags => value.iter().any(|byte| *byte != 0).then(|| hex(value)),
            Self::Data => match attribute(value, VERDICT) {
                Some(verdict) => {
                    let code = attribute(verdict, CODE).map(hex).unwrap_or_default();
                    let chain = attribute(verdict, CHAIN).map(text).unwrap_or_default();
                    Some(format!("{code}:{chain}"))
                }
                None => attribute(value, VALUE).map(hex),
            },
        }
    }
}

/// `NFT_REG_1` to `NFT_REG_4` are four of 32 bits each, from `NFT_REG32_00` on.
fn register(value: &[u8]) -> String {
    const NFT_REG32_00: u32 = 8;
    let Ok(number) = value.try_into().map(u32::from_be_bytes) else { return hex(value) };
    let number = match number {
        1..=4 => NFT_REG32_00 + 4 * (number - 1),
        number => number,
    };
    number.to_string()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
