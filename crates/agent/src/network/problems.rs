//! What cannot be planned is told when it arises, and when it is over; by an event on the node too where somebody has to change a node.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use podnet_client::events::{About, Complaints};
use podnet_model::NodeName;
use podnet_planner::overlay::{Overlay, Problem};
use tracing::{info, warn};

use crate::repair::Counts;

/// How long something may be wrong before it is told: a node that joins publishes its address and its key one after the other.
const PATIENCE: Duration = Duration::from_secs(2);
/// How many are told at once; of thousands of one cause these are enough to see it.
const AT_ONCE: usize = 20;

/// What was told.
#[derive(Debug, Default)]
pub(super) struct Problems {
    told: BTreeSet<Problem>,
    due: Option<Instant>,
    /// Where events are told, and about whom.
    events: Option<(Complaints, NodeName)>,
}

impl Problems {
    pub(super) fn new(complaints: Complaints, node: NodeName) -> Self {
        Self { events: Some((complaints, node)), ..Self::default() }
    }

    /// Something changed: there may be others now.
    pub(super) fn suspect(&mut self) {
        self.due.get_or_insert_with(|| Instant::now() + PATIENCE);
    }

    /// When they are to be looked at; none where nothing changed.
    pub(super) const fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Tells what changed since the last look, where a look is due.
    pub(super) fn look(&mut self, overlay: &Overlay, counts: &Counts) {
        if self.due.is_none_or(|due| due > Instant::now()) {
            return;
        }
        self.due = None;
        let found: BTreeSet<Problem> = overlay.problems().collect();
        counts.problems(found.len());
        tell(
            found.difference(&self.told),
            |problem| warn!(%problem, "a part of the network is not as asked for"),
            |more| warn!(more, "other parts of the network are not as asked for"),
        );
        tell(
            self.told.difference(&found),
            |problem| info!(%problem, "a part of the network is as asked for again"),
            |more| info!(more, "other parts of the network are as asked for again"),
        );
        if let (Some((complaints, node)), Some(message)) = (&self.events, complaint(found.difference(&self.told))) {
            complaints.tell(About::node(node), "NetworkIncomplete", message);
        }
        self.told = found;
    }
}

/// Tells the first ones, and how many more there are.
fn tell<'a>(mut problems: impl Iterator<Item = &'a Problem>, one: impl Fn(&Problem), others: impl Fn(usize)) {
    problems.by_ref().take(AT_ONCE).for_each(one);
    match problems.count() {
        0 => {}
        more => others(more),
    }
}

/// Of those that belong into an event the first, and how many there are beside it.
fn complaint<'a>(new: impl Iterator<Item = &'a Problem>) -> Option<String> {
    let mut new = new.filter(|problem| problem.is_of_nodes());
    let first = new.next()?;
    Some(match new.count() {
        0 => first.to_string(),
        others => format!("{first} (and {others} more like it, in the agent's log)"),
    })
}

#[cfg(test)]
mod tests {
    use podnet_model::{Block, BlockCidr, Change, Family, Node, NodeAddr};
    use podnet_planner::overlay::OverlayConfig;

    use super::*;

    #[test]
    fn nodes_without_a_common_family_are_told_of_in_one_event() {
        let block = |cidr: &str| BlockCidr(cidr.parse().unwrap());
        let apart = |cidr: &str| Problem::NoCommonFamily {
            block: block(cidr),
            owner: "node2".into(),
            theirs: Family::V6,
            ours: Family::V4,
        };
        let passing = Problem::UnknownNode { block: block("10.0.2.0/26"), node: "node3".into() };
        assert_eq!(complaint([&passing].into_iter()), None);
        let told = complaint([&passing, &apart("10.0.0.0/26"), &apart("10.0.1.0/26")].into_iter()).unwrap();
        assert!(told.starts_with("block 10.0.0.0/26 of node node2 gets no route: that node has only an IPv6 address"));
        assert!(told.ends_with("(and 1 more like it, in the agent's log)"), "{told}");
    }

    #[test]
    fn a_problem_that_arises_later_is_counted_after_a_while_and_no_more_when_it_is_over() {
        let (mut problems, counts) = (Problems::default(), Counts::default());
        let mut overlay = Overlay::new(OverlayConfig::new("node1".into(), "eth0".into(), 1500));
        let node = Node::new("node1".into(), NodeAddr("172.29.0.11".parse().unwrap()));
        overlay.apply(&Change::Node("node1".into(), Some(node)));
        let cidr = BlockCidr("10.0.0.0/26".parse().unwrap());
        let mut look = |overlay: &Overlay| {
            problems.suspect();
            problems.look(overlay, &counts);
            assert_eq!(problems.told.len(), 0, "it has its time to pass");
            problems.due = Some(Instant::now());
            problems.look(overlay, &counts);
            assert_eq!(problems.due(), None);
            std::mem::take(&mut problems.told).len()
        };
        assert_eq!(look(&overlay), 0);
        overlay.apply(&Change::Block(cidr, Some(Block::new(cidr, Some("node2".into())))));
        assert_eq!(look(&overlay), 1);
        assert!(counts.metrics().contains("\npodnet_network_problems 1\n"), "{}", counts.metrics());
        overlay.apply(&Change::Block(cidr, None));
        assert_eq!(look(&overlay), 0);
        assert!(counts.metrics().contains("\npodnet_network_problems 0\n"));
    }
}
