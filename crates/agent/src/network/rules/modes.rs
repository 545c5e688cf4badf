//! In which mode Services have their rules, and how it is changed.

use std::{
    collections::BTreeSet,
    error::Error,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use podnet_kernel::datapath::Datapath;
use podnet_model::{Dual, Family, proxy::Mode};
use podnet_planner::services::ebpf::Remembered;
use tracing::{info, warn};

use super::{
    ClusterRules,
    beside::{Beside, can_stand_beside, leaves_addresses},
    family::is_served,
    left::Left,
};
use crate::proxy::mode::{self, RulesError, ServiceRules};

/// The pause after a mode that had to wait was refused, doubling up to the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// A mode that had to wait was refused when it need not any more: when it is tried again, and after how long a pause.
#[derive(Clone, Copy, Debug)]
pub(super) struct PutOff {
    at: Instant,
    pause: Duration,
}

impl ClusterRules {
    /// Begins in another mode than `nftables`. What an earlier agent made in this one is right where it is as it has to be, and stays; what
    /// is of others goes once this one is in force. Virtual servers wait, as at a change, where a program outlived its agent: it has to be
    /// known where its connections are. For rules that are not in force, or were refused.
    pub(in crate::network) fn begin_in(&mut self, mode: Mode) {
        let waits = mode == Mode::Ipvs && self.left.outlived(Mode::Userspace);
        let first = if waits { Mode::Nftables } else { mode };
        if !mode::have_same_rules(self.standing, first) {
            for family in Family::ALL {
                self.families[family].rules = self.fresh(first, family);
            }
            (self.mode, self.standing) = (mode, first);
            self.suspect_others();
        } else if waits {
            self.mode = mode;
        } else if self.waits() {
            self.mode = self.standing;
        }
    }

    /// Rules that are not in force yet.
    fn fresh(&self, mode: Mode, family: Family) -> Box<dyn ServiceRules> {
        let services = &self.families[family].services;
        let mut rules = mode::rules(mode, services);
        rules.configure(services, &self.ipvs);
        rules
    }

    /// An earlier agent may have left rules of any other mode. Where that is one that leaves addresses to rules, a table of nf_tables may be
    /// for these, and stays until it is known for which.
    pub(super) fn suspect_others(&mut self) {
        self.left = Left::default();
        let leaves = leaves_addresses(self.standing);
        self.beside = leaves.then(|| Beside::new(Mode::Nftables, &self.families, &Dual::default()));
        for family in Family::ALL {
            let others = mode::others(self.standing, &self.families[family].services);
            let others = others.filter(|(mode, _)| !leaves || !mode::have_same_rules(*mode, Mode::Nftables));
            others.for_each(|(mode, mut rules)| {
                rules.configure(&self.families[family].services, &self.ipvs);
                self.left.add(mode, rules);
            });
        }
        if self.mode == Mode::Ipvs && self.waits() {
            // It waits for a program that outlived its agent, of which these rules have not heard.
            self.left.outlived(Mode::Userspace);
        }
    }

    /// The mode that Services are served in; rules of another one stand for the rules of one that has to wait.
    pub(in crate::network) const fn mode(&self) -> Mode {
        self.mode
    }

    /// The backends to which connections of another mode's are remembered by more than connection tracking: by virtual servers. These take
    /// an answer that comes from a backend to a client's port that they remember with that backend for theirs, and give it the frontend's
    /// address. What rules translate gets that address anyway; a connection to the backend itself would hear from a stranger. No other
    /// connection comes to be remembered: rules translate before virtual servers do. As long as it is the same it is the same value.
    pub(in crate::network) const fn remembered(&self) -> &Arc<Remembered> {
        self.left.remembered()
    }

    /// Changes the mode: the rules of the new one are in force before those of the old one go. Connections that are under way keep their
    /// translations, which live in connection tracking. Where these are virtual servers' or a program's, and would not survive the new mode at
    /// their addresses, rules serve there until they are over, and everywhere until it is known which these addresses are: that of virtual
    /// servers is known at once, that of a program once nobody connects to it any more.
    ///
    /// # Errors
    ///
    /// When the new rules are refused; then those of before are in force, or where these had gone already, those that stood for them.
    pub(in crate::network) fn switch(&mut self, mode: Mode, datapath: &mut dyn Datapath) -> Result<(), RulesError> {
        match self.stand(self.first_for(mode), datapath) {
            // What virtual servers need at any rate.
            Err(error) if error.is_lack_of_nftables() && leaves_addresses(mode) => {
                self.stand(Mode::Iptables, datapath)?;
            }
            stood => stood?,
        }
        self.mode = mode;
        self.put_off = None;
        self.arrive(datapath)?;
        if self.waits() {
            let serving = self.standing;
            info!(%mode, %serving, "rules serve until it is known where connections of the mode before are");
        }
        Ok(())
    }

    /// Whose rules will be there first when the mode changes to this one.
    pub(in crate::network) fn first_for(&self, mode: Mode) -> Mode {
        let is_apart = match mode {
            Mode::Userspace => self.standing == Mode::Ipvs,
            Mode::Ipvs => self.standing == Mode::Userspace || self.left.lingers(Mode::Userspace),
            Mode::Nftables | Mode::Iptables | Mode::Ebpf => false,
        };
        if is_apart { Mode::Nftables } else { mode }
    }

    /// The mode cannot be there yet: connections may come to be at any address that it would end, or the rules that serve cannot do so
    /// beside it at the addresses where there are some (those of mode `iptables`, on a kernel without nf_tables).
    fn is_held_up(&self) -> bool {
        let needs_rules = || self.left.lingers(Mode::Userspace) && !can_stand_beside(self.standing, Mode::Ipvs);
        self.mode == Mode::Ipvs && (self.left.takes_new() || needs_rules())
    }

    /// Whose rules there are.
    pub(in crate::network) const fn standing(&self) -> Mode {
        self.standing
    }

    /// The rules are not those of the mode yet.
    pub(in crate::network) const fn waits(&self) -> bool {
        !mode::have_same_rules(self.standing, self.mode)
    }

    /// Puts the rules of the mode in force, where these had to wait and need not any more.
    ///
    /// # Errors
    ///
    /// When they are refused; those that stood for them still do.
    pub(super) fn arrive(&mut self, datapath: &mut dyn Datapath) -> Result<(), RulesError> {
        if self.waits() && !self.is_held_up() { self.stand(self.mode, datapath) } else { Ok(()) }
    }

    /// As [`ClusterRules::arrive`], where that is due. A refusal is told once: what stands for the rules serves as they would.
    pub(super) fn arrive_when_due(&mut self, datapath: &mut dyn Datapath) {
        if self.put_off.is_some_and(|put_off| put_off.at > Instant::now()) {
            return;
        }
        let Err(error) = self.arrive(datapath) else {
            if self.put_off.take().is_some() {
                info!(mode = %self.mode, "the mode is in force that was refused after it had waited");
            }
            return;
        };
        if self.put_off.is_none() {
            let error = &error as &dyn Error;
            warn!(
                mode = %self.mode, serving = %self.standing, error,
                "a mode that had to wait is refused; it is tried again after growing pauses"
            );
        }
        let pause = self.put_off.map_or(FIRST_PAUSE, |before| (before.pause * 2).min(LONGEST_PAUSE));
        self.put_off = Some(PutOff { at: Instant::now() + pause, pause });
    }

    /// When a mode that was refused at its arrival is tried again.
    pub(super) fn arrival_due(&self) -> Option<Instant> {
        self.put_off.map(|put_off| put_off.at)
    }

    /// As if that long went by.
    #[cfg(test)]
    pub(super) fn pass(&mut self, time: Duration) {
        self.left.pass(time);
        if let Some(beside) = &mut self.beside {
            beside.pass(time);
        }
        let earlier = |at: Instant| at.checked_sub(time).unwrap_or(at);
        self.put_off = self.put_off.map(|put_off| PutOff { at: earlier(put_off.at), ..put_off });
    }

    fn stand(&mut self, mode: Mode, datapath: &mut dyn Datapath) -> Result<(), RulesError> {
        if !mode::have_same_rules(self.standing, mode) {
            // What may be left of this very mode goes before it is there again.
            if self.left.has(mode) || self.left.is_untried() {
                self.left.clear(&is_served(&self.families), datapath);
            }
            let held = self.held_beside(mode);
            let rules = Dual::from_fn(|family| {
                let mut rules = self.fresh(mode, family);
                rules.leave_to_rules(&self.families[family].services, &held[family]);
                rules
            });
            self.replace(mode, rules, &held, datapath)?;
            // Datagrams that a program passed on were no connections of a backend.
            self.all_suspected = Dual::from_fn(|_| true);
        }
        Ok(())
    }

    /// Puts rules in force in the place of those that there are. `held` is what they leave to rules that serve beside them: what is over
    /// when they are in force they take back then.
    pub(super) fn replace(
        &mut self,
        mode: Mode,
        mut rules: Dual<Box<dyn ServiceRules>>,
        held: &Dual<BTreeSet<IpAddr>>,
        datapath: &mut dyn Datapath,
    ) -> Result<(), RulesError> {
        self.noted.write();
        for family in Family::ALL {
            if let Err(error) = rules[family].put(&self.families[family].services, datapath) {
                // Those of the other family may be in force.
                let same = self.beside.as_mut().filter(|beside| mode::have_same_rules(beside.mode(), mode));
                if let Some(beside) = same.filter(|beside| beside.is_any()) {
                    // They took the place of the rules beside, which come there again at once: nobody goes unserved.
                    if let Err(error) = beside.put(datapath) {
                        let error = &error as &dyn Error;
                        warn!(rules = %mode, error, "rules beside the mode are not in force again; it is tried again");
                    }
                } else {
                    self.left.add(mode, rules.v4);
                    self.left.add(mode, rules.v6);
                    self.left.clear(&is_served(&self.families), datapath);
                }
                return Err(error);
            }
        }
        // Where some of this mode could not be taken away, they are in force again, and have to stay.
        self.left.keep(mode);
        if let Some(beside) = self.beside.take_if(|beside| !mode::have_same_rules(beside.mode(), mode)) {
            self.give_up(beside);
        }
        self.beside = None;
        let before = std::mem::replace(&mut self.standing, mode);
        let stays = can_stand_beside(before, mode) && Family::ALL.into_iter().any(|family| !held[family].is_empty());
        // They serve everywhere yet, and go where they are not needed once it was said for which addresses they stay.
        if stays {
            info!(%mode, rules = %before, "rules serve beside the mode where connections of another one go on");
            self.beside = Some(Beside::new(before, &self.families, held));
        }
        let Dual { v4, v6 } = rules;
        for (family, new) in [(Family::V4, v4), (Family::V6, v6)] {
            let old = std::mem::replace(&mut self.families[family].rules, new);
            if !stays {
                self.left.add(before, old);
            }
            self.families[family].refused = false;
        }
        self.left.clear(&is_served(&self.families), datapath);
        if let Err(error) = self.share(datapath) {
            let error = &error as &dyn Error;
            warn!(%mode, error, "rules serve also where the mode could; it is tried again");
        }
        Ok(())
    }
}
