//! What a node's stack translates, and how long it knows of it.

use std::collections::HashMap;

use podnet_flow::{Key, Transport, aggregate::Translations};

/// What is translated on its way: by what it was addressed to, and, where it is masqueraded, by what comes of that.
#[derive(Clone, Default)]
pub(super) struct Stack {
    onward: HashMap<Key, Key>,
    pub(super) origin: HashMap<Key, Key>,
    /// When the last packet came of what is masqueraded.
    passed: HashMap<Key, i64>,
}

/// Conntrack forgets datagrams that long after the last one.
const FORGOTTEN: i64 = 30_000;

impl Stack {
    pub(super) fn translate(&mut self, begun: Key, seen: Key) {
        self.onward.insert(begun, seen);
        if begun.source != seen.source {
            self.origin.insert(seen, begun);
        }
    }

    /// A packet of what may be masqueraded.
    pub(super) fn pass(&mut self, seen: Key, now: i64) {
        if self.origin.contains_key(&seen) {
            self.passed.insert(seen, now);
        }
    }

    /// What is known of it at a time.
    pub(super) fn remembered(&mut self, key: &Key, now: i64) -> Option<Key> {
        let is_there = |passed: &i64| key.transport != Transport::UDP || now - passed < FORGOTTEN;
        if self.passed.get(key).is_none_or(is_there) { self.origin(key) } else { None }
    }
}

impl Translations for Stack {
    fn onward(&mut self, key: &Key) -> Option<Key> {
        self.onward.get(key).copied()
    }

    fn origin(&mut self, key: &Key) -> Option<Key> {
        self.origin.get(key).copied()
    }
}
