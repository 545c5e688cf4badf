//! Panics on the way to an answer, which are survived: the client is told SERVFAIL, and the operator what happened. So are those while
//! signatures are checked behind an answer ([`super::Parts::apart`]): what they are over comes from anybody.
//!
//! Nowhere else are they: state that is half-way to another one may be wrong, and a task that is gone is missed by nobody. So the
//! process's panic hook asks [`panicked`], and ends the process where that says no. What is shared on the way to an answer bears a
//! panic: locks are over plain data ([`super::lock`]), places are given back when they are dropped, and who waits for a question that
//! was asked for several hears of it ([`crate::forward`]). With `debug` in the Corefile nothing is survived, as in CoreDNS: who looks
//! for a fault wants the process as it was.

use std::{
    any::Any,
    cell::{Cell, RefCell},
    future::poll_fn,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    sync::Arc,
    task::Poll,
    time::Instant,
};

use super::{Arrival, Event, Later, Observer, Outcome, Server};
use crate::{
    chain::{Config, Level, Plugin},
    message::{HEADER, Rcode, Request, flag, rejection, rtype, u16_at},
    metrics::Metrics,
    name::{Name, QueryName},
};

/// Survives panics, counts them and tells of them.
#[derive(Clone)]
pub(super) struct Recovery {
    /// None: they are not survived.
    watch: Option<Watch>,
    metrics: Arc<Metrics>,
    observer: Arc<Observer>,
}

/// How a thread watches for panics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Watch {
    /// The stack is to be told as well.
    stack: bool,
}

/// A panic that was survived: what is told of it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Panicked(String);

thread_local! {
    /// This thread is on its way to an answer.
    static WATCH: Cell<Option<Watch>> = const { Cell::new(None) };
    /// What the hook told of a panic, until that is caught.
    static REPORT: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// What becomes of a panic of this thread, which its hook tells of: it is survived. `report` puts it into words, with the stack where it
/// gets `true`.
///
/// # Errors
/// It is not survived. Where the thread was on its way out of another panic, which is when nothing can be, that one's words: nobody
/// has told them.
pub fn panicked(report: impl FnOnce(bool) -> String) -> Result<(), Option<String>> {
    let Some(watch) = WATCH.get() else { return Err(None) };
    match REPORT.replace(Some(report(watch.stack))) {
        None => Ok(()),
        first => Err(first),
    }
}

impl Recovery {
    pub(super) fn new(config: &Config, metrics: &Arc<Metrics>, observer: &Arc<Observer>) -> Self {
        let mut plugins = config.blocks.iter().flat_map(|chain| &chain.plugins);
        let stack = plugins.any(|plugin| matches!(plugin, Plugin::Errors(options) if options.stacktrace));
        let watch = (!config.process.debug).then_some(Watch { stack });
        Self { watch, metrics: Arc::clone(metrics), observer: Arc::clone(observer) }
    }

    /// Does some work on the way to an answer.
    pub(super) fn catch<T>(&self, work: impl FnOnce() -> T) -> Result<T, Panicked> {
        let Some(watch) = self.watch else { return Ok(work()) };
        let before = WATCH.replace(Some(watch));
        let caught = catch_unwind(AssertUnwindSafe(work));
        WATCH.set(before);
        caught.map_err(|payload| Panicked(REPORT.take().unwrap_or_else(|| message(&*payload))))
    }

    /// The same for work that takes time. What panicked is not gone on with.
    pub(super) async fn survive<F: Future>(&self, work: F) -> Result<F::Output, Panicked> {
        let mut work = pin!(work);
        let polled = poll_fn(|context| match self.catch(|| work.as_mut().poll(context)) {
            Ok(poll) => poll.map(Ok),
            Err(panicked) => Poll::Ready(Err(panicked)),
        });
        polled.await
    }

    /// Counts a panic, and tells of it: it is heard of whether there is an `errors` or not, as in CoreDNS.
    pub(super) fn tell(&self, what: &str, Panicked(report): &Panicked) {
        self.metrics.panicked();
        let message = format!("{what} led to a panic, which was survived: {report}");
        (self.observer)(&Event::Failed { level: Level::Error, message: &message });
    }
}

/// What a panic says where no hook told of it.
fn message(payload: &(dyn Any + Send)) -> String {
    let message: &str = match payload.downcast_ref::<&'static str>() {
        Some(message) => message,
        None => payload.downcast_ref::<String>().map_or("it says nothing", String::as_str),
    };
    message.to_owned()
}

impl Server {
    /// Answers a packet into `out`, or says that it takes time. A panic on the way is survived.
    pub fn handle(&self, packet: &[u8], arrival: &Arrival, now: Instant, out: &mut Vec<u8>) -> Outcome {
        let caught = self.parts.recovery.catch(|| self.opened(packet, arrival, now, out));
        caught.unwrap_or_else(|panicked| self.survived(&panicked, packet, arrival, out))
    }

    /// The response to a question that takes time; none where the Corefile wants silence. Dropping the future gives it up; others
    /// who wait for the same answer get it all the same. A panic on the way is survived.
    pub async fn finish(self: Arc<Self>, mut later: Box<Later>) -> Option<Vec<u8>> {
        let caught = self.parts.recovery.survive(self.finished(&mut later)).await;
        caught.unwrap_or_else(|panicked| Some(self.gave_up(&panicked, &mut later)))
    }

    /// What a packet is answered with that led to a panic.
    fn survived(&self, panicked: &Panicked, packet: &[u8], arrival: &Arrival, out: &mut Vec<u8>) -> Outcome {
        // To read it may be what went wrong.
        let question = self.parts.recovery.catch(|| {
            let Request { head, question, name, qtype, .. } = Request::parse(packet, arrival.transport).ok()?;
            rejection(&head, question, Rcode::SERVFAIL, out);
            self.stray(qtype, arrival, packet.len(), Rcode::SERVFAIL, out.len());
            Some(asked(&name, qtype, arrival))
        });
        let question = question.ok().flatten();
        if question.is_none() {
            bare(packet, out);
        }
        let what = question.unwrap_or_else(|| format!("what {} sent", arrival.from));
        self.parts.recovery.tell(&what, panicked);
        if out.is_empty() { Outcome::Drop } else { Outcome::Answer }
    }

    /// What a question is answered with that took time and led to a panic.
    fn gave_up(&self, panicked: &Panicked, later: &mut Later) -> Vec<u8> {
        let Later { query, size, signer, .. } = later;
        let mut out = Vec::new();
        rejection(&query.head, &query.question, Rcode::SERVFAIL, &mut out);
        self.stray(query.qtype, &query.arrival, *size, Rcode::SERVFAIL, out.len());
        if let Some(signer) = signer {
            signer.sign(&mut out);
        }
        self.parts.recovery.tell(&asked(&query.name, query.qtype, &query.arrival), panicked);
        out
    }
}

fn asked(name: &QueryName, qtype: u16, arrival: &Arrival) -> String {
    format!("{} {} from {}", Name::from_query(name), rtype::mnemonic(qtype), arrival.from)
}

/// SERVFAIL without a question, to whatever has the header of a query; else nothing.
fn bare(packet: &[u8], out: &mut Vec<u8>) {
    out.clear();
    let (Some(id), Some(flags)) = (u16_at(packet, 0), u16_at(packet, 2)) else { return };
    if packet.len() < HEADER || flags & flag::QR != 0 {
        return;
    }
    let flags = flag::QR | (flags & (flag::OPCODE | flag::RD)) | Rcode::SERVFAIL.0;
    out.extend_from_slice(&id.to_be_bytes());
    out.extend_from_slice(&flags.to_be_bytes());
    out.resize(HEADER, 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_alone_is_enough_to_be_told_of_a_failure() {
        let mut out = vec![7];
        bare(&[1, 2, 0x01, 0x20, 0, 1, 0, 0, 0, 0, 0, 0, 9], &mut out);
        assert_eq!(out, [1, 2, 0x81, 2, 0, 0, 0, 0, 0, 0, 0, 0]);
        for none in [&[1, 2, 1, 0, 0][..], &[1, 2, 0x81, 0, 0, 1, 0, 0, 0, 0, 0, 0]] {
            bare(none, &mut out);
            assert!(out.is_empty());
        }
    }

    #[test]
    fn outside_of_an_answer_a_panic_is_not_survived() {
        assert_eq!(panicked(|_| unreachable!("nobody asks for words")), Err(None));
        assert_eq!(message(&"a word"), "a word");
        assert_eq!(message(&"words".to_owned()), "words");
        assert_eq!(message(&7_u8), "it says nothing");
    }
}
