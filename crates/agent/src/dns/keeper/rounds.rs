//! When plugins look at their files: each as often as the Corefile says.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    time::Duration,
};

use tokio::time::{Instant, sleep_until};

/// The longest time between two looks.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

/// The files and directories that plugins look at by themselves.
#[derive(Debug, Default)]
pub(super) struct Rounds {
    /// Those that are looked at, by how often.
    rounds: BTreeMap<Duration, Round>,
    /// All of them, those that nobody looks at again included.
    all: BTreeSet<PathBuf>,
}

#[derive(Debug)]
struct Round {
    next: Instant,
    paths: BTreeSet<PathBuf>,
}

impl Rounds {
    /// Goes on with what a Corefile says: whose time runs already keeps it.
    pub(super) fn follow(&mut self, watched: &[(PathBuf, Option<Duration>)], now: Instant) {
        let mut rounds: BTreeMap<Duration, Round> = BTreeMap::new();
        for (path, every) in watched {
            let Some(every) = every.map(|every| every.min(LONGEST)) else { continue };
            let next = self.rounds.get(&every).map_or(now + every, |round| round.next);
            rounds.entry(every).or_insert_with(|| Round { next, paths: BTreeSet::new() }).paths.insert(path.clone());
        }
        self.all = watched.iter().map(|(path, _)| path.clone()).collect();
        self.rounds = rounds;
    }

    /// All paths that are not the Corefile's to look at.
    pub(super) fn all(&self) -> &BTreeSet<PathBuf> {
        &self.all
    }

    /// Waits until some are to be looked at; for ever where there are none.
    pub(super) async fn due(&self) {
        match self.rounds.values().map(|round| round.next).min() {
            Some(next) => sleep_until(next).await,
            None => std::future::pending().await,
        }
    }

    /// Those that are to be looked at now; their time begins anew.
    pub(super) fn take(&mut self, now: Instant) -> BTreeSet<PathBuf> {
        let mut due = BTreeSet::new();
        for (every, round) in self.rounds.iter_mut().filter(|(_, round)| round.next <= now) {
            round.next = now + *every;
            due.extend(round.paths.iter().cloned());
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(paths: &[&str]) -> BTreeSet<PathBuf> {
        paths.iter().map(PathBuf::from).collect()
    }

    #[test]
    fn each_file_is_looked_at_as_often_as_its_plugin_wants_and_a_new_corefile_puts_nothing_off() {
        let (start, seconds) = (Instant::now(), Duration::from_secs);
        let mut rounds = Rounds::default();
        let five = Some(seconds(5));
        let before = [("a", five), ("b", Some(seconds(60))), ("never", None), ("c", five)];
        let before = before.map(|(path, every)| (PathBuf::from(path), every));
        rounds.follow(&before, start);
        assert_eq!(rounds.take(start + seconds(4)), paths(&[]));
        assert_eq!(rounds.take(start + seconds(5)), paths(&["a", "c"]));
        assert_eq!(rounds.take(start + seconds(9)), paths(&[]));
        assert_eq!(rounds.all(), &paths(&["a", "b", "c", "never"]));
        // Another plugin looks at a file of the first one's, and at one of its own.
        let after = [before[0].clone(), before[1].clone(), (PathBuf::from("d"), Some(seconds(60)))];
        rounds.follow(&after, start + seconds(50));
        assert_eq!(rounds.take(start + seconds(60)), paths(&["a", "b", "d"]));
        assert_eq!(rounds.take(start + seconds(64)), paths(&[]));
        assert_eq!(rounds.take(start + seconds(65)), paths(&["a"]));
    }
}
