//! What the kernel refuses for long is told where people look: by an event on the node, and by a metric.

use std::time::{Duration, Instant};

use podnet_client::events::{About, Complaints};
use podnet_model::NodeName;
use tracing::info;

use crate::repair::Counts;

/// What lasts shorter is mended before anybody could act on it.
const LASTING: Duration = Duration::from_secs(10);

/// The present failure.
#[derive(Debug)]
pub(super) struct Failures {
    complaints: Complaints,
    node: NodeName,
    lasting: Lasting,
}

/// How long it lasts.
#[derive(Debug, Default)]
struct Lasting {
    since: Option<Instant>,
    told: bool,
}

impl Failures {
    pub(super) fn new(complaints: Complaints, node: NodeName) -> Self {
        Self { complaints, node, lasting: Lasting::default() }
    }

    /// All is in force.
    pub(super) fn over(&mut self, counts: &Counts) {
        counts.failing(false);
        if std::mem::take(&mut self.lasting).told {
            info!("the node's network is as wanted again");
        }
    }

    /// It was tried, and refused.
    pub(super) fn refused(&mut self, why: &str, counts: &Counts) {
        counts.failing(true);
        if self.lasting.is_news(Instant::now()) {
            let message = format!(
                "this node's network is not as the cluster wants it, pods may not reach all others: {why}; it is tried again"
            );
            self.complaints.tell(About::node(&self.node), "NetworkRefused", message);
        }
    }
}

impl Lasting {
    /// It lasts, and that was not told yet.
    fn is_news(&mut self, now: Instant) -> bool {
        let since = *self.since.get_or_insert(now);
        let news = !self.told && now.duration_since(since) >= LASTING;
        self.told |= news;
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_that_lasts_is_told_once() {
        let (mut lasting, now) = (Lasting::default(), Instant::now());
        let news = [0, 9, 10, 20].map(|seconds| lasting.is_news(now + Duration::from_secs(seconds)));
        assert_eq!(news, [false, false, true, false]);
    }
}
