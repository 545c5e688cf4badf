//! Rules that serve some addresses beside a mode that cannot be at these yet.
//!
//! Virtual servers have a frontend's address as the node's own, and to a program it leads elsewhere: an address cannot be both. So where the
//! one comes after the other, what lingers of that for the sake of connections keeps its addresses, and the mode that comes is at all others
//! at once. At those addresses rules translate what is new, as they do in a mode of their own, until the connections are over.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    time::{Duration, Instant},
};

use podnet_kernel::{
    datapath::Datapath,
    monitor::{Notice, Transaction},
    nft::Touched,
};
use podnet_model::{Dual, Family, proxy::Mode};
use podnet_planner::services::{Plan, Services};
use tracing::info;

use super::{
    ClusterRules,
    family::{OfFamily, is_served},
};
use crate::proxy::mode::{self, RulesError, ServiceRules};

/// How often it is looked whether addresses are to be taken back.
const LOOK: Duration = Duration::from_secs(10);

/// Of both families.
#[derive(Debug)]
pub(super) struct Beside {
    mode: Mode,
    families: Dual<Narrow>,
    next_look: Instant,
}

/// Rules of one family, which know of nothing but some addresses.
#[derive(Debug)]
struct Narrow {
    addrs: BTreeSet<IpAddr>,
    /// What is planned for these.
    services: Services,
    rules: Box<dyn ServiceRules>,
}

/// Whether a mode leaves addresses to rules where another one needs them.
pub(super) const fn leaves_addresses(mode: Mode) -> bool {
    matches!(mode, Mode::Ipvs | Mode::Userspace)
}

/// Whether rules of the one mode can serve beside the other one. Virtual servers have chains of their own by the names of mode `iptables`.
pub(super) const fn can_stand_beside(rules: Mode, mode: Mode) -> bool {
    match mode {
        Mode::Userspace => matches!(rules, Mode::Nftables | Mode::Ebpf | Mode::Iptables),
        Mode::Ipvs => matches!(rules, Mode::Nftables | Mode::Ebpf),
        Mode::Nftables | Mode::Iptables | Mode::Ebpf => false,
    }
}

impl Beside {
    /// Rules of a mode for these addresses, not in force yet. There may be some that were made before, for others or for all: these stay as
    /// they are until then.
    pub(super) fn new(mode: Mode, families: &Dual<OfFamily>, addrs: &Dual<BTreeSet<IpAddr>>) -> Self {
        let families = Dual::from_fn(|family| Narrow::new(mode, &families[family].services, addrs[family].clone()));
        Self { mode, families, next_look: Instant::now() }
    }

    /// Whose rules these are.
    pub(super) const fn mode(&self) -> Mode {
        self.mode
    }

    /// How many addresses they serve.
    fn count(&self) -> usize {
        Family::ALL.into_iter().map(|family| self.families[family].addrs.len()).sum()
    }

    /// Whether there is an address that they serve.
    pub(super) fn is_any(&self) -> bool {
        self.count() > 0
    }

    /// Takes a plan in, which `services` has taken in.
    pub(super) fn learn(&mut self, family: Family, services: &Services, plan: &Plan) {
        self.families[family].learn(services, plan);
    }

    /// Settings changed that stand in all rules, and `services` has taken in.
    pub(super) fn begin_anew(&mut self, family: Family) {
        let narrow = &mut self.families[family];
        narrow.rules.begin_anew(&narrow.services);
    }

    /// Does what is to be done since the last time, and tells in how many edits.
    ///
    /// # Errors
    ///
    /// As [`ServiceRules::edit`].
    pub(super) fn edit(&mut self, family: Family, datapath: &mut dyn Datapath) -> Result<usize, RulesError> {
        if self.is_any() { self.families[family].edit(datapath) } else { Ok(0) }
    }

    /// Puts everything in force, whatever there is.
    ///
    /// # Errors
    ///
    /// The first refusal; the other family's are in force all the same.
    pub(super) fn put(&mut self, datapath: &mut dyn Datapath) -> Result<(), RulesError> {
        if !self.is_any() {
            return Ok(());
        }
        let [v4, v6] = Family::ALL.map(|family| self.families[family].put(datapath));
        v4.and(v6)
    }

    /// As [`ServiceRules::mend_elements`]; none where these are in no such table.
    ///
    /// # Errors
    ///
    /// What was refused; then everything has to be put in force.
    pub(super) fn mend_elements(
        &mut self,
        family: Family,
        touched: &[Touched],
        datapath: &mut dyn Datapath,
    ) -> Result<Option<usize>, RulesError> {
        let narrow = &mut self.families[family];
        narrow.rules.mend_elements(&narrow.services, touched, datapath)
    }

    /// The table of nf_tables that has to be there for them, where there has to be one.
    pub(super) fn table(&self, family: Family) -> Option<&'static str> {
        let narrow = &self.families[family];
        narrow.rules.table(&narrow.services).filter(|_| self.is_any())
    }

    /// Takes in what the kernel tells.
    pub(super) fn hear(&mut self, notice: &Notice) {
        Family::ALL.into_iter().for_each(|family| self.families[family].rules.hear(notice));
    }

    /// See [`ServiceRules::is_own`].
    pub(super) fn is_own(&self, transaction: &Transaction) -> bool {
        Family::ALL.into_iter().any(|family| self.families[family].rules.is_own(transaction))
    }

    /// When it is to be looked whether addresses can be taken back.
    pub(super) const fn due(&self) -> Instant {
        self.next_look
    }

    /// When [`Beside::look`] is due, where that is by itself.
    pub(super) fn rules_due(&self) -> Option<Instant> {
        Family::ALL.into_iter().filter_map(|family| self.families[family].rules.due()).min()
    }

    /// Mends what others damaged, where that is due. Answers what was mended, in words.
    ///
    /// # Errors
    ///
    /// As [`ServiceRules::edit`].
    pub(super) fn look(&mut self, datapath: &mut dyn Datapath) -> Result<Option<String>, RulesError> {
        let mut mended = None;
        for family in Family::ALL {
            let narrow = &mut self.families[family];
            mended = narrow.rules.look(&narrow.services, datapath)?.or(mended);
        }
        Ok(mended)
    }

    /// Makes them those of these addresses, where they are not.
    fn narrow(
        &mut self,
        family: Family,
        services: &Services,
        addrs: &BTreeSet<IpAddr>,
        datapath: &mut dyn Datapath,
    ) -> Result<(), RulesError> {
        let narrow = &mut self.families[family];
        if narrow.addrs == *addrs && narrow.rules.in_force() {
            return Ok(());
        }
        *narrow = Narrow::new(self.mode, services, addrs.clone());
        narrow.put(datapath)
    }

    /// As if that long went by.
    #[cfg(test)]
    pub(super) fn pass(&mut self, time: Duration) {
        self.next_look = self.next_look.checked_sub(time).unwrap_or(self.next_look);
    }
}

impl Narrow {
    fn new(mode: Mode, services: &Services, addrs: BTreeSet<IpAddr>) -> Self {
        let services = services.only_at(&addrs);
        let rules = mode::rules(mode, &services);
        Self { addrs, services, rules }
    }

    fn learn(&mut self, services: &Services, plan: &Plan) {
        let plan = plan.only_at(&self.addrs);
        if plan.is_empty() && services.config() == self.services.config() {
            return;
        }
        self.services = services.only_at(&self.addrs);
        self.rules.learn(&self.services, &plan);
    }

    fn edit(&mut self, datapath: &mut dyn Datapath) -> Result<usize, RulesError> {
        let done = self.rules.edit(&self.services, datapath);
        self.pass_by_others();
        done
    }

    fn put(&mut self, datapath: &mut dyn Datapath) -> Result<(), RulesError> {
        let done = self.rules.put(&self.services, datapath);
        self.pass_by_others();
        done
    }

    /// Frontends that were in the rules and are none of these: they are served all the same.
    fn pass_by_others(&mut self) {
        drop(self.rules.take_bygone());
    }
}

impl ClusterRules {
    /// At how many addresses rules serve, as another mode's connections keep these from the one that is in force.
    pub(in crate::network) fn left_to_rules(&self) -> usize {
        self.beside.as_ref().map_or(0, Beside::count)
    }

    /// The addresses that a mode has to leave to rules now. At loopback addresses there are no virtual servers, and what a program has there
    /// nobody takes from it.
    pub(super) fn held_beside(&self, mode: Mode) -> Dual<BTreeSet<IpAddr>> {
        let all = if leaves_addresses(mode) { self.left.held_beside(mode) } else { BTreeSet::new() };
        let is_of = |family, addr: &IpAddr| Family::of(addr) == family && !addr.is_loopback();
        Dual::from_fn(|family| all.iter().copied().filter(|addr| is_of(family, addr)).collect())
    }

    /// Leaves the addresses that other modes' connections need to rules, which serve there before, and takes back those that they do not need
    /// any more, where rules serve until it has.
    ///
    /// # Errors
    ///
    /// The first refusal. What is not taken back rules serve still, and it is tried again.
    pub(super) fn share(&mut self, datapath: &mut dyn Datapath) -> Result<(), RulesError> {
        let held = self.held_beside(self.standing);
        let is_over = Family::ALL.into_iter().all(|family| held[family].is_empty());
        if is_over && self.beside.is_none() {
            return Ok(());
        }
        let before = self.left_to_rules();
        for family in Family::ALL {
            let wanted = &held[family];
            let there = self.beside.as_ref().map(|beside| beside.families[family].addrs.clone()).unwrap_or_default();
            if there != *wanted {
                if !is_over {
                    self.narrow(family, &(&there | wanted), datapath)?;
                }
                self.families[family].leave_to_rules(wanted, datapath)?;
            }
            if !is_over {
                self.narrow(family, wanted, datapath)?;
            }
        }
        if let Some(beside) = &mut self.beside {
            beside.next_look = Instant::now() + LOOK;
        }
        if let Some(beside) = self.beside.take_if(|_| is_over) {
            self.give_up(beside);
            self.left.clear(&is_served(&self.families), datapath);
        }
        let (mode, now) = (self.standing, self.left_to_rules());
        if before != now && (before == 0 || now == 0) {
            info!(%mode, before, now, "addresses that connections of another mode need: rules serve there");
        }
        Ok(())
    }

    /// As [`ClusterRules::share`], where that is due, or it was just looked what other modes need.
    pub(super) fn share_when_due(&mut self, looked: bool, datapath: &mut dyn Datapath) -> Result<(), RulesError> {
        let is_due = self.beside.as_ref().is_some_and(|beside| beside.due() <= Instant::now());
        if !looked && !is_due {
            return Ok(());
        }
        if let Some(beside) = &mut self.beside {
            // Also where it is refused.
            beside.next_look = Instant::now() + LOOK;
        }
        self.share(datapath)
    }

    /// They are to go, as what other modes left.
    pub(super) fn give_up(&mut self, beside: Beside) {
        let Dual { v4, v6 } = beside.families;
        self.left.add(beside.mode, v4.rules);
        self.left.add(beside.mode, v6.rules);
    }

    fn narrow(
        &mut self,
        family: Family,
        addrs: &BTreeSet<IpAddr>,
        datapath: &mut dyn Datapath,
    ) -> Result<(), RulesError> {
        let families = &self.families;
        let services = &families[family].services;
        let beside = self.beside.get_or_insert_with(|| Beside::new(Mode::Nftables, families, &Dual::default()));
        match beside.narrow(family, services, addrs, datapath) {
            Err(error) if error.is_lack_of_nftables() && can_stand_beside(Mode::Iptables, self.standing) => {
                *beside = Beside::new(Mode::Iptables, families, &Dual::default());
                self.left.keep(Mode::Iptables);
                beside.narrow(family, services, addrs, datapath)
            }
            done => done,
        }
    }
}
