//! kube-proxy's configuration, and what is told of Services, in the network's thread.

use std::{
    error::Error,
    time::{Duration, Instant},
};

use podnet_kernel::{addr, monitor::Notice};
use podnet_model::{NodeAddr, errors::chain, proxy::Mode};
use podnet_planner::services::NodePortAddresses;
use tracing::warn;

use super::{place::addrs_of, refused::ApplyError, worker::Worker};
use crate::proxy::{
    mode::RulesError,
    programming::{Moment, Round},
};

impl Worker {
    /// Takes in what the kernel tells; whether that is a reason not to wait with what was refused.
    pub(super) fn hear(&mut self, notices: &[Notice]) -> bool {
        self.rules.hear(notices);
        self.repair.hear(notices, &self.overlay)
    }

    /// Takes what the configuration says into the plan and the kernel's settings. It is in force with the rules.
    pub(super) fn configure(&mut self) -> Result<(), ApplyError> {
        let mode = self.mode_to_be();
        self.rules.configure(&self.proxy.rules(mode));
        if self.proxy.settle() {
            self.repair.settings_changed();
        }
        self.tell_addrs()
    }

    fn mode_to_be(&self) -> Mode {
        self.proxy.wanted().map_or(self.rules.mode(), |choice| choice.mode)
    }

    /// Tells the rules which addresses the node has. Others than those on the underlay count only where the configuration names ranges.
    pub(super) fn tell_addrs(&mut self) -> Result<(), ApplyError> {
        let underlay = addrs_of(self.repair.underlay());
        let mut all = underlay.clone();
        if matches!(self.proxy.node_port_addresses(self.mode_to_be()), NodePortAddresses::Ranges(_)) {
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

    /// Serves Services in the mode that is asked for, where that can be had. What is in force stays where it cannot.
    pub(super) fn serve(&mut self) {
        let Some(choice) = self.proxy.wanted().cloned() else {
            return self.proxy.in_force(self.rules.mode(), "another one cannot be had");
        };
        let before = self.rules.mode();
        match self.change_mode(choice.mode) {
            Ok(()) => self.proxy.had(choice.mode, &choice.why),
            Err(error) => {
                let why = format!("mode is {:?}, which is refused: {}", choice.mode.name(), chain(&error));
                self.proxy.put_off(&why, Instant::now());
                // Programs at the sockets may be refused when the rules have changed already.
                if self.rules.mode() != before
                    && let Err(error) = self.change_mode(before)
                {
                    let (mode, error) = (before, &error as &dyn Error);
                    warn!(%mode, error, "the mode before cannot be had back; Services are served by rules alone");
                }
                self.rules.configure(&self.proxy.rules(self.rules.mode()));
            }
        }
    }

    fn change_mode(&mut self, mode: Mode) -> Result<(), RulesError> {
        self.sockets.prepare(mode)?;
        self.rules.switch(mode, &mut self.datapath)?;
        self.sockets.follow(mode, &mut self.rules)
    }

    /// What came in is in force, or was refused.
    pub(super) fn programmed(&self, done: bool, afresh: bool, took: Duration) {
        let programming = &self.proxy.told().programming;
        let round = if afresh { Round::Full } else { Round::Partial };
        if done {
            programming.done(round, took, Moment::now());
        } else {
            programming.refused();
        }
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
