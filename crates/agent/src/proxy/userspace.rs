//! Services' connections taken and passed on by a program, for kernels that have nothing to translate with (mode `userspace`).
//!
//! - `server`: the seam to who passes on: this process, or one that outlives it
//! - [`program`]: the program of one family: what it listens at (`refused`: and cannot), its `threads`, and the namespace that addresses are
//!   led to
//! - `door`: a socket that listens for a frontend
//! - `front`: what its connections have in common: which backend each comes to
//! - `room`: how many there may be at once
//! - `passed`: which there are, for who tells flows
//! - `tcp`, `splice`, `udp`: how is passed on
//! - [`process`]: a process that has the programs of both families for an agent; `away`: what the agent knows of it, `wire`: how they talk,
//!   `mirror`: `passed` of it
//!
//! Connections end with the process that passes them on. Where the mode is left, the program stays until the last of them is over.

mod away;
mod door;
mod front;
mod mirror;
pub(crate) mod passed;
pub mod process;
pub mod program;
mod refused;
mod room;
mod server;
mod splice;
mod tcp;
mod threads;
mod udp;
mod wire;

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
        userspace::{Userspace, is_elsewhere},
    },
};

pub use away::Launch;
pub(crate) use away::serve_apart;
pub(crate) use mirror::{onward, origin};

use super::mode::{NOT_SERVED, RulesError, ServiceRules, Unserved, is_needed};
use server::Server;

/// How often it is looked at most whether all is there, when something was heard.
const LOOK: Duration = Duration::from_millis(300);
/// Where a look takes long, as with very many Services, so many times as long goes by before the next one.
const REST: u32 = 20;
/// How often ports that others had are tried again.
const TRY_AGAIN: Duration = Duration::from_secs(1);
/// How often it is looked though nothing was heard: the kernel does not tell of everything.
const LOOK_ANYWAY: Duration = Duration::from_secs(10);

/// The Services of one family.
#[derive(Debug)]
pub(super) struct InUserspace {
    family: Family,
    planned: Userspace,
    server: Box<dyn Server>,
    in_force: bool,
    /// It is not known whether there is nothing.
    may_be_there: bool,
    /// When it may be looked again, whatever is heard.
    rests_until: Instant,
    next_look: Instant,
    /// The node's addresses may not be those that are planned with.
    moved: bool,
}

impl InUserspace {
    pub(super) fn new(services: &Services) -> Self {
        Self {
            family: services.config().family,
            planned: Userspace::new(services),
            server: away::server(services.config().family),
            in_force: false,
            may_be_there: true,
            rests_until: Instant::now(),
            next_look: Instant::now(),
            moved: true,
        }
    }

    /// Takes in which addresses the node has, on whatever device.
    fn find_own(&mut self, netns: &NetNs) -> Result<(), RulesError> {
        let listed = RtSocket::open_in(netns).and_then(|mut socket| addr::list_lasting(&mut socket));
        let is_own = |addr: &IpAddr| Family::of(addr) == self.family && is_elsewhere(*addr);
        let own = listed.map_err(ApartError::from)?.into_iter().map(|(_, net)| net.addr());
        self.planned.set_own(own.filter(is_own).collect());
        self.moved = false;
        Ok(())
    }

    /// What was begun then was done.
    fn looked(&mut self, began: Instant) {
        let now = Instant::now();
        self.rests_until = now + LOOK.max((now - began) * REST);
        let is_refused = self.server.is_refused();
        self.next_look = self.rests_until.max(now + if is_refused { TRY_AGAIN } else { LOOK_ANYWAY });
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
        if work.is_empty() || !self.server.serves() {
            return Ok(0);
        }
        self.in_force = false;
        let done = work.fronts.len();
        self.server.follow(work)?;
        self.in_force = true;
        if self.server.is_refused() {
            self.next_look = self.next_look.min(Instant::now() + TRY_AGAIN);
        }
        Ok(done)
    }

    fn put(&mut self, services: &Services, datapath: &mut dyn Datapath) -> Result<(), RulesError> {
        let began = Instant::now();
        self.in_force = false;
        if !is_needed(services) {
            return self.take_away(datapath);
        }
        let Some(netns) = datapath.netns() else { return Ok(()) };
        self.find_own(&netns)?;
        let work = self.planned.whole(services);
        self.server.be(&netns, work, services.config().primary())?;
        self.in_force = true;
        self.may_be_there = true;
        self.looked(began);
        Ok(())
    }

    fn take_away(&mut self, datapath: &mut dyn Datapath) -> Result<(), RulesError> {
        self.in_force = false;
        self.server.leave(datapath.netns().as_ref())?;
        self.may_be_there = false;
        Ok(())
    }

    fn lingers(&self) -> bool {
        self.server.remains().is_some()
    }

    fn held(&self) -> BTreeSet<IpAddr> {
        self.server.remains().map(|remains| remains.held).unwrap_or_default()
    }

    fn takes_new(&self) -> bool {
        self.server.remains().is_some_and(|remains| remains.listens)
    }

    fn recall(&mut self) {
        self.server.recall();
    }

    fn leave_to_rules(&mut self, _services: &Services, addrs: &BTreeSet<IpAddr>) {
        self.planned.leave_to_rules(addrs);
    }

    fn withdraw(
        &mut self,
        is_served: &dyn Fn(&FrontendKey) -> bool,
        _datapath: &mut dyn Datapath,
    ) -> Result<(), RulesError> {
        self.server.withdraw(is_served)
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
            self.next_look = self.next_look.min(self.rests_until.max(Instant::now()));
        }
    }

    fn due(&self) -> Option<Instant> {
        self.in_force.then_some(self.next_look)
    }

    fn look(&mut self, services: &Services, datapath: &mut dyn Datapath) -> Result<Option<String>, RulesError> {
        let began = Instant::now();
        if !self.in_force || began < self.next_look {
            return Ok(None);
        }
        if self.moved
            && let Some(netns) = datapath.netns()
        {
            self.find_own(&netns)?;
            self.follow(services, datapath)?;
        }
        let damage = self.server.look()?;
        if damage.is_some() {
            self.put(services, datapath)?;
        }
        self.looked(began);
        Ok(damage)
    }

    fn unserved(&self) -> BTreeSet<Unserved> {
        if !self.server.serves() {
            return BTreeSet::new();
        }
        let lacking = self.planned.unserved().map(|(key, lack, serving)| Unserved {
            service: serving.service.clone(),
            reason: NOT_SERVED,
            message: format!("{key} {lack}").into(),
            fact: None,
        });
        let hiding = self.planned.hiding().into_iter().map(|service| Unserved {
            service: service.clone(),
            reason: "SourceHidden",
            message: "externalTrafficPolicy Local: in mode userspace backends see the node's address, and not their \
                      clients', which another mode keeps"
                .into(),
            fact: None,
        });
        lacking.chain(hiding).chain(self.server.refused()).collect()
    }
}

impl From<ApartError> for RulesError {
    fn from(error: ApartError) -> Self {
        Self::Other(Box::new(error))
    }
}

#[cfg(test)]
mod tests;
