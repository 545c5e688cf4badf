//! This machine, of nodes whose namespaces are on it.

use std::{collections::BTreeSet, error::Error, path::Path};

use podnet_kernel::{
    netns::NetNs,
    snapshot::{MOST_ELEMENTS, Snapshot, Told, served::Served},
};
use podnet_model::{LinkName, NodeName, PodKey, errors::chain, proxy::Mode};

use super::{Answer, Source, Wanted, pods};
use crate::{forwarding::state::State, layout};

/// The namespaces that are here.
pub(super) struct Namespaces;

impl Source for Namespaces {
    fn ask(&self, state: &State, wanted: &Wanted) -> Vec<Answer> {
        let answer = |(node, inside): (&NodeName, &BTreeSet<PodKey>)| {
            let (netns, planned) = (state.here.get(node)?, state.cluster.planned(node)?);
            let cgroup = Path::new(layout::CGROUP).join(node.as_str());
            let kernel = look(netns, &planned.overlay.config().vxlan_names(), planned.facts.mode, &cgroup);
            let told = |kernel| {
                let pods = inside.iter().map(|pod| (pod.clone(), pods::look(state, pod))).collect();
                Told { facts: planned.facts.clone(), is_configured_alone: false, kernel, pods }
            };
            Some((
                node.clone(),
                kernel.map(told).map_err(|error| format!("cannot look into its network: {}", chain(&*error))),
            ))
        };
        wanted.iter().filter_map(answer).collect()
    }
}

fn look(netns: &Path, vxlans: &[&LinkName], mode: Mode, cgroup: &Path) -> Result<Snapshot, Box<dyn Error>> {
    let netns = NetNs::open(netns)?;
    let served = Served::take(&netns, mode, cgroup);
    Ok(Snapshot { served, ..Snapshot::take(&netns, vxlans, MOST_ELEMENTS)? })
}
