//! Connections that lead where nothing leads any more.

use std::time::{Duration, Instant};

use podnet_kernel::{conntrack, netlink::NetlinkError};
use podnet_model::Family;
use podnet_planner::{
    ruleset::{BackendAddress, FrontendKey},
    services::Vanished,
};

use super::ClusterRules;

/// Connection tracking is gone through so often at most, and so long after it refused that.
const FORGET: Duration = Duration::from_millis(200);
const FORGET_AGAIN: Duration = Duration::from_secs(10);

impl ClusterRules {
    /// Makes connection tracking forget the UDP connections that lead where nothing leads any more, now that the rules are in force: what
    /// vanished since the last time, and, where nothing is known of what was before, all that lead elsewhere than they have to. Those to an
    /// endpoint that answers are none of these, be it that it ends or that nothing leads there any more: they go on where connection tracking is
    /// what leads them, in modes nftables and iptables and what comes to rules in mode ebpf. Of frontends that are no Service's any more all that is translated is forgotten, also what an agent before this one led: what is not translated is
    /// none of them. What follows closely is forgotten together.
    ///
    /// # Errors
    ///
    /// When the kernel cannot be asked, or refuses; it is tried again after a while.
    pub(in crate::network) fn forget_vanished(&mut self) -> Result<usize, NetlinkError> {
        let now = Instant::now();
        if now < self.next_forget {
            return Ok(0);
        }
        let families: Vec<_> = Family::ALL.into_iter().filter(|family| self.forgets(*family)).collect();
        let (mut forgotten, mut first) = (0, Ok(()));
        for &family in &families {
            let (services, vanished) = (&self.families[family].services, &self.vanished[family]);
            let all = self.all_suspected[family];
            let gone = self.noted.gone(family);
            // What went may have come back since.
            let is_gone =
                |(to, by): &Vanished| gone.contains(to) && is_translated(to, by) && services.serving(to).is_none();
            let is_astray = |one: &Vanished| (all || vanished.contains(one)) && services.leads_astray(one);
            let leads_nowhere = |one: &Vanished| is_gone(one) || is_astray(one);
            let began = Instant::now();
            match conntrack::forget_astray(family, |to, by| leads_nowhere(&(to, by))) {
                Ok(some) => {
                    forgotten += some;
                    self.reconciled.push((family, began.elapsed(), some));
                    self.vanished[family].clear();
                    self.noted.forgotten(family, services);
                    self.all_suspected[family] = false;
                }
                Err(error) => first = first.and(Err(error)),
            }
        }
        if !families.is_empty() {
            self.next_forget = Instant::now() + if first.is_ok() { FORGET } else { FORGET_AGAIN };
        }
        first.map(|()| forgotten)
    }

    /// Whether there may be something to forget of a family, the rules of which are in force.
    pub(super) fn forgets(&self, family: Family) -> bool {
        let own = &self.families[family];
        let suspected = self.all_suspected[family] && own.services.is_needed();
        !own.refused && (suspected || !self.vanished[family].is_empty() || !self.noted.gone(family).is_empty())
    }
}

fn is_translated(to: &FrontendKey, by: &BackendAddress) -> bool {
    (to.addr, to.port) != (by.addr, by.port)
}
