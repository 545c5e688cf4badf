//! kube-proxy's configuration, and what is told of Services, in the network's thread.

use std::{
    borrow::Cow,
    collections::HashSet,
    error::Error,
    net::{IpAddr, Ipv4Addr},
    time::Instant,
};

use ipnet::IpNet;
use podnet_kernel::{
    addr,
    monitor::{Notice, Transaction},
};
use podnet_model::{NodeAddr, errors::chain, proxy::Mode};
use podnet_planner::services::NodePortAddresses;
use tracing::{info, warn};

use super::{place::addrs_of, refused::ApplyError, rules::Tries, worker::Worker};
use crate::proxy::mode::RulesError;

/// A node's ports are at so many addresses at most: each is a frontend of every NodePort.
const ADDRESSES: usize = 256;

impl Worker {
    /// Takes in what the kernel tells; whether that is a reason not to wait with what was refused.
    pub(super) fn hear(&mut self, notices: &[Notice]) -> bool {
        self.rules.hear(notices);
        self.loopback.hear(notices);
        self.resolver.hear(notices);
        let others = without_own(notices, |transaction| self.rules.is_own(transaction));
        self.repair.hear(&others, &self.overlay)
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
        if let NodePortAddresses::Ranges(ranges) = self.proxy.node_port_addresses(mode) {
            let listed = addr::list_lasting(self.datapath.route_socket())?;
            let left = add_usable(&mut all, listed.into_iter().map(|(_, net)| net.addr()), &ranges);
            self.proxy.leaves_addresses(left, all.len());
        }
        self.rules.set_node_addrs(&all, &underlay);
        Ok(())
    }

    /// Begins in the mode that is asked for: what an agent before this one made in it is not made anew, and keeps what it remembers of
    /// clients.
    pub(super) fn begin(&mut self) {
        if !self.began {
            let wanted = self.proxy.wanted().map(|choice| choice.mode);
            self.rules.begin_in(wanted.unwrap_or_else(|| self.proxy.instead_of(None)));
        }
    }

    /// Puts the rules in force for the first time, or whatever there is. Where the mode that is asked for is refused from the first on,
    /// Services are served in the best that is left.
    pub(super) fn put_rules(&mut self) -> Result<(), ApplyError> {
        let began = std::mem::replace(&mut self.began, true);
        let put = self.rules.put(&mut self.datapath);
        let mode = self.rules.mode();
        let instead = self.proxy.instead_of(Some(mode));
        match put {
            Err(error) if !began && mode != instead && !self.rules.serves() => {
                self.put_off(mode, &error);
                self.rules.begin_in(instead);
                self.plan_for(instead)?;
                self.open_loopback_for(instead);
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
            self.open_loopback_for(self.rules.first_for(mode));
            self.rules.switch(mode, &mut self.datapath)?;
            // Two modes may have the same rules and other settings.
            self.rules.edit(Tries::All, &mut self.datapath)?;
        }
        self.sockets.follow(mode, &mut self.rules)
    }

    /// Whose rules serve while the mode in force waits, or what of it they serve still.
    pub(super) fn tell_who_stands_in(&self) {
        self.proxy.told().facts.set_left_to_rules(self.sockets.left_to_rules());
        self.proxy.told().facts.set_addresses_left_to_rules(self.rules.left_to_rules());
        self.proxy.told().facts.set_unfollowed(self.sockets.unfollowed());
        let stands_in = self.rules.waits().then(|| self.rules.standing());
        self.proxy.told().stands_in.send_if_modified(|known| {
            let is_new = *known != stands_in;
            *known = stands_in;
            if let (true, Some(serving)) = (is_new, stands_in) {
                let mode = self.rules.mode();
                info!(%mode, %serving, "a mode waits until it is known where connections of the one before are");
            } else if is_new {
                info!(mode = %self.rules.mode(), "the mode serves now by itself");
            }
            is_new
        });
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

/// Without transactions of podnet's own: each would have other people's chains looked at, of all tables.
fn without_own(notices: &[Notice], is_own: impl Fn(&Transaction) -> bool) -> Cow<'_, [Notice]> {
    let is_own = |notice: &Notice| matches!(notice, Notice::Rules(transaction) if is_own(transaction));
    if notices.iter().any(is_own) {
        return notices.iter().filter(|notice| !is_own(notice)).cloned().collect();
    }
    Cow::Borrowed(notices)
}

/// Adds addresses at which a node can be reached from elsewhere. Answers how many there are too many.
fn add_usable(all: &mut Vec<NodeAddr>, listed: impl IntoIterator<Item = IpAddr>, ranges: &[IpNet]) -> usize {
    // Addresses of one link are nobody's destination, unless a range is of such: some clouds have their nodes there.
    let is_named = |addr: &Ipv4Addr| {
        ranges
            .iter()
            .any(|range| matches!(range, IpNet::V4(range) if range.network().is_link_local() && range.contains(addr)))
    };
    // The loopback's are for the node alone.
    let is_usable = |addr: &IpAddr| match addr {
        IpAddr::V4(addr) => !addr.is_loopback() && (!addr.is_link_local() || is_named(addr)),
        IpAddr::V6(addr) => !addr.is_loopback() && !addr.is_unicast_link_local(),
    };
    let mut known: HashSet<IpAddr> = all.iter().map(|addr| addr.0).collect();
    let new = listed.into_iter().filter(is_usable).filter(|addr| known.insert(*addr)).map(NodeAddr);
    let mut new = new.fuse();
    all.extend(new.by_ref().take(ADDRESSES.saturating_sub(all.len())));
    new.count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_podnets_own_programs_did_is_no_reason_to_look_at_other_peoples_chains() {
        let made = |generation| Notice::Rules(Transaction { generation: Some(generation), ..Transaction::default() });
        let is_own = |transaction: &Transaction| transaction.generation == Some(2);
        let all = [made(1), made(2), Notice::Lost, made(2), made(3)];
        assert_eq!(*without_own(&all, is_own), [made(1), Notice::Lost, made(3)]);
        assert!(matches!(without_own(&all[..1], is_own), Cow::Borrowed(_)));
    }

    #[test]
    fn a_node_has_its_ports_at_addresses_that_can_be_reached_and_at_so_many_at_most() {
        let mut all = vec![NodeAddr([192, 0, 2, 1].into())];
        let listed = ["127.0.0.1", "192.0.2.1", "169.254.7.7", "192.0.2.2", "::1", "fe80::1", "2001:db8::1"];
        let listed = listed.map(|addr| addr.parse().unwrap());
        let everything = ["0.0.0.0/0".parse().unwrap()];
        assert_eq!(add_usable(&mut all, listed, &everything), 0);
        let texts: Vec<_> = all.iter().map(|addr| addr.0.to_string()).collect();
        assert_eq!(texts, ["192.0.2.1", "192.0.2.2", "2001:db8::1"]);
        let many = (0..5_000).map(|number| IpAddr::from(std::net::Ipv4Addr::from_bits(0x0a60_0000 + number)));
        let mut with_links = all.clone();
        assert_eq!(add_usable(&mut with_links, listed, &["169.254.0.0/16".parse().unwrap()]), 0);
        assert_eq!(with_links.last(), Some(&NodeAddr([169, 254, 7, 7].into())));
        assert_eq!(add_usable(&mut all, many, &everything), 5_000 + 3 - ADDRESSES);
        assert_eq!((all.len(), all[0].0.to_string()), (ADDRESSES, "192.0.2.1".to_owned()));
    }
}
