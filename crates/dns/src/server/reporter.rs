//! `errors`: failures are told at once, or together with those like them.

use std::sync::{Arc, Mutex};

use super::{Debugger, Event, Failure, Observer, Outside, lock};
use crate::{
    chain::{Consolidate, ErrorsOptions, Level},
    message::rtype,
    name::{Name, QueryName},
};

/// Reports the failures of one server block.
pub(super) struct Reporter {
    rules: Vec<Consolidate>,
    /// Failures of the period that runs, for each rule.
    counts: Mutex<Vec<u64>>,
    debug: Debugger,
}

impl Reporter {
    pub(super) fn new(options: ErrorsOptions, debug: Debugger) -> Self {
        let counts = Mutex::new(vec![0; options.consolidate.len()]);
        Self { rules: options.consolidate, counts, debug }
    }

    /// Takes a failure in: the first of a rule begins its period, at the end of which all of them are told as one.
    pub(super) fn failed(
        self: &Arc<Self>,
        name: &QueryName,
        qtype: u16,
        reason: Failure,
        outside: &Arc<dyn Outside>,
        observer: &Arc<Observer>,
    ) {
        let (code, kind) = (reason.rcode(), rtype::mnemonic(qtype));
        let message = format!("{} {} {kind}: {reason}", code.0, Name::from_query(name));
        let Some(rule) = self.rules.iter().position(|rule| rule.pattern.regex().is_match(&message)) else {
            return observer(&Event::Failed { level: Level::Error, message: &message });
        };
        let first = {
            let mut counts = lock(&self.counts);
            counts[rule] += 1;
            counts[rule] == 1
        };
        if !first {
            return;
        }
        let Consolidate { period, level, show_first, .. } = self.rules[rule];
        if show_first {
            self.tell(level, &message, observer);
        }
        let (reporter, observer, end) = (Arc::clone(self), Arc::clone(observer), outside.sleep(period));
        outside.spawn(Box::pin(async move {
            end.await;
            reporter.told(rule, &observer);
        }));
    }

    fn told(&self, rule: usize, observer: &Observer) {
        let count = std::mem::take(&mut lock(&self.counts)[rule]);
        let Consolidate { period, pattern, level, show_first } = &self.rules[rule];
        // What was told by itself already needs no second word when it stayed alone.
        if count > u64::from(*show_first) {
            let (pattern, period) = (pattern.regex().as_str(), period.as_secs_f64());
            let message = format!("{count} errors like '{pattern}' occurred in last {period}s");
            self.tell(*level, &message, observer);
        }
    }

    /// What is of interest to who debugs alone is told to nobody else while somebody does.
    fn tell(&self, level: Level, message: &str, observer: &Observer) {
        if level == Level::Debug && self.debug.is_on() {
            self.debug.tell(|| message.to_owned());
        } else {
            observer(&Event::Failed { level, message });
        }
    }
}
