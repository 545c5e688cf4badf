//! Services' rules as virtual servers of the kernel, with sets and constant chains beside them.
//!
//! The kernel tells nobody of changed virtual servers and sets: these are read as a whole twice a second where they are few. Where they are many
//! it is only glanced so often at what is there (the kernel's list of virtual servers with their real servers; addresses; how many elements
//! sets have), and they are read as often as `ipvs.syncPeriod` says. The chains are looked after as those of the mode `iptables` are.

mod done;
mod kernel;
mod lingering;
mod refused;
mod watch;

use std::{
    collections::BTreeSet,
    net::IpAddr,
    time::{Duration, Instant},
};

use podnet_kernel::{
    datapath::Datapath,
    iptables::Variant,
    monitor::{Notice, Transaction},
    netns::NetNs,
    route::attraction::Attraction,
};
use podnet_model::{Family, proxy::IpvsConfig};
use podnet_planner::{
    ipvs::{Drain, Edit, Scheduler, State, difference},
    ruleset::FrontendKey,
    services::{
        Plan, Services,
        ebpf::Remembered,
        ipvs::{Ipvs as Renderer, led_here, own},
    },
};
use tracing::debug;

use self::{
    done::Done,
    kernel::Kernel,
    lingering::{Found, Lingering},
    refused::Refused,
    watch::Watch,
};
use super::mode::{RulesError, ServiceRules, Unserved, is_needed};

/// How often is looked whether connections are over, once the mode is left, where nobody else does.
const LINGERS: Duration = Duration::from_secs(30);

/// Of so many virtual servers at most the kernel is asked for connections in one go (some 50 ms).
const TURN: usize = 512;

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
    /// When it is looked again what stays for the sake of connections, where something does.
    lingers: Option<Instant>,
    /// What that is.
    linger: Lingering,
    /// It is not known whether there are none.
    may_be_there: bool,
    watch: Watch,
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
            lingers: None,
            linger: Lingering::default(),
            may_be_there: true,
            watch: Watch::new(now),
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
        let edits = self.compare_servers(services)?;
        let ways = self.attract(netns, true)?;
        let Some(kernel) = &mut self.kernel else { return Ok(Done::default()) };
        let rewrite = kernel.put_chains(self.renderer.rules(services))?;
        self.in_force = true;
        self.lingers = None;
        self.linger = Lingering::default();
        self.watch.compared_chains(started);
        Ok(Done { edits, rewrite, ways })
    }

    fn compare_servers(&mut self, services: &Services) -> Result<Vec<Edit>, RulesError> {
        let started = Instant::now();
        let Some(kernel) = &mut self.kernel else { return Ok(Vec::new()) };
        self.edits = Vec::new();
        kernel.configure(&self.config)?;
        let wanted = self.renderer.state();
        let ranges = &self.config.exclude_cidrs;
        let is_excluded = |addr: &IpAddr| ranges.iter().any(|range| range.contains(addr));
        self.there = own(kernel.read(wanted)?, wanted, self.family, is_excluded);
        let edits = self.do_edits(services, difference(self.renderer.state(), &self.there))?;
        self.watch.compared_servers(started, self.config.sync_period);
        Ok(edits)
    }

    /// Leads to this node what virtual servers serve at addresses of others, also those that leave. Answers in how many steps, where it is
    /// looked what is there, too.
    fn attract(&mut self, netns: &NetNs, looks: bool) -> Result<usize, RulesError> {
        let Some(kernel) = &mut self.kernel else { return Ok(0) };
        let frontends = led_here(&self.there, self.family, self.drain.leaving());
        let (bits, addrs) = (self.renderer.attraction(), self.renderer.attracted());
        let done = kernel.attract(netns, Attraction { bits, addrs, frontends, ..kernel::NOTHING }, looks)?;
        self.watch.ways &= !looks;
        Ok(done)
    }

    /// What is suspected, or due. Not `in_force` once it fails.
    fn mend(&mut self, services: &Services, netns: &NetNs, now: Instant) -> Result<Done, RulesError> {
        let is_changed = self.kernel.as_ref().is_some_and(Kernel::is_changed);
        if is_changed || self.watch.chains || now >= self.watch.next_chains {
            return self.compare(services, netns);
        }
        self.in_force = false;
        let mut done = Done::default();
        if self.watch.servers || now >= self.watch.next_servers || !self.seems_right(now)? {
            done.edits = self.compare_servers(services)?;
        }
        if self.watch.ways {
            done.ways = self.attract(netns, true)?;
        }
        self.in_force = true;
        Ok(done)
    }

    fn seems_right(&mut self, now: Instant) -> Result<bool, RulesError> {
        let Some(kernel) = self.kernel.as_mut().filter(|_| now >= self.watch.next_glance) else { return Ok(true) };
        let began = Instant::now();
        let is_right = kernel.seems_to_have(&self.there)?;
        self.watch.glanced(began);
        Ok(is_right)
    }

    /// Does edits, softly. Answers what was done.
    fn do_edits(&mut self, services: &Services, edits: Vec<Edit>) -> Result<Vec<Edit>, RulesError> {
        let Some(kernel) = &mut self.kernel else { return Ok(Vec::new()) };
        let renderer = &self.renderer;
        let mut edits = self.drain.soften(edits, &self.there, |key| renderer.may_drain(key), self.began.elapsed());
        self.refused.take(kernel.apply(&edits)?, &mut edits, renderer, services);
        edits.iter().for_each(|edit| self.there.apply(edit));
        self.refused.forget(renderer.state(), &self.there);
        Ok(edits)
    }

    /// Lets go what has no connections any more. Where that is refused everything is compared, which finds again what is to go.
    fn let_go(&mut self, netns: &NetNs) -> Result<(), RulesError> {
        let Some(kernel) = self.kernel.as_mut().filter(|_| !self.drain.is_idle()) else { return Ok(()) };
        let servers = self.drain.turn(TURN);
        let connections = kernel.connections(&servers)?;
        let edits = self.drain.over(&servers, &connections, self.began.elapsed());
        kernel.apply(&edits)?;
        edits.iter().for_each(|edit| self.there.apply(edit));
        debug!(asked = servers.len(), gone = edits.len(), "real servers without connections let go");
        self.attract(netns, false).map(drop)
    }

    fn begin(&mut self, services: &Services) {
        let left = self.renderer.left_to_rules().clone();
        self.renderer = renderer(services, &self.config);
        self.renderer.leave_to_rules(services, &left);
        self.edits = Vec::new();
        self.in_force = false;
    }

    /// Takes all away but what has connections to frontends that are served.
    fn leave(
        &mut self,
        is_served: &dyn Fn(&FrontendKey) -> bool,
        datapath: &mut dyn Datapath,
    ) -> Result<(), RulesError> {
        self.in_force = false;
        self.edits = Vec::new();
        if let Some(netns) = datapath.netns() {
            // Kept also where not all can be taken away: what has gone by then is not found again.
            let known = |found: Found| {
                self.linger = found.after(std::mem::take(&mut self.linger), &self.config, Instant::now());
            };
            kernel::remove(&netns, self.family, &self.config.exclude_cidrs, is_served, known)?;
            self.lingers = self.linger.is_any().then(|| Instant::now() + LINGERS);
        }
        self.kernel = None;
        self.there = State::default();
        self.refused = Refused::default();
        self.drain = Drain::default();
        self.may_be_there = self.lingers.is_some();
        Ok(())
    }
}

fn renderer(services: &Services, config: &IpvsConfig) -> Renderer {
    Renderer::new(services, Scheduler::named(config.scheduler).unwrap_or(Scheduler::RoundRobin))
}

impl ServiceRules for InIpvs {
    fn learn(&mut self, services: &Services, plan: &Plan) {
        if self.in_force {
            self.edits.extend(self.renderer.edits(services, plan));
        } else {
            // It will be made as a whole.
            self.renderer.note(services, plan);
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
        let ways = self.renderer.changes_attracted(&edits);
        let done = self.do_edits(services, edits)?.len();
        if let Some(netns) = datapath.netns().filter(|_| ways) {
            self.attract(&netns, false)?;
        }
        if let Some(kernel) = &mut self.kernel {
            kernel.follow_chains(self.renderer.rules(services))?;
        }
        self.in_force = true;
        Ok(done)
    }

    fn put(&mut self, services: &Services, datapath: &mut dyn Datapath) -> Result<(), RulesError> {
        if !is_needed(services) {
            let waits = self.lingers.is_some_and(|again| Instant::now() < again);
            return if waits { Ok(()) } else { self.take_away(datapath) };
        }
        if let Some(netns) = datapath.netns() {
            let done = self.compare(services, &netns)?;
            debug!(edits = done.edits.len(), chains = done.rewrite.chains.len(), "virtual servers compared");
        }
        Ok(())
    }

    fn take_away(&mut self, datapath: &mut dyn Datapath) -> Result<(), RulesError> {
        if self.may_be_there {
            return self.leave(&|_| true, datapath);
        }
        // Nothing is there but what the kernel remembers.
        self.linger = Found::default().after(std::mem::take(&mut self.linger), &self.config, Instant::now());
        Ok(())
    }

    fn lingers(&self) -> bool {
        self.lingers.is_some()
    }

    fn held(&self) -> BTreeSet<IpAddr> {
        self.linger.frontends().map(|frontend| frontend.addr).collect()
    }

    fn leave_to_rules(&mut self, services: &Services, addrs: &BTreeSet<IpAddr>) {
        let edits = self.renderer.leave_to_rules(services, addrs);
        // What is not in force will be made as a whole.
        if self.in_force {
            self.edits.extend(edits);
        }
    }

    fn remembered(&self) -> Remembered {
        self.linger.remembered()
    }

    fn withdraw(
        &mut self,
        is_served: &dyn Fn(&FrontendKey) -> bool,
        datapath: &mut dyn Datapath,
    ) -> Result<(), RulesError> {
        if self.linger.frontends().all(is_served) { Ok(()) } else { self.leave(is_served, datapath) }
    }

    fn in_force(&self) -> bool {
        self.in_force
    }

    fn begin_anew(&mut self, services: &Services) {
        // Marks and rules depend on the bit for masquerading.
        self.begin(services);
    }

    fn hear(&mut self, notice: &Notice) {
        let kernel = self.kernel.as_ref();
        self.watch.hear(notice, &self.there, |transaction| kernel.is_some_and(|kernel| kernel.is_touched(transaction)));
    }

    fn is_own(&self, transaction: &Transaction) -> bool {
        self.kernel.as_ref().is_some_and(|kernel| kernel.is_own(transaction))
    }

    fn due(&self) -> Option<Instant> {
        if !self.in_force {
            return self.lingers;
        }
        let legacy = self.kernel.as_ref().is_some_and(|kernel| kernel.variant() == Variant::Legacy);
        Some(self.watch.due(legacy, !self.drain.is_idle()))
    }

    fn look(&mut self, services: &Services, datapath: &mut dyn Datapath) -> Result<Option<String>, RulesError> {
        let now = Instant::now();
        if !self.in_force {
            // What was not needed any more may be over.
            if self.lingers.is_some_and(|again| again <= now) && !is_needed(services) {
                self.take_away(datapath)?;
            }
            return Ok(None);
        }
        let Some(netns) = datapath.netns() else { return Ok(None) };
        if self.watch.drains(now) {
            self.let_go(&netns)?;
        }
        if !self.watch.looks(now) {
            return Ok(None);
        }
        let done = self.mend(services, &netns, now)?;
        self.watch.looked(now);
        Ok(done.words())
    }

    fn unserved(&self) -> BTreeSet<Unserved> {
        let mut told = self.refused.told_with(self.renderer.left_out());
        told.extend(self.renderer.hashed().map(refused::without_timeout));
        told
    }
}

#[cfg(test)]
mod tests;
