//! What is inside of pods whose namespaces are on this machine.

use podnet_kernel::{netns::NetNs, snapshot::Snapshot};
use podnet_model::{PodKey, errors::chain};

use crate::forwarding::{inside::namespace_of_pod, state::State};

/// What is inside, or why that is not known.
pub(super) fn look(state: &State, pod: &PodKey) -> Result<Snapshot, String> {
    let found = state.cluster.pods().get(pod).and_then(|pod| namespace_of_pod(state, pod));
    let path = found.ok_or("no namespace on this machine has its address")?;
    let unseen = |error: &dyn std::error::Error| format!("cannot look into its namespace: {}", chain(error));
    let netns = NetNs::open(&path).map_err(|error| unseen(&error))?;
    Snapshot::inside(&netns).map_err(|error| unseen(&error))
}
