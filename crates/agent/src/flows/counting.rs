//! The programs that count at pods' interfaces, while flows are recorded.

use std::{
    error::Error,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
};

use podnet_kernel::{
    cgroup::Cgroup,
    flows::{self, Flows, FlowsError, Sizes},
    link,
    netlink::{NetlinkError, RtSocket},
};
use podnet_model::LinkName;
use tracing::{debug, warn};

/// Whether flows are to be counted when an agent begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtStart {
    /// Nobody can ask for them: what an earlier agent left is taken away.
    Never,
    /// Where an earlier agent counted: who followed it is about to ask again.
    WhereTheyWere,
    /// They are recorded whether somebody asks or not.
    Always,
}

/// What counts at pods' interfaces.
#[derive(Debug, Default)]
pub struct Counting {
    flows: RwLock<Option<Arc<Flows>>>,
    /// Whose processes may choose backends of Services at their sockets.
    cgroup: Option<Cgroup>,
    /// That the kernel refuses was told.
    told: AtomicBool,
}

impl Counting {
    /// Begins where that is wanted, over what an earlier agent counted. Why nothing is counted is in the log.
    #[must_use]
    pub fn open(wanted: AtStart, cgroup: Option<Cgroup>) -> Self {
        let counting = Self { cgroup, ..Self::default() };
        let begins = match wanted {
            AtStart::Never => false,
            AtStart::WhereTheyWere => is_anywhere().unwrap_or(false),
            AtStart::Always => true,
        };
        if begins {
            counting.begin()
        } else {
            counting.end()
        };
        counting
    }

    /// The programs, while there are any.
    #[must_use]
    pub fn flows(&self) -> Option<Arc<Flows>> {
        self.flows.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Loads the programs, where that is not done. Whether anything changed. They count at no device yet, unless they did for an earlier agent.
    pub(crate) fn begin(&self) -> bool {
        let mut flows = self.flows.write().unwrap_or_else(PoisonError::into_inner);
        if flows.is_some() {
            return false;
        }
        match self.load() {
            Ok(loaded) => *flows = Some(Arc::new(loaded)),
            Err(error) => warn!(error = &error as &dyn Error, "flows are not recorded"),
        }
        flows.is_some()
    }

    /// What an earlier agent left out, as it knew the cluster, is counted until this one knows it.
    fn load(&self) -> Result<Flows, FlowsOrLinks> {
        let mut socket = RtSocket::open().map_err(FlowsOrLinks::Links)?;
        let ends = ends(&mut socket)?;
        let flows = Flows::open(&mut socket, &ends, self.cgroup.as_ref(), Sizes::default())?;
        flows.set_ranges(None)?;
        Ok(flows)
    }

    /// Loads other programs over the maps that are read, where backends of Services are chosen at sockets by now whose choices these cannot see. Whether
    /// that was done; they take the place of those that are there as devices are looked at.
    pub(super) fn follow_sockets(&self) -> bool {
        let (Some(flows), Some(cgroup)) = (self.flows(), &self.cgroup) else { return false };
        let renewed = flows
            .misses_sockets(cgroup)
            .and_then(|misses| if misses { flows.renewed(Some(cgroup)).map(Some) } else { Ok(None) });
        match renewed {
            Ok(Some(renewed)) => {
                *self.flows.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(renewed));
                true
            }
            Ok(None) => false,
            Err(error) => {
                debug!(error = &error as &dyn Error, "flows do not tell the Services that were asked at sockets");
                false
            }
        }
    }

    /// Takes the programs away from all devices. Whether anything changed.
    pub(crate) fn end(&self) -> bool {
        let before = self.flows.write().unwrap_or_else(PoisonError::into_inner).take();
        let ended = RtSocket::open().map_err(FlowsOrLinks::Links).and_then(|mut socket| {
            let ends = ends(&mut socket)?;
            Ok(ends.iter().try_for_each(|end| flows::detach(&mut socket, end).map(drop))?)
        });
        if let Err(error) = ended {
            warn!(error = &error as &dyn Error, "flows go on to be counted, though nobody asks");
        }
        before.is_some()
    }

    /// Counts at the node's end of a pod's link. Where the kernel refuses, that is told once.
    pub fn follow(&self, socket: &mut RtSocket, device: &LinkName) {
        let done = self.flows().map(|flows| flows.attach(socket, device));
        if let Some(Err(error)) = done
            && !self.told.swap(true, Ordering::Relaxed)
        {
            warn!(error = &error as &dyn Error, "a pod's flows are not recorded; told once");
        }
    }
}

/// Whether an earlier agent counted.
fn is_anywhere() -> Result<bool, FlowsOrLinks> {
    let mut socket = RtSocket::open().map_err(FlowsOrLinks::Links)?;
    for end in ends(&mut socket)? {
        if flows::is_at(&mut socket, &end)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The devices that may be pods'.
fn ends(socket: &mut RtSocket) -> Result<Vec<LinkName>, FlowsOrLinks> {
    let links = link::list(socket).map_err(FlowsOrLinks::Links)?;
    let ends = links.into_iter().filter(|link| link.kind.as_deref() == Some("veth"));
    Ok(ends.map(|link| link.name).collect())
}

#[derive(Debug, thiserror::Error)]
enum FlowsOrLinks {
    #[error(transparent)]
    Flows(#[from] FlowsError),
    #[error("cannot list the pods' links")]
    Links(#[source] NetlinkError),
}
