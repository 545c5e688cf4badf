//! A hash table of node numbers that keeps no names of its own.

use std::hash::{BuildHasher, RandomState};

const FREE: u32 = u32::MAX;

/// Finds nodes by name.
#[derive(Debug)]
pub(super) struct Table {
    slots: Box<[u32]>,
    hasher: RandomState,
}

impl Table {
    /// A table of the nodes `0..count`, at most half full, so that a search ends soon. The hash is keyed at random: names in a
    /// transferred zone cannot be chosen to collide.
    pub(super) fn new<'a>(count: usize, name: impl Fn(usize) -> &'a [u8]) -> Self {
        let size = (count * 2).next_power_of_two().max(2);
        let mut table = Self { slots: vec![FREE; size].into(), hasher: RandomState::new() };
        for index in 0..count {
            let mut slot = table.start(name(index));
            while table.slots[slot] != FREE {
                slot = (slot + 1) & (size - 1);
            }
            table.slots[slot] = index as u32;
        }
        table
    }

    fn start(&self, name: &[u8]) -> usize {
        self.hasher.hash_one(name) as usize & (self.slots.len() - 1)
    }

    /// The node whose name this is.
    pub(super) fn find<'a>(&self, wanted: &[u8], name: impl Fn(usize) -> &'a [u8]) -> Option<usize> {
        let mut slot = self.start(wanted);
        loop {
            match self.slots[slot] {
                FREE => return None,
                index if name(index as usize) == wanted => return Some(index as usize),
                _ => slot = (slot + 1) & (self.slots.len() - 1),
            }
        }
    }
}
