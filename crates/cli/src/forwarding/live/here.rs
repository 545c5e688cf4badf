//! Who sends a probe from outside of the cluster: this machine.

use std::{
    collections::BTreeSet,
    io, iter,
    net::{IpAddr, SocketAddr},
};

use podnet_flow::probe::{Dispatch, Request, Sent};
use podnet_kernel::probe;
use podnet_model::{Node, NodeName};
use podnet_planner::trace::{Path, Source, Trace};

use super::{Live, Watched};
use crate::{
    forwarding::{
        operand::{Question, WORLD},
        state::State,
    },
    report::{Doing, Failure},
};

/// Nodes that a probe may come to first, at most: all of them watch.
const ENTRIES: usize = 16;

/// This machine, as it sends to somebody.
struct Here {
    to: IpAddr,
    /// From this address.
    own: IpAddr,
    /// From these to the nodes.
    to_nodes: BTreeSet<IpAddr>,
}

/// Who sends what is asked for: where that is somebody outside, this machine, once for each node that its packets may come to first, which nobody
/// outside knows of an address that is no node's. `via` names that node.
pub(in crate::forwarding) fn senders(
    state: &State,
    question: &mut Question,
    via: Option<&str>,
) -> Result<Vec<Source>, Failure> {
    let target = question.targets.first().map(|(target, _)| SocketAddr::new(target.addr, target.port));
    let (Source::World(..), Some(to)) = (&question.from, target) else { return Ok(vec![question.from.clone()]) };
    let own = probe::own_address(to).map_err(|error| cannot_send(to, error, is_root()))?;
    outside(state, question, via, &Here { to: to.ip(), own, to_nodes: own_to_nodes(state) })
}

/// The addresses that this machine sends from to nodes: where it is one of them, to itself from one that the cluster knows.
fn own_to_nodes(state: &State) -> BTreeSet<IpAddr> {
    let all = state.cluster.nodes().values().flat_map(Node::own_addrs);
    all.filter_map(|addr| probe::own_address(SocketAddr::new(addr, 0)).ok()).collect()
}

fn outside(state: &State, question: &mut Question, via: Option<&str>, here: &Here) -> Result<Vec<Source>, Failure> {
    let Here { to, own, ref to_nodes } = *here;
    let Source::World(asked, entry) = &question.from else { return Ok(vec![question.from.clone()]) };
    let is_anybody = [IpAddr::V4(WORLD.0), IpAddr::V6(WORLD.1)].contains(asked);
    if !is_anybody && *asked != own {
        let what = format!("a probe from outside is sent by this machine, from {own}, and not from {asked}");
        return Err(Failure::usage(what).remedy("podnet trace world TO --live; without --live the way is told"));
    }
    let inside = |addr: &IpAddr| {
        let node = state.cluster.node_of(*addr).map(|node| format!("node/{node}"));
        let whose = node.or_else(|| state.cluster.pod_of(*addr).map(|pod| format!("pod/{pod}")))?;
        Some((*addr, whose))
    };
    if let Some((addr, inside)) = iter::once(&own).chain(to_nodes).find_map(inside) {
        let what = format!("this machine is not outside of the cluster: {addr} is of {inside}");
        return Err(Failure::usage(what).remedy(format!("podnet trace {inside} TO --live")));
    }
    let entries = match via.is_some() || state.cluster.node_of(to).is_some() {
        true => vec![entry.clone()],
        false => possible_entries(state, to)?,
    };
    if is_anybody {
        question.names.push(format!("world is this machine, {own}"));
    }
    Ok(entries.into_iter().map(|entry| Source::World(own, entry)).collect())
}

/// The nodes that a packet may come to first: all of them watch, as at one that a way leads on to it comes in as well.
fn possible_entries(state: &State, to: IpAddr) -> Result<Vec<NodeName>, Failure> {
    let heard_of = state.cluster.nodes().iter().filter(|(_, node)| !node.lost);
    let entries: Vec<NodeName> = heard_of.map(|(name, _)| name.clone()).collect();
    let name_it = "name it: --via NODE";
    match entries.len() {
        0 => Err(Failure::new(format!("there is no node left that a packet to {to} could come to")).remedy(name_it)),
        1..=ENTRIES => Ok(entries),
        many => {
            let first = format!("it is not known which of {many} nodes a packet to {to} comes to first");
            Err(Failure::usage(format!("{first}; {ENTRIES} can be watched")).remedy(name_it))
        }
    }
}

/// Sends it from here.
pub(super) fn send(dispatch: &Dispatch) -> Result<Sent, Failure> {
    let to = dispatch.to;
    Request::Send(dispatch.clone()).check().doing(|| cannot(to))?;
    probe::send(dispatch.probe, to, dispatch.size).map_err(|error| cannot_send(to, error, is_root()))
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn cannot(to: SocketAddr) -> String {
    format!("cannot send a probe from this machine to {}", to.ip())
}

fn cannot_send(to: SocketAddr, error: io::Error, is_root: bool) -> Failure {
    let kind = error.kind();
    let failure = Failure::because(cannot(to), error);
    match kind {
        // Whoever may send is told so by rules on the way out (EPERM), and where it goes to all (EACCES).
        io::ErrorKind::PermissionDenied if is_root => failure
            .remedy("this machine's own rules drop it, or it is a broadcast address: nft list ruleset; iptables-save"),
        io::ErrorKind::PermissionDenied => failure.remedy("it takes root, or CAP_NET_RAW: sudo podnet trace …"),
        io::ErrorKind::NetworkUnreachable | io::ErrorKind::HostUnreachable => {
            failure.remedy("this machine has no route there: ip route; of a Service's own addresses nodes answer alone")
        }
        _ => failure,
    }
}

/// The node that a packet comes to first, or leaves.
pub(super) fn entry(path: &Path) -> Option<&NodeName> {
    path.hops.iter().find_map(|hop| hop.place.node())
}

impl Live {
    /// Leaves of the ways from outside those by the node that the probe came to first, where it was seen there.
    pub(in crate::forwarding) fn narrow(&mut self, trace: &mut Trace) {
        let Some(first) = trace.paths.get(self.course.way).and_then(entry).cloned() else { return };
        let came_in = self.course.hops.iter().find(|hop| **hop != Watched::Unseen);
        // In a tunnel it comes from another node, which was not heard.
        if !matches!(came_in, Some(Watched::Passed(passing)) if passing.within.is_none()) {
            return;
        }
        let is_by = |path: &Path| entry(path) == Some(&first);
        self.course.way = trace.paths.iter().take(self.course.way).filter(|path| is_by(path)).count();
        trace.paths.retain(is_by);
        let all: f64 = trace.paths.iter().map(|path| path.share).sum();
        trace.paths.iter_mut().for_each(|path| path.share /= all);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use podnet_flow::probe::{ProbeProtocol, Tunnel};
    use podnet_model::{Change, NodeAddr, Protocol};
    use podnet_planner::trace::Target;

    use super::{
        super::{Course, Passing},
        *,
    };
    use crate::forwarding::{lab, operand};

    const OWN: [u8; 4] = [192, 0, 2, 254];

    /// From an address outside, whose packets come to the first node, to another one by TCP.
    fn question(from: IpAddr, to: [u8; 4]) -> Question {
        Question {
            from: Source::World(from, lab::node(1)),
            targets: vec![(Target { addr: to.into(), protocol: Protocol::Tcp, port: 80 }, 1.0)],
            title: String::new(),
            names: Vec::new(),
            object: None,
            is_echo: false,
            stands_in: None,
        }
    }

    /// This machine, as it sends to somebody and to all nodes from one address.
    fn here(to: [u8; 4], own: [u8; 4]) -> Here {
        Here { to: to.into(), own: own.into(), to_nodes: [IpAddr::from(own)].into() }
    }

    /// So many nodes, and which of them are lost.
    fn nodes(count: u8, lost: &[u8]) -> State {
        let node = |number: u8| {
            let node = Node::new(lab::node(number), NodeAddr([192, 0, 2, 10 + number].into()));
            Change::Node(lab::node(number), Some(Node { lost: lost.contains(&number), ..node }))
        };
        State::of((1..=count).map(node).collect(), BTreeMap::new())
    }

    /// The nodes that its packets may come to first, as this machine, which has an address, sends them; or what is wrong with that.
    fn entries(from: IpAddr, to: [u8; 4], via: Option<&str>, own: [u8; 4]) -> Result<Vec<String>, String> {
        entries_of(&lab::state(), &mut question(from, to), via, &here(to, own))
    }

    fn entries_of(
        state: &State,
        question: &mut Question,
        via: Option<&str>,
        here: &Here,
    ) -> Result<Vec<String>, String> {
        let senders = outside(state, question, via, here);
        let entry = |sender: Source| match sender {
            Source::World(addr, entry) if addr == here.own => entry.to_string(),
            other => panic!("{other:?}"),
        };
        senders.map(|all| all.into_iter().map(entry).collect()).map_err(|failure| failure.sentence())
    }

    #[test]
    fn whoever_is_outside_is_this_machine_and_each_node_may_be_the_first_where_the_address_is_none_of_theirs() {
        let (node, balancer) = ([192, 0, 2, 11], [192, 0, 2, 200]);
        let all = |nodes: &[&str]| -> Result<Vec<String>, String> {
            Ok(nodes.iter().map(|node| (*node).to_owned()).collect())
        };
        assert_eq!(entries(WORLD.0.into(), node, None, OWN), all(&["node1"]));
        assert_eq!(entries(WORLD.0.into(), balancer, None, OWN), all(&["node1", "node2"]));
        assert_eq!(entries(OWN.into(), balancer, Some("node1"), OWN), all(&["node1"]));
        let mut question = question(WORLD.0.into(), node);
        outside(&lab::state(), &mut question, None, &here(node, OWN)).unwrap();
        assert_eq!(question.names, ["world is this machine, 192.0.2.254"]);
    }

    #[test]
    fn who_is_somebody_else_or_inside_of_the_cluster_sends_nothing_from_outside() {
        let node = [192, 0, 2, 11];
        let sentence = |from: IpAddr, own| entries(from, node, None, own).unwrap_err();
        let other = sentence([198, 51, 100, 7].into(), OWN);
        assert!(other.contains("sent by this machine, from 192.0.2.254, and not from 198.51.100.7"), "{other}");
        let inside = sentence(WORLD.0.into(), [192, 0, 2, 12]);
        assert!(inside.contains("192.0.2.12 is of node/node2"), "{inside}");
        let inside = sentence(WORLD.0.into(), [10, 1, 2, 5]);
        assert!(inside.contains("10.1.2.5 is of pod/default/p2"), "{inside}");
        // Whoever sends to others from elsewhere is a node all the same.
        let to_nodes = [IpAddr::from(OWN), [192, 0, 2, 12].into()].into();
        let of_node = Here { to_nodes, ..here(node, OWN) };
        let inside = entries_of(&lab::state(), &mut question(WORLD.0.into(), node), None, &of_node).unwrap_err();
        assert!(inside.contains("192.0.2.12 is of node/node2"), "{inside}");
    }

    #[test]
    fn of_more_nodes_than_can_be_watched_the_first_is_to_be_named_and_lost_ones_do_not_count() {
        let balancer = [192, 0, 2, 200];
        let told = |count: u8, lost: &[u8], via: Option<&str>| {
            let mut question = question(WORLD.0.into(), balancer);
            entries_of(&nodes(count, lost), &mut question, via, &here(balancer, OWN))
        };
        assert_eq!(told(16, &[], None).map(|all| all.len()), Ok(16));
        let words = "it is not known which of 17 nodes a packet to 192.0.2.200 comes to first; 16 can be watched";
        assert_eq!(told(17, &[], None), Err(words.to_owned()));
        assert_eq!(told(17, &[], Some("node1")), Ok(vec!["node1".to_owned()]));
        let left = told(17, &[3], None).unwrap();
        assert!(left.len() == 16 && !left.contains(&"node3".to_owned()), "{left:?}");
        let nobody = told(2, &[1, 2], None).unwrap_err();
        assert!(nobody.contains("there is no node left"), "{nobody}");
    }

    #[test]
    fn of_the_ways_from_outside_those_are_left_that_begin_where_the_probe_came_in() {
        let (state, mut question) = (lab::state(), question(OWN.into(), [10, 1, 2, 5]));
        let senders = outside(&state, &mut question, None, &here([10, 1, 2, 5], OWN)).unwrap();
        let all = operand::follow_from(&state, &question, &senders).unwrap();
        let shares = |trace: &Trace| trace.paths.iter().map(|path| path.share).collect::<Vec<_>>();
        assert_eq!(shares(&all), [0.5, 0.5]);
        let passed = |within: Option<Tunnel>| {
            let (source, destination) = (SocketAddr::from((OWN, 40_000)), SocketAddr::from(([10, 1, 2, 5], 80)));
            Watched::Passed(Passing { after: 1, device: "eth0".to_owned(), source, destination, within })
        };
        for (hops, way, left) in [
            ([Watched::Unseen, passed(None)], 0, vec![1.0]),
            ([Watched::Unseen, Watched::Missed], 1, vec![0.5, 0.5]),
            // It came in elsewhere.
            ([Watched::Missed, passed(None)], 1, vec![0.5, 0.5]),
            ([Watched::Unseen, passed(Some(Tunnel::Vxlan))], 1, vec![0.5, 0.5]),
        ] {
            let mut live = Live {
                protocol: ProbeProtocol::Tcp,
                sent: Sent { at: 0, source: SocketAddr::from((OWN, 40_000)) },
                course: Course { way: 1, hops: hops.into(), answer: None },
                entries: 2,
                lost: Vec::new(),
                clocks_differ: false,
            };
            let mut trace = all.clone();
            live.narrow(&mut trace);
            assert_eq!((live.course.way, shares(&trace)), (way, left));
            let by = entry(&trace.paths[way]).unwrap();
            assert_eq!(*by, lab::node(2));
        }
    }

    #[test]
    fn a_probe_to_nobody_is_not_sent_and_why_it_cannot_be_is_said() {
        let to: SocketAddr = "224.0.0.1:80".parse().unwrap();
        let probe = podnet_flow::probe::Probe { protocol: ProbeProtocol::Tcp, mark: 1 };
        let failure = send(&Dispatch { probe, from: None, to, size: None }).unwrap_err();
        let words = "cannot send a probe from this machine to 224.0.0.1: no probe can be sent to 224.0.0.1:80";
        assert!(failure.sentence().starts_with(words), "{failure:?}");
        let denied = |is_root| cannot_send(to, io::ErrorKind::PermissionDenied.into(), is_root).to_string();
        assert!(denied(false).contains("→ it takes root"), "{}", denied(false));
        assert!(denied(true).contains("→ this machine's own rules drop it, or it is a broadcast"), "{}", denied(true));
    }
}
