//! Writing the response to one question.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::{Quick, Reply};
use crate::{
    answer::Answer,
    cache::Kept,
    message::{Head, Rcode, flag, negative, records},
    name::QueryName,
    zone::Authority,
};
use std::time::Instant;

/// How the responses of a server block look, whichever plugin answers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shape {
    /// The block asks others: recursion is offered (RA).
    pub recursion: bool,
    /// Addresses take turns in front (`loadbalance`).
    pub turns: bool,
}

/// Writes one response.
pub struct Pen<'a> {
    head: &'a Head,
    question: &'a [u8],
    shape: &'a Shape,
    turn: &'a AtomicUsize,
    out: &'a mut Vec<u8>,
    rcode: Rcode,
}

impl<'a> Pen<'a> {
    pub(super) fn new(
        head: &'a Head,
        question: &'a [u8],
        shape: &'a Shape,
        turn: &'a AtomicUsize,
        out: &'a mut Vec<u8>,
    ) -> Self {
        Self { head, question, shape, turn, out, rcode: Rcode::NOERROR }
    }

    /// The code of what was written.
    pub(super) fn rcode(&self) -> Rcode {
        self.rcode
    }

    /// Writes an answer.
    pub fn answer(&mut self, answer: &Answer) -> Quick {
        let turn = match answer.rotation {
            Some(_) if self.shape.turns => self.turn.fetch_add(1, Ordering::Relaxed),
            _ => 0,
        };
        records(self.head, self.question, answer, self.shape.recursion, turn, self.out);
        self.rcode = answer.rcode;
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
        self.answer(&kept.answer);
        kept.age(self.out, self.question.len(), now);
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
        self.rcode = rcode;
        Quick::Done
    }
}
