//! What was seen of a probe, beside the hops that it was to pass.

use std::{
    cmp::Reverse,
    net::{IpAddr, SocketAddr},
};

use podnet_flow::probe::{Found, Kind, Point, Sent, Sighting, Tunnel};
use podnet_model::NodeName;
use podnet_planner::ruleset::BackendAddress;

use super::points::Spot;

/// Something that an agent saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::forwarding) struct Seen {
    pub(in crate::forwarding) node: NodeName,
    pub(super) point: Point,
    /// What the device is called there.
    pub(in crate::forwarding) device: String,
    pub(super) sighting: Sighting,
}

/// A way that a probe may go.
pub(super) struct Way {
    /// Of each hop.
    pub(super) spots: Vec<Option<Spot>>,
    pub(super) destination: BackendAddress,
}

/// What is known of a hop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::forwarding) enum Watched {
    /// Nobody can watch it.
    Unseen,
    /// It was watched, and the probe did not pass.
    Missed,
    /// It passed.
    Passed(Passing),
}

/// How it passed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::forwarding) struct Passing {
    /// Nanoseconds since it was sent; below zero where the clock of that node is behind.
    pub(in crate::forwarding) after: i64,
    /// What the device is called there.
    pub(in crate::forwarding) device: String,
    pub(in crate::forwarding) source: SocketAddr,
    pub(in crate::forwarding) destination: SocketAddr,
    pub(in crate::forwarding) within: Option<Tunnel>,
}

/// The way that a probe went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::forwarding) struct Course {
    /// Which of the ways.
    pub(in crate::forwarding) way: usize,
    /// Of each of its hops.
    pub(in crate::forwarding) hops: Vec<Watched>,
    pub(in crate::forwarding) answer: Option<Answer>,
}

/// What came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::forwarding) struct Answer {
    pub(in crate::forwarding) kind: Kind,
    /// Who sent it, as the one says who saw it first.
    pub(in crate::forwarding) by: IpAddr,
    pub(in crate::forwarding) first: (NodeName, String),
    /// When it was back where the probe was sent, if it came so far: nanoseconds since then.
    pub(in crate::forwarding) back: Option<i64>,
}

impl Course {
    /// The hop where it was lost and the last one that it passed, if any: none where it passed the last one that is watched.
    pub(in crate::forwarding) fn died(&self) -> Option<(usize, Option<usize>)> {
        let last = self.hops.iter().rposition(|hop| matches!(hop, Watched::Passed(_)));
        let behind = last.map_or(0, |last| last + 1);
        let lost = self.hops.iter().skip(behind).position(|hop| *hop == Watched::Missed)?;
        Some((behind + lost, last))
    }

    /// Hops that it was to pass and did not, though it was seen behind them.
    pub(in crate::forwarding) fn passed_by(&self) -> impl Iterator<Item = usize> {
        let last = self.hops.iter().rposition(|hop| matches!(hop, Watched::Passed(_))).unwrap_or(0);
        self.hops.iter().take(last).enumerate().filter(|(_, hop)| **hop == Watched::Missed).map(|(number, _)| number)
    }

    /// Whether all is there that can be seen.
    pub(super) fn is_whole(&self) -> bool {
        self.died().is_none() && self.answer.as_ref().is_some_and(|answer| answer.back.is_some())
    }
}

/// Whether a probe went to a way's destination, how many hops it passed, and how many it did not that it was to pass before.
type Fit = (bool, usize, Reverse<usize>);

/// Finds the way that fits best with what was seen: where the probe went to its destination, of such the one with the most hops that it
/// passed, and of these the one with the fewest that it was to pass before and did not.
pub(super) fn course(ways: &[Way], sent: &Sent, seen: &[Seen]) -> Course {
    let mut best: Option<(Fit, Course)> = None;
    for (number, way) in ways.iter().enumerate() {
        let hops: Vec<Watched> = way.spots.iter().map(|spot| at(spot.as_ref(), sent, seen)).collect();
        let to = SocketAddr::new(way.destination.addr, way.destination.port);
        let reaches = |hop: &Watched| matches!(hop, Watched::Passed(passing) if passing.destination == to);
        let count = hops.iter().filter(|hop| matches!(hop, Watched::Passed(_))).count();
        let is_it = hops.iter().any(reaches);
        let course = Course { way: number, hops, answer: None };
        let fits = (is_it, count, Reverse(course.passed_by().count()));
        if best.as_ref().is_none_or(|(most, _)| fits > *most) {
            best = Some((fits, course));
        }
    }
    let mut course = best.map_or(Course { way: 0, hops: Vec::new(), answer: None }, |(_, course)| course);
    let start = ways.get(course.way).and_then(|way| way.spots.iter().flatten().next());
    course.answer = answer(start, sent, seen);
    course
}

fn at(spot: Option<&Spot>, sent: &Sent, seen: &[Seen]) -> Watched {
    let Some(spot) = spot else { return Watched::Unseen };
    let is_here = |one: &&Seen| {
        is_at(one, spot) && one.sighting.outbound == spot.outbound && one.sighting.found.kind == Kind::Probe
    };
    let Some(one) = seen.iter().filter(is_here).min_by_key(|one| one.sighting.at) else { return Watched::Missed };
    let Found { source, destination, within, .. } = one.sighting.found;
    let after = since(sent, one.sighting.at);
    Watched::Passed(Passing { after, device: one.device.clone(), source, destination, within })
}

fn is_at(one: &Seen, spot: &Spot) -> bool {
    one.node == spot.node && one.point == spot.point
}

fn answer(start: Option<&Spot>, sent: &Sent, seen: &[Seen]) -> Option<Answer> {
    let answers = || seen.iter().filter(|one| one.sighting.found.kind != Kind::Probe);
    let first = answers().min_by_key(|one| one.sighting.at)?;
    let came = |one: &&Seen| start.is_some_and(|start| is_back(one, start) || is_untunnelled(one, start, sent));
    let back = answers().filter(came).map(|one| one.sighting.at).min();
    let Found { kind, source, .. } = first.sighting.found;
    let place = (first.node.clone(), first.device.clone());
    Some(Answer { kind, by: source.ip(), first: place, back: back.map(|at| since(sent, at)) })
}

/// It came back to where the probe was sent or came in.
fn is_back(one: &Seen, start: &Spot) -> bool {
    is_at(one, start) && (one.sighting.outbound != start.outbound || is_loopback(one))
}

/// What went through a tunnel may be answered without one, by the underlay. What came from outside, past the node that it came in by: the pod's
/// node itself has a way to whoever sent it. What a node sent, since its own address is no pod's.
fn is_untunnelled(one: &Seen, start: &Spot, sent: &Sent) -> bool {
    let is_home = match one.sighting.outbound {
        true => start.point == Point::Underlay && !start.outbound,
        false => matches!(start.point, Point::Device(_)) && start.outbound && one.node == start.node,
    };
    let Found { destination, within, .. } = one.sighting.found;
    is_home && one.point == Point::Underlay && within.is_none() && destination.ip() == sent.source.ip()
}

/// There all comes in, and nothing is seen as it leaves.
fn is_loopback(one: &Seen) -> bool {
    one.device == "lo"
}

fn since(sent: &Sent, at: u64) -> i64 {
    i64::try_from(i128::from(at) - i128::from(sent.at)).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
