//! Who sends.

use std::net::IpAddr;

use podnet_model::{Family, NodeName, PodKey, ServiceKey};
use podnet_planner::trace::Source;

use super::{To, WORLD, listed, nobody, node_addrs, reference};
use crate::{
    arguments::forwarding::Ends,
    forwarding::{
        names::{self, Answer},
        state::State,
    },
    report::Failure,
};

/// Who sends, before it is known where to.
pub(super) enum From {
    Pod(PodKey),
    Node(NodeName),
    World(Option<IpAddr>),
}

/// Reads who sends; how a name became an address is told.
pub(super) fn source(state: &State, text: &str, told: &mut Vec<String>) -> Result<From, Failure> {
    if text == "world" {
        return Ok(From::World(None));
    }
    if let Ok(addr) = text.parse::<IpAddr>() {
        return Ok(at(state, addr));
    }
    match reference(state, text) {
        Some(To::Pod(key)) => Ok(From::Pod(key)),
        Some(To::Node(name)) => Ok(From::Node(name)),
        Some(To::Service(key)) => Err(sends_nothing(&key)),
        // What has no dot is more likely a pod whose kind was forgotten.
        _ if text.contains('/') || !text.contains('.') => Err(nobody(text)),
        _ => named(state, text, told),
    }
}

/// Who has an address.
fn at(state: &State, addr: IpAddr) -> From {
    let pod = state.cluster.pod_of(addr).cloned().map(From::Pod);
    let node = || state.cluster.node_of(addr).cloned().map(From::Node);
    pod.or_else(node).unwrap_or(From::World(Some(addr)))
}

/// Whom a name of DNS leads to. Nobody's search path completes it: nobody asks.
fn named(state: &State, text: &str, told: &mut Vec<String>) -> Result<From, Failure> {
    match names::resolve(&state.cluster, &state.domain, None, text).answer {
        Answer::Service(key) | Answer::Addresses(key, _) => Err(sends_nothing(&key)),
        Answer::Host(addrs) => {
            told.push(format!("{text} is {}", listed(&addrs)));
            addrs.first().map(|addr| at(state, *addr)).ok_or_else(|| nobody(text))
        }
        Answer::Outside(name) => {
            let what = format!("{name} is a name outside of the cluster: nobody here asks for its address");
            let domain = &state.domain;
            let remedy =
                format!("write the sender's address; names of pods are written whole: 10-1-2-3.NAMESPACE.pod.{domain}");
            Err(Failure::new(what).remedy(remedy))
        }
        Answer::Nothing => Err(nobody(text)),
    }
}

fn sends_nothing(key: &ServiceKey) -> Failure {
    let failure = Failure::new(format!("a Service sends nothing: {key} cannot be where a packet comes from"));
    failure.remedy("name one of its pods: pod/NAMESPACE/NAME")
}

/// The families of a sender's addresses, its first one first.
pub(super) fn families(state: &State, from: &From) -> Vec<Family> {
    let addrs: Vec<IpAddr> = match from {
        From::Pod(key) => state.cluster.pods().get(key).into_iter().flat_map(|pod| &pod.addrs).map(|a| a.0).collect(),
        From::Node(name) => node_addrs(state, name).unwrap_or_default(),
        From::World(Some(addr)) => vec![*addr],
        From::World(None) => return Family::ALL.to_vec(),
    };
    if addrs.is_empty() { Family::ALL.to_vec() } else { addrs.iter().map(Family::of).collect() }
}

/// The node that packets of the world come to, where no address says so.
pub(super) fn entry(state: &State, options: &Ends) -> Result<NodeName, Failure> {
    let named = options.via.as_deref().map(NodeName::from);
    if let Some(name) = named.as_ref().filter(|name| !state.cluster.nodes().contains_key(name)) {
        return Err(nobody(&format!("node/{name}")).remedy("kubectl get nodes"));
    }
    let first = || state.cluster.nodes().keys().next().cloned();
    named.or_else(first).ok_or_else(|| Failure::new("the cluster has no node").remedy("kubectl get nodes"))
}

pub(super) fn enter(state: &State, options: &Ends, from: From, to: Option<IpAddr>) -> Result<Source, Failure> {
    let own = match from {
        From::Pod(key) => return Ok(Source::Pod(key)),
        From::Node(name) => return Ok(Source::Node(name)),
        From::World(own) => own,
    };
    let node = to.and_then(|to| state.cluster.node_of(to)).filter(|_| options.via.is_none()).cloned();
    let node = node.map_or_else(|| entry(state, options), Ok)?;
    let by_v6 = to.is_some_and(|to| to.is_ipv6());
    let addr = own.unwrap_or(if by_v6 { WORLD.1.into() } else { WORLD.0.into() });
    Ok(Source::World(addr, node))
}
