//! What a node leaves to another one to tell. Of a flow between pods of two nodes that record to the same places the source's node tells there; the
//! destination's, which counted it as well, adds its part ([`Report::Part`]) once the flow is over and the other node is known to have been there
//! to tell it. Where that node is lost by then, this one tells in its place. That is for what the two agents do not settle between themselves
//! ([`crate::joint`]).

use std::{collections::VecDeque, mem::take, sync::Arc};

use jiff::{SignedDuration, Timestamp};
use podnet_model::NodeName;

use crate::{
    numbered::Numbered,
    record::{Item, Report},
};

/// How many ends wait at most, of about 1 KB each: what is beyond is told as parts before its time.
pub const MOST: usize = 32_768;
/// So long after its end it is known whether the source's node was there to tell it: the node lifecycle controller says that a node is lost
/// 50 s after it heard from it (40 s before Kubernetes 1.32).
const HOLD: SignedDuration = SignedDuration::from_secs(60);

/// Ends of flows that other nodes are to tell, in the order in which they were recorded here.
#[derive(Debug)]
pub struct Parts {
    held: VecDeque<(Timestamp, Numbered)>,
    most: usize,
}

impl Parts {
    /// For no more than that many.
    #[must_use]
    pub const fn new(most: usize) -> Self {
        Self { held: VecDeque::new(), most }
    }

    /// What is to be told of what was recorded now and before. `tells` says of a node whether its agent is there, and tells what it records
    /// wherever this one does; the last time all that is left is told. Each item comes out once at most, with the id that it came with.
    pub fn told(
        &mut self,
        items: Vec<Numbered>,
        (now, is_last): (Timestamp, bool),
        tells: impl Fn(&NodeName) -> bool,
    ) -> Vec<Numbered> {
        let mut told = Vec::with_capacity(items.len());
        for numbered in items {
            match teller(&numbered.item).is_some_and(&tells) {
                false => told.push(numbered),
                true if is_end(&numbered.item) => self.held.push_back((now, numbered)),
                // That it began and goes on is told where it is told as a whole.
                true => {}
            }
        }
        let is_due = |at: Timestamp, held: usize| is_last || held > self.most || now.duration_since(at) >= HOLD;
        while self.held.front().is_some_and(|(at, _)| is_due(*at, self.held.len())) {
            told.extend(self.held.pop_front().map(|(_, numbered)| part(numbered)));
        }
        told
    }

    /// What is told in the place of nodes that do not tell any more, to be asked for whenever `tells` may answer otherwise than before: ends of
    /// flows that nobody may have told.
    pub fn orphans(&mut self, tells: impl Fn(&NodeName) -> bool) -> Vec<Numbered> {
        let is_told = |(_, numbered): &(Timestamp, Numbered)| teller(&numbered.item).is_some_and(&tells);
        let (held, orphans): (VecDeque<_>, VecDeque<_>) = take(&mut self.held).into_iter().partition(is_told);
        self.held = held;
        orphans.into_iter().map(|(_, numbered)| numbered).collect()
    }
}

/// The other node that counted a flow as well and, as that of its source, is to tell it. What is a part already is known to have been told.
fn teller(item: &Item) -> Option<&NodeName> {
    let Item::Flow(record) = item else { return None };
    let is_open = record.is_secondary() && record.report != Report::Part;
    let source = record.source.pod.as_deref().filter(|_| is_open)?;
    Some(&source.node).filter(|node| **node != record.node)
}

fn is_end(item: &Item) -> bool {
    matches!(item, Item::Flow(record) if record.report == Report::End)
}

fn part(mut numbered: Numbered) -> Numbered {
    if let Item::Flow(record) = &mut numbered.item {
        Arc::make_mut(record).report = Report::Part;
    }
    numbered
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        record::{Class, Reporter},
        testing,
    };

    /// What node2 records of a flow from a pod of node1.
    fn recorded(sequence: u64, report: Report) -> Numbered {
        let mut numbered = testing::flow(sequence);
        let Item::Flow(record) = &mut numbered.item else { panic!("no flow") };
        let record = Arc::make_mut(record);
        (record.report, record.reporter) = (report, Reporter::Destination);
        (record.class, record.node, record.service) = (Class::PodPodOtherNode, "node2".into(), None);
        numbered
    }

    fn at(second: i64) -> (Timestamp, bool) {
        (Timestamp::from_second(second).unwrap(), false)
    }

    /// Sequences and reports.
    fn seen(told: &[Numbered]) -> Vec<(u64, Option<Report>)> {
        let report = |item: &Item| if let Item::Flow(record) = item { Some(record.report) } else { None };
        told.iter().map(|numbered| (numbered.record.sequence, report(&numbered.item))).collect()
    }

    fn node1(node: &NodeName) -> bool {
        node.as_str() == "node1"
    }

    #[test]
    fn what_the_sources_node_tells_comes_as_one_part_once_it_is_known_to_have_been_there() {
        let mut parts = Parts::new(MOST);
        let items = vec![recorded(1, Report::Start), testing::gap(2), recorded(3, Report::Update)];
        assert_eq!(seen(&parts.told(items, at(0), node1)), [(2, None)]);
        let items = vec![recorded(4, Report::End), recorded(5, Report::End)];
        assert!(parts.told(items, at(1), node1).is_empty());
        assert!(parts.told(Vec::new(), at(60), node1).is_empty() && parts.orphans(node1).is_empty());
        assert_eq!(seen(&parts.told(Vec::new(), at(61), node1)), [(4, Some(Report::Part)), (5, Some(Report::Part))]);
        assert!(parts.told(Vec::new(), at(200), node1).is_empty(), "once");
    }

    #[test]
    fn in_the_place_of_a_node_that_is_lost_all_is_told_that_ended_since_it_may_have_been() {
        let mut parts = Parts::new(MOST);
        assert!(parts.told(vec![recorded(1, Report::End)], at(0), node1).is_empty());
        let nobody = |_: &NodeName| false;
        assert_eq!(seen(&parts.orphans(nobody)), [(1, Some(Report::End))]);
        assert!(parts.orphans(nobody).is_empty() && parts.told(Vec::new(), at(100), nobody).is_empty());
        let items = || vec![recorded(2, Report::Start), recorded(3, Report::End)];
        let whole = [(2, Some(Report::Start)), (3, Some(Report::End))];
        assert_eq!(seen(&parts.told(items(), at(1), nobody)), whole);
        // It is back.
        assert!(parts.told(items(), at(2), node1).is_empty());
    }

    #[test]
    fn who_ends_and_who_has_no_room_tells_parts_before_their_time() {
        let mut parts = Parts::new(2);
        let items = (1..=3).map(|sequence| recorded(sequence, Report::End)).collect();
        assert_eq!(seen(&parts.told(items, at(0), node1)), [(1, Some(Report::Part))]);
        let (now, _) = at(1);
        assert_eq!(
            seen(&parts.told(Vec::new(), (now, true), node1)),
            [(2, Some(Report::Part)), (3, Some(Report::Part))]
        );
    }

    #[test]
    fn what_the_other_node_said_it_told_already_does_not_wait() {
        let told = Parts::new(MOST).told(vec![recorded(1, Report::Part)], at(0), node1);
        assert_eq!(seen(&told), [(1, Some(Report::Part))]);
    }

    #[test]
    fn what_no_other_node_counted_is_told_as_it_is() {
        let mut own = recorded(1, Report::End);
        let mut world = recorded(2, Report::End);
        let source = recorded_by_source(3);
        if let (Item::Flow(own), Item::Flow(world)) = (&mut own.item, &mut world.item) {
            // Both pods are this node's, and only the destination's entry was found.
            Arc::make_mut(own).node = "node1".into();
            let world = Arc::make_mut(world);
            (world.class, world.source.pod) = (Class::WorldPod, None);
        }
        let told = Parts::new(MOST).told(vec![own, world, source], at(0), |_| true);
        assert_eq!(seen(&told), [1, 2, 3].map(|sequence| (sequence, Some(Report::End))));
    }

    fn recorded_by_source(sequence: u64) -> Numbered {
        let mut numbered = recorded(sequence, Report::End);
        if let Item::Flow(record) = &mut numbered.item {
            let record = Arc::make_mut(record);
            (record.reporter, record.node) = (Reporter::Source, "node1".into());
        }
        numbered
    }
}
