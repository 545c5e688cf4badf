//! `podnet trace --live`: a marked packet is sent, and the agents of the nodes on its way tell where it passes.
//!
//! - [`points`]: where it can be seen
//! - [`agents`]: who watches there, and who sends it; [`here`]: this machine, which sends what comes from outside
//! - [`course`]: what was seen beside what was planned

mod agents;
mod course;
mod here;
mod points;

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{BuildHasher, RandomState},
    net::SocketAddr,
    time::Duration,
};

use futures::future::join_all;
use podnet_flow::{
    capture::Captured,
    probe::{Dispatch, Point, Probe, ProbeProtocol, Sent},
};
use podnet_model::NodeName;
use podnet_planner::trace::{Hop, Kind, Path, Place, Trace};
use tokio::{
    sync::mpsc,
    time::{Instant, timeout, timeout_at},
};

use self::{
    agents::{Agents, Heard},
    course::{Seen, Way, course},
};
pub(super) use self::{
    course::{Answer, Course, Passing, Watched},
    here::senders,
    points::captured,
};
use super::{access::Access, operand::Question, state::State};
use crate::report::{Doing, Failure};

/// How long an agent may take until it watches: those that watch already do so for 10 s, which is to be enough for [`PATIENCE`], too.
const READY: Duration = Duration::from_secs(6);
/// How long a probe may be on its way.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long an answer may take once it came, and the last word of an agent once there is an answer.
const ANSWER: Duration = Duration::from_secs(2);
const LAST: Duration = Duration::from_secs(1);
/// So many ways are watched of each node that it may come to first: a Service may have thousands of endpoints, and chance chooses.
const WAYS: usize = 16;
/// What agents said and nobody has heard yet.
const BACKLOG: usize = 256;

/// What became of a probe.
pub(super) struct Live {
    pub(super) protocol: ProbeProtocol,
    pub(super) sent: Sent,
    pub(super) course: Course,
    /// How many nodes there are that it may come to first, or leaves.
    pub(super) entries: usize,
    /// Agents that said nothing more, and why.
    pub(super) lost: Vec<String>,
    /// Times are of clocks of several machines.
    pub(super) clocks_differ: bool,
}

/// What is to be sent, and which ways it can go.
struct Plan {
    from: Sender,
    to: SocketAddr,
    protocol: ProbeProtocol,
    /// Filled up to so many bytes.
    size: Option<u16>,
    ways: Vec<Way>,
    /// Which paths of the trace these are.
    paths: Vec<usize>,
    /// How many nodes a packet may come to first on these, or leaves.
    entries: usize,
}

/// Who sends it.
#[derive(Debug, PartialEq)]
enum Sender {
    /// A node, or a pod there, by the node's agent.
    Agent(NodeName, Option<Captured>),
    /// This machine, from outside of the cluster.
    Here,
}

/// Sends a probe along a trace, whose question has one target, filled up to so many bytes.
pub(super) fn follow(
    state: &State,
    question: &Question,
    trace: &Trace,
    access: &Access,
    size: Option<u16>,
) -> Result<Live, Failure> {
    let plan = Plan { size, ..plan(state, question, trace)? };
    let agents = Agents::new(&state.cluster, access);
    let mark = RandomState::new().hash_one(std::process::id());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().doing(|| "cannot start".into())?;
    runtime.block_on(send(&plan, &agents, Probe { protocol: plan.protocol, mark }, state))
}

fn plan(state: &State, question: &Question, trace: &Trace) -> Result<Plan, Failure> {
    let target = question.targets.first().map(|(target, _)| *target);
    let (Some(target), Some(first)) = (target, trace.paths.first()) else {
        return Err(Failure::new("there is no way that a probe could go"));
    };
    let protocol = if question.is_echo { ProbeProtocol::Icmp } else { target.protocol.into() };
    let from = match first.hops.first().map(|hop| &hop.place) {
        Some(Place::Pod(pod, node)) => {
            let gone = || Failure::new(format!("there is no pod {pod} any more"));
            Sender::Agent(node.clone(), Some(points::captured(&state.cluster, pod).ok_or_else(gone)?))
        }
        Some(Place::Node(node)) => Sender::Agent(node.clone(), None),
        Some(Place::Underlay) => Sender::Here,
        None => return Err(Failure::new("there is nobody who could send a probe")),
    };
    if first.hops.iter().all(|hop| hop.kind == Kind::Chosen) {
        return Err(Failure::new(format!("no packet leaves the sender: {}", first.end.why)));
    }
    // What is chosen before there is a packet is chosen here: a probe has no socket.
    let is_chosen = first.hops.iter().any(|hop| hop.kind == Kind::Chosen);
    let destination = first.destination;
    let (to, count) = match is_chosen {
        true => ((destination.addr, destination.port), 1),
        false => ((target.addr, target.port), WAYS),
    };
    let paths = watched(trace, count);
    let way = |path: &Path| Way { spots: points::along(&state.cluster, path), destination: path.destination };
    let ways: Vec<Way> = paths.iter().map(|number| way(&trace.paths[*number])).collect();
    if ways.iter().all(|way| way.spots.iter().all(Option::is_none)) {
        return Err(Failure::new("the packet passes no device at which it could be watched"));
    }
    let entries: BTreeSet<_> = paths.iter().map(|number| here::entry(&trace.paths[*number])).collect();
    Ok(Plan { from, to: to.into(), protocol, size: None, ways, entries: entries.len(), paths })
}

/// The numbers of the paths that are watched: so many of each node that a packet comes to first.
fn watched(trace: &Trace, count: usize) -> Vec<usize> {
    let (mut entries, mut numbers) = (BTreeMap::new(), Vec::new());
    for (number, path) in trace.paths.iter().enumerate() {
        let taken: &mut usize = entries.entry(here::entry(path)).or_default();
        if *taken < count {
            *taken += 1;
            numbers.push(number);
        }
    }
    numbers
}

async fn send(plan: &Plan, agents: &Agents<'_>, probe: Probe, state: &State) -> Result<Live, Failure> {
    let mut nodes: BTreeMap<&NodeName, Vec<Point>> = BTreeMap::new();
    for spot in plan.ways.iter().flat_map(|way| way.spots.iter().flatten()) {
        let points = nodes.entry(&spot.node).or_default();
        if !points.contains(&spot.point) {
            points.push(spot.point.clone());
        }
    }
    let clocks = nodes.len() + usize::from(plan.from == Sender::Here);
    let clocks_differ = clocks > 1 && nodes.keys().any(|node| !state.here.contains_key(*node));
    // All of them watch before it is sent.
    let watching = join_all(nodes.into_iter().map(|(node, points)| async move {
        let late = || Failure::new(format!("node {node} does not watch a probe within {} s", READY.as_secs()));
        timeout(READY, agents.watch(node, probe, points)).await.unwrap_or_else(|_| Err(late()))
    }));
    let (streams, unheard) = tolerated(watching.await, plan.entries)?;
    let (sender, mut heard) = mpsc::channel(BACKLOG);
    for stream in streams {
        tokio::spawn(stream.listen(sender.clone()));
    }
    drop(sender);
    let dispatch = |from| Dispatch { probe, from, to: plan.to, size: plan.size };
    let sent = match &plan.from {
        Sender::Agent(node, pod) => agents.send(node, dispatch(pod.clone())).await?,
        Sender::Here => here::send(&dispatch(None))?,
    };
    let (seen, mut lost) = collect(plan, &sent, &mut heard).await;
    lost.extend(unheard);
    let mut course = course(&plan.ways, &sent, &seen);
    course.way = plan.paths.get(course.way).copied().unwrap_or_default();
    Ok(Live { protocol: plan.protocol, sent, course, entries: plan.entries, lost, clocks_differ })
}

/// Those that watch, and why others do not. All have to, but where a packet may come to one of several nodes first: then it may come to one that does.
fn tolerated<T>(answers: Vec<Result<T, Failure>>, entries: usize) -> Result<(Vec<T>, Vec<String>), Failure> {
    let (mut watching, mut unheard) = (Vec::new(), Vec::new());
    for answer in answers {
        match answer {
            Ok(one) => watching.push(one),
            Err(failure) if entries > 1 => unheard.push(failure),
            Err(failure) => return Err(failure),
        }
    }
    let sentences = unheard.iter().map(Failure::sentence).collect();
    match unheard.into_iter().next() {
        Some(first) if watching.is_empty() => Err(first),
        _ => Ok((watching, sentences)),
    }
}

/// What is told, until all is there or nothing more is to be waited for.
async fn collect(plan: &Plan, sent: &Sent, heard: &mut mpsc::Receiver<Heard>) -> (Vec<Seen>, Vec<String>) {
    let (mut seen, mut lost) = (Vec::new(), Vec::new());
    let mut end = Instant::now() + PATIENCE;
    while let Ok(Some(told)) = timeout_at(end, heard.recv()).await {
        match told {
            Heard::Seen(one) => seen.push(*one),
            Heard::Lost(why) => lost.push(why),
        }
        let course = course(&plan.ways, sent, &seen);
        if course.is_whole() && course.passed_by().next().is_none() {
            break;
        }
        let is_back = course.answer.as_ref().is_some_and(|answer| answer.back.is_some());
        // A datagram is answered by an error at most, and that at once.
        let is_datagram = plan.protocol == ProbeProtocol::Udp && course.died().is_none();
        let wait = match (course.is_whole() || is_datagram, is_back || course.died().is_none()) {
            (true, _) => LAST,
            (false, true) => ANSWER,
            (false, false) => continue,
        };
        end = end.min(Instant::now() + wait);
    }
    (seen, lost)
}

impl Live {
    /// Why it did not come to where it was sent.
    pub(super) fn failure(&self, trace: &Trace) -> Option<Failure> {
        let path = trace.paths.get(self.course.way)?;
        if let Some(died) = self.died(&path.hops) {
            // Who was not heard may have seen it.
            if !self.lost.is_empty() {
                let lost = self.lost.join("; ");
                return Some(Failure::new(format!(
                    "where the probe died is not known, as not all was heard ({lost}): {died}"
                )));
            }
            return Some(Failure::new(format!("the probe died: {died}")).remedy(self.remedy()));
        }
        let is_well = path.end.verdict.is_well();
        (!is_well).then(|| Failure::new(format!("the probe went as planned, and does not arrive: {}", path.end.why)))
    }

    /// What to look at where it died.
    fn remedy(&self) -> &'static str {
        match self.came_nowhere() {
            true => "does a node announce the address? ip neigh on this machine; podnet why world TO",
            false => {
                "podnet why names what is broken; somebody else's rules: nft list ruleset, iptables-save on that node"
            }
        }
    }

    /// Between which hops it was lost.
    pub(super) fn died(&self, hops: &[Hop]) -> Option<String> {
        let (lost, last) = self.course.died()?;
        if self.came_nowhere() {
            return Some(format!("it was sent, and seen at none of {} nodes that it may come to first", self.entries));
        }
        let lost = self.place(hops, lost);
        Some(match last {
            Some(last) => format!("it passed {}, and was not seen at {lost}", self.place(hops, last)),
            None => format!("it was sent, and not seen at {lost}"),
        })
    }

    /// It was seen nowhere, and there are several nodes that it may come to first: no one of them is to blame.
    fn came_nowhere(&self) -> bool {
        self.entries > 1 && matches!(self.course.died(), Some((_, None)))
    }

    fn place(&self, hops: &[Hop], number: usize) -> String {
        let Some(hop) = hops.get(number) else { return format!("hop {}", number + 1) };
        let told = match self.course.hops.get(number) {
            Some(Watched::Passed(passing)) => Some(passing.device.clone()),
            _ => hop.device.as_ref().map(ToString::to_string),
        };
        let device = told.unwrap_or_else(|| "the node's end of the pod's link".to_owned());
        format!("{device} of {} (hop {})", hop.place, number + 1)
    }
}

#[cfg(test)]
mod tests;
