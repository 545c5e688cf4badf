//! `rrl`: how many responses of one kind go to one network each second, so that nobody is flooded with what others asked for in
//! its name.

use std::{net::IpAddr, sync::Mutex, time::Instant};

use super::siphash::siphash;
use crate::{
    chain::RrlOptions,
    message::{HEADER, Rcode, flag, rtype, u16_at, walk},
    name::QueryName,
    server::lock,
};

/// How many accounts share a lock and are searched for one.
const WAYS: usize = 8;

/// What becomes of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is sent.
    Send,
    /// It is sent without records, cut: who really asked comes back over TCP.
    Slip,
    /// It is not sent.
    Drop,
}

/// The kinds of responses, each with an allowance of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// With records.
    Response,
    /// The name is there, the type is not.
    NoData,
    /// The name is not there.
    NoName,
    /// Another server is the authority.
    Referral,
    /// Any other code.
    Error,
}

/// The accounts of one server block.
///
/// A table of a size that the Corefile bounds: an account has a few places where it can be, and the one of them that was used
/// least lately gives way. So nothing grows, whoever asks, and each response costs the same.
pub(super) struct Limiter {
    options: RrlOptions,
    /// Nobody can choose names that share an account.
    key: [u8; 16],
    start: Instant,
    sets: Box<[Mutex<[Account; WAYS]>]>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Account {
    /// Of whom and what it is; 0: nobody's.
    whose: u64,
    /// When it was looked at, in microseconds since the start.
    at: u64,
    /// Microseconds of allowance that are left; below zero there are none.
    balance: i64,
    /// Responses that were held back.
    held: u32,
}

impl Limiter {
    pub(super) fn new(options: RrlOptions, key: [u8; 16], start: Instant) -> Self {
        let sets = (options.max_table_size / WAYS).max(1);
        Self { options, key, start, sets: (0..sets).map(|_| Mutex::default()).collect() }
    }

    /// Whether anything is counted for a client and a name.
    fn concerns(&self, client: IpAddr, name: &QueryName) -> bool {
        self.options.zones.iter().any(|zone| name.within(zone).is_some())
            && !self.options.exempt.iter().any(|net| net.contains(&client))
    }

    /// Whether a question is one too many.
    pub(super) fn refuses(&self, client: IpAddr, name: &QueryName, now: Instant) -> bool {
        let rate = self.options.requests_per_second;
        rate > 0.0
            && self.concerns(client, name)
            && self.takes(self.account(client, 5, &[]), rate, now) != Verdict::Send
    }

    /// What becomes of a response to a question.
    pub(super) fn judge(&self, client: IpAddr, name: &QueryName, response: &[u8], now: Instant) -> Verdict {
        let kind = kind(response, name);
        let rate = self.options.per_second[kind as usize];
        if rate <= 0.0 || !self.concerns(client, name) {
            return Verdict::Send;
        }
        let whose = match kind {
            Kind::Error => self.account(client, kind as u8, &[]),
            // Names that are not there are told apart by nothing: their zone has the account.
            Kind::NoName => self.account(client, kind as u8, zone(response, name)),
            _ => {
                let end = HEADER + name.wire().len();
                let qtype = response.get(end..end + 2).unwrap_or_default();
                self.account(client, kind as u8, &[name.wire(), qtype].concat())
            }
        };
        self.takes(whose, rate, now)
    }

    /// Whose account it is: the client's network, the kind, and what was asked for.
    fn account(&self, client: IpAddr, kind: u8, what: &[u8]) -> u64 {
        let mut data = Vec::with_capacity(17 + what.len());
        data.push(kind);
        match client {
            IpAddr::V4(addr) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.options.ipv4_prefix)).unwrap_or(0);
                data.extend_from_slice(&(addr.to_bits() & mask).to_be_bytes());
            }
            IpAddr::V6(addr) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.options.ipv6_prefix)).unwrap_or(0);
                data.extend_from_slice(&(addr.to_bits() & mask).to_be_bytes());
            }
        }
        data.extend_from_slice(what);
        siphash(self.key, &data).max(1)
    }

    /// Takes one off an account.
    fn takes(&self, whose: u64, rate: f64, now: Instant) -> Verdict {
        const SECOND: i64 = 1_000_000;
        let at = now.saturating_duration_since(self.start).as_micros() as u64;
        let price = ((SECOND as f64 / rate) as i64).max(1);
        let window = self.options.window.as_micros() as i64;
        let mut accounts = lock(&self.sets[whose as usize % self.sets.len()]);
        let found = accounts.iter().position(|account| account.whose == whose);
        let place = found.unwrap_or_else(|| {
            let oldest = accounts.iter().enumerate().min_by_key(|(_, account)| account.at);
            oldest.map_or(0, |(place, _)| place)
        });
        let account = &mut accounts[place];
        if found.is_none() {
            *account = Account { whose, at, balance: SECOND.max(price), held: 0 };
        }
        let earned = at.saturating_sub(account.at).min(i64::MAX as u64 / 2) as i64;
        let balance = account.balance.saturating_add(earned).min(SECOND.max(price)) - price;
        (account.at, account.balance) = (at, balance.max(-window));
        if balance >= 0 {
            return Verdict::Send;
        }
        account.held = account.held.wrapping_add(1);
        if self.options.slip_ratio > 0 && account.held.is_multiple_of(self.options.slip_ratio) {
            Verdict::Slip
        } else {
            Verdict::Drop
        }
    }

    /// Whether it only counts.
    pub(super) fn reports(&self) -> bool {
        self.options.report_only
    }
}

fn kind(response: &[u8], name: &QueryName) -> Kind {
    let flags = u16_at(response, 2).unwrap_or(0);
    match Rcode(flags & flag::RCODE) {
        Rcode::NXDOMAIN => Kind::NoName,
        Rcode::NOERROR if u16_at(response, 6) != Some(0) => Kind::Response,
        // One that was cut has no records to tell by.
        Rcode::NOERROR if flags & flag::TC != 0 => Kind::Response,
        Rcode::NOERROR => {
            let mut authority = authority(response, name);
            let refers = authority.any(|record| record.rtype == rtype::NS);
            if refers && flags & flag::AA == 0 { Kind::Referral } else { Kind::NoData }
        }
        _ => Kind::Error,
    }
}

fn authority<'a>(response: &'a [u8], name: &QueryName) -> impl Iterator<Item = crate::message::Record> + 'a {
    let records = walk(response, HEADER + name.wire().len() + 4).map_while(Result::ok);
    records.filter(|record| record.section == 1)
}

/// The zone that a name is not in: who owns the SOA record, where that is a part of the name.
fn zone<'a>(response: &[u8], name: &'a QueryName) -> &'a [u8] {
    let soa = authority(response, name).find(|record| record.rtype == rtype::SOA);
    let at = soa.and_then(|record| u16_at(response, record.start)).filter(|word| *word >= 0xc000);
    let offset = at.and_then(|word| usize::from(word & 0x3fff).checked_sub(HEADER));
    offset.and_then(|offset| name.wire().get(offset..)).unwrap_or_default()
}

impl std::fmt::Debug for Limiter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Limiter").field("options", &self.options).finish_non_exhaustive()
    }
}
