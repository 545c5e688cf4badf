//! What pods are refused at their sockets (mode `ebpf`). Programs there know a pod by its network namespace; records, by its interface and addresses.

mod pods;

use std::{error::Error, mem, time::Instant};

use podnet_flow::{Entry, Refusal};
use podnet_kernel::{
    cgroup::Cgroup,
    flows::{FlowsError, Refusals},
};
use tracing::debug;

use self::pods::Pods;
use crate::flows::senders::Asking;

/// What is refused at the sockets of a cgroup's processes.
#[derive(Debug, Default)]
pub(super) struct Refused {
    /// None where no backends are chosen at sockets.
    cgroup: Option<Cgroup>,
    refusals: Option<Refusals>,
    /// Of programs that are not there any more, until what they counted last is read.
    former: Option<Refusals>,
    pods: Pods,
    /// What the last reading found, and as what it is recorded.
    found: Vec<(Refusal, Entry)>,
}

impl Refused {
    pub(super) fn of(cgroup: Option<Cgroup>) -> Self {
        Self { cgroup, ..Self::default() }
    }

    /// Reads all; how many found no room since the last time. What fails is told by a later reading, and what the last one found stays found until then.
    pub(super) fn read(&mut self, holders: &Asking, now: Instant) -> u64 {
        match self.try_read(holders, now) {
            Ok(missed) => missed,
            Err(error) => {
                debug!(error = &error as &dyn Error, "it is not known what Services refuse at sockets");
                0
            }
        }
    }

    fn try_read(&mut self, holders: &Asking, now: Instant) -> Result<u64, FlowsError> {
        self.look()?;
        if self.refusals.is_none() && self.former.is_none() {
            self.found.clear();
            return Ok(0);
        }
        let mut all = Vec::new();
        for refusals in self.former.iter_mut().chain(&mut self.refusals) {
            all.extend(refusals.read()?);
        }
        self.found.clear();
        self.pods.follow(holders, &all, now);
        for refusal in all {
            match self.pods.entry(&refusal) {
                Some(entry) => self.found.push((refusal, entry)),
                None if self.pods.is_strange(&refusal, now) => self.give_up(&refusal),
                None => {}
            }
        }
        let mut missed = 0;
        for refusals in self.former.take().iter().chain(&self.refusals) {
            missed += refusals.missed()?;
        }
        Ok(missed)
    }

    /// Takes out what nobody is told of. Where that fails, a later reading does it.
    fn give_up(&self, refusal: &Refusal) {
        if let Some(Err(error)) = self.refusals.as_ref().map(|refusals| refusals.take(refusal)) {
            debug!(error = &error as &dyn Error, "what a stranger was refused stays counted");
        }
    }

    /// Whether there are such programs by now, and others than before. They count as long as this is called.
    fn look(&mut self) -> Result<(), FlowsError> {
        let Some(cgroup) = &self.cgroup else { return Ok(()) };
        let there = Refusals::at(cgroup)?;
        let both = there.as_ref().zip(self.refusals.as_ref());
        if !both.is_some_and(|(there, known)| there.is_same(known))
            && let Some(before) = mem::replace(&mut self.refusals, there)
        {
            self.former = Some(before);
        }
        self.refusals.as_ref().map_or(Ok(()), |refusals| refusals.record(true))
    }

    /// What the last reading found. What is not taken out is handed back ([`Refused::keep`]): it counts as long as no other reading does.
    pub(super) fn found(&mut self) -> Vec<(Refusal, Entry)> {
        mem::take(&mut self.found)
    }

    pub(super) fn keep(&mut self, found: (Refusal, Entry)) {
        self.found.push(found);
    }

    /// Takes out what is as it was read; its last counters. None where it is not.
    pub(super) fn take(&self, read: &Refusal) -> Option<Entry> {
        let taken = self.refusals.as_ref()?.take(read);
        match taken {
            Ok(last) => self.pods.entry(&last?),
            Err(error) => {
                debug!(error = &error as &dyn Error, "what was refused stays counted");
                None
            }
        }
    }
}
