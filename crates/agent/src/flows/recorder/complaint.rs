//! What is said of failures: that there is one, and that they are over.

use std::time::{Duration, Instant};

/// Nothing failed for so long: it works again. Where a disk is full a short line finds room now and then.
const QUIET: Duration = Duration::from_secs(30);

/// Whether something fails, as far as it was said.
#[derive(Debug, Default)]
pub(super) struct Complaint {
    /// When it did so last.
    failed: Option<Instant>,
}

/// What is to be said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Say {
    Nothing,
    Fails,
    Works,
}

impl Complaint {
    /// Takes in how something went.
    pub(super) fn note(&mut self, is_well: bool, now: Instant) -> Say {
        match (is_well, self.failed) {
            (false, before) => {
                self.failed = Some(now);
                if before.is_none() { Say::Fails } else { Say::Nothing }
            }
            (true, Some(failed)) if now.duration_since(failed) >= QUIET => {
                self.failed = None;
                Say::Works
            }
            (true, _) => Say::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_that_comes_and_goes_is_told_once_and_that_it_is_over_too() {
        let (began, mut complaint) = (Instant::now(), Complaint::default());
        let mut said = Vec::new();
        for (second, is_well) in
            [(0, true), (1, false), (2, true), (3, false), (32, true), (33, true), (60, true), (70, false), (71, false)]
        {
            match complaint.note(is_well, began + Duration::from_secs(second)) {
                Say::Nothing => {}
                say => said.push((second, say)),
            }
        }
        assert_eq!(said, [(1, Say::Fails), (33, Say::Works), (70, Say::Fails)]);
    }
}
