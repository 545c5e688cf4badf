//! Rules of other modes that are still to be taken away.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use podnet_kernel::datapath::Datapath;
use podnet_model::proxy::Mode;
use podnet_planner::{
    ruleset::FrontendKey,
    services::{Plan, ebpf::Remembered},
};
use tracing::{info, warn};

use crate::proxy::mode::{ServiceRules, have_same_rules};

/// The pause after a refusal, doubling up to the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// What other modes may have left. As long as it stays it leads to the endpoints of that time.
#[derive(Debug, Default)]
pub(super) struct Left {
    rules: Vec<(Mode, Box<dyn ServiceRules>)>,
    /// When that which could not be taken away is tried again, and how long that was put off.
    again: Option<(Instant, Duration)>,
    /// Frontends went since it was looked whether something lingers for them.
    fewer: bool,
    /// What all of them remember; another value only where it is something else.
    remembered: Arc<Remembered>,
    /// So often tables of nf_tables could not be taken away since somebody asked.
    tables_refused: u64,
}

impl Left {
    /// Those of this mode are to go.
    pub(super) fn add(&mut self, mode: Mode, rules: Box<dyn ServiceRules>) {
        self.rules.push((mode, rules));
    }

    /// The rules of this mode are wanted once more.
    pub(super) fn keep(&mut self, mode: Mode) {
        self.rules.retain(|(left, _)| !have_same_rules(*left, mode));
        self.recollect();
    }

    /// The backends that connections of modes which are left are remembered to. As long as it is the same it is the same value.
    pub(super) const fn remembered(&self) -> &Arc<Remembered> {
        &self.remembered
    }

    fn recollect(&mut self) {
        let now: Remembered = self.rules.iter().flat_map(|(_, rules)| rules.remembered()).collect();
        if *self.remembered != now {
            self.remembered = Arc::new(now);
        }
    }

    /// Whether something of this mode stays for the sake of connections that are under way.
    pub(super) fn lingers(&self, mode: Mode) -> bool {
        self.rules.iter().any(|(left, rules)| *left == mode && rules.lingers())
    }

    /// Whether something of this mode outlived an earlier agent, with connections that are under way or may come to be. To be asked before
    /// anything is taken away.
    pub(super) fn outlived(&mut self, mode: Mode) -> bool {
        self.rules.iter_mut().filter(|(left, _)| *left == mode).for_each(|(_, rules)| rules.recall());
        self.lingers(mode)
    }

    /// Whether something of this mode is to go.
    pub(super) fn has(&self, mode: Mode) -> bool {
        self.rules.iter().any(|(left, _)| have_same_rules(*left, mode))
    }

    /// The addresses at which something of other modes than this one stays for the sake of connections that are under way.
    pub(super) fn held_beside(&self, mode: Mode) -> BTreeSet<IpAddr> {
        let others = self.rules.iter().filter(|(left, _)| !have_same_rules(*left, mode));
        others.flat_map(|(_, rules)| rules.held()).collect()
    }

    /// Whether connections may come to be for a moment yet that have to stay.
    pub(super) fn takes_new(&self) -> bool {
        self.rules.iter().any(|(_, rules)| rules.takes_new())
    }

    /// Takes a plan in: something may linger for frontends that go.
    pub(super) fn learn(&mut self, plan: &Plan) {
        self.fewer |= !self.rules.is_empty() && plan.frontends.iter().any(|change| change.after.is_none());
    }

    /// Takes away what lingers for frontends that are no Service's any more, where some went. What cannot be taken away is tried again with the
    /// rest.
    pub(super) fn withdraw(&mut self, is_served: &dyn Fn(&FrontendKey) -> bool, datapath: &mut dyn Datapath) {
        if !std::mem::take(&mut self.fewer) {
            return;
        }
        for (mode, rules) in &mut self.rules {
            if let Err(error) = rules.withdraw(is_served, datapath) {
                let error = &error as &dyn std::error::Error;
                warn!(%mode, error, "what another mode keeps for a Service that is gone cannot be taken away; it is tried again");
            }
        }
        self.recollect();
    }

    /// Takes all away; what lingers only stays for frontends that are served. What cannot be is tried again after growing pauses; what
    /// lingers is looked at after equal ones.
    pub(super) fn clear(&mut self, is_served: &dyn Fn(&FrontendKey) -> bool, datapath: &mut dyn Datapath) {
        let mut refused = false;
        self.rules.retain_mut(|(mode, rules)| {
            match rules.take_away(datapath).and_then(|()| rules.withdraw(is_served, datapath)) {
                Ok(()) => rules.lingers() || !rules.remembered().is_empty(),
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    warn!(%mode, error, "rules of another mode cannot be taken away; it is tried again");
                    refused = true;
                    self.tables_refused += u64::from(have_same_rules(*mode, Mode::Nftables));
                    true
                }
            }
        });
        self.recollect();
        let longer = self.again.filter(|_| refused).map(|(_, pause)| (pause * 2).min(LONGEST_PAUSE));
        let pause = longer.unwrap_or(FIRST_PAUSE);
        let before = self.again.take();
        if !self.rules.is_empty() {
            self.again = Some((Instant::now() + pause, pause));
        } else if before.is_some() {
            info!("rules of another mode are gone");
        }
    }

    /// How often tables of nf_tables could not be taken away since the last time.
    pub(super) fn take_tables_refused(&mut self) -> u64 {
        std::mem::take(&mut self.tables_refused)
    }

    /// Whether nothing was done yet to take it away.
    pub(super) fn is_untried(&self) -> bool {
        !self.rules.is_empty() && self.again.is_none()
    }

    /// When [`Left::look`] is due; none where nothing is left.
    pub(super) fn due(&self) -> Option<Instant> {
        let untried = || (!self.rules.is_empty()).then(Instant::now);
        self.again.map(|(at, _)| at).or_else(untried)
    }

    /// Tries again what could not be taken away, where that is due; whether it was.
    pub(super) fn look(&mut self, is_served: &dyn Fn(&FrontendKey) -> bool, datapath: &mut dyn Datapath) -> bool {
        let is_due = self.due().is_some_and(|due| due <= Instant::now());
        if is_due {
            self.clear(is_served, datapath);
        }
        is_due
    }

    /// As if that long went by.
    #[cfg(test)]
    pub(super) fn pass(&mut self, time: Duration) {
        self.again = self.again.map(|(at, pause)| (at.checked_sub(time).unwrap_or(at), pause));
    }
}
