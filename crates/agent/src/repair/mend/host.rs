//! The node's settings and other people's chains: what is not podnet's own and has to let pods' packets pass.

use std::{collections::BTreeSet, time::Instant};

use ipnet::{IpNet, Ipv4Net};
use podnet_kernel::{datapath::KernelDatapath, sysctl};
use podnet_model::LinkName;
use podnet_planner::{
    overlay::Overlay,
    repair::{Damage, Object},
};

use super::MendError;
use crate::{
    network::TABLE,
    repair::{Repair, Suspicion, settings},
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
        let mut own: BTreeSet<LinkName> = planned.tunnels.keys().cloned().collect();
        own.extend(planned.vxlan.as_ref().map(|vxlan| vxlan.name.clone()));
        own.extend(suspicion.settings_of.iter().filter(|device| self.pods.contains(device)).cloned());
        if suspicion.settings_of_all_pods {
            own.extend(self.pods.all().into_iter().map(|end| end.ifname));
        }
        let own: Vec<LinkName> = own.into_iter().collect();
        for wrong in settings::wrong(&self.underlay.device, &own) {
            let what = format!("was {} and not {}", wrong.found, wrong.wanted);
            let damage = Damage::new(Object::Setting(wrong.key.replace('/', ".")), what);
            if !self.admit(&damage) {
                self.held.settings = Some(since);
                self.held.settings_of.extend(suspicion.settings_of.iter().cloned());
                self.held.settings_of_all_pods |= suspicion.settings_of_all_pods;
                continue;
            }
            if wrong.key.ends_with("/all/rp_filter") {
                // Other devices go on being filtered as they were.
                self.underlay.prepare()?;
            } else {
                sysctl::set_here(&wrong.key, wrong.wanted)?;
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
        let ranges: BTreeSet<Ipv4Net> = overlay.pod_ranges().filter_map(v4).collect();
        let ranges: Vec<Ipv4Net> = ranges.into_iter().collect();
        for chain in datapath.nft_socket().forward_chains(TABLE)? {
            if chain.lets_pass(&ranges) {
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
            match datapath.nft_socket().let_pass(&chain, &ranges) {
                Ok(()) => mended.push(damage),
                // Changed again, or gone: its owner's notice comes.
                Err(error) if error.is_missing() => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

fn v4(range: IpNet) -> Option<Ipv4Net> {
    match range {
        IpNet::V4(range) => Some(range),
        IpNet::V6(_) => None,
    }
}
