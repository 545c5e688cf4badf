//! The recent past, in bounded memory.

use std::{collections::VecDeque, mem::size_of};

use jiff::{SignedDuration, Timestamp};

use crate::record::{Item, Record, Report};

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

/// What is lost with items: flows by the records of their ends, since those before say less of the same, and what gaps say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    /// Packets of both directions.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Flows.
    pub flows: u64,
}

impl Sum {
    /// With one more.
    pub fn add(&mut self, item: &Item) {
        let (packets, bytes, flows) = match item {
            Item::Flow(record) if record.report == Report::End => {
                (record.sent.packets + record.received.packets, record.sent.bytes + record.received.bytes, 1)
            }
            Item::Flow(_) => return,
            Item::Gap(gap) => (gap.packets, gap.bytes, gap.flows),
        };
        self.packets += packets;
        self.bytes += bytes;
        self.flows += flows;
    }

    /// What is in this one and not in one of before.
    #[must_use]
    pub const fn since(self, before: Self) -> Self {
        Self {
            packets: self.packets.saturating_sub(before.packets),
            bytes: self.bytes.saturating_sub(before.bytes),
            flows: self.flows.saturating_sub(before.flows),
        }
    }
}

/// Items in the order in which they came, each with a number that counts up from 0.
#[derive(Debug)]
pub struct Store {
    retention: Retention,
    items: VecDeque<(Timestamp, Item)>,
    first: u64,
    bytes: usize,
    /// Of all that came, and of those that are not there any more.
    all: Sum,
    gone: Sum,
}

impl Store {
    /// An empty one.
    #[must_use]
    pub const fn new(retention: Retention) -> Self {
        let none = Sum { packets: 0, bytes: 0, flows: 0 };
        Self { retention, items: VecDeque::new(), first: 0, bytes: 0, all: none, gone: none }
    }

    /// Keeps an item; older ones go where there are too many.
    pub fn push(&mut self, item: Item, now: Timestamp) {
        self.bytes += size(&item);
        self.all.add(&item);
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
                self.gone.add(&item);
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

    /// The sum of the items before that number; none where some of these and some behind it are not there any more.
    #[must_use]
    pub fn sum_before(&self, number: u64) -> Option<Sum> {
        if number >= self.next() {
            return Some(self.all);
        }
        if number == 0 {
            return Some(Sum::default());
        }
        let there = usize::try_from(number.checked_sub(self.first)?).ok()?;
        let mut sum = self.gone;
        self.items.range(..there).for_each(|(_, item)| sum.add(item));
        Some(sum)
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
    use std::sync::Arc;

    use super::*;
    use crate::{
        record::{Gap, GapAt},
        testing::{flow, gap as testing_gap},
    };

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
        let sum = |packets| Some(Sum { packets, ..Sum::default() });
        assert_eq!([0, 2, 3, 4].map(|number| store.sum_before(number)), [sum(0), None, sum(3), sum(6)]);
        store.forget(at(14));
        assert_eq!((store.bytes(), store.next(), store.since(0).0), (0, 4, 4));
    }

    #[test]
    fn the_sum_of_what_went_by_has_each_flow_once_and_what_gaps_tell() {
        let mut store = Store::new(Retention { time: SignedDuration::from_secs(10), bytes: 1 << 20 });
        let now = Timestamp::UNIX_EPOCH;
        let [Item::Flow(ended), lost] = [flow(1).item, testing_gap(2).item] else { panic!("no flow") };
        let begun = Item::Flow(Arc::new(Record { report: Report::Start, ..Record::clone(&ended) }));
        for item in [begun, Item::Flow(ended), lost] {
            store.push(item, now);
        }
        let sum = |packets, bytes, flows| Some(Sum { packets, bytes, flows });
        let sums = [0, 1, 2, 3].map(|number| store.sum_before(number));
        assert_eq!(sums, [sum(0, 0, 0), sum(0, 0, 0), sum(11, 5600, 1), sum(51, 9600, 4)]);
        let [all, ended] = [sums[3], sums[2]].map(Option::unwrap_or_default);
        assert_eq!(all.since(ended), Sum { packets: 40, bytes: 4000, flows: 3 });
        store.forget(now.checked_add(SignedDuration::from_secs(11)).unwrap());
        assert_eq!([store.sum_before(2), store.sum_before(3)], [None, sums[3]]);
    }
}
