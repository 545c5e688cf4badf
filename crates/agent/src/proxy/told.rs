//! What the network's thread tells those who are asked how Services are served.

use std::{
    fmt::Write as _,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use podnet_client::events::Complaints;
use podnet_model::{ProxyConfig, proxy::Mode};
use tokio::sync::watch;

use super::{
    checks::{self, Checks},
    facts::Facts,
    guests::Guests,
    programming::{Moment, Programming},
    status::{self, Answers, Places, Status, serving},
};
use crate::health::Health;

/// The teller's side.
#[derive(Clone, Debug)]
pub struct Told {
    /// Changes on their way into force.
    pub programming: Arc<Programming>,
    /// What is in force, and what was refused.
    pub facts: Arc<Facts>,
    /// The configuration that counts.
    pub config: watch::Sender<Arc<ProxyConfig>>,
    /// The mode in force, or about to be: see `stands_in`.
    pub mode: watch::Sender<Option<Mode>>,
    /// Whose rules serve Services while that mode waits until it is known where connections of the one before are (on a kernel without
    /// nf_tables: until they are over); none while it does not wait.
    pub stands_in: watch::Sender<Option<Mode>>,
    /// Where it is told; nowhere while that is not known.
    pub places: watch::Sender<Option<Places>>,
    /// The ports of load balancers' health checks.
    pub checks: watch::Sender<Checks>,
    /// The configuration asks for a mode that cannot be.
    pub refused: Arc<AtomicBool>,
}

impl Told {
    /// Of an agent that begins now; nobody is served.
    #[must_use]
    pub fn new() -> Self {
        Self {
            programming: Arc::new(Programming::new(Moment::now())),
            facts: Arc::default(),
            config: watch::Sender::default(),
            mode: watch::Sender::new(None),
            stands_in: watch::Sender::new(None),
            places: watch::Sender::new(None),
            checks: watch::Sender::default(),
            refused: Arc::default(),
        }
    }

    /// Serves whoever asks, on tasks of their own, and adds the metrics to the agent's.
    pub fn serve(&self, health: &Health, complaints: Complaints) {
        let answers = Arc::new(Answers::default());
        health.add_metrics({
            let (answers, told) = (answers.clone(), self.clone());
            move || told.metrics() + &told.programming.metrics() + &told.facts.metrics() + &answers.metrics()
        });
        let all = health.clone();
        let status = Status {
            programming: self.programming.clone(),
            mode: self.mode.subscribe(),
            stands_in: self.stands_in.subscribe(),
            config: self.config.subscribe(),
            metrics: Box::new(move || all.metrics()),
            answers,
        };
        let guests = Guests::default();
        tokio::spawn(status::serve(Arc::new(status), self.places.subscribe(), guests.clone()));
        let checks = checks::serve(self.checks.subscribe(), self.programming.clone(), Some(complaints), guests);
        tokio::spawn(checks);
    }

    /// In the text format of Prometheus.
    fn metrics(&self) -> String {
        let (asked, stands_in) = (*self.mode.borrow(), *self.stands_in.borrow());
        let waiting = asked.filter(|_| stands_in.is_some());
        let mut text = String::new();
        for (name, help, which) in [
            ("podnet_proxy_mode", "1 for the mode that Services are served in.", serving(asked, stands_in)),
            (
                "podnet_proxy_mode_waiting",
                "1 for a mode that waits until it is known where connections of the one before are.",
                waiting,
            ),
        ] {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge");
            for mode in Mode::ALL {
                let _ = writeln!(text, "{name}{{mode=\"{mode}\"}} {}", u8::from(which == Some(mode)));
            }
        }
        let refused = "podnet_proxy_mode_refused";
        let is_so = u8::from(self.refused.load(Ordering::Relaxed));
        let help = "1 while the configuration asks for a mode that cannot be had; the one before stays.";
        let _ = writeln!(text, "# HELP {refused} {help}\n# TYPE {refused} gauge\n{refused} {is_so}");
        text
    }
}

impl Default for Told {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mode_that_waits_is_told_beside_the_one_that_serves() {
        let told = Told::new();
        told.mode.send_replace(Some(Mode::Userspace));
        let has = |lines: [&str; 3]| {
            let text = told.metrics();
            assert!(lines.iter().all(|line| text.contains(line)), "{text}");
        };
        has([
            "podnet_proxy_mode{mode=\"userspace\"} 1",
            "podnet_proxy_mode{mode=\"nftables\"} 0",
            "podnet_proxy_mode_waiting{mode=\"userspace\"} 0",
        ]);
        told.stands_in.send_replace(Some(Mode::Nftables));
        has([
            "podnet_proxy_mode{mode=\"userspace\"} 0",
            "podnet_proxy_mode{mode=\"nftables\"} 1",
            "podnet_proxy_mode_waiting{mode=\"userspace\"} 1",
        ]);
    }
}
