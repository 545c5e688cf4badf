//! kube-proxy's configuration, and what is told of Services, in the network's thread.

use std::{error::Error, time::Instant};

use podnet_kernel::{addr, monitor::Notice};
use podnet_model::{NodeAddr, errors::chain, proxy::Mode};
use podnet_planner::services::NodePortAddresses;
use tracing::warn;

use super::{place::addrs_of, refused::ApplyError, rules::Tries, worker::Worker};
use crate::proxy::mode::RulesError;

impl Worker {
    /// Takes in what the kernel tells; whether that is a reason not to wait with what was refused.
    pub(super) fn hear(&mut self, notices: &[Notice]) -> bool {
        self.rules.hear(notices);
        self.repair.hear(notices, &self.overlay)
    }

    /// Takes what the configuration says into the plan and the kernel's settings, for the mode in force. It is in force with the rules.
    pub(super) fn configure(&mut self) -> Result<(), ApplyError> {
        if self.proxy.settle() {
            self.repair.settings_changed();
        }
        self.plan_for(self.rules.mode())
    }

    /// Plans with what the configuration says of rules in a mode.
    fn plan_for(&mut self, mode: Mode) -> Result<(), ApplyError> {
        self.rules.configure(&self.proxy.rules(mode));
        self.tell_addrs_for(mode)
    }

    /// Tells the rules which addresses the node has. Others than those on the underlay count only where the configuration names ranges.
    pub(super) fn tell_addrs(&mut self) -> Result<(), ApplyError> {
        self.tell_addrs_for(self.rules.mode())
    }

    fn tell_addrs_for(&mut self, mode: Mode) -> Result<(), ApplyError> {
        let underlay = addrs_of(self.repair.underlay());
        let mut all = underlay.clone();
        if matches!(self.proxy.node_port_addresses(mode), NodePortAddresses::Ranges(_)) {
            let listed = addr::list_lasting(self.datapath.route_socket())?.into_iter().map(|(_, net)| net.addr());
            // What comes from the loopback cannot be answered by a pod, and addresses of one link are nobody's destination.
            let is_usable = |addr: &std::net::IpAddr| match addr {
                std::net::IpAddr::V4(addr) => !addr.is_loopback() && !addr.is_link_local(),
                std::net::IpAddr::V6(addr) => !addr.is_loopback() && !addr.is_unicast_link_local(),
            };
            for addr in listed.filter(is_usable).map(NodeAddr) {
                if !all.contains(&addr) {
                    all.push(addr);
                }
            }
        }
        self.rules.set_node_addrs(&all, &underlay);
        Ok(())
    }

    /// Begins in the mode that is asked for: what an agent before this one made in it is not made anew, and keeps what it remembers of
    /// clients.
    pub(super) fn begin(&mut self) {
        if !self.began
            && let Some(choice) = self.proxy.wanted()
        {
            self.rules.begin_in(choice.mode);
        }
    }

    /// Puts the rules in force for the first time, or whatever there is. Where the mode that is asked for is refused from the first on,
    /// Services are served in `nftables`.
    pub(super) fn put_rules(&mut self) -> Result<(), ApplyError> {
        let began = std::mem::replace(&mut self.began, true);
        let put = self.rules.put(&mut self.datapath);
        let (mode, instead) = (self.rules.mode(), Mode::Nftables);
        match put {
            Err(error) if !began && mode != instead && !self.rules.serves() => {
                self.put_off(mode, &error);
                self.rules.begin_in(instead);
                self.plan_for(instead)?;
                Ok(self.rules.put(&mut self.datapath)?)
            }
            put => Ok(put?),
        }
    }

    fn put_off(&mut self, mode: Mode, error: &RulesError) {
        let why = format!("mode is {:?}, which is refused: {}", mode.name(), chain(error));
        self.proxy.put_off(&why, Instant::now());
    }

    /// Serves Services in the mode that is asked for, where that can be had. What is in force stays where it cannot.
    pub(super) fn serve(&mut self) -> Result<(), ApplyError> {
        let Some(choice) = self.proxy.wanted().cloned() else {
            self.proxy.in_force(self.rules.mode(), "another one cannot be had");
            return Ok(());
        };
        let before = self.rules.mode();
        let Err(error) = self.change_mode(choice.mode) else {
            self.proxy.had(choice.mode, &choice.why);
            return Ok(());
        };
        self.put_off(choice.mode, &error);
        // Programs at the sockets may be refused when the rules have changed already.
        if self.rules.mode() != before
            && let Err(error) = self.change_mode(before)
        {
            let (mode, error) = (before, &error as &dyn Error);
            warn!(%mode, error, "the mode before cannot be had back; Services are served by rules alone");
        }
        // What is in force was to be changed for the other mode.
        self.plan_for(self.rules.mode())?;
        self.rules.edit(Tries::All, &mut self.datapath)?;
        Ok(())
    }

    fn change_mode(&mut self, mode: Mode) -> Result<(), RulesError> {
        self.sockets.prepare(mode)?;
        if mode != self.rules.mode() {
            self.plan_for(mode).map_err(|error| RulesError::Other(error.into()))?;
            self.rules.switch(mode, &mut self.datapath)?;
            // Two modes may have the same rules and other settings.
            self.rules.edit(Tries::All, &mut self.datapath)?;
        }
        self.sockets.follow(mode, &mut self.rules)
    }

    /// Load balancers may ask for other Services, or hear another answer.
    pub(super) fn tell_checks(&self) {
        let checks = self.rules.health_checks();
        self.proxy.told().checks.send_if_modified(|known| {
            let is_new = *known != checks;
            *known = checks;
            is_new
        });
    }
}
