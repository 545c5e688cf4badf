//! What a server block does so that nobody is flooded with answers to questions that others asked in its name: cookies tell who is
//! where it says it is, and the rate of responses to those of whom that is not known can be limited.

mod jar;
mod limiter;
mod siphash;

use std::time::Instant;

use self::{
    jar::Jar,
    limiter::{Limiter, Verdict},
};
use super::{Arrival, Outside, Transport};
use crate::{
    chain::{CookieOptions, RrlOptions},
    message::{Head, PLAIN_UDP_SIZE, Rcode, flag, rejection},
    metrics::{ByListener, Counter, Counting, Family},
    name::QueryName,
};

/// A server block's guard.
#[derive(Debug)]
pub(super) struct Guard {
    jar: Option<Jar>,
    cookies: CookieOptions,
    limiter: Option<Limiter>,
    /// Questions and responses beyond the limiter's allowances.
    exceeded: Option<ByListener<[Counter; 2]>>,
}

/// A question that has its response.
#[derive(Clone, Copy)]
pub(super) struct Leaving<'a> {
    pub(super) head: &'a Head,
    pub(super) question: &'a [u8],
    pub(super) name: &'a QueryName,
    pub(super) arrival: &'a Arrival,
    pub(super) now: Instant,
}

impl Guard {
    /// A guard as the Corefile wants it. Clients that send cookies get ours, unless it says otherwise.
    pub(super) fn new(
        cookies: Option<CookieOptions>,
        rrl: Option<RrlOptions>,
        outside: &dyn Outside,
        counting: &Counting,
    ) -> Self {
        let cookies = cookies.unwrap_or_default();
        let jar = (!cookies.off).then(|| Jar::new(&cookies.secrets, outside));
        let key = || {
            let mut key = [0; 16];
            key.chunks_exact_mut(8).for_each(|half| half.copy_from_slice(&outside.random().to_be_bytes()));
            key
        };
        let limiter = rrl.map(|options| Limiter::new(options, key(), outside.now()));
        let exceeded = limiter.is_some().then(|| {
            let families = [Family::RequestsExceeded, Family::ResponsesExceeded];
            counting.each(|spot| families.map(|family| spot.counter(family, &[("server", spot.server.as_str())])))
        });
        Self { jar, cookies, limiter, exceeded }
    }

    /// Judges a question's cookie; the code with which it ends here, if it does.
    pub(super) fn enter(&self, head: &mut Head, arrival: &Arrival, outside: &dyn Outside) -> Option<Rcode> {
        let over_udp = arrival.transport == Transport::Udp;
        if let Some(edns) = &mut head.edns {
            edns.cookie =
                edns.cookie.zip(self.jar.as_ref()).map(|(cookie, jar)| jar.judge(cookie, arrival.from.ip(), outside));
            let stranger = edns.cookie.is_some_and(|cookie| !cookie.verified);
            if over_udp && stranger && self.cookies.require {
                return Some(Rcode::BADCOOKIE);
            }
        }
        if let Some(size) = self.cookies.unverified_size.filter(|_| over_udp && !verified(head)) {
            head.limit = head.limit.min(size.max(PLAIN_UDP_SIZE));
        }
        None
    }

    /// Whether a question is one too many of its network's.
    pub(super) fn refuses(&self, name: &QueryName, head: &Head, arrival: &Arrival, now: Instant) -> bool {
        let Some(limiter) = self.limits(head, arrival) else { return false };
        let refused = limiter.refuses(arrival.from.ip(), name, now);
        if let Some([requests, _]) = self.exceeded(arrival).filter(|_| refused) {
            requests.count();
        }
        refused && !limiter.reports()
    }

    /// Whether a response goes out; it may be cut.
    pub(super) fn lets_out(&self, leaving: &Leaving<'_>, out: &mut Vec<u8>) -> bool {
        let Leaving { head, question, name, arrival, now } = *leaving;
        let Some(limiter) = self.limits(head, arrival) else { return true };
        let verdict = limiter.judge(arrival.from.ip(), name, out, now);
        if verdict == Verdict::Send {
            return true;
        }
        if let Some([_, responses]) = self.exceeded(arrival) {
            responses.count();
        }
        if limiter.reports() {
            return true;
        }
        if verdict == Verdict::Slip {
            rejection(head, question, Rcode::NOERROR, out);
            out[2] |= (flag::TC >> 8) as u8;
        }
        verdict == Verdict::Slip
    }

    fn exceeded(&self, arrival: &Arrival) -> Option<&[Counter; 2]> {
        self.exceeded.as_ref()?.at(arrival)
    }

    /// Over a connection, or with a cookie of ours, nobody can ask in another one's name.
    fn limits(&self, head: &Head, arrival: &Arrival) -> Option<&Limiter> {
        self.limiter.as_ref().filter(|_| arrival.transport == Transport::Udp && !verified(head))
    }
}

fn verified(head: &Head) -> bool {
    head.edns.and_then(|edns| edns.cookie).is_some_and(|cookie| cookie.verified)
}
