//! So many at once; whoever comes later waits, and is let in in the order of coming.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
};

use futures::channel::oneshot;

use super::lock;

/// Gives a bounded number of slots.
#[derive(Debug)]
pub(super) struct Queue(Mutex<State>);

#[derive(Debug)]
struct State {
    free: usize,
    waiting: VecDeque<oneshot::Sender<Slot>>,
}

/// The right to do what only so many do at once. When it is dropped, it is the next one's.
#[derive(Debug)]
pub(super) struct Slot(Option<Arc<Queue>>);

impl Queue {
    pub(super) fn new(slots: usize) -> Arc<Self> {
        Arc::new(Self(Mutex::new(State { free: slots, waiting: VecDeque::new() })))
    }

    /// A slot, as soon as there is one.
    pub(super) fn slot(self: &Arc<Self>) -> oneshot::Receiver<Slot> {
        let (sender, slot) = oneshot::channel();
        {
            let mut state = lock(&self.0);
            if state.free == 0 {
                state.waiting.push_back(sender);
                return slot;
            }
            state.free -= 1;
        }
        let _ = sender.send(Slot(Some(Arc::clone(self))));
        slot
    }

    /// Who waits longest; none, and a slot is free: nobody does.
    fn next(&self) -> Option<oneshot::Sender<Slot>> {
        let mut state = lock(&self.0);
        let next = state.waiting.pop_front();
        state.free += usize::from(next.is_none());
        next
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        while let Some(queue) = self.0.take() {
            // Whoever waits no more gives it back: a loop, since all of thousands may have gone.
            if let Some(next) = queue.next()
                && let Err(mut back) = next.send(Self(Some(queue)))
            {
                self.0 = back.0.take();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Who of those that wait has a slot now.
    fn let_in(waiting: &mut [oneshot::Receiver<Slot>]) -> Vec<Option<Slot>> {
        waiting.iter_mut().map(|slot| slot.try_recv().unwrap()).collect()
    }

    #[test]
    fn slots_go_round_in_the_order_of_coming() {
        let queue = Queue::new(1);
        let mut waiting: Vec<_> = (0..3).map(|_| queue.slot()).collect();
        let has = |slots: &[Option<Slot>]| slots.iter().map(Option::is_some).collect::<Vec<_>>();
        let first = let_in(&mut waiting);
        assert_eq!(has(&first), [true, false, false]);
        drop(first);
        let second = let_in(&mut waiting[1..]);
        assert_eq!(has(&second), [true, false]);
        drop(second);
        assert_eq!(has(&let_in(&mut waiting[2..])), [true]);
    }

    #[test]
    fn who_has_gone_is_passed_over() {
        let queue = Queue::new(1);
        let first = queue.slot().try_recv().unwrap();
        let gone: Vec<_> = (0..100_000).map(|_| queue.slot()).collect();
        drop(gone);
        drop(first);
        let mut last = queue.slot();
        // One that has a slot and goes before it looks.
        drop(last.try_recv().unwrap());
        drop(queue.slot());
        assert!(queue.slot().try_recv().unwrap().is_some());
    }
}
