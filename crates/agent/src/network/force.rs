//! Putting what is planned in force: devices and routes, rules, programs at sockets.
//!
//! Where one of these is refused the others are in force all the same, and go on to follow what changes.

use std::time::{Duration, Instant};

use podnet_kernel::{
    carrier::{CarrierError, RunningCarrier},
    datapath::Datapath,
    fastpath::Behind,
    netlink::NetlinkError,
    netns::NetNs,
};
use podnet_planner::step::Step;
use tracing::{debug, info, warn};

use super::{
    refused::ApplyError,
    rules::Tries,
    worker::{Work, Worker},
};
use crate::proxy::programming::{Moment, Round};

/// What is put in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extent {
    /// Everything, whatever there is.
    Everything,
    /// What changed, and what was refused before.
    Again,
    /// What changed.
    Changes,
    /// What changed, but for what was refused before, which has to wait.
    Others,
}

/// What was refused the last time that it was tried.
#[derive(Debug, Default)]
pub(super) struct Refused {
    links: bool,
    pub(super) sockets: bool,
}

impl Extent {
    /// What was refused is tried.
    pub(super) fn tries_all(self) -> bool {
        self != Self::Others
    }

    /// Nothing is known of what there is, or not of all.
    pub(super) const fn is_afresh(self) -> bool {
        matches!(self, Self::Everything | Self::Again)
    }
}

impl Worker {
    /// Puts what is planned in force. Connections that are under way keep their translations: they live in connection tracking and not in
    /// the rules.
    pub(super) fn put_in_force(&mut self, work: &mut Work, extent: Extent) -> Result<(), ApplyError> {
        let started = Instant::now();
        let linked = match extent {
            Extent::Everything | Extent::Again => self.link(),
            // All of it is looked at when it is tried again.
            Extent::Others if self.refused.links => Ok(0),
            Extent::Changes | Extent::Others => self.change_links(work),
        };
        self.refused.links = linked.is_err() || self.refused.links && !extent.tries_all();
        let ruling = Instant::now();
        let whole = extent == Extent::Everything || self.rules.is_refused();
        let ruled = self.rule(extent);
        let at_sockets = self.put_at_sockets(extent);
        let done = ruled.is_ok() && at_sockets.is_ok();
        self.programmed(done, if whole { Round::Full } else { Round::Partial }, ruling.elapsed());
        let (steps, edits) = (linked?, ruled? + at_sockets?);
        if extent.is_afresh() {
            info!(steps, elapsed_ms = started.elapsed().as_millis() as u64, "network in force");
        } else if !work.steps.is_empty() || edits > 0 {
            debug!(steps, edits, elapsed = ?started.elapsed(), "network changed");
        }
        Ok(())
    }

    fn rule(&mut self, extent: Extent) -> Result<usize, ApplyError> {
        Ok(match extent {
            Extent::Everything => return self.put_rules().map(|()| 0),
            Extent::Again | Extent::Changes => self.rules.edit(Tries::All, &mut self.datapath),
            Extent::Others => self.rules.edit(Tries::ButRefused, &mut self.datapath),
        }?)
    }

    fn put_at_sockets(&mut self, extent: Extent) -> Result<usize, ApplyError> {
        let put = match extent {
            Extent::Everything => self.sockets.put(&mut self.rules).map(|()| 0),
            Extent::Others if self.refused.sockets => return Ok(0),
            _ => self.sockets.edit(&mut self.rules),
        };
        self.refused.sockets = put.is_err();
        Ok(put?)
    }

    /// What came in is in force, or was refused. While something has to wait neither is so.
    fn programmed(&self, done: bool, round: Round, took: Duration) {
        let programming = &self.proxy.told().programming;
        if !done {
            programming.refused();
            self.proxy.told().facts.refused(self.rules.mode(), round);
        } else if !self.rules.is_refused() && !self.refused.sockets {
            programming.done(round, took, Moment::now());
        }
    }

    fn change_links(&mut self, work: &mut Work) -> Result<usize, ApplyError> {
        work.steps = self.pods.without_theirs(std::mem::take(&mut work.steps));
        if self.datapath.apply(&work.steps)?.remade.is_empty() {
            return Ok(work.steps.len());
        }
        // With the device went everything that stood on it.
        self.link()
    }

    /// Devices and routes, from whatever is there to what is wanted; answers with the number of steps.
    fn link(&mut self) -> Result<usize, ApplyError> {
        let steps = self.repairs()?;
        self.problems.suspect();
        if !self.datapath.apply(&steps)?.remade.is_empty() {
            let again = self.repairs()?;
            self.datapath.apply(&again)?;
        }
        Ok(steps.len())
    }

    /// What cannot be forgotten now is tried again.
    pub(super) fn forget_vanished(&mut self) {
        match self.rules.forget_vanished() {
            Ok(0) => return,
            Ok(forgotten) => debug!(forgotten, "UDP connections to backends that are gone are forgotten"),
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                warn!(error, "UDP connections may go on to backends that are gone");
            }
        }
        // What passes by the stack goes on as it was translated.
        self.pods.fast_path().relearn();
    }

    /// Packets may leave by other ways than those that established flows know, and the tunnel may be another device.
    pub(super) fn lead_past(&mut self) {
        let fast_path = self.pods.fast_path();
        for device in self.overlay.config().vxlan_names() {
            if let Err(error) = fast_path.follow(self.datapath.route_socket(), device, Behind::Nodes, true) {
                warn!(error = &error as &dyn std::error::Error, "the fast path of an earlier agent is not taken away");
            }
        }
        fast_path.relearn();
    }

    /// Lets the UDP tunnel's program do what is planned, or none run.
    pub(super) fn carry(&mut self) -> Result<(), ApplyError> {
        let Some(wanted) = self.overlay.carrier() else {
            self.carrier = None;
            return Ok(());
        };
        if !self.carrier.as_mut().is_some_and(|carrier| carrier.follow(&wanted)) {
            // The old one has the device and the port until it is gone.
            self.carrier = None;
            let netns = NetNs::current().map_err(CarrierError::from)?;
            self.carrier = Some(RunningCarrier::start(&netns, &wanted)?);
            info!(device = %wanted.device, local = %wanted.local, port = wanted.port, "UDP tunnel runs");
        }
        Ok(())
    }

    fn repairs(&mut self) -> Result<Vec<Step>, NetlinkError> {
        let observed = self.datapath.observe(&self.overlay.config().vxlan_names())?;
        Ok(self.pods.without_theirs(self.overlay.repair(&observed.into())))
    }
}
