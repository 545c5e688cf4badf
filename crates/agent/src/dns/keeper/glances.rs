//! Whether the Corefile is another file than the one that was read last: it is looked at again and again, without reading it.

/// What was seen of a file; `S` tells one file from another.
#[derive(Debug)]
pub(super) struct Glances<S> {
    /// The file that was read last.
    read: Option<S>,
    /// The one that was seen last; none: there was no file.
    seen: Option<S>,
}

impl<S> Default for Glances<S> {
    fn default() -> Self {
        Self { read: None, seen: None }
    }
}

impl<S: Copy + PartialEq> Glances<S> {
    /// Whether it is another one, and has been for two glances: none is read that is half written.
    pub(super) fn changed(&mut self, now: Option<S>) -> bool {
        let settled = now.is_some() && now != self.read && now == self.seen;
        self.seen = now;
        if settled {
            self.read = now;
        }
        settled
    }

    /// Whether that is still there, to be read now. One that is being written again, or not there for the moment in which a ConfigMap's
    /// link is exchanged, counts as another one once it is there for two glances, be it the same or not.
    pub(super) fn settled(&mut self) -> bool {
        let settled = self.seen == self.read;
        if !settled {
            self.read = None;
        }
        settled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_counts_once_when_two_glances_see_it() {
        let mut glances = Glances::default();
        let changed = [Some(1), Some(1), Some(1), Some(2), Some(3), Some(3), None, Some(3)];
        let changed = changed.map(|now| glances.changed(now));
        assert_eq!(changed, [false, true, false, false, false, true, false, false]);
        assert!(glances.settled());
    }

    #[test]
    fn one_that_is_away_or_another_one_when_it_is_due_is_read_after_all() {
        for (meanwhile, behind) in [(None, 1), (None, 2), (Some(2), 1)] {
            let mut glances = Glances::default();
            assert!(!glances.changed(Some(1)) && glances.changed(Some(1)));
            glances.changed(meanwhile);
            assert!(!glances.settled());
            assert!(!glances.changed(Some(behind)) && glances.changed(Some(behind)), "{meanwhile:?} {behind}");
            assert!(glances.settled());
        }
    }
}
