//! Signatures that were made, to be given again: making one takes longer than the rest of an answer.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, PoisonError},
};

/// What a signature covers, as a digest.
pub(super) type Covered = [u8; 32];

/// The signatures of one set: the data of its RRSIG records.
pub(super) type Signatures = std::sync::Arc<[Box<[u8]>]>;

/// A bounded store of signatures; the oldest go first.
#[derive(Debug)]
pub(super) struct SignatureCache {
    capacity: usize,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    signatures: HashMap<Covered, (Signatures, u32)>,
    order: VecDeque<Covered>,
}

impl SignatureCache {
    pub(super) fn new(capacity: usize) -> Self {
        Self { capacity, kept: Mutex::default() }
    }

    /// The signatures of a set, when they may be used at `now`.
    pub(super) fn find(&self, covered: &Covered, now: u32) -> Option<Signatures> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let found = kept.signatures.get(covered).filter(|(_, until)| until.wrapping_sub(now) as i32 > 0);
        found.map(|(signatures, _)| signatures.clone())
    }

    /// Keeps signatures until `until`.
    pub(super) fn keep(&self, covered: Covered, signatures: Signatures, until: u32) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if self.capacity == 0 {
            return;
        }
        if kept.signatures.insert(covered, (signatures, until)).is_none() {
            kept.order.push_back(covered);
        }
        while kept.signatures.len() > self.capacity
            && let Some(oldest) = kept.order.pop_front()
        {
            kept.signatures.remove(&oldest);
        }
    }

    /// How many sets' signatures are kept.
    pub(super) fn len(&self) -> usize {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).signatures.len()
    }
}
