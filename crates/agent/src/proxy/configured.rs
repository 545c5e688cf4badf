//! kube-proxy's configuration as it is in force, and what of it cannot be.

use std::{
    collections::BTreeSet,
    error::Error,
    net::IpAddr,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use k8s_openapi::api::core::v1::{ConfigMap, Service};
use podnet_client::{
    events::{About, Complaints},
    watch::PROXY_CONFIG_MAP,
};
use podnet_kernel::conntrack as tracking;
use podnet_model::{
    NodeName, ProxyConfig, ServiceKey,
    errors::chain,
    proxy::{Mode, Unused},
};
use podnet_planner::{
    proxy::{self, Capabilities, Choice, RuleSettings, choose},
    services::NodePortAddresses,
};
use tracing::{info, warn};

use super::{conntrack, mode::Unserved, status::Places, told::Told};

/// Until a mode that was refused is tried again.
const PAUSE: Duration = Duration::from_secs(30);

/// What this podnet has.
pub const BUILT: [Mode; 5] = [Mode::Nftables, Mode::Ebpf, Mode::Iptables, Mode::Ipvs, Mode::Userspace];

/// The present configuration and what was told of it.
#[derive(Debug)]
pub struct Configured {
    node: NodeName,
    /// It comes from a file of the node's, and not from the ConfigMap.
    by_file: bool,
    config: Arc<ProxyConfig>,
    has: Capabilities,
    told: Told,
    complaints: Complaints,
    /// The mode to be in, where it can be had.
    wanted: Option<Choice>,
    /// One that was refused, and when it is tried again.
    refused: Option<(Choice, Instant)>,
    /// The settings of the kernel are to be looked at.
    unsettled: bool,
    /// Fields of which it was told that they cannot apply, or not here.
    named: BTreeSet<String>,
    /// The refusal that was told.
    refusal: Option<String>,
    /// What of Services is not served here, as it was told.
    unserved: BTreeSet<Unserved>,
    /// And what no node serves.
    faults: BTreeSet<Unserved>,
}

impl Configured {
    /// With kube-proxy's defaults.
    #[must_use]
    pub fn new(node: NodeName, by_file: bool, has: Capabilities, told: Told, complaints: Complaints) -> Self {
        let mut new = Self {
            node,
            by_file,
            config: Arc::default(),
            has,
            told,
            complaints,
            wanted: None,
            refused: None,
            unsettled: true,
            named: BTreeSet::new(),
            refusal: None,
            unserved: BTreeSet::new(),
            faults: BTreeSet::new(),
        };
        new.take(None);
        new
    }

    /// Takes another configuration; none means the defaults.
    pub fn take(&mut self, config: Option<Arc<ProxyConfig>>) {
        self.config = config.unwrap_or_default();
        self.told.config.send_replace(self.config.clone());
        self.unsettled = true;
        let config = self.config.clone();
        config.unused().iter().for_each(|unused| self.name(unused, unused.field.clone()));
        self.refused = None;
        self.wanted = self.choice();
    }

    /// The node has something else than before. Where the configuration leaves the choice, or names what it had not, that counts now.
    pub fn has(&mut self, has: Capabilities) {
        if self.has != has {
            self.has = has;
            // There may be connection tracking by now.
            self.unsettled = true;
            self.refused = None;
            self.wanted = self.choice();
        }
    }

    /// The mode to begin in where that which is asked for cannot be had, or is `refused`: the best of the others.
    #[must_use]
    pub fn instead_of(&self, refused: Option<Mode>) -> Mode {
        let mut has = self.has.clone();
        has.lacks.extend(refused.map(|mode| (mode, "it is refused".to_owned())));
        choose(None, &BUILT, &has).map_or(Mode::Nftables, |choice| choice.mode)
    }

    /// When a mode that was refused is to be tried again.
    #[must_use]
    pub fn due(&self) -> Option<Instant> {
        self.refused.as_ref().map(|(_, at)| *at)
    }

    /// Whether one is to be tried again now.
    pub fn tries_again(&mut self, now: Instant) -> bool {
        let due = self.refused.take_if(|(_, at)| *at <= now).map(|(choice, _)| choice);
        let is_so = due.is_some();
        self.wanted = due.or_else(|| self.wanted.take());
        is_so
    }

    /// The mode to be in; none where what is in force stays.
    #[must_use]
    pub const fn wanted(&self) -> Option<&Choice> {
        self.wanted.as_ref()
    }

    /// What it says.
    #[must_use]
    pub fn config(&self) -> &ProxyConfig {
        &self.config
    }

    /// What those who are asked are told.
    #[must_use]
    pub const fn told(&self) -> &Told {
        &self.told
    }

    fn choice(&mut self) -> Option<Choice> {
        match choose(self.config.mode, &BUILT, &self.has) {
            Ok(choice) => {
                self.refusal = None;
                self.told.refused.store(false, Ordering::Relaxed);
                Some(choice)
            }
            Err(refusal) => {
                self.refuse(&refusal.to_string());
                None
            }
        }
    }

    /// The mode that is wanted was refused. What refuses it may pass, so it is tried again after a while.
    pub fn put_off(&mut self, why: &str, now: Instant) {
        self.refused = self.wanted.take().map(|choice| (choice, now + PAUSE));
        // What was told of the mode that is refused is not so.
        self.unsettled = true;
        self.refuse(why);
    }

    fn refuse(&mut self, why: &str) {
        self.told.refused.store(true, Ordering::Relaxed);
        if self.refusal.as_deref() != Some(why) {
            let stays = self.told.mode.borrow().map_or("no mode is", Mode::name);
            let message = format!("{}: {why}; {stays} stays in force on node {}", self.place(), self.node);
            warn!("{message}");
            self.tell("ModeRefused", message);
            self.refusal = Some(why.to_owned());
        }
    }

    /// The mode that was wanted is in force.
    pub fn had(&mut self, mode: Mode, why: &str) {
        self.refusal = None;
        self.told.refused.store(false, Ordering::Relaxed);
        self.in_force(mode, why);
    }

    /// What of Services the mode in force does not serve, or otherwise than they ask: each is told once while it is so, by an event of its Service.
    pub(crate) fn unserved(&mut self, now: BTreeSet<Unserved>) {
        for Unserved { service, reason, message, .. } in now.difference(&self.unserved) {
            warn!(%service, "{message}");
            let message = format!("on node {}: {message}", self.node);
            self.complaints.tell_of::<Service>(&service.namespace, &service.name, reason, message);
        }
        over(self.unserved.difference(&now));
        self.unserved = now;
    }

    /// What of Services no node serves: every node's log has it, and those nodes to which that falls write the event.
    pub(crate) fn faults(&mut self, now: BTreeSet<Unserved>, falls_to_this: impl Fn(&ServiceKey) -> bool) {
        for Unserved { service, reason, message, fact } in now.difference(&self.faults) {
            warn!(%service, "{message}");
            if let Some(fact) = fact.clone().filter(|_| falls_to_this(service)) {
                let of = (&service.namespace, &*service.name);
                self.complaints.tell_fact::<Service>(of, reason, message.clone().into_owned(), fact);
            }
        }
        over(self.faults.difference(&now));
        self.faults = now;
    }

    /// Tells of a field without effect, once for `what` it is that has none.
    fn name(&mut self, unused: &Unused, what: String) {
        if self.named.insert(what) {
            warn!(%unused, "a field of kube-proxy's configuration has no effect");
            self.tell("NoEffect", format!("{}: {unused}", self.place()));
        }
    }

    /// The mode is in force, whether it was wanted or not. What the configuration says that cannot apply in it is told.
    pub fn in_force(&mut self, mode: Mode, why: &str) {
        for unused in self.config.unused_in(mode) {
            self.name(&unused, format!("{} in mode {mode}", unused.field));
        }
        if self.told.mode.send_replace(Some(mode)) != Some(mode) {
            info!(%mode, why, "Services are served");
        }
    }

    /// Tells where it is told, and sets connection tracking's settings, where these are new. Answers whether any setting changed. What
    /// cannot be set is told once and no error: Services are served without it.
    pub fn settle(&mut self) -> bool {
        if !std::mem::take(&mut self.unsettled) {
            return false;
        }
        let places = Places { healthz: self.config.healthz, metrics: self.config.metrics };
        self.told.places.send_if_modified(|known| known.replace(places) != Some(places));
        // Of the mode that is about to be in force, where that is another.
        let wanted = self.wanted.as_ref().map(|choice| choice.mode);
        let mode = wanted.or(*self.told.mode.borrow()).unwrap_or(Mode::Nftables);
        let sync_period = match mode {
            Mode::Ipvs => self.config.ipvs.sync_period,
            mode => self.config.rules(mode).sync_period,
        };
        self.told.programming.set_sync_period(sync_period);
        if let Err(error) = tracking::load() {
            warn!(error = &error as &dyn Error, "connection tracking is as it is: the kernel cannot be asked for it");
            return false;
        }
        let cores =
            std::thread::available_parallelism().map_or(1, |cores| u32::try_from(cores.get()).unwrap_or(u32::MAX));
        let mut changed = false;
        for setting in conntrack::settings(&self.config.conntrack, cores) {
            match conntrack::set(&setting) {
                Ok(is_new) => changed |= is_new,
                Err(error) => {
                    if self.named.insert(setting.field.to_owned()) {
                        let (field, why) = (setting.field, chain(&error));
                        warn!(field, why, "a field of kube-proxy's configuration has no effect on this node");
                        self.tell("NoEffect", format!("{field}: without effect on node {}: {why}", self.node));
                    }
                }
            }
        }
        changed
    }

    /// What the rules of a mode are told. Where connection tracking is liberal already, for the fast path or by somebody else, it is taken to be
    /// meant so, as kube-proxy does.
    #[must_use]
    pub(crate) fn rules(&self, mode: Mode) -> RuleSettings {
        let settings = RuleSettings::of(&self.config, mode);
        RuleSettings { drops_invalid: settings.drops_invalid && !conntrack::is_liberal(), ..settings }
    }

    /// Where NodePorts are to be.
    #[must_use]
    pub(crate) fn node_port_addresses(&self, mode: Mode) -> NodePortAddresses {
        proxy::node_port_addresses(&self.config, mode)
    }

    /// At which loopback addresses they may be in a mode that can serve them there.
    #[must_use]
    pub(crate) fn loopback(&self, mode: Mode) -> Vec<IpAddr> {
        proxy::loopback(&self.config, mode)
    }

    /// A node's ports are at so many of its addresses and not at as many more; that is told once.
    pub(crate) fn leaves_addresses(&mut self, left: usize, most: usize) {
        if left > 0 && self.named.insert("nodePortAddresses".to_owned()) {
            let message = format!(
                "nodePortAddresses: node {} has {} addresses; its NodePorts are at {most} of them alone. Name ranges with fewer",
                self.node,
                most + left
            );
            warn!("{message}");
            self.tell("NodePortAddresses", message);
        }
    }

    fn place(&self) -> &'static str {
        if self.by_file { "--proxy-config" } else { "config.conf" }
    }

    fn tell(&self, reason: &'static str, message: String) {
        if self.by_file {
            self.complaints.tell(About::node(&self.node), reason, message);
        } else {
            let (namespace, name) = PROXY_CONFIG_MAP;
            self.complaints.tell_of::<ConfigMap>(&namespace.into(), name, reason, message);
        }
    }
}

fn over<'a>(gone: impl Iterator<Item = &'a Unserved>) {
    for Unserved { service, message, .. } in gone {
        info!(%service, was = %message, "what was told of a Service is so no more");
    }
}

#[cfg(test)]
mod tests;
