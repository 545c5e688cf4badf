//! What is told of the node itself: what its agent knows of it, and what its kernel has.

use std::{io, path::PathBuf};

use ipnet::IpNet;
use podnet_kernel::{
    addr::list_reachable,
    netlink::{NetlinkError, RtSocket},
    netns::{NetNs, NetNsError},
    snapshot::{MOST_ELEMENTS, Snapshot, SnapshotError, Told, served::Served},
    sysctl,
};
use podnet_model::proxy::Mode;
use podnet_planner::{
    overlay::{OverlayConfig, Place},
    trace::Facts,
};
use tokio::sync::watch;

use crate::{AgentConfig, attach, network::Network, proxy};

/// Tells of the node.
pub(crate) trait Own: Send + Sync {
    /// What there is of it now, its pods left out. Blocks for as long as the kernel takes.
    ///
    /// # Errors
    /// What keeps it from being told.
    fn told(&self) -> Result<Told, OwnError>;
}

/// Why the node cannot be told of.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OwnError {
    /// There is nothing to compare yet.
    #[error("the agent has only begun, and serves no Services yet: try again in some seconds")]
    Beginning,
    /// The node's own network is not found.
    #[error("cannot find the node's own network")]
    Namespace(#[from] NetNsError),
    /// Its addresses are not told.
    #[error("cannot look at the node's addresses")]
    Addresses(#[from] NetlinkError),
    /// Its pods' links are not known.
    #[error("cannot read the records of attachments")]
    Records(#[from] io::Error),
    /// Its kernel tells nothing.
    #[error(transparent)]
    Kernel(#[from] SnapshotError),
}

/// The node that this agent serves.
pub(crate) struct OwnNode {
    overlay: watch::Receiver<OverlayConfig>,
    mode: watch::Receiver<Option<Mode>>,
    stands_in: watch::Receiver<Option<Mode>>,
    attachments: PathBuf,
    no_nat_cidrs: Vec<IpNet>,
    sockets_cgroup: PathBuf,
    is_configured_alone: bool,
}

impl OwnNode {
    pub(crate) fn new(config: &AgentConfig, network: &Network, proxy: &proxy::Told) -> Self {
        Self {
            overlay: network.overlay(),
            mode: proxy.mode.subscribe(),
            stands_in: proxy.stands_in.subscribe(),
            attachments: config.attachments(),
            no_nat_cidrs: config.all_no_nat_cidrs().collect(),
            sockets_cgroup: config.sockets_cgroup.clone(),
            is_configured_alone: config.proxy_config.is_some(),
        }
    }
}

impl Own for OwnNode {
    fn told(&self) -> Result<Told, OwnError> {
        let (asked, stands_in) = (*self.mode.borrow(), *self.stands_in.borrow());
        let mode = stands_in.or(asked).ok_or(OwnError::Beginning)?;
        let overlay = self.overlay.borrow().clone();
        let netns = NetNs::current()?;
        let served = Served::take(&netns, mode, &self.sockets_cgroup);
        let kernel = Snapshot { served, ..Snapshot::take(&netns, &overlay.vxlan_names(), MOST_ELEMENTS)? };
        let OverlayConfig { underlay, pod_mtu, without_lost_nodes, support, .. } = overlay;
        let Place { device, mtu, addr, addr6, .. } = underlay;
        let facts = Facts {
            addr,
            addr6,
            pod_mtu,
            without_lost_nodes,
            support,
            addrs: list_reachable(&mut RtSocket::open()?)?,
            no_nat_cidrs: self.no_nat_cidrs.clone(),
            // Those of the whole hierarchy are the node's own, too.
            serves_node_at_sockets: self.sockets_cgroup.as_os_str().is_empty(),
            links: attach::links(&self.attachments)?,
            shows_bridged: sysctl::shows_bridged(&netns),
            ..Facts::new(device, mtu, mode)
        };
        Ok(Told { facts, is_configured_alone: self.is_configured_alone, kernel, pods: Vec::new() })
    }
}
