//! Which of some files are wrong, where together they cannot be taken over: each half is tried, then the halves of what is wrong. Of a thousand
//! files one is found in some twenty attempts, and each attempt loads all that is served.

use std::{collections::BTreeSet, path::PathBuf};

/// Groups of files that are to be tried.
#[derive(Debug)]
pub(super) struct Halves(Vec<BTreeSet<PathBuf>>);

impl Halves {
    /// All of these first.
    pub(super) fn of(paths: BTreeSet<PathBuf>) -> Self {
        Self(if paths.is_empty() { Vec::new() } else { vec![paths] })
    }

    /// What is to be tried next; none at the end.
    pub(super) fn take(&mut self) -> Option<BTreeSet<PathBuf>> {
        self.0.pop()
    }

    /// That was tried and is wrong: its halves are to be tried, or, where it is one file, that is the one.
    pub(super) fn divide(&mut self, mut group: BTreeSet<PathBuf>) -> Option<PathBuf> {
        let middle = group.iter().nth(group.len() / 2).cloned()?;
        if group.len() == 1 {
            return Some(middle);
        }
        let second = group.split_off(&middle);
        // The first half first.
        self.0.extend([second, group]);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(numbers: impl IntoIterator<Item = usize>) -> BTreeSet<PathBuf> {
        numbers.into_iter().map(|number| PathBuf::from(format!("db.{number:04}"))).collect()
    }

    #[test]
    fn the_wrong_ones_are_found_in_few_attempts_and_all_others_are_taken_over() {
        let table = [(0, vec![], 0), (1, vec![0], 1), (2, vec![1], 3), (1000, vec![617], 21), (9, vec![0, 4, 8], 15)];
        for (all, bad, most) in table {
            let bad = paths(bad);
            let (mut halves, mut attempts) = (Halves::of(paths(0..all)), 0);
            let (mut taken, mut wrong) = (BTreeSet::new(), BTreeSet::new());
            while let Some(mut group) = halves.take() {
                attempts += 1;
                if group.is_disjoint(&bad) {
                    taken.append(&mut group);
                } else {
                    wrong.extend(halves.divide(group));
                }
            }
            assert_eq!(wrong, bad, "of {all}");
            assert_eq!(taken, &paths(0..all) - &bad, "of {all}");
            assert!(attempts <= most, "{attempts} attempts for {} of {all}", bad.len());
        }
    }
}
