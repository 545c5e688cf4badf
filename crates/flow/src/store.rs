//! The recent past, in bounded memory.

use std::{collections::VecDeque, mem::size_of};

use jiff::{SignedDuration, Timestamp};

use crate::record::{Item, Record};

/// What is kept of one item beside itself: its place, and its share of texts that several items have.
const OVERHEAD: usize = 64;

/// How much of the past is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// No longer than that.
    pub time: SignedDuration,
    /// No more bytes than about that.
    pub bytes: usize,
}

impl Default for Retention {
    fn default() -> Self {
        Self { time: SignedDuration::from_hours(1), bytes: 64 << 20 }
    }
}

/// Items in the order in which they came, each with a number that counts up from 0.
#[derive(Debug)]
pub struct Store {
    retention: Retention,
    items: VecDeque<(Timestamp, Item)>,
    first: u64,
    bytes: usize,
}

impl Store {
    /// An empty one.
    #[must_use]
    pub const fn new(retention: Retention) -> Self {
        Self { retention, items: VecDeque::new(), first: 0, bytes: 0 }
    }

    /// Keeps an item; older ones go where there are too many.
    pub fn push(&mut self, item: Item, now: Timestamp) {
        self.bytes += size(&item);
        self.items.push_back((now, item));
        self.forget(now);
    }

    /// Lets what is too old go.
    pub fn forget(&mut self, now: Timestamp) {
        while let Some((at, _)) = self.items.front()
            && (self.bytes > self.retention.bytes || now.duration_since(*at) > self.retention.time)
        {
            if let Some((_, item)) = self.items.pop_front() {
                self.bytes -= size(&item);
                self.first += 1;
            }
        }
    }

    /// The number of the item that comes next.
    #[must_use]
    pub fn next(&self) -> u64 {
        self.first + self.items.len() as u64
    }

    /// Items from a number on that are still there; with it how many of them are not any more.
    pub fn since(&self, number: u64) -> (u64, impl DoubleEndedIterator<Item = &Item>) {
        let missing = self.first.saturating_sub(number);
        let skipped = usize::try_from(number.saturating_sub(self.first)).unwrap_or(usize::MAX);
        (missing, self.items.range(skipped.min(self.items.len())..).map(|(_, item)| item))
    }

    /// How many bytes the items have, about.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }
}

/// Names are shared by all records of a pod.
fn size(item: &Item) -> usize {
    let own = match item {
        Item::Flow(_) => size_of::<Record>(),
        Item::Gap(_) => 0,
    };
    size_of::<(Timestamp, Item)>() + own + OVERHEAD
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Gap, GapAt};

    fn gap(packets: u64) -> Item {
        let at = Timestamp::UNIX_EPOCH;
        let (node, at_) = ("node1".into(), GapAt::Kernel);
        Item::Gap(Gap { start: at, end: at, node, at: at_, device: None, pod: None, packets, bytes: 0, flows: 0 })
    }

    fn numbers<'a>(items: impl Iterator<Item = &'a Item>) -> Vec<u64> {
        items.map(|item| if let Item::Gap(gap) = item { gap.packets } else { 0 }).collect()
    }

    #[test]
    fn what_is_too_old_or_too_much_goes_and_who_comes_late_is_told_how_much_it_missed() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let bytes = 3 * size(&gap(0));
        let mut store = Store::new(Retention { time: SignedDuration::from_secs(10), bytes });
        for number in 0..4 {
            store.push(gap(number), at(i64::try_from(number).unwrap()));
        }
        let (missing, items) = store.since(0);
        assert_eq!((missing, numbers(items)), (1, vec![1, 2, 3]));
        let (missing, items) = store.since(3);
        assert_eq!((missing, numbers(items)), (0, vec![3]));
        assert_eq!((store.since(9).0, store.next(), store.bytes()), (0, 4, bytes));
        store.forget(at(13));
        assert_eq!(numbers(store.since(0).1), [3]);
        store.forget(at(14));
        assert_eq!((store.bytes(), store.next(), store.since(0).0), (0, 4, 4));
    }
}
