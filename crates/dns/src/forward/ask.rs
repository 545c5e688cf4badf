//! Asking one upstream, so that nobody else can answer in its name.
//!
//! Over UDP an answer has to come from the address that was asked (the socket sees to that), to a port and with an id that nobody
//! can guess, with the question's letters in the cases that chance gave them, and with the cookie of this upstream alone where it
//! knows cookies (RFC 7873). An answer that keeps the id but not the rest may be a forgery or come from a server that does not
//! keep case: the question is asked again over TCP, which tells.

use std::time::{Duration, Instant};

use super::{Upstreams, cookie, query};
use crate::{
    cache::Key,
    message::{HEADER, Rcode, Upstream, flag, u16_at},
    server::{Exchange, Outside, Parts, Transport},
};

/// How often one upstream is asked anew for one attempt: over TCP, without EDNS, with another cookie.
const TURNS: usize = 6;

/// How long a connection may take that is to tell whether an answer was forged.
const DOUBT: Duration = Duration::from_secs(1);

/// How long a server that changed the case of a question is not asked to keep it: it may be replaced.
const FOLDS: Duration = Duration::from_secs(3600);

/// How an attempt goes about it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attempt {
    /// The upstream.
    pub(super) index: usize,
    /// It is asked over TCP.
    pub(super) tcp: bool,
    /// It was asked before and was silent: now without a cookie, which might be what it does not bear.
    pub(super) again: bool,
    /// When nobody waits any longer.
    pub(super) until: Instant,
}

/// How a message is made.
#[derive(Clone, Copy, Debug)]
struct Manner {
    transport: Transport,
    edns: bool,
    cookie: bool,
    cased: bool,
}

/// An upstream's answer, with what has to be known of the exchange to judge it.
struct Heard {
    manner: Manner,
    sent: Vec<u8>,
    message: Vec<u8>,
}

/// What is to be done about an answer.
enum Verdict {
    Take(Upstream),
    /// Ask once more, like this.
    Again(Manner),
    GiveUp,
}

/// Asks one upstream: over TCP where its answer was cut or may be forged, and without what it does not understand.
pub(super) async fn ask(upstreams: &Upstreams, parts: &Parts, key: &Key, attempt: Attempt) -> Option<Upstream> {
    let index = attempt.index;
    let (known, start) = (upstreams.manners(index), parts.outside.now());
    let plain = !upstreams.connected(index);
    let mut manner = Manner {
        transport: if attempt.tcp || !plain { Transport::Tcp } else { Transport::Udp },
        edns: true,
        cookie: plain && !known.refuses_cookies && (known.server_cookie.is_some() || !attempt.again),
        cased: plain && known.folds.is_none_or(|since| start.saturating_duration_since(since) > FOLDS),
    };
    let mut doubted = None;
    for _ in 0..TURNS {
        let sent = message(upstreams, parts, index, key, manner);
        let start = parts.outside.now();
        let left = attempt.until.saturating_duration_since(start);
        // A server that takes no connections must not use up all the time there is.
        let timeout = if doubted.is_some() { left.min(DOUBT) } else { left };
        let exchange = upstreams.exchange(index, manner.transport, sent.clone(), timeout);
        let exchange = Exchange { fresh: attempt.again, debug: parts.debug.clone(), ..exchange };
        let answered = parts.outside.exchange(exchange).await;
        let took = parts.outside.now().saturating_duration_since(start);
        let Ok(message) = answered else {
            // Who is doubted and takes no connections is believed as servers without case and cookies have to be.
            let doubt: Manner = doubted.take().filter(|_| manner.transport == Transport::Tcp)?;
            upstreams.distrusted(index, parts.outside.now());
            manner = Manner { cookie: false, cased: false, ..doubt };
            continue;
        };
        upstreams.heard(index, took);
        let heard = Heard { manner, sent, message };
        match judge(upstreams, index, key, &heard, doubted.is_some(), parts.outside.now()) {
            Verdict::Take(upstream) => return Some(upstream),
            Verdict::GiveUp => {
                let what = || format!("what {} answers cannot be used", upstreams.addrs()[index]);
                parts.debug.dump(what, &heard.message);
                return None;
            }
            Verdict::Again(next) => {
                if next.transport != manner.transport && doubts(upstreams, index, &heard) {
                    doubted = Some(manner);
                }
                manner = next;
            }
        }
    }
    None
}

fn message(upstreams: &Upstreams, parts: &Parts, index: usize, key: &Key, manner: Manner) -> Vec<u8> {
    let outside = &*parts.outside;
    let id = outside.random() as u16;
    let mut message = query(id, key.question(), manner.edns, key.dnssec_ok(), upstreams.flags(key.checking_disabled()));
    if manner.edns && manner.cookie {
        cookie::append(&mut message, &upstreams.cookie(index, outside));
    }
    if manner.edns {
        add(&mut message, key);
    }
    if manner.cased {
        scatter(&mut message, outside);
    }
    message
}

/// Puts the options that are sent with a question behind those that its OPT record has.
fn add(message: &mut Vec<u8>, key: &Key) {
    // The record's root name, type, class and time to live stand before the length of its data.
    let length = HEADER + key.question().len() + 9;
    message.extend_from_slice(key.options());
    let size = message.len().saturating_sub(length + 2) as u16;
    if let Some(bytes) = message.get_mut(length..length + 2) {
        bytes.copy_from_slice(&size.to_be_bytes());
    }
}

/// Gives the letters of the question's name cases by chance.
fn scatter(message: &mut [u8], outside: &dyn Outside) {
    let end = crate::name::QueryName::parse(message, HEADER).map_or(HEADER, |(_, end)| end);
    // Lengths of labels are below 64, and no letters.
    for octets in message[HEADER..end].chunks_mut(64) {
        let chance = outside.random();
        for (bit, octet) in octets.iter_mut().enumerate() {
            if octet.is_ascii_alphabetic() && chance >> bit & 1 == 1 {
                *octet ^= 0x20;
            }
        }
    }
}

/// Whether an answer may come from somebody else.
fn doubts(upstreams: &Upstreams, index: usize, heard: &Heard) -> bool {
    changes_case(heard) || !cookie_fits(upstreams, index, heard)
}

fn changes_case(heard: &Heard) -> bool {
    let end = crate::name::QueryName::parse(&heard.sent, HEADER).map_or(HEADER, |(_, end)| end);
    // A refusal that is a bare header has no question.
    heard.manner.cased && heard.message.len() > HEADER && heard.message.get(HEADER..end) != heard.sent.get(HEADER..end)
}

fn cookie_fits(upstreams: &Upstreams, index: usize, heard: &Heard) -> bool {
    if !heard.manner.cookie || !heard.manner.edns || is_refusal(&heard.message) {
        return true;
    }
    let known = upstreams.manners(index);
    match cookie::find(&heard.message) {
        Some((client, _)) => known.client_cookie.is_some_and(|own| own == client),
        None => known.server_cookie.is_none(),
    }
}

fn judge(upstreams: &Upstreams, index: usize, key: &Key, heard: &Heard, doubted: bool, now: Instant) -> Verdict {
    let manner = heard.manner;
    let over_tcp = Manner { transport: Transport::Tcp, ..manner };
    if doubts(upstreams, index, heard) {
        if manner.transport == Transport::Udp && !doubted {
            return Verdict::Again(over_tcp);
        }
        // Over a connection it is the upstream itself that does so.
        if changes_case(heard) {
            upstreams.folds(index, now);
        }
        if !cookie_fits(upstreams, index, heard) {
            upstreams.forget_cookie(index);
        }
    } else if let Some((_, server)) = cookie::find(&heard.message).filter(|_| manner.cookie) {
        upstreams.learn_cookie(index, server);
    }
    match Upstream::parse(&heard.message, key.question()) {
        Ok(answer) if answer.truncated && manner.transport == Transport::Udp => Verdict::Again(over_tcp),
        Ok(answer) if answer.answer.rcode == cookie::BADCOOKIE => match manner {
            // It has told the cookie that it wants (RFC 7873 §5.3); over TCP it must not insist on one.
            _ if !manner.cookie => Verdict::GiveUp,
            Manner { transport: Transport::Udp, .. } => Verdict::Again(over_tcp),
            _ => Verdict::Again(Manner { cookie: false, ..manner }),
        },
        Ok(answer) if manner.edns && !answer.edns && refuses(answer.answer.rcode) => {
            Verdict::Again(Manner { edns: false, ..manner })
        }
        Ok(answer) if manner.edns && manner.cookie && answer.answer.rcode == Rcode::FORMERR => {
            upstreams.refuse_cookies(index);
            Verdict::Again(Manner { cookie: false, ..manner })
        }
        Ok(answer) => Verdict::Take(answer),
        // A server from before EDNS answers with the bare header (RFC 6891 §7).
        Err(_) if manner.edns && is_refusal(&heard.message) => Verdict::Again(Manner { edns: false, ..manner }),
        Err(_) => Verdict::GiveUp,
    }
}

const fn refuses(rcode: Rcode) -> bool {
    matches!(rcode, Rcode::FORMERR | Rcode::NOTIMP)
}

fn is_refusal(message: &[u8]) -> bool {
    u16_at(message, 2).is_some_and(|word| word & flag::RCODE == Rcode::FORMERR.0)
}
