//! Services' connections taken and passed on by the agent itself, for kernels that have nothing to translate with (mode `userspace`).
//!
//! - [`program`]: the program of one family: what it listens at (`refused`: and cannot), its `threads`, and the namespace that addresses are
//!   led to
//! - `door`: a socket that listens for a frontend
//! - `front`: what its connections have in common: which backend each comes to
//! - `room`: how many there may be at once
//! - `passed`: which there are, for who tells flows
//! - `tcp`, `splice`, `udp`: how is passed on
//!
//! Connections end with the process. Where the mode is left, the program stays until the last of them is over.

mod door;
mod front;
pub(crate) mod passed;
pub mod program;
mod refused;
mod room;
mod splice;
mod tcp;
mod threads;
mod udp;

use std::{
    collections::BTreeSet,
    net::IpAddr,
    time::{Duration, Instant},
};

use podnet_kernel::{
    addr,
    apart::{self, ApartError},
    datapath::Datapath,
    monitor::Notice,
    netlink::RtSocket,
    netns::NetNs,
    route::Route,
};
use podnet_model::Family;
use podnet_planner::{
    ruleset::FrontendKey,
    services::{
        Plan, Services,
        userspace::{Userspace, Work, is_elsewhere},
    },
};
use tracing::info;

use super::mode::{RulesError, ServiceRules, Unserved, is_needed};
use program::{Program, Remaining};

/// How often it is looked at most whether all is there, when something was heard, and ports that others had are tried again.
const LOOK: Duration = Duration::from_secs(1);
/// How often it is looked though nothing was heard: the kernel does not tell of everything.
const LOOK_ANYWAY: Duration = Duration::from_secs(10);

/// The Services of one family.
#[derive(Debug)]
pub(super) struct InUserspace {
    family: Family,
    planned: Userspace,
    program: Option<Program>,
    /// What goes on since then, where the mode is left.
    remaining: Option<Remaining>,
    in_force: bool,
    /// It is not known whether there is nothing.
    may_be_there: bool,
    looked: Instant,
    next_look: Instant,
    /// The node's addresses may not be those that are planned with.
    moved: bool,
}

impl InUserspace {
    pub(super) fn new(services: &Services) -> Self {
        Self {
            family: services.config().family,
            planned: Userspace::new(services),
            program: None,
            remaining: None,
            in_force: false,
            may_be_there: true,
            looked: Instant::now(),
            next_look: Instant::now(),
            moved: true,
        }
    }

    /// Begins, or begins anew where the namespace is not what it was.
    fn program(&mut self, netns: &NetNs) -> Result<&mut Program, RulesError> {
        if let Some(damaged) = self.program.take_if(|program| !program.is_whole()) {
            damaged.close();
        }
        match &mut self.program {
            Some(program) => Ok(program),
            none => Ok(none.insert(Program::start(netns, self.family)?)),
        }
    }
}

impl InUserspace {
    /// Takes in which addresses the node has, on whatever device.
    fn find_own(&mut self, netns: &NetNs) -> Result<(), RulesError> {
        let listed = RtSocket::open_in(netns).and_then(|mut socket| addr::list_lasting(&mut socket));
        let is_own = |addr: &IpAddr| Family::of(addr) == self.family && is_elsewhere(*addr);
        let own = listed.map_err(ApartError::from)?.into_iter().map(|(_, net)| net.addr());
        self.planned.set_own(own.filter(is_own).collect());
        self.moved = false;
        Ok(())
    }

    fn looked(&mut self) {
        self.looked = Instant::now();
        let is_refused = self.program.as_ref().is_some_and(Program::is_refused);
        self.next_look = self.looked + if is_refused { LOOK } else { LOOK_ANYWAY };
    }
}

impl ServiceRules for InUserspace {
    fn learn(&mut self, _services: &Services, plan: &Plan) {
        self.planned.learn(plan);
    }

    fn may_be_there(&self) -> bool {
        self.may_be_there
    }

    fn follow(&mut self, services: &Services, _datapath: &mut dyn Datapath) -> Result<usize, RulesError> {
        let work = self.planned.work(services);
        let Some(program) = self.program.as_mut().filter(|_| work != Work::default()) else { return Ok(0) };
        self.in_force = false;
        let done = work.fronts.len();
        program.follow(work)?;
        self.in_force = true;
        if program.is_refused() {
            self.next_look = self.next_look.min(Instant::now() + LOOK);
        }
        Ok(done)
    }

    fn put(&mut self, services: &Services, datapath: &mut dyn Datapath) -> Result<(), RulesError> {
        self.in_force = false;
        if !is_needed(services) {
            return self.take_away(datapath);
        }
        let Some(netns) = datapath.netns() else { return Ok(()) };
        self.find_own(&netns)?;
        let work = self.planned.whole(services);
        let program = self.program(&netns)?;
        program.be(work, services.config().primary())?;
        self.in_force = true;
        self.may_be_there = true;
        self.looked();
        Ok(())
    }

    fn take_away(&mut self, datapath: &mut dyn Datapath) -> Result<(), RulesError> {
        self.in_force = false;
        if let Some(program) = self.program.take() {
            self.remaining = Some(program.leave());
        } else if let Some(netns) = datapath.netns()
            && !program::is_left(&netns, self.family)
        {
            apart::remove(&netns, self.family)?;
        }
        self.may_be_there = false;
        Ok(())
    }

    fn lingers(&self) -> bool {
        self.remaining.as_ref().is_some_and(Remaining::is_there)
    }

    fn withdraw(
        &mut self,
        is_served: &dyn Fn(&FrontendKey) -> bool,
        _datapath: &mut dyn Datapath,
    ) -> Result<(), RulesError> {
        if let Some(remaining) = &self.remaining {
            remaining.close(is_served);
        }
        Ok(())
    }

    fn in_force(&self) -> bool {
        self.in_force
    }

    fn begin_anew(&mut self, _services: &Services) {
        self.in_force = false;
    }

    fn hear(&mut self, notice: &Notice) {
        let ours = |name: &str| name == apart::device(self.family);
        // A way that somebody made in the place of one of ours.
        let instead = |route: &Route| {
            route.protocol != apart::PROTOCOL
                && route.dst.prefix_len() == route.dst.max_prefix_len()
                && self.planned.is_cluster_ip(&route.dst.addr())
        };
        let touched = match notice {
            Notice::Lost | Notice::Address { .. } => {
                self.moved = true;
                true
            }
            Notice::Link(link) | Notice::LinkGone(link) => ours(link.name.as_str()),
            Notice::RouteGone(route) => route.protocol == apart::PROTOCOL,
            Notice::Route(route) => instead(route),
            _ => false,
        };
        if touched {
            self.next_look = self.next_look.min((self.looked + LOOK).max(Instant::now()));
        }
    }

    fn due(&self) -> Option<Instant> {
        self.in_force.then_some(self.next_look)
    }

    fn look(&mut self, services: &Services, datapath: &mut dyn Datapath) -> Result<Option<String>, RulesError> {
        if !self.in_force || Instant::now() < self.next_look {
            return Ok(None);
        }
        if self.moved
            && let Some(netns) = datapath.netns()
        {
            self.find_own(&netns)?;
            self.follow(services, datapath)?;
        }
        let Some(program) = &mut self.program else { return Ok(None) };
        program.try_again();
        let damage = program.damage()?;
        if damage.is_some() {
            self.put(services, datapath)?;
        }
        self.looked();
        Ok(damage)
    }

    fn unserved(&self) -> BTreeSet<Unserved> {
        let Some(program) = &self.program else { return BTreeSet::new() };
        let lacking = self.planned.unserved().map(|(key, lack, serving)| Unserved {
            service: serving.service.clone(),
            message: format!("{key} {lack}"),
            fact: None,
        });
        lacking.chain(program.refused()).collect()
    }
}

impl From<ApartError> for RulesError {
    fn from(error: ApartError) -> Self {
        Self::Other(Box::new(error))
    }
}

impl Drop for InUserspace {
    fn drop(&mut self) {
        if let Some(program) = self.program.take() {
            info!(family = ?self.family, "Services are passed on no more");
            program.end();
        }
    }
}

#[cfg(test)]
mod tests;
