//! This machine, of nodes whose namespaces are on it.

use std::{collections::BTreeSet, error::Error, path::Path};

use podnet_kernel::{
    netns::NetNs,
    snapshot::{MOST_ELEMENTS, Snapshot, Told},
};
use podnet_model::{LinkName, NodeName, errors::chain};

use super::{Answer, Source};
use crate::forwarding::state::State;

/// The namespaces that are here.
pub(super) struct Namespaces;

impl Source for Namespaces {
    fn ask(&self, state: &State, nodes: &BTreeSet<NodeName>) -> Vec<Answer> {
        let answer = |node: &NodeName| {
            let (netns, planned) = (state.here.get(node)?, state.cluster.planned(node)?);
            let kernel = look(netns, &planned.overlay.config().vxlan_names());
            let told = |kernel| Told { facts: planned.facts.clone(), is_configured_alone: false, kernel };
            Some((
                node.clone(),
                kernel.map(told).map_err(|error| format!("cannot look into its network: {}", chain(&*error))),
            ))
        };
        nodes.iter().filter_map(answer).collect()
    }
}

fn look(netns: &Path, vxlans: &[&LinkName]) -> Result<Snapshot, Box<dyn Error>> {
    Ok(Snapshot::take(&NetNs::open(netns)?, vxlans, MOST_ELEMENTS)?)
}
