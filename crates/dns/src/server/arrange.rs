//! The order of an answer's addresses, where more decides on it than turns (`loadbalance`), of its mail exchangers and its aliases, and
//! how many records are told.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::{
    answer::{Answer, Section, composed},
    authority::kind,
    chain::{Balance, LoadbalanceOptions, Weights},
    message::{Expanded, expand, rtype},
    name::Name,
};

/// How addresses are ordered, and how many records are told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Arrangement {
    weights: Option<Weights>,
    prefer: Vec<IpNet>,
    limit: Option<usize>,
}

/// Nothing but turns.
pub(super) static TURNS: Arrangement = Arrangement { weights: None, prefer: Vec::new(), limit: None };

impl Arrangement {
    /// None where addresses only take turns.
    pub(super) fn new(options: &LoadbalanceOptions) -> Option<Self> {
        let weights = match &options.policy {
            Balance::RoundRobin => None,
            Balance::Weighted { weights, .. } => Some(weights.clone()),
        };
        let arrangement = Self { weights, prefer: options.prefer.clone(), limit: options.limit_answers };
        let plain = arrangement.weights.is_none() && arrangement.prefer.is_empty() && arrangement.limit.is_none();
        (!plain).then_some(arrangement)
    }

    /// The answer to a question for `name` in its new order: by turn or weight, then what is preferred, then cut. Nothing is cut for
    /// who checks signatures: they are over all of the records. Mail exchangers take turns. None when there is nothing to order or cut.
    pub(super) fn arrange(&self, name: &Name, answer: &Answer, turn: usize, signed: bool) -> Option<Answer> {
        let mut records = expand(name, answer);
        // What could not be read would be lost.
        if records.len() != answer.counts.iter().map(|count| usize::from(*count)).sum::<usize>() {
            return None;
        }
        let exchangers = self.weights.is_none() && take_turns(&mut records, is_exchanger, turn);
        let addresses = self.addresses(&mut records, turn);
        let cut = !signed && self.cut(&mut records);
        if !exchangers && !addresses && !cut {
            return None;
        }
        let whole = composed(name, answer.rcode, &records);
        let Answer { authoritative, authentic, .. } = *answer;
        Some(Answer { authoritative, authentic, extended: answer.extended.clone(), ..whole })
    }

    /// Orders the addresses among records, and has them stand behind the aliases that lead to them: some resolvers of clients (glibc's)
    /// want that. False: there are none.
    fn addresses(&self, records: &mut Vec<Expanded>, turn: usize) -> bool {
        let Some(first) = records.iter().position(|record| addr(record).is_some()) else { return false };
        let mut addrs: Vec<Expanded> = records.extract_if(.., |record| addr(record).is_some()).collect();
        match &self.weights {
            None => {
                let count = addrs.len();
                addrs.rotate_left(turn % count);
            }
            Some(weights) => {
                let top = top(weights, &addrs, turn);
                addrs.swap(0, top);
            }
        }
        if !self.prefer.is_empty() {
            addrs.sort_by_key(|record| {
                let within = |net: &IpNet| addr(record).is_some_and(|addr| net.contains(&addr));
                self.prefer.iter().position(within).unwrap_or(self.prefer.len())
            });
        }
        let at = records.iter().rposition(is_alias).map_or(first, |last| first.max(last + 1));
        records.splice(at..at, addrs);
        true
    }

    /// Leaves out records of the answer section beyond the limit, whatever their type; false: there are none. Aliases are not counted:
    /// without them nobody knows whose the others are.
    fn cut(&self, records: &mut Vec<Expanded>) -> bool {
        let Some(limit) = self.limit else { return false };
        let (before, mut counted) = (records.len(), 0);
        records.retain(|record| {
            let counts = record.section == Section::Answer && !is_alias(record);
            counted += usize::from(counts);
            !counts || counted <= limit
        });
        records.len() < before
    }
}

/// Has some of the records take turns in front of each other; false: there are not several.
fn take_turns(records: &mut Vec<Expanded>, takes: fn(&Expanded) -> bool, turn: usize) -> bool {
    let Some(first) = records.iter().position(takes) else { return false };
    let mut taken: Vec<Expanded> = records.extract_if(.., |record| takes(record)).collect();
    let count = taken.len();
    taken.rotate_left(turn % count);
    records.splice(first..first, taken);
    count > 1
}

fn is_exchanger(record: &Expanded) -> bool {
    record.section == Section::Answer && record.rtype == rtype::MX
}

/// Whether a record of the answer section leads on: an alias, or what makes one (RFC 6672).
fn is_alias(record: &Expanded) -> bool {
    record.section == Section::Answer && matches!(record.rtype, rtype::CNAME | kind::DNAME)
}

/// The address that a record of the answer section tells.
fn addr(record: &Expanded) -> Option<IpAddr> {
    if record.section != Section::Answer {
        return None;
    }
    match record.rtype {
        rtype::A => <[u8; 4]>::try_from(record.rdata.as_slice()).ok().map(IpAddr::from),
        rtype::AAAA => <[u8; 16]>::try_from(record.rdata.as_slice()).ok().map(IpAddr::from),
        _ => None,
    }
}

/// Which address stands first this time: each as often as it weighs.
fn top(weights: &Weights, addrs: &[Expanded], turn: usize) -> usize {
    let weight = |record: &Expanded| addr(record).map_or(1, |addr| u64::from(weights.of(&record.owner, addr)));
    let sum: u64 = addrs.iter().map(weight).sum();
    let mut left = scattered(turn as u64) % sum.max(1);
    let found = addrs.iter().position(|record| {
        let here = left < weight(record);
        left = left.saturating_sub(weight(record));
        here
    });
    found.unwrap_or(0)
}

/// A number that has nothing to do with its neighbours': the finalizer of splitmix64.
fn scattered(turn: u64) -> u64 {
    let mut mixed = turn.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
