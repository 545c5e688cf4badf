//! The node's settings and other people's chains: what is not podnet's own and has to let pods' packets pass.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Instant,
};

use podnet_kernel::{apart, datapath::KernelDatapath, forwarding::FORWARDING6, link, nft::Passing, sysctl};
use podnet_model::{Family, LinkName};
use podnet_planner::{
    overlay::Overlay,
    repair::{Damage, Object},
};
use tracing::info;

use super::MendError;
use crate::{
    network::rules::TABLES,
    repair::{
        Passages, Repair, Suspicion,
        settings::{self, Device},
    },
};

impl Repair {
    pub(super) fn mend_settings(
        &mut self,
        overlay: &Overlay,
        suspicion: &Suspicion,
        since: Instant,
        mended: &mut Vec<Damage>,
    ) -> Result<(), MendError> {
        let planned = overlay.desired();
        let ipv6 = overlay.carries_ipv6();
        let tunnels = planned.tunnels.keys().chain(planned.vxlans.keys());
        let of_tunnels = Device { ipv6: ipv6.then_some(true), filters: false, is_pods: false };
        let filters = self.filters_senders;
        let of_pod =
            |addrs: &[IpAddr]| Device { ipv6: Some(addrs.iter().any(IpAddr::is_ipv6)), filters, is_pods: true };
        let mut own: BTreeMap<LinkName, Device> = tunnels.map(|name| (name.clone(), of_tunnels)).collect();
        let is_asked = |ifname: &LinkName| suspicion.settings_of_all_pods || suspicion.settings_of.contains(ifname);
        // The port of a bridge has no settings that matter; the bridge has.
        let pods = self.pods.all().into_iter().filter(|end| end.bridge.is_none() && is_asked(&end.ifname));
        own.extend(pods.map(|end| (end.ifname, of_pod(&end.addrs))));
        let bridges = self.pods.bridges();
        let of_bridge = |has_ipv6| Device { ipv6: Some(has_ipv6), filters: false, is_pods: true };
        own.extend(bridges.iter().map(|(name, bridge)| (name.clone(), of_bridge(bridge.has_ipv6))));
        let mut wrongs = settings::wrong(&self.underlay.device, &own, ipv6, self.pods.fast_path().is_on());
        wrongs.extend(bridges.keys().flat_map(settings::wrong_of_bridge));
        for wrong in wrongs {
            let what = format!("was {} and not {}", wrong.found, wrong.wanted);
            let damage = Damage::new(Object::Setting(wrong.key.replace('/', ".")), what);
            if !self.admit(&damage) {
                self.held.settings = Some(since);
                self.held.settings_of.extend(suspicion.settings_of.iter().cloned());
                self.held.settings_of_all_pods |= suspicion.settings_of_all_pods;
                continue;
            }
            match wrong.key.as_str() {
                // Other devices go on being filtered as they were, and taking router advertisements.
                settings::FILTER => self.underlay.prepare()?,
                FORWARDING6 => self.underlay.forward_ipv6()?,
                key => sysctl::set_here(key, &wrong.wanted)?,
            }
            mended.push(damage);
        }
        Ok(())
    }

    pub(super) fn mend_passage(
        &mut self,
        datapath: &mut KernelDatapath,
        overlay: &Overlay,
        since: Instant,
        mended: &mut Vec<Damage>,
    ) -> Result<(), MendError> {
        match self.passages {
            Passages::Kept => {}
            Passages::Unwanted => return self.clear_passages(datapath),
            Passages::Gone => return Ok(()),
        }
        let mut all: BTreeSet<Passing> = overlay.pod_ranges().map(Passing::Range).collect();
        for family in Family::ALL {
            // Where a program serves Services, what comes from outside is forwarded to it with the Service's address.
            let device = apart::device(family);
            let is_there = link::find(datapath.route_socket(), device)?.is_some();
            all.extend(is_there.then_some(Passing::Device(family, device)));
        }
        let all: Vec<Passing> = all.into_iter().collect();
        for chain in datapath.nft_socket().forward_chains(&TABLES)? {
            if chain.lets_pass(&all) {
                continue;
            }
            let what = if chain.drops {
                "drops what is forwarded and lacks the rules that let pods' packets pass"
            } else {
                "drops nothing any more and needs no rules of podnet's"
            };
            let damage = Damage::new(Object::Passage(chain.to_string()), what);
            if !self.admit(&damage) {
                self.held.passage = Some(since);
                continue;
            }
            match datapath.nft_socket().let_pass(&chain, &all) {
                Ok(()) => mended.push(damage),
                // Changed again, or gone: its owner's notice comes.
                Err(error) if error.is_missing() => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Takes away what an agent before this one left in other people's chains; once there is nothing more, these are not looked at again.
    fn clear_passages(&mut self, datapath: &mut KernelDatapath) -> Result<(), MendError> {
        let mut is_done = true;
        for chain in datapath.nft_socket().forward_chains(&TABLES)? {
            if chain.lets_pass(&[]) {
                continue;
            }
            match datapath.nft_socket().let_pass(&chain, &[]) {
                Ok(()) => info!(%chain, "took away what let pods' packets pass: --iptables-forward-rules is false"),
                // Changed meanwhile, or gone.
                Err(error) if error.is_missing() => is_done = false,
                Err(error) => return Err(error.into()),
            }
        }
        if is_done {
            self.passages = Passages::Gone;
        } else {
            self.suspect_passage();
        }
        Ok(())
    }
}
