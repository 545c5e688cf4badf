//! What the kernels of the nodes on a packet's ways have, by whoever can tell: this machine of nodes whose namespaces are on it, agents of the
//! others.

mod agents;
mod namespaces;

use std::collections::{BTreeMap, BTreeSet};

use podnet_kernel::snapshot::Told;
use podnet_model::NodeName;
use podnet_planner::trace::Trace;

use self::{agents::Agents, namespaces::Namespaces};
use super::{access::Access, state::State};
use crate::report::Failure;

/// So many nodes are asked at most: a Service may have endpoints on thousands.
const MOST: usize = 64;

/// Somebody who can tell of nodes.
trait Source {
    /// What is told of these nodes, or why it is not; nothing of nodes that are another one's to tell of.
    fn ask(&self, state: &State, nodes: &BTreeSet<NodeName>) -> Vec<Answer>;
}

/// A node, and what is told of it or why nothing is.
type Answer = (NodeName, Result<Told, String>);

/// What was told.
#[derive(Default)]
pub(super) struct Kernels(BTreeMap<NodeName, Result<Told, String>>);

/// Follows a packet by what the nodes on its ways say of themselves. The way may be another one then, on which there are other nodes to be asked.
pub(super) fn look(
    state: &mut State,
    access: &Access,
    follow: impl Fn(&State) -> Result<Trace, Failure>,
) -> Result<(Trace, Kernels), Failure> {
    settle(state, &[&Namespaces, &Agents::new(access)], follow)
}

fn settle(
    state: &mut State,
    sources: &[&dyn Source],
    follow: impl Fn(&State) -> Result<Trace, Failure>,
) -> Result<(Trace, Kernels), Failure> {
    let mut kernels = Kernels::default();
    loop {
        let trace = follow(state)?;
        let hops = trace.paths.iter().flat_map(|path| &path.hops);
        let nodes: BTreeSet<NodeName> = hops.filter_map(|hop| hop.place.node()).cloned().collect();
        let new: BTreeSet<NodeName> = nodes.into_iter().filter(|node| !kernels.0.contains_key(node)).collect();
        if new.is_empty() {
            return Ok((trace, kernels));
        }
        kernels.ask(state, &new, sources);
        let told = new.iter().filter_map(|node| Some((node.clone(), kernels.of(node)?.facts.clone())));
        state.learn(told.collect());
    }
}

impl Kernels {
    /// What was told of a node.
    pub(super) fn of(&self, node: &NodeName) -> Option<&Told> {
        self.0.get(node)?.as_ref().ok()
    }

    /// Why nothing was.
    pub(super) fn why_not(&self, node: &NodeName) -> &str {
        match self.0.get(node) {
            Some(Err(why)) => why,
            Some(Ok(_)) | None => "it was not asked",
        }
    }

    /// Asks one source after the other for what the ones before could not tell.
    fn ask(&mut self, state: &State, nodes: &BTreeSet<NodeName>, sources: &[&dyn Source]) {
        let room = MOST.saturating_sub(self.0.len());
        let mut left: BTreeSet<NodeName> = nodes.iter().take(room).cloned().collect();
        for source in sources {
            for (node, told) in source.ask(state, &left) {
                let is_told = told.is_ok();
                if is_told {
                    left.remove(&node);
                }
                // The first reason is the nearest one.
                if is_told || !self.0.contains_key(&node) {
                    self.0.insert(node, told);
                }
            }
        }
        for node in nodes {
            let why = if left.contains(node) { "nobody can tell of it".to_owned() } else { too_many() };
            self.0.entry(node.clone()).or_insert(Err(why));
        }
    }
}

#[cfg(test)]
impl Kernels {
    pub(super) fn told(all: impl IntoIterator<Item = Answer>) -> Self {
        Self(all.into_iter().collect())
    }
}

fn too_many() -> String {
    format!("more than {MOST} nodes are on the ways, and no more are asked: trace to one pod")
}

#[cfg(test)]
mod tests;
