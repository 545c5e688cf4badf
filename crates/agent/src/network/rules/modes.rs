//! In which mode Services have their rules, and how it is changed.

use std::{
    error::Error,
    sync::Arc,
    time::{Duration, Instant},
};

use podnet_kernel::datapath::Datapath;
use podnet_model::{Dual, Family, proxy::Mode};
use podnet_planner::services::ebpf::Remembered;
use tracing::{info, warn};

use super::{ClusterRules, family::is_served, left::Left};
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
    /// is of others goes once this one is in force. For rules that are not in force, or were refused.
    pub(in crate::network) fn begin_in(&mut self, mode: Mode) {
        if !mode::have_same_rules(self.standing, mode) {
            for family in Family::ALL {
                self.families[family].rules = self.fresh(mode, family);
            }
            (self.mode, self.standing) = (mode, mode);
            self.suspect_others();
        }
    }

    /// Rules that are not in force yet.
    fn fresh(&self, mode: Mode, family: Family) -> Box<dyn ServiceRules> {
        let services = &self.families[family].services;
        let mut rules = mode::rules(mode, services);
        rules.configure(services, &self.ipvs);
        rules
    }

    /// An earlier agent may have left rules of any other mode.
    pub(super) fn suspect_others(&mut self) {
        self.left = Left::default();
        for family in Family::ALL {
            let others = mode::others(self.standing, &self.families[family].services);
            others.for_each(|(mode, mut rules)| {
                rules.configure(&self.families[family].services, &self.ipvs);
                self.left.add(mode, rules);
            });
        }
    }

    /// The mode that Services are served in; those of `nftables` stand for the rules of one that has to wait.
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
    /// translations, which live in connection tracking. Where these are virtual servers' or a program's, and would not survive the new mode,
    /// rules of `nftables` serve until they are over.
    ///
    /// # Errors
    ///
    /// When the new rules are refused; then those of before are in force, or where these had gone already, those of `nftables`.
    pub(in crate::network) fn switch(&mut self, mode: Mode, datapath: &mut dyn Datapath) -> Result<(), RulesError> {
        self.stand(self.first_for(mode), datapath)?;
        self.mode = mode;
        self.put_off = None;
        self.arrive(datapath)?;
        if self.waits() {
            info!(%mode, "rules of nftables serve until the connections of the mode before are over");
        }
        Ok(())
    }

    /// Whose rules will be there first when the mode changes to this one.
    pub(in crate::network) fn first_for(&self, mode: Mode) -> Mode {
        let is_apart = matches!((self.standing, mode), (Mode::Ipvs, Mode::Userspace) | (Mode::Userspace, Mode::Ipvs));
        if is_apart || self.left.is_in_the_way_of(mode) { Mode::Nftables } else { mode }
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
        if self.waits() && !self.left.is_in_the_way_of(self.mode) { self.stand(self.mode, datapath) } else { Ok(()) }
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
                "a mode that waited for connections of the one before is refused; it is tried again after growing pauses"
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
        let earlier = |at: Instant| at.checked_sub(time).unwrap_or(at);
        self.put_off = self.put_off.map(|put_off| PutOff { at: earlier(put_off.at), ..put_off });
    }

    fn stand(&mut self, mode: Mode, datapath: &mut dyn Datapath) -> Result<(), RulesError> {
        if !mode::have_same_rules(self.standing, mode) {
            let rules = Dual::from_fn(|family| self.fresh(mode, family));
            // What may be left of this very mode goes before it is there again.
            self.left.clear(self.standing, &is_served(&self.families), datapath);
            self.replace(mode, rules, datapath)?;
            // Datagrams that a program passed on were no connections of a backend.
            self.all_suspected = Dual::from_fn(|_| true);
        }
        Ok(())
    }

    pub(super) fn replace(
        &mut self,
        mode: Mode,
        mut rules: Dual<Box<dyn ServiceRules>>,
        datapath: &mut dyn Datapath,
    ) -> Result<(), RulesError> {
        self.noted.write();
        for family in Family::ALL {
            if let Err(error) = rules[family].put(&self.families[family].services, datapath) {
                // Those of the other family may be in force.
                self.left.add(mode, rules.v4);
                self.left.add(mode, rules.v6);
                self.left.clear(self.standing, &is_served(&self.families), datapath);
                return Err(error);
            }
        }
        // Where some of this mode could not be taken away, they are in force again, and have to stay.
        self.left.keep(mode);
        let Dual { v4, v6 } = rules;
        for (family, new) in [(Family::V4, v4), (Family::V6, v6)] {
            self.left.add(self.standing, std::mem::replace(&mut self.families[family].rules, new));
            self.families[family].refused = false;
        }
        self.standing = mode;
        self.left.clear(mode, &is_served(&self.families), datapath);
        Ok(())
    }
}
