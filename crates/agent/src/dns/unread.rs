//! Answers that clients do not read: how many bytes of them are kept, for each connection and for a port's connections together.
//!
//! An answer counts from when it is made until it is written. While a connection has answers that are not written it is not read from
//! beyond its own bound, nor beyond the port's; one that has none may always ask once more, so those who read are answered however
//! many others do not. So a port keeps no more than its bound, and one answer for each connection.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use podnet_dns::{
    message::{HEADER, Rcode},
    name::QueryName,
};
use tokio::sync::Notify;

/// Bytes of one connection's answers: sixteen of the largest, or some hundreds of the usual ones.
const OF_ONE: usize = 1 << 20;
/// Bytes of the answers of all connections of a port.
const OF_ALL: usize = 64 << 20;

/// What the connections of a port have not read.
#[derive(Debug)]
pub(super) struct Unread {
    bytes: AtomicUsize,
    of_one: usize,
    of_all: usize,
}

impl Default for Unread {
    fn default() -> Self {
        Self::bounded(OF_ONE, OF_ALL)
    }
}

/// What one connection has not read.
#[derive(Debug)]
pub(super) struct Account {
    all: Arc<Unread>,
    bytes: AtomicUsize,
    /// When something was written last, or began to wait where nothing did.
    moved: Mutex<Instant>,
    freed: Notify,
}

/// An answer's bytes; they are free again when this is dropped.
#[derive(Debug)]
pub(super) struct Charge {
    account: Arc<Account>,
    bytes: usize,
}

/// An answer with its charge.
struct Charged {
    answer: Vec<u8>,
    _charge: Charge,
}

impl AsRef<[u8]> for Charged {
    fn as_ref(&self) -> &[u8] {
        &self.answer
    }
}

/// What is told in place of an answer for which there is no room: that it failed.
pub(super) fn refused(answer: &[u8]) -> Vec<u8> {
    let question = QueryName::parse(answer, HEADER).ok().and_then(|(_, end)| answer.get(HEADER..end + 4));
    let mut refused = answer.get(..HEADER).unwrap_or_default().to_vec();
    if let Some([_, _, flags, rcode, counts @ ..]) = refused.first_chunk_mut::<HEADER>() {
        // Neither authoritative nor cut.
        *flags &= !0x06;
        *rcode = *rcode & 0xf0 | Rcode::SERVFAIL.0 as u8;
        counts.fill(0);
        counts[1] = u8::from(question.is_some());
    }
    refused.extend_from_slice(question.unwrap_or_default());
    refused
}

impl Unread {
    /// With these bounds, in bytes.
    pub(super) const fn bounded(of_one: usize, of_all: usize) -> Self {
        Self { bytes: AtomicUsize::new(0), of_one, of_all }
    }

    /// The account of a new connection.
    pub(super) fn account(self: &Arc<Self>) -> Arc<Account> {
        let (bytes, moved) = (AtomicUsize::new(0), Mutex::new(Instant::now()));
        Arc::new(Account { all: Arc::clone(self), bytes, moved, freed: Notify::new() })
    }

    /// How many bytes there are.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }
}

impl Account {
    /// Waits until the connection may be asked for more.
    pub(super) async fn room(&self) {
        self.until(|own, all| self.fits(own, all, 1).then_some(())).await;
    }

    /// Counts an answer, as soon as there is room for it.
    pub(super) async fn charged(self: &Arc<Self>, bytes: usize) -> Charge {
        self.until(|_, _| self.charge(bytes)).await
    }

    /// Counts an answer; none: there is no room for it.
    pub(super) fn charge(self: &Arc<Self>, bytes: usize) -> Option<Charge> {
        if self.is_empty() {
            self.moves();
        }
        let all = self.all.bytes.load(Ordering::Acquire);
        let more = |own| self.fits(own, all, bytes).then_some(own + bytes);
        self.bytes.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).ok()?;
        self.all.bytes.fetch_add(bytes, Ordering::AcqRel);
        Some(Charge { account: Arc::clone(self), bytes })
    }

    /// Counts an answer as long as anybody holds its bytes; where there is no room for it, it comes back.
    pub(super) fn keep(self: &Arc<Self>, answer: Vec<u8>) -> Result<Bytes, Vec<u8>> {
        match self.charge(answer.len()) {
            Some(charge) => Ok(Bytes::from_owner(Charged { answer, _charge: charge })),
            None => Err(answer),
        }
    }

    async fn until<T>(&self, ready: impl Fn(usize, usize) -> Option<T>) -> T {
        loop {
            // Listened for before it is looked at: what is freed in between is heard.
            let freed = self.freed.notified();
            let (own, all) = (self.bytes.load(Ordering::Acquire), self.all.bytes.load(Ordering::Acquire));
            if let Some(ready) = ready(own, all) {
                return ready;
            }
            freed.await;
        }
    }

    /// How long nothing was written although something waits.
    pub(super) fn stuck(&self) -> Duration {
        if self.is_empty() {
            return Duration::ZERO;
        }
        self.moved.lock().unwrap_or_else(PoisonError::into_inner).elapsed()
    }

    /// Whether everything is written.
    pub(super) fn is_empty(&self) -> bool {
        self.bytes.load(Ordering::Acquire) == 0
    }

    /// Whether so many bytes more are within the bounds, or the only ones.
    fn fits(&self, own: usize, all: usize, bytes: usize) -> bool {
        own == 0 || (own + bytes <= self.all.of_one && all + bytes <= self.all.of_all)
    }

    fn moves(&self) {
        *self.moved.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        let Self { account, bytes } = self;
        account.all.bytes.fetch_sub(*bytes, Ordering::AcqRel);
        account.moves();
        account.bytes.fetch_sub(*bytes, Ordering::AcqRel);
        account.freed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[test]
    fn who_has_something_unread_is_bounded_and_who_has_nothing_is_always_answered() {
        let port = Arc::new(Unread::bounded(100, 150));
        let (one, other, third) = (port.account(), port.account(), port.account());
        let first = one.charge(60).unwrap();
        assert!(one.charge(41).is_none(), "beyond its own bound");
        let second = one.charge(40).unwrap();
        assert!(one.room().now_or_never().is_none());
        let whole = other.charge(90).expect("it has nothing unread, however much the port has");
        assert!(other.charge(1).is_none(), "beyond the port's bound");
        let another = third.charge(1).unwrap();
        assert_eq!(port.bytes(), 191);
        drop((first, second));
        assert!(one.room().now_or_never().is_some() && one.is_empty());
        drop((whole, another));
        assert_eq!(port.bytes(), 0);
    }

    #[test]
    fn bytes_that_somebody_holds_count_and_what_has_no_room_is_told_to_have_failed() {
        let port = Arc::new(Unread::bounded(100, 150));
        let account = port.account();
        let held = account.keep(vec![7; 90]).unwrap();
        let part = held.slice(..10);
        drop(held);
        assert_eq!(port.bytes(), 90);
        let mut answer = vec![1, 2, 0x85, 0xa0, 0, 1, 0, 1, 0, 0, 0, 0, 1, b'a', 0, 0, 16, 0, 1];
        answer.extend_from_slice(&[0; 100]);
        let answer = account.keep(answer).unwrap_err();
        let expected = [1, 2, 0x81, 0xa2, 0, 1, 0, 0, 0, 0, 0, 0, 1, b'a', 0, 0, 16, 0, 1];
        assert_eq!(refused(&answer), expected);
        assert_eq!(refused(&answer[..14])[..12], [1, 2, 0x81, 0xa2, 0, 0, 0, 0, 0, 0, 0, 0]);
        drop(part);
        assert_eq!(port.bytes(), 0);
    }

    #[tokio::test]
    async fn who_waits_for_room_hears_of_it() {
        let port = Arc::new(Unread::bounded(10, 10));
        let account = port.account();
        let charge = account.charge(10).unwrap();
        let waiting = tokio::spawn({
            let account = Arc::clone(&account);
            async move { account.room().await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        assert!(account.stuck() > Duration::ZERO);
        drop(charge);
        waiting.await.unwrap();
        assert_eq!(account.stuck(), Duration::ZERO);
    }
}
