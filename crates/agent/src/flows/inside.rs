//! Pods of this node: which are here, and where packets of one are captured.

use std::{collections::HashSet, net::IpAddr, sync::Arc};

use podnet_flow::capture::Captured;
use podnet_kernel::{cni_wire::host_ifname, netlink::RtSocket, netns::NetNs};
use podnet_model::{LinkName, errors::chain};
use podnet_planner::ipam::Handle;

use crate::{addresses::Addresses, repair::PodEnds};

/// A pod's namespace.
pub(crate) struct Inside {
    pub(crate) netns: NetNs,
    /// What the pod holds its address by there: its sandbox, and so the namespace, is gone when this is.
    pub(crate) handle: Handle,
    /// Its addresses, each with the interface in the pod that has it.
    pub(crate) addrs: Vec<(String, IpAddr)>,
}

impl Inside {
    /// The node's end of the link that the pod's namespace was found by.
    pub(crate) fn host_device(&self) -> Option<LinkName> {
        let (sandbox, ifname) = self.handle.as_str().rsplit_once('/')?;
        Some(host_ifname(sandbox, ifname))
    }
}

/// What is known of the pods of this node.
pub(crate) trait Here: Send + Sync {
    /// Whether a pod is this node's, by its uid.
    fn is_here(&self, uid: &str) -> bool;

    /// The uids of all of this node's pods.
    fn uids(&self) -> HashSet<Arc<str>>;

    /// Whether an address is still held by this. A pod whose sandbox was made anew holds its own by another one.
    fn is_held(&self, handle: &Handle) -> bool;

    /// The namespace of a pod.
    ///
    /// # Errors
    /// A sentence for whoever asked: the pod is not here, or its namespace not seen.
    fn enter(&self, pod: &Captured) -> Result<Inside, String>;
}

/// Those that have addresses of this agent.
pub(super) struct Attached {
    pub(super) addresses: Arc<Addresses>,
    pub(super) ends: Arc<PodEnds>,
}

impl Here for Attached {
    fn is_here(&self, uid: &str) -> bool {
        self.addresses.holders().iter().any(|(_, holder)| *holder.uid == *uid)
    }

    fn uids(&self) -> HashSet<Arc<str>> {
        self.addresses.holders().into_iter().map(|(_, holder)| holder.uid).collect()
    }

    fn is_held(&self, handle: &Handle) -> bool {
        self.addresses.holders().iter().any(|(_, holder)| holder.handle == *handle)
    }

    fn enter(&self, pod: &Captured) -> Result<Inside, String> {
        let (key, mut devices, mut addrs) = (pod.key(), Vec::new(), Vec::new());
        let holders = self.addresses.holders().into_iter();
        for (addr, holder) in holders.filter(|(_, holder)| holder.pod == key && *holder.uid == *pod.uid) {
            let Some((sandbox, ifname)) = holder.handle.as_str().rsplit_once('/') else { continue };
            devices.push((host_ifname(sandbox, ifname), holder.handle.clone()));
            addrs.push((ifname.to_owned(), addr));
        }
        if devices.is_empty() {
            return Err(format!("pod {key} has no address on this node, or is another one of that name by now"));
        }
        let cannot = |error: &dyn std::error::Error| format!("cannot look for pod {key}: {}", chain(error));
        let mut socket = RtSocket::open().map_err(|error| cannot(&error))?;
        for (device, handle) in devices {
            if let Some(netns) = self.ends.namespace(&mut socket, &device).map_err(|error| cannot(&error))? {
                return Ok(Inside { netns, handle, addrs });
            }
        }
        Err(format!(
            "the agent does not see the namespace of pod {key} below /run/netns: let it see the node's own (a hostPath with \
             mountPropagation: HostToContainer)"
        ))
    }
}
