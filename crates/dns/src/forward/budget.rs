//! How many questions are asked besides, of an upstream that is silent or of the next one: each adds to a load that may be what makes
//! them slow. A name that is slow everywhere, asked for by many, must not become several times as many questions.

use std::sync::atomic::{AtomicUsize, Ordering};

/// As long as no more questions are being asked than this, each may be asked besides: they are no load.
const FEW: usize = 16;
/// What each question adds to what may be asked besides, in hundredths of a question.
const SHARE: usize = 10;
/// One question.
const WHOLE: usize = 100;
/// The most that is saved up: ten questions.
const MOST: usize = 10 * WHOLE;

/// What may be asked besides, of one `forward`'s upstreams.
#[derive(Debug, Default)]
pub(super) struct Budget {
    /// Questions that are being asked.
    asking: AtomicUsize,
    /// In hundredths of a question.
    saved: AtomicUsize,
}

/// A question that is being asked.
#[derive(Debug)]
pub(super) struct Asking<'a>(&'a Budget);

impl Budget {
    /// A question begins to be asked.
    pub(super) fn begin(&self) -> Asking<'_> {
        self.asking.fetch_add(1, Ordering::Relaxed);
        let add = |saved: usize| Some((saved + SHARE).min(MOST));
        let _ = self.saved.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
        Asking(self)
    }
}

impl Asking<'_> {
    /// Whether it may be asked besides although the upstream is not late yet. Where more is being asked than a few questions, one in ten
    /// may.
    pub(super) fn may_hurry(&self) -> bool {
        let Self(budget) = self;
        let take = |saved: usize| saved.checked_sub(WHOLE);
        budget.asking.load(Ordering::Relaxed) <= FEW
            || budget.saved.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        self.0.asking.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hurrying(budget: &Budget, count: usize) -> usize {
        let asking: Vec<Asking<'_>> = (0..count).map(|_| budget.begin()).collect();
        asking.iter().filter(|asking| asking.may_hurry()).count()
    }

    #[test]
    fn few_questions_may_all_be_asked_besides_and_of_many_one_in_ten() {
        let budget = Budget::default();
        assert_eq!(hurrying(&budget, FEW), FEW);
        // What the first ones added is there, too.
        let of_many = hurrying(&budget, 50);
        assert!((5..=5 + FEW * SHARE / WHOLE + 1).contains(&of_many), "{of_many}");
        let (mut asked, mut besides) = (0, 0);
        for _ in 0..100 {
            asked += 100;
            besides += hurrying(&budget, 100);
        }
        assert!(besides <= asked / 10 + 1, "{besides}");
        assert_eq!(hurrying(&budget, FEW), FEW, "those that have ended count no more");
        // However many were answered in time, no more than so many follow at once.
        (0..10_000).for_each(|_| drop(budget.begin()));
        assert!(hurrying(&budget, 100) <= MOST / WHOLE);
    }
}
