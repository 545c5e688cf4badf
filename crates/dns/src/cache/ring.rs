//! One half of a cache: a bounded table.

use std::time::Instant;

use hashbrown::HashTable;

use super::Kept;

/// Bytes for each answer of a half's capacity. Answers are a fourth of that; a half that is full of large ones holds fewer of them.
const ROOM: usize = 1024;
/// What there is for the largest of all answers, however small the capacity.
pub(super) const LEAST_ROOM: usize = 256 * 1024;
/// What an answer takes beside its own bytes.
const OVERHEAD: usize = size_of::<Slot>() + size_of::<u32>() + 1;

/// A bounded map that replaces what was not asked for lately (the clock, or second-chance, algorithm): constant time for each
/// insertion on average, and memory only for what it holds.
#[derive(Debug)]
pub(super) struct Ring {
    capacity: usize,
    /// Bytes that it may hold, and holds.
    room: usize,
    pub(super) bytes: usize,
    hand: usize,
    /// Places in `slots`, by the keys' hashes.
    index: HashTable<u32>,
    pub(super) slots: Vec<Slot>,
}

#[derive(Debug)]
pub(super) struct Slot {
    pub(super) hash: u64,
    pub(super) key: Box<[u8]>,
    pub(super) kept: Kept,
    used: bool,
}

impl Ring {
    pub(super) fn new(capacity: usize) -> Self {
        // Places are numbers of 32 bits; nobody has the memory for more.
        let capacity = capacity.min(u32::MAX as usize);
        let room = capacity.saturating_mul(ROOM).max(LEAST_ROOM);
        Self { capacity, room, bytes: 0, hand: 0, index: HashTable::new(), slots: Vec::new() }
    }

    /// The place of a key's answer, which stays the same until something is put in.
    pub(super) fn place(&self, hash: u64, key: &[u8]) -> Option<usize> {
        let same = |at: &u32| self.slots.get(*at as usize).is_some_and(|slot| *slot.key == *key);
        self.index.find(hash, same).map(|at| *at as usize)
    }

    /// When the answer at a place ends.
    pub(super) fn expires(&self, at: usize) -> Option<Instant> {
        self.slots.get(at).map(|slot| slot.kept.expires)
    }

    pub(super) fn touch(&mut self, at: usize) -> Option<&mut Kept> {
        let slot = self.slots.get_mut(at)?;
        slot.used = true;
        Some(&mut slot.kept)
    }

    /// Puts an answer in, and says how many others gave way to it.
    pub(super) fn insert(&mut self, hash: u64, key: &[u8], kept: Kept, now: Instant) -> usize {
        if self.capacity == 0 {
            return 0;
        }
        let mut slot = Slot { hash, key: key.into(), kept, used: false };
        let size = slot.size();
        if let Some(known) = self.place(hash, key).and_then(|at| self.slots.get_mut(at)) {
            slot.used = true;
            self.bytes -= known.size();
            *known = slot;
            self.bytes += size;
            return self.give_way(0, now);
        }
        let mut gone = self.give_way(size, now);
        self.bytes += size;
        if self.slots.len() < self.capacity {
            self.enter(hash, self.slots.len());
            self.slots.push(slot);
        } else {
            self.turn(now);
            self.strike(self.hand);
            let old = std::mem::replace(&mut self.slots[self.hand], slot);
            self.bytes -= old.size();
            self.enter(hash, self.hand);
            self.hand += 1;
            gone += 1;
        }
        gone
    }

    /// Takes out a key's answer.
    pub(super) fn remove(&mut self, hash: u64, key: &[u8]) {
        if let Some(at) = self.place(hash, key) {
            self.take_out(at);
        }
    }

    /// Takes out what is at a place that is there, and says whether something else stands there now: what stood last.
    fn take_out(&mut self, at: usize) -> bool {
        self.strike(at);
        let last = self.slots.len() - 1;
        if last != at {
            self.strike(last);
        }
        let old = self.slots.swap_remove(at);
        self.bytes -= old.size();
        let moved = self.slots.get(at).map(|moved| moved.hash);
        if let Some(hash) = moved {
            self.enter(hash, at);
        }
        moved.is_some()
    }

    /// Makes room for so many bytes more, and says how many answers went for that.
    fn give_way(&mut self, size: usize, now: Instant) -> usize {
        let before = self.slots.len();
        while self.bytes + size > self.room && !self.slots.is_empty() {
            self.turn(now);
            // What stands there now came from the end, where the newest are.
            self.hand = if self.take_out(self.hand) { self.hand + 1 } else { 0 };
        }
        before - self.slots.len()
    }

    /// Turns the hand to what gives way next.
    fn turn(&mut self, now: Instant) {
        self.hand %= self.slots.len();
        while self.slots[self.hand].used && self.slots[self.hand].kept.expires > now {
            self.slots[self.hand].used = false;
            self.hand = (self.hand + 1) % self.slots.len();
        }
    }

    /// Has a place found by its key's hash; what is in it may follow.
    fn enter(&mut self, hash: u64, at: usize) {
        let slots = &self.slots;
        // What is asked for here is in its slot: the new one's hash is given.
        self.index.insert_unique(hash, at as u32, |at| slots.get(*at as usize).map_or(hash, |slot| slot.hash));
    }

    /// Has a place no longer found.
    fn strike(&mut self, at: usize) {
        if let Some(hash) = self.slots.get(at).map(|slot| slot.hash)
            && let Ok(entry) = self.index.find_entry(hash, |known| *known as usize == at)
        {
            entry.remove();
        }
    }
}

impl Slot {
    /// Bytes, those of the index included.
    pub(super) fn size(&self) -> usize {
        OVERHEAD + self.key.len() + self.kept.size()
    }
}
