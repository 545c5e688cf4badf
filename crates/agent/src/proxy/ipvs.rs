//! Services' rules as virtual servers of the kernel, with sets and constant chains beside them.
//!
//! The kernel tells nobody of changed virtual servers and sets: these are read as a whole twice a second where they are few, and at most as
//! often as `ipvs.syncPeriod` says where they are many. The chains are looked after as those of the mode `iptables` are.

mod kernel;
mod refused;

use std::{
    collections::BTreeSet,
    net::IpAddr,
    time::{Duration, Instant},
};

use podnet_kernel::{datapath::Datapath, iptables::Variant, monitor::Notice, netns::NetNs};
use podnet_model::{
    Family,
    proxy::{IpvsConfig, Mode},
};
use podnet_planner::{
    iptables::Rewrite,
    ipvs::{DEVICE, Drain, Edit, Scheduler, State, difference},
    services::{
        Plan, Services,
        ipvs::{Ipvs as Renderer, own},
    },
};
use tracing::debug;

use self::{kernel::Kernel, refused::Refused};
use super::mode::{RulesError, ServiceRules, Unserved, is_needed};

/// How often all is looked at, at most.
const LOOK: Duration = Duration::from_millis(500);
/// How long it is waited for what else somebody changes.
const GATHER: Duration = Duration::from_millis(50);
/// How often the chains are compared though nothing is suspected.
const COMPARE: Duration = Duration::from_secs(60);
/// Where a comparison takes long, so many times as long goes by before the next one.
const REST: u32 = 100;
/// And so many times as long where somebody changes things all the time.
const REST_OF_SUSPICION: u32 = 10;
/// How often it is looked whether the connections of what goes are over.
const DRAIN: Duration = Duration::from_secs(5);

/// How long connections are waited for when the mode is left.
const LINGER: Duration = Duration::from_secs(15 * 60);

/// The virtual servers of one family.
#[derive(Debug)]
pub(super) struct InIpvs {
    family: Family,
    config: IpvsConfig,
    renderer: Renderer,
    kernel: Option<Kernel>,
    /// What is to be done since the last time.
    edits: Vec<Edit>,
    /// What of podnet's is there, as far as is known.
    there: State,
    refused: Refused,
    drain: Drain,
    /// What [`Drain`] counts the time from.
    began: Instant,
    in_force: bool,
    /// Since when the mode is left, and whether something stays for the sake of connections.
    leaving: Option<Instant>,
    lingers: bool,
    /// The mode that comes translates before virtual servers do.
    may_linger: bool,
    /// It is not known whether there are none.
    may_be_there: bool,
    /// Somebody may have damaged the virtual servers and what goes with them, or the chains.
    suspected: (bool, bool),
    next_look: Instant,
    next_servers: Instant,
    next_chains: Instant,
    next_drain: Instant,
}

/// What was done to make what is there what is wanted.
struct Done {
    edits: Vec<Edit>,
    rewrite: Rewrite,
}

impl InIpvs {
    pub(super) fn new(services: &Services) -> Self {
        let config = IpvsConfig::default();
        let now = Instant::now();
        Self {
            family: services.config().family,
            renderer: renderer(services, &config),
            config,
            kernel: None,
            edits: Vec::new(),
            there: State::default(),
            refused: Refused::default(),
            drain: Drain::default(),
            began: now,
            in_force: false,
            leaving: None,
            lingers: false,
            may_linger: true,
            may_be_there: true,
            suspected: (false, false),
            next_look: now,
            next_servers: now,
            next_chains: now,
            next_drain: now,
        }
    }

    /// Brings all there is to what is wanted. Not `in_force` once it fails.
    fn compare(&mut self, services: &Services, netns: &NetNs) -> Result<Done, RulesError> {
        let started = Instant::now();
        self.in_force = false;
        self.may_be_there = true;
        if self.kernel.is_none() {
            self.kernel = Some(Kernel::open(netns, self.family)?);
        }
        let edits = self.compare_servers(services, netns)?;
        let Some(kernel) = &mut self.kernel else { return Ok(Done { edits, rewrite: Rewrite::default() }) };
        kernel.attract(netns, self.renderer.attraction(), &self.renderer.attracted())?;
        let rewrite = kernel.put_chains(self.renderer.rules(services))?;
        self.in_force = true;
        self.leaving = None;
        self.suspected = (false, false);
        self.next_chains = Instant::now() + COMPARE.max(started.elapsed() * REST);
        Ok(Done { edits, rewrite })
    }

    fn compare_servers(&mut self, services: &Services, netns: &NetNs) -> Result<Vec<Edit>, RulesError> {
        let started = Instant::now();
        let Some(kernel) = &mut self.kernel else { return Ok(Vec::new()) };
        self.edits = Vec::new();
        kernel.configure(netns, &self.config)?;
        let wanted = self.renderer.state();
        let ranges = &self.config.exclude_cidrs;
        let is_excluded = |addr: &IpAddr| ranges.iter().any(|range| range.contains(addr));
        self.there = own(kernel.read()?, wanted, self.family, is_excluded);
        let edits = self.do_edits(services, difference(self.renderer.state(), &self.there))?;
        self.suspected.0 = false;
        self.next_servers = Instant::now() + (started.elapsed() * REST).clamp(LOOK, self.config.sync_period.max(LOOK));
        Ok(edits)
    }

    /// Does edits, softly. Answers what was done.
    fn do_edits(&mut self, services: &Services, edits: Vec<Edit>) -> Result<Vec<Edit>, RulesError> {
        let Some(kernel) = &mut self.kernel else { return Ok(Vec::new()) };
        let renderer = &self.renderer;
        let mut edits =
            self.drain.soften(edits, &self.there, |key| renderer.has_connections(key), self.began.elapsed());
        self.refused.take(kernel.apply(&edits)?, &mut edits, renderer, services);
        edits.iter().for_each(|edit| self.there.apply(edit));
        self.refused.forget(renderer.state(), &self.there);
        Ok(edits)
    }

    /// Lets go what has no connections any more.
    fn let_go(&mut self) -> Result<(), RulesError> {
        let servers: Vec<_> = self.drain.servers().into_iter().collect();
        let Some(kernel) = self.kernel.as_mut().filter(|_| !servers.is_empty()) else { return Ok(()) };
        let connections = kernel.connections(&servers)?;
        let edits = self.drain.over(&connections, self.began.elapsed());
        kernel.apply(&edits)?;
        edits.iter().for_each(|edit| self.there.apply(edit));
        debug!(gone = edits.len(), left = self.drain.servers().len(), "real servers without connections let go");
        Ok(())
    }

    fn begin(&mut self, services: &Services) {
        self.renderer = renderer(services, &self.config);
        self.edits = Vec::new();
        self.in_force = false;
    }
}

fn renderer(services: &Services, config: &IpvsConfig) -> Renderer {
    Renderer::new(services, Scheduler::named(config.scheduler).unwrap_or(Scheduler::RoundRobin))
}

impl ServiceRules for InIpvs {
    fn learn(&mut self, services: &Services, plan: &Plan) {
        let edits = self.renderer.edits(services, plan);
        // What is not in force will be made as a whole.
        if self.in_force {
            self.edits.extend(edits);
        }
    }

    fn configure(&mut self, services: &Services, config: &IpvsConfig) {
        if self.config != *config {
            self.config = config.clone();
            self.begin(services);
        }
    }

    fn may_be_there(&self) -> bool {
        self.may_be_there
    }

    fn follow(&mut self, services: &Services, datapath: &mut dyn Datapath) -> Result<usize, RulesError> {
        let edits = std::mem::take(&mut self.edits);
        self.in_force = false;
        if self.renderer.changes_attracted(&edits)
            && let (Some(kernel), Some(netns)) = (&mut self.kernel, datapath.netns())
        {
            kernel.attract(&netns, self.renderer.attraction(), &self.renderer.attracted())?;
        }
        let done = self.do_edits(services, edits)?.len();
        if let Some(kernel) = &mut self.kernel {
            kernel.follow_chains(self.renderer.rules(services))?;
        }
        self.in_force = true;
        Ok(done)
    }

    fn put(&mut self, services: &Services, datapath: &mut dyn Datapath) -> Result<(), RulesError> {
        if !is_needed(services) {
            return self.take_away(datapath);
        }
        if let Some(netns) = datapath.netns() {
            let done = self.compare(services, &netns)?;
            debug!(edits = done.edits.len(), chains = done.rewrite.chains.len(), "virtual servers compared");
        }
        Ok(())
    }

    fn take_away(&mut self, datapath: &mut dyn Datapath) -> Result<(), RulesError> {
        self.in_force = false;
        self.edits = Vec::new();
        if let Some(netns) = datapath.netns() {
            let leaving = *self.leaving.get_or_insert_with(Instant::now);
            let (bits, excluded) = (self.renderer.attraction(), &self.config.exclude_cidrs);
            let may_stay = self.may_linger && leaving.elapsed() < LINGER;
            self.lingers = kernel::remove(&netns, self.family, bits, excluded, may_stay)?;
        }
        self.kernel = None;
        self.there = State::default();
        self.refused = Refused::default();
        self.drain = Drain::default();
        self.may_be_there = self.lingers;
        Ok(())
    }

    fn make_way(&mut self, mode: Mode) {
        // Its program is behind routes, which are asked after this node's own addresses: an address that stayed would be reached by nobody.
        self.may_linger = mode != Mode::Userspace;
    }

    fn lingers(&self) -> bool {
        self.lingers
    }

    fn in_force(&self) -> bool {
        self.in_force
    }

    fn begin_anew(&mut self, services: &Services) {
        // Marks and rules depend on the bit for masquerading.
        self.begin(services);
    }

    fn hear(&mut self, notice: &Notice) {
        let (servers, chains) = match notice {
            Notice::LinkGone(link) => (link.name.as_str() == DEVICE, false),
            Notice::Address { addr, flags: None, .. } => (self.there.addrs.contains(&addr.addr()), false),
            Notice::Rules(transaction) => {
                (false, self.kernel.as_ref().is_some_and(|kernel| kernel.is_touched(transaction)))
            }
            Notice::Lost => (true, true),
            _ => (false, false),
        };
        if servers && !self.suspected.0 || chains && !self.suspected.1 {
            // What somebody does in several steps is looked at once.
            self.next_look = self.next_look.max(Instant::now() + GATHER);
        }
        self.suspected = (self.suspected.0 || servers, self.suspected.1 || chains);
    }

    fn due(&self) -> Option<Instant> {
        let legacy = self.kernel.as_ref().is_some_and(|kernel| kernel.variant() == Variant::Legacy);
        let often = self.suspected != (false, false) || legacy;
        let drains = (!self.drain.servers().is_empty()).then_some(self.next_drain);
        let looks = if often { self.next_look } else { self.next_servers.min(self.next_chains).max(self.next_look) };
        self.in_force.then(|| drains.map_or(looks, |drains| drains.min(looks)))
    }

    fn look(&mut self, services: &Services, datapath: &mut dyn Datapath) -> Result<Option<String>, RulesError> {
        let now = Instant::now();
        if !self.in_force {
            return Ok(None);
        }
        if now >= self.next_drain {
            self.next_drain = now + DRAIN;
            self.let_go()?;
        }
        let (Some(netns), true) = (datapath.netns(), now >= self.next_look) else { return Ok(None) };
        self.next_look = now + LOOK;
        let changed = self.kernel.as_ref().is_some_and(Kernel::is_changed);
        let done = if changed || self.suspected.1 || now >= self.next_chains {
            self.compare(services, &netns)?
        } else if self.suspected.0 || now >= self.next_servers {
            self.in_force = false;
            let edits = self.compare_servers(services, &netns)?;
            self.in_force = true;
            Done { edits, rewrite: Rewrite::default() }
        } else {
            return Ok(None);
        };
        self.next_look = Instant::now() + LOOK.max(now.elapsed() * REST_OF_SUSPICION);
        Ok(done.words())
    }

    fn unserved(&self) -> BTreeSet<Unserved> {
        self.refused.told_with(self.renderer.left_out())
    }
}

impl Done {
    /// What was mended; none where nothing was.
    fn words(&self) -> Option<String> {
        let chains = self.rewrite.chains.len() + self.rewrite.gone.len() + self.rewrite.hooks.len();
        let servers = self.edits.len();
        match (servers, self.rewrite.is_empty()) {
            (0, true) => None,
            (0, false) => Some(format!("{chains} chains of iptables and ways into them")),
            (_, true) => Some(format!("{servers} of virtual servers, their addresses and sets")),
            (_, false) => Some(format!("{servers} of virtual servers, their addresses and sets, and {chains} chains")),
        }
    }
}

#[cfg(test)]
mod tests;
