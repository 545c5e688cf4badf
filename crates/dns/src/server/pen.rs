//! Writing the response to one question.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Instant,
};

use super::{
    Quick, Reply, Transport,
    arrange::{Arrangement, TURNS},
};
use crate::{
    answer::{Answer, needs_arranging},
    cache::Kept,
    message::{CLASS_IN, HEADER, Head, KEEPALIVE, OPT, PLAIN_UDP_SIZE, Rcode, flag, negative, records, u16_at, walk},
    name::{Name, QueryName},
    zone::Authority,
};

/// The number of the option for extended errors (RFC 8914 §2).
const EXTENDED_ERROR: u8 = 15;

/// How the responses of a server block look, whichever plugin answers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shape {
    /// The block asks others: recursion is offered (RA).
    pub recursion: bool,
    /// Addresses take turns in front (`loadbalance`).
    pub turns: bool,
    /// What else orders them.
    pub(super) arrangement: Option<Arrangement>,
    /// The authority and additional sections are left out where there is an answer (`minimal`).
    pub minimal: bool,
    /// The largest UDP message (`bufsize`).
    pub bufsize: Option<u16>,
    /// The option that tells who this server is, to those who ask (`nsid`).
    pub nsid: Option<Box<[u8]>>,
    /// What happens to the flags of responses (`header`).
    pub response: FlagChange,
    /// What happens to the flags of queries (`header`).
    pub query: FlagChange,
    /// Questions of class CH have answers (`chaos`).
    pub chaos: bool,
}

impl Shape {
    /// What the block makes of a query before its plugins see it.
    pub(super) fn apply(&self, head: &mut Head, transport: Transport) {
        if let (Some(size), Transport::Udp, Some(_)) = (self.bufsize, transport, head.edns) {
            head.limit = head.limit.min(size.max(PLAIN_UDP_SIZE));
        }
        head.flags = self.query.of(head.flags);
    }
}

/// Flags that are set, and flags that are cleared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlagChange {
    set: u16,
    clear: u16,
}

impl FlagChange {
    /// A change after this one.
    #[must_use]
    pub fn then(self, flags: u16, set: bool) -> Self {
        if set {
            Self { set: self.set | flags, clear: self.clear & !flags }
        } else {
            Self { set: self.set & !flags, clear: self.clear | flags }
        }
    }

    /// The flags after the change.
    #[must_use]
    pub fn of(self, flags: u16) -> u16 {
        (flags | self.set) & !self.clear
    }
}

/// Writes one response.
pub struct Pen<'a> {
    head: &'a Head,
    question: &'a [u8],
    shape: &'a Shape,
    turn: &'a AtomicUsize,
    out: &'a mut Vec<u8>,
    /// How many bytes of options the OPT record has.
    options: usize,
}

impl<'a> Pen<'a> {
    pub(super) fn new(
        head: &'a Head,
        question: &'a [u8],
        shape: &'a Shape,
        turn: &'a AtomicUsize,
        out: &'a mut Vec<u8>,
    ) -> Self {
        // The cookie is in every OPT record.
        let options = head.edns.map_or(0, |edns| edns.size_back() - OPT);
        Self { head, question, shape, turn, out, options }
    }

    /// Writes an answer.
    pub fn answer(&mut self, answer: &Answer) -> Quick {
        let arranged = self.arranged(answer);
        // One turn for each answer: where two were taken, an even number of addresses would never change places.
        let turn = match answer.rotation {
            Some(_) if self.shape.turns && arranged.is_none() => self.turn.fetch_add(1, Ordering::Relaxed),
            _ => 0,
        };
        let (answer, turn) = arranged.as_ref().map_or((answer, turn), |arranged| (arranged, 0));
        records(self.head, self.question, answer, self.shape.recursion, turn, self.out);
        self.done(answer.rcode);
        if let Some(extended) = &answer.extended {
            let text = extended.text.as_bytes();
            let length = (2 + text.len() as u16).to_be_bytes();
            self.option(&[&[0, EXTENDED_ERROR], &length[..], &extended.code.to_be_bytes(), text].concat());
        }
        Quick::Done
    }

    /// The answer in the order in which its addresses are to be told, where more than turns decides on it.
    fn arranged(&self, answer: &Answer) -> Option<Answer> {
        let arrangement = self.arrangement(answer)?;
        let (name, end) = QueryName::parse(self.question, 0).ok()?;
        if u16_at(self.question, end + 2) != Some(CLASS_IN) || answer.counts[0] == 0 {
            return None;
        }
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        arrangement.arrange(&Name::from_query(&name), answer, turn, self.head.dnssec_ok())
    }

    /// What orders an answer's records but turns of its addresses, which need no writing of it anew.
    fn arrangement(&self, answer: &Answer) -> Option<&'a Arrangement> {
        let needed = || answer.counts[0] > 1 && needs_arranging(&answer.body, answer.counts[0]);
        let turns = self.shape.turns && answer.rotation.is_none() && needed();
        self.shape.arrangement.as_ref().or_else(|| turns.then_some(&TURNS))
    }

    /// Appends an option to the OPT record, where there is one and room for it.
    fn option(&mut self, option: &[u8]) {
        if self.head.edns.is_none() || self.out.len() + option.len() > usize::from(self.head.limit) {
            return;
        }
        // The OPT record stands last.
        let length = self.out.len() - self.options - 2;
        self.options += option.len();
        self.out[length..length + 2].copy_from_slice(&(self.options as u16).to_be_bytes());
        self.out.extend_from_slice(option);
    }

    /// The last strokes of every response.
    fn done(&mut self, rcode: Rcode) -> Quick {
        if self.shape.minimal && rcode == Rcode::NOERROR {
            leave_out(self.out, self.question.len(), self.head.edns.map_or(0, |edns| edns.size_back()));
        }
        if let Some(flags) = u16_at(self.out, 2).filter(|_| self.shape.response != FlagChange::default()) {
            self.out[2..4].copy_from_slice(&self.shape.response.of(flags).to_be_bytes());
        }
        if let Some(nsid) = self.shape.nsid.as_ref().filter(|_| self.head.edns.is_some_and(|edns| edns.nsid)) {
            self.option(nsid);
        }
        if let Some(time) = self.head.edns.and_then(|edns| edns.keepalive) {
            let [high, low] = time.to_be_bytes();
            self.option(&[0, KEEPALIVE as u8, 0, 2, high, low]);
        }
        Quick::Done
    }

    /// Writes what a chain answered.
    pub(super) fn reply(&mut self, reply: &Reply) {
        self.answer(&reply.answer);
        if reply.truncated {
            self.out[2] |= (flag::TC >> 8) as u8;
        }
    }

    /// Writes an answer that was kept, with what is left of its records' time to live.
    pub fn kept(&mut self, kept: &Kept, now: Instant) -> Quick {
        if self.arrangement(&kept.answer).is_some() {
            // Its records are not where they were.
            return self.answer(&kept.aged(now));
        }
        self.answer(&kept.answer);
        // Where records were left out, what stands in their place is the OPT record.
        let opt = if self.head.edns.is_some() { OPT + self.options } else { 0 };
        let end = self.out.len().saturating_sub(opt);
        kept.age(&mut self.out[..end], self.question.len(), now);
        Quick::Done
    }

    /// Writes that there is nothing of this type (NOERROR) or name (NXDOMAIN) in a zone, with its SOA record.
    pub fn nothing(&mut self, authority: &Authority<'_>, name: &QueryName, rcode: Rcode) -> Quick {
        self.authority(authority, name, rcode, false)
    }

    /// Writes the zone's SOA record as the answer.
    pub fn start_of_authority(&mut self, authority: &Authority<'_>, name: &QueryName) -> Quick {
        self.authority(authority, name, Rcode::NOERROR, true)
    }

    fn authority(&mut self, authority: &Authority<'_>, name: &QueryName, rcode: Rcode, in_answer: bool) -> Quick {
        let soa = |out: &mut Vec<u8>| authority.write(name, out);
        negative(self.head, self.question, rcode, self.shape.recursion, in_answer, self.out, soa);
        self.done(rcode)
    }
}

/// Leaves out what stands behind the answer section, but for the OPT record, where there is an answer.
fn leave_out(out: &mut Vec<u8>, question: usize, opt: usize) {
    let told = walk(out, HEADER + question).map_while(Result::ok).take_while(|record| record.section == 0).last();
    let (Some(last), Some(opt_at)) = (told, out.len().checked_sub(opt)) else { return };
    if last.end < opt_at {
        out.drain(last.end..opt_at);
        out[8..10].fill(0);
        out[10..12].copy_from_slice(&u16::from(opt > 0).to_be_bytes());
    }
}
