//! Questions that are being asked.

use std::{
    collections::HashMap,
    hash::Hash,
    panic::{AssertUnwindSafe, resume_unwind},
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
};

use futures::{
    FutureExt as _,
    future::{BoxFuture, Shared, WeakShared},
};

use crate::server::lock;

/// No more questions can be taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Full;

type Flight<T> = BoxFuture<'static, T>;
/// Each with a number, which tells it from an earlier one for the same question.
type Open<K, T> = HashMap<K, (u64, WeakShared<Flight<Option<T>>>)>;

/// Somebody who waits for the answer to a question. Where to find it led to a panic, that goes on in each of those who wait: it would
/// end one of them, and leave the others waiting for good.
pub(crate) struct Landing<T: Clone>(Shared<Flight<Option<T>>>);

impl<T: Clone> Future for Landing<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        match ready!(self.0.poll_unpin(context)) {
            Some(landed) => Poll::Ready(landed),
            None => resume_unwind(Box::new("what was asked for several led to a panic")),
        }
    }
}

/// Questions that are being asked, each once for all who want to know.
pub(crate) struct Flights<K: Hash + Eq, T: Clone> {
    open: Mutex<Open<K, T>>,
    next: AtomicU64,
}

impl<K: Hash + Eq, T: Clone> Default for Flights<K, T> {
    fn default() -> Self {
        Self { open: Mutex::default(), next: AtomicU64::new(0) }
    }
}

impl<K: Hash + Eq + Clone + Send + Sync + 'static, T: Clone + Send + Sync + 'static> Flights<K, T> {
    /// The flight for a question: the one that is under way, or else a new one. It goes on as long as somebody waits for it.
    pub(crate) fn join(
        self: &Arc<Self>,
        key: &K,
        limit: usize,
        journey: impl FnOnce() -> Flight<T>,
    ) -> Result<Landing<T>, Full> {
        let mut open = lock(&self.open);
        if let Some(flight) = open.get(key).and_then(|(_, flight)| flight.upgrade()) {
            return Ok(Landing(flight));
        }
        if open.len() >= limit {
            return Err(Full);
        }
        // Before there is an entry: to drop that, where this panics, would wait for the list that is held here.
        let journey = journey();
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let entry = Entry { flights: Arc::clone(self), key: key.clone(), number };
        let flight = async move {
            let landed = AssertUnwindSafe(journey).catch_unwind().await.ok();
            drop(entry);
            landed
        };
        let flight = flight.boxed().shared();
        if let Some(weak) = flight.downgrade() {
            open.insert(key.clone(), (number, weak));
        }
        Ok(Landing(flight))
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        lock(&self.open).len()
    }
}

/// A flight's entry in the list: it goes with the flight, when it has landed and when nobody waits for it any more.
struct Entry<K: Hash + Eq, T: Clone> {
    flights: Arc<Flights<K, T>>,
    key: K,
    number: u64,
}

impl<K: Hash + Eq, T: Clone> Drop for Entry<K, T> {
    fn drop(&mut self) {
        let mut open = lock(&self.flights.open);
        if open.get(&self.key).is_some_and(|(number, _)| *number == self.number) {
            open.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::poll_fn,
        panic::catch_unwind,
        sync::atomic::AtomicUsize,
        task::{Wake, Waker},
    };

    use super::*;

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn panics(one: &mut Landing<u8>) -> bool {
        let mut context = Context::from_waker(Waker::noop());
        catch_unwind(AssertUnwindSafe(|| one.poll_unpin(&mut context))).is_err()
    }

    #[test]
    fn a_panic_before_the_way_leaves_nothing_behind() {
        let flights: Arc<Flights<u8, u8>> = Arc::default();
        let wrong = || -> Flight<u8> { panic!("it cannot begin") };
        assert!(catch_unwind(AssertUnwindSafe(|| flights.join(&7, 2, wrong).is_ok())).is_err());
        assert_eq!(flights.len(), 0);
        let again = flights.join(&7, 2, || Box::pin(async { 1 })).unwrap();
        assert_eq!(again.now_or_never(), Some(1));
    }

    #[test]
    fn a_panic_on_the_way_is_heard_of_by_all_who_wait_and_what_is_asked_next_is_asked_anew() {
        let flights: Arc<Flights<u8, u8>> = Arc::default();
        let woken: Arc<Woken> = Arc::default();
        let waker: Waker = Arc::clone(&woken).into();
        let second: Arc<Mutex<Option<Landing<u8>>>> = Arc::default();
        let other = Arc::clone(&second);
        // The second one comes to wait while the first one is on its way.
        let journey = move || -> Flight<u8> {
            Box::pin(poll_fn(move |_| -> Poll<u8> {
                let mut second = lock(&other);
                let polled = second.as_mut().map(|second| second.poll_unpin(&mut Context::from_waker(&waker)));
                assert!(polled.is_some_and(|polled| polled.is_pending()));
                panic!("it cannot land")
            }))
        };
        let never = || -> Flight<u8> { unreachable!("it is under way") };
        let mut first = flights.join(&7, 2, journey).unwrap();
        *lock(&second) = Some(flights.join(&7, 2, never).unwrap());
        assert!(panics(&mut first));
        assert_eq!(woken.0.load(Ordering::Relaxed), 1);
        let mut second = lock(&second).take().unwrap();
        assert!(panics(&mut second));
        assert_eq!(flights.len(), 0);
        let again = flights.join(&7, 2, || Box::pin(async { 1 })).unwrap();
        assert_eq!(again.now_or_never(), Some(1));
    }
}
