//! The programs that count at pods' interfaces, while flows are recorded.

use std::{
    error::Error,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use podnet_kernel::{
    cgroup::Cgroup,
    flows::{self, Flows, FlowsError, Refusals, Sizes},
    link,
    netlink::{NetlinkError, RtSocket},
};
use podnet_model::LinkName;
use tracing::{debug, warn};

/// After programs were refused for the first time; and the longest time, as what a load costs is hundreds of milliseconds.
const FIRST: Duration = Duration::from_secs(4);
const LONGEST: Duration = Duration::from_secs(600);

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
    /// For how many flows there is to be room.
    sizes: Sizes,
    /// Whose processes may choose backends of Services at their sockets.
    cgroup: Option<Cgroup>,
    /// When it is worth while to load programs again that were refused.
    patience: Mutex<Patience>,
    /// That the kernel refuses was told.
    told: AtomicBool,
}

/// How long to wait after failures, one after the other.
#[derive(Debug, Default)]
struct Patience {
    failures: u32,
    until: Option<Instant>,
}

impl Patience {
    fn is_over(&self, now: Instant) -> bool {
        self.until.is_none_or(|until| now >= until)
    }

    /// Twice as long each time.
    fn fail(&mut self, now: Instant) {
        let pause = FIRST.saturating_mul(1 << self.failures.min(16)).min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        self.until = Some(now + pause);
    }
}

impl Counting {
    /// Begins where that is wanted, over what an earlier agent counted, with room for so many flows where there is nothing to go on with. Why nothing is
    /// counted is in the log.
    #[must_use]
    pub fn open(wanted: AtStart, cgroup: Option<Cgroup>, entries: u32) -> Self {
        let counting = Self { cgroup, sizes: Sizes { entries, ..Sizes::default() }, ..Self::default() };
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

    /// Whose processes may choose backends of Services at their sockets.
    pub(super) fn cgroup(&self) -> Option<Cgroup> {
        self.cgroup.clone()
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
        let flows = Flows::open(&mut socket, &ends, self.cgroup.as_ref(), self.sizes)?;
        flows.set_ranges(None)?;
        Ok(flows)
    }

    /// Loads other programs over the maps that are read, where backends of Services are chosen at sockets by now whose choices these cannot see. Whether
    /// that was done; they take the place of those that are there as devices are looked at.
    pub(super) fn follow_sockets(&self) -> bool {
        let (Some(flows), Some(cgroup)) = (self.flows(), &self.cgroup) else { return false };
        let mut patience = self.patience.lock().unwrap_or_else(PoisonError::into_inner);
        if !patience.is_over(Instant::now()) {
            return false;
        }
        let renewed = flows
            .misses_sockets(cgroup)
            .and_then(|misses| if misses { flows.renewed(Some(cgroup)).map(Some) } else { Ok(None) });
        match renewed {
            Ok(Some(renewed)) => {
                *patience = Patience::default();
                *self.flows.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(renewed));
                true
            }
            Ok(None) => {
                *patience = Patience::default();
                false
            }
            Err(error) => {
                patience.fail(Instant::now());
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
            // One that fails, or has just gone, keeps no other from it.
            let failed = ends.iter().filter_map(|end| flows::detach(&mut socket, end).err());
            Ok(failed.reduce(|first, _| first).map_or(Ok(()), Err)?)
        });
        if let Err(error) = ended {
            warn!(error = &error as &dyn Error, "flows go on to be counted, though nobody asks");
        }
        let refusals = self.cgroup.as_ref().map_or(Ok(None), Refusals::at);
        if let Err(error) = refusals.and_then(|found| found.map_or(Ok(()), |refusals| refusals.record(false))) {
            debug!(error = &error as &dyn Error, "refusals at sockets go on to be counted, though nobody asks");
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_refused_is_tried_again_more_and_more_seldom() {
        let (mut patience, mut now) = (Patience::default(), Instant::now());
        assert!(patience.is_over(now));
        let mut pauses = Vec::new();
        for _ in 0..40 {
            patience.fail(now);
            assert!(!patience.is_over(now));
            let until = patience.until.unwrap();
            pauses.push((until - now).as_secs());
            now = until;
            assert!(patience.is_over(now));
        }
        assert_eq!((&pauses[..4], pauses[39]), (&[4, 8, 16, 32][..], 600));
    }
}
