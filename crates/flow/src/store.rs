//! The recent past, in bounded memory, and where those are who read it.

mod missed;

use std::{
    collections::{BTreeMap, VecDeque},
    mem::{size_of, take},
};

use jiff::{SignedDuration, Timestamp};

use crate::record::{Item, Record};
pub use missed::{Missed, Share, Sum};

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
    /// All that is not there any more.
    gone: Missed,
    /// The last time of what is not there any more.
    forgotten: Option<Timestamp>,
    /// Where those are who read, by the numbers of their bookmarks.
    places: BTreeMap<u64, Place>,
    bookmarks: u64,
}

/// Where somebody is who reads.
#[derive(Debug)]
struct Place {
    /// The number of the item that they read next.
    next: u64,
    /// What went by since they read.
    missed: Missed,
}

/// Whose place it is in a [`Store`].
#[derive(Debug)]
pub struct Bookmark(u64);

/// What is read at once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// What went by unread before these.
    pub missed: Missed,
    /// The number of the first of these.
    pub first: u64,
    /// None where all are read.
    pub items: Vec<Item>,
}

impl Store {
    /// An empty one.
    #[must_use]
    pub fn new(retention: Retention) -> Self {
        Self {
            retention,
            items: VecDeque::new(),
            first: 0,
            bytes: 0,
            gone: Missed::default(),
            forgotten: None,
            places: BTreeMap::new(),
            bookmarks: 0,
        }
    }

    /// Keeps an item; older ones go where there are too many.
    pub fn push(&mut self, item: Item, now: Timestamp) {
        self.bytes += size(&item);
        self.items.push_back((now, item));
        self.forget(now);
    }

    /// Lets what is too old go, and notes it for those who have not read it.
    pub fn forget(&mut self, now: Timestamp) {
        while let Some((at, _)) = self.items.front()
            && (self.bytes > self.retention.bytes || now.duration_since(*at) > self.retention.time)
        {
            if let Some((_, item)) = self.items.pop_front() {
                let number = self.first;
                let unread = self.places.values_mut().filter(|place| place.next <= number);
                unread.for_each(|place| place.missed.add(&item));
                self.gone.add(&item);
                self.forgotten = self.forgotten.max(Some(item.at()));
                self.bytes -= size(&item);
                self.first += 1;
            }
        }
    }

    /// The number of the oldest item that is there, or else of the one that comes next.
    #[must_use]
    pub const fn first(&self) -> u64 {
        self.first
    }

    /// The number of the item that comes next.
    #[must_use]
    pub fn next(&self) -> u64 {
        self.first + self.items.len() as u64
    }

    /// Until when something was that is not there any more, by items' own times; none while all is there.
    #[must_use]
    pub const fn forgotten(&self) -> Option<Timestamp> {
        self.forgotten
    }

    /// A place for somebody who reads from the item of this number on, if there is one yet, until they [`Store::leave`]. Of what is not there
    /// any more behind another than the very first one, it is not known what was in it.
    pub fn enter(&mut self, next: u64) -> Bookmark {
        let missed = if next == 0 { self.gone.clone() } else { Missed::default() };
        let number = self.bookmarks;
        self.bookmarks += 1;
        self.places.insert(number, Place { next: next.min(self.next()), missed });
        Bookmark(number)
    }

    /// Somebody reads no more.
    pub fn leave(&mut self, bookmark: &Bookmark) {
        self.places.remove(&bookmark.0);
    }

    /// The next items, so many at most, and what went by before them. Nothing for who has left.
    pub fn page(&mut self, bookmark: &Bookmark, most: usize) -> Page {
        let Some(place) = self.places.get_mut(&bookmark.0) else { return Page::default() };
        let missed = take(&mut place.missed).among(self.first.saturating_sub(place.next));
        let first = place.next.max(self.first);
        let skipped = usize::try_from(first - self.first).unwrap_or(usize::MAX).min(self.items.len());
        let items: Vec<Item> = self.items.range(skipped..).take(most).map(|(_, item)| item.clone()).collect();
        place.next = first + items.len() as u64;
        Page { missed, first, items }
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
        Item::Gap(_) | Item::Drops(_) => 0,
    };
    size_of::<(Timestamp, Item)>() + own + OVERHEAD
}

#[cfg(test)]
mod tests;
