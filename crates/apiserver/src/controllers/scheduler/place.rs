//! The choice among the nodes that a pod can go to.

use std::{cmp::Reverse, collections::BTreeMap, sync::Arc};

use k8s_openapi::api::core::v1::Pod;

use super::{
    affinity,
    filter::Candidate,
    snapshot::{Place, Snapshot},
    tolerations,
};

/// Where a pod goes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// To the node of that name.
    On(String),
    /// Nowhere; the reasons are summed up over all nodes.
    Nowhere(String),
}

/// Chooses a place for the pod and puts it there.
pub(super) fn place(snapshot: &mut Snapshot, pod: &Arc<Pod>) -> Verdict {
    let candidate = Candidate::new(pod);
    let mut refusals: BTreeMap<String, usize> = BTreeMap::new();
    let mut best: Option<(Rank, usize)> = None;
    for (at, node) in snapshot.nodes.iter().enumerate() {
        let refused = candidate.refusals(snapshot, node);
        if refused.is_empty() {
            let rank = rank(pod, node);
            if best.as_ref().is_none_or(|(known, _)| rank < *known) {
                best = Some((rank, at));
            }
        }
        for refusal in refused {
            *refusals.entry(refusal).or_default() += 1;
        }
    }
    let Some((_, at)) = best else { return Verdict::Nowhere(summary(snapshot.nodes.len(), &refusals)) };
    snapshot.nodes[at].put(pod);
    Verdict::On(snapshot.nodes[at].name.clone())
}

/// The lowest wins. What the pod and the node say they prefer counts first, then that copies of a pod are spread over the nodes,
/// then that all nodes have as many pods.
type Rank = (usize, Reverse<i64>, usize, usize);

fn rank(pod: &Pod, node: &Place) -> Rank {
    (
        tolerations::reluctance(pod, &node.taints),
        Reverse(affinity::preference(pod, &node.name, &node.labels)),
        node.copies(pod),
        node.pods.len(),
    )
}

fn summary(nodes: usize, refusals: &BTreeMap<String, usize>) -> String {
    if nodes == 0 {
        return "no nodes available to schedule pods".to_owned();
    }
    let reasons: Vec<_> = refusals.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
    format!("0/{nodes} nodes are available: {}.", reasons.join(", "))
}

#[cfg(test)]
mod tests;
