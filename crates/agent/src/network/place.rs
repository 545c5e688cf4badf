//! The network follows the node's place on the underlay.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use podnet_kernel::{addr, stale};
use podnet_model::{Dual, NodeAddr};
use podnet_planner::overlay::Place;
use tracing::{info, warn};

use super::{
    refused::ApplyError,
    worker::{Work, Worker},
};
use crate::underlay::{Underlay, UnderlayError};

impl Worker {
    /// Looks at the node's place on the underlay and follows it where it changed. Where nothing fits any more the former place stands: an
    /// address that is being replaced is gone for a moment. What cannot be looked at stays suspected.
    pub(super) fn look_at_underlay(&mut self, work: &mut Work) -> Result<(), ApplyError> {
        let had_v4 = self.repair.underlay().address.addr().is_ipv4();
        let found = self.finder.find(self.internal);
        match found.map(|found| self.missed.bear(self.repair.underlay(), found, Instant::now())) {
            Ok(found) if had_v4 && found.address.addr().is_ipv6() => {
                let address = self.repair.underlay().address;
                warn!(%address, "the node has no IPv4 address for the underlay any more; the former one stands");
            }
            Ok(found) if found != *self.repair.underlay() => return self.follow(found, work),
            Ok(_) => {}
            Err(UnderlayError::Netlink(error)) => return Err(error.into()),
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                warn!(error, "the node's place on the underlay is not found; the former one stands");
            }
        }
        self.tell_addrs()?;
        let stands = self.repair.underlay().clone().stands(self.datapath.route_socket())?;
        self.repair.underlay_seen(stands);
        Ok(())
    }

    /// The node has another place. What may fail is asked first; then it is taken over as a whole, and told to the peers before the
    /// kernel has it all: it may not be able to have it before the peers know.
    fn follow(&mut self, found: Underlay, work: &mut Work) -> Result<(), ApplyError> {
        let before = self.repair.underlay().address.addr();
        let moved = found.address.addr() != before;
        let addrs = addr::list_all(self.datapath.route_socket())?;
        let (device, address, mtu) = (&found.device, found.address, found.mtu);
        let address6 = found.address6.map(tracing::field::display);
        info!(%device, %address, address6, mtu, "the node's place on the underlay changed");
        work.steps.extend(self.overlay.set_underlay(of(&found)));
        self.planned_with.send_replace(self.overlay.config().clone());
        self.publish.send_if_modified(|published| std::mem::replace(published, found.published) != found.published);
        self.view.announcements().set_underlay(&found.device);
        // The settings of the new device are looked at with the others.
        self.repair.set_underlay(found);
        self.tell_addrs()?;
        work.services = true;
        if moved && !addrs.iter().any(|(_, net)| net.addr() == before) {
            // The watches would go on waiting for what cannot come.
            let ended = stale::end_connections_from(before);
            info!(address = %before, ended, "connections from an address that is gone ended");
        }
        Ok(())
    }

    /// Gives pods' interfaces the MTU that follows from the underlay and the pools. Those that could not have it are tried again after
    /// growing pauses; the rest of the network does not wait for them.
    pub(super) fn fit_pods(&mut self) -> Result<(), ApplyError> {
        let mtu = self.overlay.pod_mtu();
        let is_new = mtu != self.pods.wanted_mtu();
        if !is_new && !self.unfitted.is_due() {
            return Ok(());
        }
        let fitted = self.pods.fit(self.datapath.route_socket(), mtu)?;
        if is_new {
            info!(mtu, interfaces = fitted.changed, "pods' interfaces have another MTU");
        }
        for device in fitted.lost.iter().filter(|_| is_new) {
            warn!(%device, mtu, "the pod's namespace is not found by name: its interface keeps its MTU until it is");
        }
        for (device, error) in &fitted.refused {
            let error = error as &dyn std::error::Error;
            warn!(%device, mtu, error, "the pod's interface was not given another MTU; it is tried again");
        }
        if is_new {
            self.unfitted = Unfitted::default();
        }
        self.unfitted.seen(fitted.lost.is_empty() && fitted.refused.is_empty());
        Ok(())
    }
}

/// Since when the node misses its address by IPv6. A device that is set down and up keeps its addresses of IPv4, and those of IPv6 come
/// back after some seconds (duplicate address detection, the router's advertisement): peers need not change their ways for that.
#[derive(Debug, Default)]
pub(super) struct Missed(Option<Instant>);

impl Missed {
    /// Shorter than what counts as a lasting failure of the network.
    const PATIENCE: Duration = Duration::from_secs(8);

    /// When it is missed too long; none while it is there.
    pub(super) fn due(&self) -> Option<Instant> {
        self.0.map(|since| since + Self::PATIENCE)
    }

    pub(super) fn is_due(&self) -> bool {
        self.due().is_some_and(|at| at <= Instant::now())
    }

    /// What was found, with the former address by IPv6 where its device has none for a short time.
    fn bear(&mut self, former: &Underlay, found: Underlay, now: Instant) -> Underlay {
        let misses = former.address6.is_some() && found.address6.is_none() && found.device == former.device;
        if !misses {
            self.0 = None;
            return found;
        }
        let is_new = self.0.is_none();
        let since = *self.0.get_or_insert(now);
        if now.duration_since(since) >= Self::PATIENCE {
            self.0 = None;
            return found;
        }
        if is_new {
            let address6 = former.address6.map(tracing::field::display);
            warn!(address6, "the node has no IPv6 address any more; the former one stands for some seconds");
        }
        Underlay { address6: former.address6, published: Dual { v6: former.published.v6, ..found.published }, ..found }
    }
}

/// When pods' interfaces that have not the MTU that they should have are tried again.
#[derive(Debug, Default)]
pub(super) struct Unfitted(Option<(Instant, Duration)>);

impl Unfitted {
    const FIRST_PAUSE: Duration = Duration::from_millis(100);
    const LONGEST_PAUSE: Duration = Duration::from_secs(60);

    /// The next time; none where all have it.
    pub(super) fn due(&self) -> Option<Instant> {
        self.0.map(|(at, _)| at)
    }

    fn is_due(&self) -> bool {
        self.due().is_some_and(|at| at <= Instant::now())
    }

    fn seen(&mut self, all: bool) {
        let pause = self.0.map_or(Self::FIRST_PAUSE, |(_, pause)| (pause * 2).min(Self::LONGEST_PAUSE));
        self.0 = (!all).then(|| (Instant::now() + pause, pause));
    }
}

/// The node's addresses: where its NodePorts are.
pub(super) fn addrs_of(underlay: &Underlay) -> Vec<NodeAddr> {
    std::iter::once(underlay.address).chain(underlay.address6).map(|address| NodeAddr(address.addr())).collect()
}

/// The place as the planner says it.
pub(super) fn of(underlay: &Underlay) -> Place {
    let addr = match underlay.address.addr() {
        IpAddr::V4(addr) => Some(addr),
        IpAddr::V6(_) => None,
    };
    let addr6 = underlay.address6.and_then(|address| match address.addr() {
        IpAddr::V4(_) => None,
        IpAddr::V6(addr) => Some(addr),
    });
    let Dual { v4: subnet, v6: subnet6 } = underlay.published;
    Place { addr, addr6, subnet, subnet6, ..Place::on(underlay.device.clone(), underlay.mtu) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_ipv6_that_is_gone_for_a_moment_is_not_withdrawn() {
        let net = |text: &str| text.parse::<ipnet::IpNet>().ok();
        let of = |device: &str, v4: &str, v6: &str| Underlay {
            device: device.into(),
            address: net(v4).unwrap(),
            address6: net(v6),
            published: Dual { v4: net(v4), v6: net(v6) },
            mtu: 1500,
        };
        let whole = of("eth0", "192.0.2.11/24", "2001:db8::11/64");
        let without = of("eth0", "192.0.2.11/24", "");
        let began = Instant::now();
        let mut missed = Missed::default();
        assert_eq!(missed.bear(&whole, without.clone(), began), whole);
        assert!(missed.due().is_some_and(|due| due > began) && !missed.is_due());
        // The rest is followed all the same.
        let moved = missed.bear(&whole, of("eth0", "192.0.2.12/24", ""), began);
        assert_eq!(moved, of("eth0", "192.0.2.12/24", "2001:db8::11/64"));
        // It came back, and goes again: that is another time.
        assert_eq!(missed.bear(&whole, whole.clone(), began), whole);
        assert_eq!(missed.due(), None);
        let later = began + Missed::PATIENCE;
        assert_eq!(missed.bear(&whole, without.clone(), later), whole);
        assert_eq!(missed.bear(&whole, without.clone(), later + Missed::PATIENCE), without, "it does not come back");
        assert_eq!(missed.due(), None);
        // Another address, or another device, is no loss.
        let other = of("eth0", "192.0.2.11/24", "2001:db8::12/64");
        assert_eq!(missed.bear(&whole, other.clone(), began), other);
        let elsewhere = of("eth1", "192.0.2.11/24", "");
        assert_eq!(missed.bear(&whole, elsewhere.clone(), began), elsewhere);
        assert_eq!(missed.bear(&without, without.clone(), began), without);
    }

    #[test]
    fn what_does_not_fit_is_tried_again_after_growing_pauses_until_it_does() {
        let mut unfitted = Unfitted::default();
        assert!(unfitted.due().is_none());
        for _ in 0..20 {
            unfitted.seen(false);
        }
        assert!(!unfitted.is_due());
        assert_eq!(unfitted.0.unwrap().1, Unfitted::LONGEST_PAUSE);
        unfitted.seen(true);
        assert!(unfitted.due().is_none());
    }
}
