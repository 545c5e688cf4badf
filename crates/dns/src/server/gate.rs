//! Questions on their way in and responses on their way out, past the block's guard.

use std::time::Instant;

use super::{Arrival, Outcome, Server, guard::Leaving, refuse};
use crate::message::{CLASS_IN, Head, Rcode, Request, rejection, rtype};

impl Server {
    /// Answers what is no question that a block could answer. Its cookie is looked at by the first block's guard: a packet that
    /// cannot be read has no zone.
    pub(super) fn turn_away(
        &self,
        mut head: Head,
        question: &[u8],
        rcode: Rcode,
        arrival: &Arrival,
        out: &mut Vec<u8>,
    ) {
        if let Some(block) = self.blocks.first() {
            block.guard.enter(&mut head, arrival, &*self.parts.outside);
        }
        rejection(&head, question, rcode, out);
    }

    /// Has a block answer, where its guard lets the question in and the response out.
    pub(super) fn guarded(
        &self,
        index: usize,
        request: &mut Request<'_>,
        arrival: &Arrival,
        now: Instant,
        link: &mut Option<usize>,
        out: &mut Vec<u8>,
    ) -> Outcome {
        let guard = &self.blocks[index].guard;
        let ended = guard.enter(&mut request.head, arrival, &*self.parts.outside);
        if guard.refuses(&request.name, &request.head, arrival, now) {
            return Outcome::Drop;
        }
        let outcome = match ended {
            Some(rcode) => refuse(request, rcode, out),
            None => self.within(index, request, arrival, now, link, out),
        };
        let Request { ref head, question, ref name, .. } = *request;
        let leaving = Leaving { head, question, name, arrival, now };
        if matches!(outcome, Outcome::Answer) && !guard.lets_out(&leaving, out) {
            return Outcome::Drop;
        }
        outcome
    }

    fn within(
        &self,
        index: usize,
        request: &Request<'_>,
        arrival: &Arrival,
        now: Instant,
        link: &mut Option<usize>,
        out: &mut Vec<u8>,
    ) -> Outcome {
        if request.qclass != CLASS_IN && !self.blocks[index].shape.chaos {
            return refuse(request, Rcode::REFUSED, out);
        }
        if request.qtype == rtype::HINFO && self.notice_loop(&request.name) {
            // Passing it on would send it round once more.
            return refuse(request, Rcode::SERVFAIL, out);
        }
        self.quick(index, request, arrival, now, link, out)
    }
}
