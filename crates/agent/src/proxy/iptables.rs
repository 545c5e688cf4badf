//! Services' rules as chains of iptables.
//!
//! The chains of nf_tables' variant tell when they are changed, and which; those of the legacy variant are looked at from afar twice a second.
//! Both are read as a whole now and then, and where something is suspected. Meanwhile no change is put in force, and with thousands of rules
//! that takes seconds: so what others do in chains of their own is no suspicion.

mod count;

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use podnet_kernel::{
    datapath::Datapath,
    iptables::{Fingerprint, Iptables, IptablesError, Variant},
    monitor::{Notice, Transaction},
    netns::NetNs,
};
use podnet_model::{Family, Protocol};
use podnet_planner::{
    iptables::{ChainKey, Rewrite, Table, concerns},
    ruleset::FrontendKey,
    services::{
        Plan, Services,
        iptables::{Iptables as Chains, counts_from_loopback, counts_invalid},
    },
};
use tracing::{debug, info};

use count::Counted;

use super::{
    counted::Counted as Packets,
    facts::Rules,
    mode::{RulesError, ServiceRules, bygone, is_needed},
};

/// How often the tables are looked at from afar, and how often at most as a whole.
const LOOK: Duration = Duration::from_millis(500);
/// How long it is waited for what else somebody changes.
const GATHER: Duration = Duration::from_millis(50);
/// How often all is compared though nothing is suspected: rules of the legacy variant may have been exchanged for others just as long.
const COMPARE: Duration = Duration::from_secs(60);
/// The same where the kernel tells of each change: nothing is put in force while a table with thousands of rules is read.
const COMPARE_HEARD: Duration = Duration::from_secs(1800);
/// Where that takes long, so many times as long goes by before the next time: a thousand Services with ten endpoints each take
/// `iptables-nft-save` two seconds.
const REST: u32 = 100;
/// And so many times as long where somebody changes the tables all the time, beyond what takes this long on a busy machine.
const REST_OF_SUSPICION: u32 = 10;
const QUICK: Duration = Duration::from_millis(250);

/// The chains of one family.
#[derive(Debug)]
pub(super) struct InIptables {
    family: Family,
    chains: Chains,
    counted: Counted,
    /// The rules that count packets.
    packets: Packets,
    /// The programs, once it is known which variant the host uses.
    tables: Option<Iptables>,
    in_force: bool,
    /// It is not known whether there are none.
    may_be_there: bool,
    /// What the tables looked like when they were right.
    seen: Option<Fingerprint>,
    suspected: bool,
    next_look: Instant,
    next_compare: Instant,
    bygone: Vec<FrontendKey>,
}

impl InIptables {
    pub(super) fn new(services: &Services) -> Self {
        let now = Instant::now();
        Self {
            family: services.config().family,
            chains: Chains::new(services),
            counted: Counted::default(),
            packets: Packets::default(),
            tables: None,
            in_force: false,
            may_be_there: true,
            seen: None,
            suspected: false,
            next_look: now,
            next_compare: now,
            bygone: Vec::new(),
        }
    }

    /// Chooses the variant that the host uses. What an earlier agent made in the other one goes.
    fn open(&self, netns: &NetNs) -> Result<Iptables, IptablesError> {
        let variant = Variant::of_host(netns)?;
        let other = match variant {
            Variant::Legacy => Variant::Nft,
            Variant::Nft => Variant::Legacy,
        };
        remove(netns, self.family, other)?;
        info!(%variant, family = ?self.family, "rules of Services are in iptables");
        Iptables::new(netns.clone(), self.family, variant)
    }

    /// Brings all there is to what is wanted.
    fn compare(&mut self, services: &Services, netns: &NetNs) -> Result<Rewrite, IptablesError> {
        let started = Instant::now();
        self.in_force = false;
        let mut tables = match self.tables.take() {
            Some(tables) => tables,
            None => self.open(netns)?,
        };
        self.may_be_there = true;
        let wanted = self.chains.whole(services);
        let found = tables.saved()?;
        let done = tables.put_over(&wanted, &found)?;
        // kube-proxy's chains have the same names.
        if found.is_of_podnet() {
            self.bygone.extend(bygone(found.frontends(Protocol::Udp, services.node_port_addrs()), services));
        }
        self.counted.whole(&wanted, &done);
        let rule = |chain: ChainKey| tables.first_rule(chain);
        self.packets = Packets {
            invalid: counts_invalid(services.config()).map(rule),
            from_loopback: counts_from_loopback(services.config()).map(rule),
        };
        self.seen = tables.fingerprint()?;
        let usual = match tables.variant() {
            Variant::Legacy => COMPARE,
            Variant::Nft => COMPARE_HEARD,
        };
        self.tables = Some(tables);
        self.in_force = true;
        self.suspected = false;
        self.next_compare = Instant::now() + usual.max(started.elapsed() * REST);
        Ok(done)
    }
}

/// Whether somebody else changed something of the nf_tables variant by which podnet's rules may be hurt.
pub(super) fn touches(tables: Option<&Iptables>, family: Family, transaction: &Transaction) -> bool {
    /// `NFPROTO_IPV4`, `NFPROTO_IPV6`.
    const FAMILIES: [u8; 2] = [2, 10];
    let number = FAMILIES[usize::from(family == Family::V6)];
    let is_table = |of: u8, name: &str| of == number && Table::ALL.into_iter().any(|table| table.name() == name);
    // With a table that goes all its chains do.
    let may_hurt =
        |(of, table, chain): &(u8, String, String)| is_table(*of, table) && (chain.is_empty() || concerns(chain));
    let untold = transaction.has_more_chains && transaction.tables.iter().any(|(of, table)| is_table(*of, table));
    let touched = untold || transaction.chains.iter().any(may_hurt);
    touched && !tables.is_some_and(|tables| tables.is_own(transaction))
}

impl ServiceRules for InIptables {
    fn learn(&mut self, _services: &Services, plan: &Plan) {
        self.chains.note(plan);
    }

    fn may_be_there(&self) -> bool {
        self.may_be_there
    }

    fn follow(&mut self, services: &Services, _datapath: &mut dyn Datapath) -> Result<usize, RulesError> {
        let rewrite = self.chains.rewrite(services);
        let Some(tables) = self.tables.as_mut().filter(|_| !rewrite.is_empty()) else { return Ok(0) };
        self.in_force = false;
        let untouched = tables.fingerprint()? == self.seen;
        tables.rewrite(&rewrite)?;
        self.counted.rewritten(&rewrite);
        // Somebody else's change just before would be taken for ours.
        self.suspected |= !untouched;
        self.seen = tables.fingerprint()?;
        self.in_force = true;
        Ok(rewrite.chains.len() + rewrite.gone.len())
    }

    fn put(&mut self, services: &Services, datapath: &mut dyn Datapath) -> Result<(), RulesError> {
        if !is_needed(services) {
            return self.take_away(datapath);
        }
        if let Some(netns) = datapath.netns() {
            let done = self.compare(services, &netns)?;
            debug!(chains = done.chains.len(), gone = done.gone.len(), "rules of iptables compared");
        }
        Ok(())
    }

    fn take_bygone(&mut self) -> Vec<FrontendKey> {
        std::mem::take(&mut self.bygone)
    }

    fn take_away(&mut self, datapath: &mut dyn Datapath) -> Result<(), RulesError> {
        self.in_force = false;
        self.packets = Packets::default();
        if let Some(netns) = datapath.netns() {
            for variant in [Variant::Nft, Variant::Legacy] {
                remove(&netns, self.family, variant)?;
            }
        }
        self.may_be_there = false;
        Ok(())
    }

    fn in_force(&self) -> bool {
        self.in_force
    }

    fn chains(&self) -> BTreeMap<Table, Rules> {
        if self.in_force { self.counted.tables().clone() } else { BTreeMap::new() }
    }

    fn counted(&self) -> Packets {
        self.packets.clone()
    }

    fn begin_anew(&mut self, _services: &Services) {
        self.in_force = false;
    }

    fn hear(&mut self, notice: &Notice) {
        let touched = match notice {
            Notice::Rules(transaction) => touches(self.tables.as_ref(), self.family, transaction),
            Notice::Lost | Notice::RulesLost => true,
            _ => false,
        };
        if touched && !self.suspected {
            self.suspected = true;
            // What somebody does in several steps is looked at once.
            self.next_look = self.next_look.max(Instant::now() + GATHER);
        }
    }

    fn is_own(&self, transaction: &Transaction) -> bool {
        self.tables.as_ref().is_some_and(|tables| tables.is_own(transaction))
    }

    fn due(&self) -> Option<Instant> {
        let often = self.suspected || self.tables.as_ref().is_some_and(|tables| tables.variant() == Variant::Legacy);
        self.in_force.then_some(if often { self.next_look } else { self.next_compare })
    }

    fn look(&mut self, services: &Services, datapath: &mut dyn Datapath) -> Result<Option<String>, RulesError> {
        let now = Instant::now();
        if !self.in_force || now < self.next_look {
            return Ok(None);
        }
        self.next_look = now + LOOK;
        let Some(tables) = &self.tables else { return Ok(None) };
        let changed = tables.fingerprint()? != self.seen;
        if !(changed || self.suspected || now >= self.next_compare) {
            return Ok(None);
        }
        let Some(netns) = datapath.netns() else { return Ok(None) };
        let started = Instant::now();
        let done = self.compare(services, &netns)?;
        self.next_look = rested(Instant::now(), started.elapsed());
        let chains: Vec<_> = done.chains.keys().chain(&done.gone).map(ToString::to_string).collect();
        let hooks: Vec<_> = done.hooks.iter().map(|hook| format!("the way from {}", hook.at)).collect();
        let all: Vec<_> = hooks.into_iter().chain(chains).collect();
        Ok((!done.is_empty()).then(|| match &all[..] {
            [] => "rules that lead into chains of Services once more".to_owned(),
            [only] => only.clone(),
            [first, rest @ ..] => format!("{first} and {} more of iptables", rest.len()),
        }))
    }
}

/// When the tables may be looked at again after a comparison that took so long: the thread that does it has more to do.
fn rested(now: Instant, took: Duration) -> Instant {
    now + LOOK.max(took.saturating_sub(QUICK) * REST_OF_SUSPICION)
}

/// Takes away what podnet has in a variant; nothing where that is not installed, or where there is nothing of podnet's.
fn remove(netns: &NetNs, family: Family, variant: Variant) -> Result<(), IptablesError> {
    match Iptables::new(netns.clone(), family, variant) {
        Err(IptablesError::Missing { .. }) => Ok(()),
        tables => tables?.remove(),
    }
}

impl From<IptablesError> for RulesError {
    fn from(error: IptablesError) -> Self {
        Self::Other(Box::new(error))
    }
}

#[cfg(test)]
mod tests;
