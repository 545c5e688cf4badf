//! What the kernels of the nodes on a packet's ways have, and what is inside of the pods there, by whoever can tell: this machine of nodes whose
//! namespaces are on it, agents of the others.

mod agents;
mod namespaces;
mod pods;

use std::collections::{BTreeMap, BTreeSet};

use podnet_kernel::snapshot::{MOST_PODS, Snapshot, Told};
use podnet_model::{NodeName, PodKey};
use podnet_planner::trace::{Place, Trace};

use self::{agents::Agents, namespaces::Namespaces};
use super::{access::Access, state::State};
use crate::report::Failure;

/// So many nodes are asked, and so many pods looked into, at most: a Service may have endpoints on thousands.
const MOST: usize = 64;
/// Why it is not known what is inside of a pod, where its node is told of.
const UNTOLD: &str = "its node's agent does not tell, as older ones do not";

/// Somebody who can tell of nodes.
trait Source {
    /// What is told of these nodes and pods, or why it is not; nothing of nodes that are another one's to tell of.
    fn ask(&self, state: &State, wanted: &Wanted) -> Vec<Answer>;
}

/// Nodes, and those of their pods that are to be looked into.
type Wanted = BTreeMap<NodeName, BTreeSet<PodKey>>;

/// A node, and what is told of it or why nothing is.
type Answer = (NodeName, Result<Told, String>);

/// What was told.
#[derive(Default)]
pub(super) struct Kernels {
    nodes: BTreeMap<NodeName, Result<Told, String>>,
    /// Of the pods' own namespaces.
    pods: BTreeMap<PodKey, Result<Snapshot, String>>,
}

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
        let new = kernels.unasked(&trace);
        if new.is_empty() {
            return Ok((trace, kernels));
        }
        kernels.ask(state, &new, sources);
        let told = new.keys().filter_map(|node| Some((node.clone(), kernels.of(node)?.facts.clone())));
        state.learn(told.collect());
    }
}

impl Kernels {
    /// What was told of a node.
    pub(super) fn of(&self, node: &NodeName) -> Option<&Told> {
        self.nodes.get(node)?.as_ref().ok()
    }

    /// Why nothing was.
    pub(super) fn why_not(&self, node: &NodeName) -> &str {
        match self.nodes.get(node) {
            Some(Err(why)) => why,
            Some(Ok(_)) | None => "it was not asked",
        }
    }

    /// What is inside of a pod, or why that is not known.
    pub(super) fn inside(&self, pod: &PodKey) -> Result<&Snapshot, &str> {
        self.pods.get(pod).map_or(Err("it was not asked"), |told| told.as_ref().map_err(String::as_str))
    }

    /// What is on the ways and was not asked for yet.
    fn unasked(&self, trace: &Trace) -> Wanted {
        let mut wanted = Wanted::new();
        for hop in trace.paths.iter().flat_map(|path| &path.hops) {
            let Some(node) = hop.place.node() else { continue };
            let pod = match &hop.place {
                Place::Pod(pod, _) if !self.pods.contains_key(pod) => Some(pod.clone()),
                _ => None,
            };
            if pod.is_some() || !self.nodes.contains_key(node) {
                wanted.entry(node.clone()).or_default().extend(pod);
            }
        }
        wanted
    }

    /// Asks one source after the other for what the ones before could not tell.
    fn ask(&mut self, state: &State, wanted: &Wanted, sources: &[&dyn Source]) {
        let asked = self.bounded(wanted);
        let mut left = asked.clone();
        for source in sources {
            for (node, told) in source.ask(state, &left) {
                match told {
                    Ok(mut told) => {
                        let theirs = left.remove(&node).unwrap_or_default();
                        // Of others it is not theirs to tell.
                        let pods = std::mem::take(&mut told.pods).into_iter().filter(|(pod, _)| theirs.contains(pod));
                        self.pods.extend(pods);
                        self.nodes.insert(node, Ok(told));
                    }
                    // The first reason is the nearest one.
                    Err(why) => {
                        self.nodes.entry(node).or_insert(Err(why));
                    }
                }
            }
        }
        for (node, pods) in wanted {
            let is_asked = asked.contains_key(node);
            let why = || if is_asked { "nobody can tell of it".to_owned() } else { too_many() };
            let told = &*self.nodes.entry(node.clone()).or_insert_with(|| Err(why()));
            for pod in pods {
                let why = || match told {
                    Err(why) => why.clone(),
                    Ok(_) if asked.get(node).is_some_and(|asked| asked.contains(pod)) => UNTOLD.to_owned(),
                    Ok(_) => too_many_pods(),
                };
                self.pods.entry(pod.clone()).or_insert_with(|| Err(why()));
            }
        }
    }

    /// As much of it as is asked for. Of a node of which nobody could tell nobody is asked again.
    fn bounded(&self, wanted: &Wanted) -> Wanted {
        let (mut nodes, mut pods) = (MOST.saturating_sub(self.nodes.len()), MOST.saturating_sub(self.pods.len()));
        let mut asked = Wanted::new();
        for (node, inside) in wanted {
            match self.nodes.get(node) {
                Some(Err(_)) => continue,
                Some(Ok(_)) => {}
                None if nodes == 0 => continue,
                None => nodes -= 1,
            }
            let inside: BTreeSet<PodKey> = inside.iter().take(pods.min(MOST_PODS)).cloned().collect();
            pods -= inside.len();
            asked.insert(node.clone(), inside);
        }
        asked
    }
}

#[cfg(test)]
impl Kernels {
    pub(super) fn told(all: impl IntoIterator<Item = Answer>) -> Self {
        Self { nodes: all.into_iter().collect(), pods: BTreeMap::new() }
    }

    /// And of pods' own namespaces.
    pub(super) fn with(self, pods: impl IntoIterator<Item = (PodKey, Snapshot)>) -> Self {
        Self { pods: pods.into_iter().map(|(pod, told)| (pod, Ok(told))).collect(), ..self }
    }
}

fn too_many() -> String {
    format!("more than {MOST} nodes are on the ways, and no more are asked: trace to one pod")
}

fn too_many_pods() -> String {
    format!("no more than {MOST} pods on the ways are looked into, and {MOST_PODS} of a node: trace to one pod")
}

#[cfg(test)]
mod tests;
