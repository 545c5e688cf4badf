//! Takes in what the recorder leaves, sends it in batches, and tries again what did not come.

use std::{sync::Arc, time::Duration};

use podnet_flow::{Numbered, export::Taken};
use tokio::{
    pin,
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use uuid::Uuid;

use super::{Collector, SendError, backlog::Backlog, counts::Counts, intake::Intake, missing::Missing};

/// The most items of a batch, where a collector asks for nothing else.
pub(super) const BATCH: usize = 500;
/// How long the first item of a batch waits for others, where a collector asks for nothing else.
const GATHER: Duration = Duration::from_millis(if cfg!(test) { 10 } else { 1000 });
/// For a batch to come.
pub(super) const ATTEMPT: Duration = Duration::from_secs(if cfg!(test) { 5 } else { 10 });
/// Before the second attempt; each further pause is twice as long, up to the longest.
const PAUSE: Duration = Duration::from_millis(if cfg!(test) { 5 } else { 500 });
const LONGEST: Duration = Duration::from_millis(if cfg!(test) { 100 } else { 60_000 });

/// So many items that are refused one after the other, each alone, are refused for what the collector is and not for what they are.
const RUN: u32 = 3;
/// So many failures later the one that is tried is left out after all: should it be the item, it holds up those behind it no longer.
const PATIENCE: u32 = 16;

/// How much is put together before it is sent.
#[derive(Clone, Copy, Debug)]
pub(in crate::flows) struct Gather {
    /// The most items: no more than may wait in memory.
    pub(super) most: usize,
    /// How long the first one waits for others.
    pub(super) time: Duration,
    /// That is too long for an agent that may be killed: they wait on disk meanwhile.
    pub(super) is_long: bool,
}

impl Default for Gather {
    fn default() -> Self {
        Self { most: BATCH, time: GATHER, is_long: false }
    }
}

pub(super) struct Courier {
    name: String,
    collector: Box<dyn Collector>,
    backlog: Backlog,
    intake: Arc<Intake>,
    counts: Arc<Counts>,
    gather: Gather,
    /// The most items that are sent together: fewer after a batch was unfit, or a large one took too long.
    most: usize,
    /// Attempts that failed, one after the other.
    failures: u32,
    /// Items that were refused alone since a batch was taken.
    refusals: u32,
}

impl Courier {
    pub(super) fn new(
        name: String,
        collector: Box<dyn Collector>,
        mut backlog: Backlog,
        intake: Arc<Intake>,
        counts: Arc<Counts>,
    ) -> Self {
        let gather = collector.gather();
        if gather.is_long {
            backlog.gather_on_disk();
        }
        Self { name, collector, backlog, intake, counts, gather, most: gather.most, failures: 0, refusals: 0 }
    }

    /// Sends until `end`, and then what is left, until `late` or a failure. What has not come is on disk when it returns.
    pub(super) async fn run(mut self, end: CancellationToken, late: CancellationToken) {
        // Where another agent left something, there is nothing to be waited for.
        let mut due = (!self.backlog.is_empty()).then(Instant::now);
        loop {
            self.take_in();
            due = if self.backlog.is_empty() { None } else { due.or_else(|| Some(Instant::now() + self.gather.time)) };
            let is_full = self.failures == 0 && (self.backlog.len() >= self.most || self.backlog.has_whole_part());
            tokio::select! {
                () = end.cancelled() => break,
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() && !is_full => {}
                () = std::future::ready(()), if is_full => {}
                () = self.intake.told() => continue,
            }
            let has_come = self.deliver(&late).await;
            due = if has_come { None } else { Some(Instant::now() + pause(self.failures, Uuid::new_v4().as_u128())) };
            if late.is_cancelled() {
                break;
            }
        }
        self.take_in();
        // Of who was away until now nothing is expected.
        while self.failures == 0 && !self.backlog.is_empty() && !late.is_cancelled() {
            self.deliver(&late).await;
        }
        self.backlog.keep();
    }

    fn take_in(&mut self) {
        take_in(&self.intake, &mut self.backlog, &self.counts);
    }

    /// Sends a batch, and takes in meanwhile. Whether it has come, or is to be sent in other parts at once.
    async fn deliver(&mut self, late: &CancellationToken) -> bool {
        let batch = self.backlog.batch(self.most);
        if batch.is_empty() {
            return !self.backlog.is_unreadable() || self.is_away("what waits on disk for it cannot be read");
        }
        let Self { collector, backlog, intake, counts, .. } = self;
        let begun = Instant::now();
        let answer = {
            let sending = timeout(ATTEMPT, collector.send(&batch));
            pin!(sending);
            loop {
                tokio::select! {
                    answer = &mut sending => break answer.unwrap_or_else(|_| Err(SendError::Away("it does not answer in time".into()))),
                    () = late.cancelled() => break Err(SendError::Away("there was no time left".into())),
                    () = intake.told() => take_in(intake, backlog, counts),
                }
            }
        };
        match answer {
            Ok(taken) => self.has_come(&batch, taken),
            Err(SendError::Unfit(why)) => self.is_unfit(&batch, &why),
            Err(SendError::Away(why)) => {
                // What takes longer than an attempt may, by a slow way, would do so each time.
                if begun.elapsed() >= ATTEMPT && batch.len() > BATCH {
                    self.most = batch.len() / 2;
                }
                self.is_away(&why)
            }
        }
    }

    fn has_come(&mut self, batch: &[Numbered], taken: Taken) -> bool {
        if taken.again {
            return self.is_away(taken.why.as_deref().unwrap_or("it has no room at the moment"));
        }
        self.refusals = 0;
        if std::mem::take(&mut self.failures) > 0 {
            info!(collector = self.name, "the collector of flows takes them again");
        }
        if taken.refused > 0 {
            let why = taken.why.unwrap_or_default();
            warn!(collector = self.name, records = taken.refused, why, "the collector refuses records of flows");
            self.counts.refused(taken.refused);
        }
        self.counts.sent((batch.len() as u64).saturating_sub(taken.refused));
        self.backlog.sent();
        if taken.refused > 0
            && let Some(missing) = Missing::among(batch, taken.refused)
        {
            self.backlog.miss(missing);
        }
        self.most = (self.most * 2).min(self.gather.most);
        true
    }

    fn is_away(&mut self, why: &str) -> bool {
        if self.failures == 0 {
            warn!(
                collector = self.name,
                why, "a collector does not take flows; they wait on disk, and it is tried again"
            );
        }
        self.failures = self.failures.saturating_add(1);
        self.counts.failed();
        self.backlog.failed();
        false
    }

    /// It is sent in two halves, until one item is left that cannot be meant; where none is taken, it is the collector.
    fn is_unfit(&mut self, batch: &[Numbered], why: &str) -> bool {
        let [item] = batch else {
            self.failures = 0;
            self.backlog.returned();
            self.most = (batch.len() / 2).max(1);
            return true;
        };
        self.refusals = self.refusals.saturating_add(1);
        // What tells of the item before it is refused as that was.
        let is_the_collector = self.refusals >= RUN || (item.record.missing && self.refusals > 1);
        if is_the_collector && !self.failures.saturating_add(1).is_multiple_of(PATIENCE) {
            return self.is_away(why);
        }
        if self.refusals == 1 {
            warn!(collector = self.name, why, record = %item.record, "the collector does not take this record of a flow");
        }
        self.counts.refused(1);
        self.backlog.sent();
        // That it was told of what is missing is not told again.
        if !item.record.missing {
            self.backlog.miss(Missing::of(item));
        }
        if is_the_collector {
            return self.is_away(why);
        }
        self.failures = 0;
        true
    }
}

fn take_in(intake: &Intake, backlog: &mut Backlog, counts: &Counts) {
    let (items, dropped) = intake.take();
    counts.dropped(dropped);
    if !items.is_empty() {
        backlog.take_in(items);
    }
}

/// How long it is waited after so many failures: twice as long each time, half of it by chance, so that all agents do not come back at once.
fn pause(failures: u32, chance: u128) -> Duration {
    let whole = PAUSE.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(LONGEST);
    // Less than 1000.
    let part = u32::try_from(chance % 1000).unwrap_or(0);
    whole / 2 + whole * part / 2000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_the_longest_and_are_by_half_a_matter_of_chance() {
        assert_eq!((pause(1, 0), pause(2, 0)), (PAUSE / 2, PAUSE));
        assert!(pause(3, 999) > pause(3, 0) && pause(3, 999) <= PAUSE * 4);
        assert_eq!((pause(60, 0), pause(u32::MAX, 1000)), (LONGEST / 2, LONGEST / 2));
    }
}
