//! Looking at what is suspected, and mending what differs from the plan.

use std::{collections::BTreeSet, time::Instant};

use ipnet::{IpNet, Ipv4Net};
use podnet_kernel::{
    datapath::{Datapath, KernelDatapath},
    executor::StepFailed,
    netlink::NetlinkError,
    nft::NftError,
    pod_interface::{
        Difference,
        host_end::{self, Damaged},
    },
    sysctl::{self, SysctlError},
};
use podnet_model::LinkName;
use podnet_planner::{
    overlay::Overlay,
    repair::{Admission, Damage, Object, summary},
    services::Services,
};
use tracing::{debug, warn};

use super::{Repair, Suspicion, settings};
use crate::{
    attach::rules,
    network::{TABLE, overlay_state},
    underlay::UnderlayError,
};

/// Why something could not be mended. It is tried again as any failure to set the network up is.
#[derive(Debug, thiserror::Error)]
pub enum MendError {
    /// Devices, routes and the like cannot be listed or changed.
    #[error("cannot look at devices and routes")]
    Netlink(#[from] NetlinkError),
    /// A device, route or the like cannot be set.
    #[error("cannot change links and routes")]
    Steps(#[from] StepFailed),
    /// The rules cannot be set.
    #[error("cannot change the rules")]
    Rules(#[from] NftError),
    /// A setting cannot be made.
    #[error("cannot change a setting")]
    Setting(#[from] SysctlError),
    /// The reverse path filter cannot be set.
    #[error(transparent)]
    Underlay(#[from] UnderlayError),
}

impl Repair {
    /// Looks at what is suspected, and mends what differs from the plan and is not held back.
    ///
    /// # Errors
    ///
    /// What the kernel refused.
    pub fn mend(
        &mut self,
        datapath: &mut KernelDatapath,
        overlay: &Overlay,
        services: &Services,
    ) -> Result<(), MendError> {
        let now = Instant::now();
        self.limiter.forget_quiet(now.duration_since(self.began));
        let mut suspicion = std::mem::take(&mut self.suspicion);
        if self.held_until.is_some_and(|until| until <= now) {
            self.held_until = None;
            suspicion.join(std::mem::take(&mut self.held));
        }
        let mut mended = Vec::new();
        if let Some(since) = suspicion.overlay {
            mended.extend(self.mend_overlay(datapath, overlay, since)?);
        }
        if let Some(since) = suspicion.pods {
            mended.extend(self.mend_pods(datapath, since)?);
        }
        if let Some(since) = suspicion.rules {
            mended.extend(self.mend_rules(datapath, services, since, suspicion.rules_touched)?);
        }
        if let Some(since) = suspicion.pod_rules {
            mended.extend(self.mend_pod_rules(since, suspicion.rules_touched)?);
        }
        if let Some(since) = suspicion.settings {
            mended.extend(self.mend_settings(overlay, &suspicion, since)?);
        }
        self.suspicion.passage_seen = suspicion.passage_seen;
        self.suspicion.underlay = suspicion.underlay;
        if let Some(since) = suspicion.passage {
            self.suspicion.passage_seen = Some(now);
            let passages = self.mend_passage(datapath, overlay, since)?;
            if !passages.is_empty() && !suspicion.passage_by.is_empty() {
                suspicion.heard.push(format!("{} changed other rules", suspicion.passage_by));
            }
            mended.extend(passages);
        }
        let first = [
            suspicion.overlay,
            suspicion.pods,
            suspicion.rules,
            suspicion.pod_rules,
            suspicion.settings,
            suspicion.passage,
        ];
        let elapsed = first.into_iter().flatten().min().map_or_else(Default::default, |since| since.elapsed());
        if mended.is_empty() {
            debug!(heard = suspicion.heard.join("; "), ?elapsed, "looked at what is there; it is as planned");
            return Ok(());
        }
        self.counts.repaired(&mended);
        let (what, heard) = (summary(&mended), suspicion.heard.join("; "));
        warn!(what, heard, elapsed_ms = elapsed.as_millis() as u64, "mended what somebody else damaged");
        Ok(())
    }

    /// Notes a repair where it may be done now; otherwise when it may.
    fn admit(&mut self, damage: &Damage) -> bool {
        let contested = self.limiter.is_contested(&damage.object);
        match self.limiter.admit(&damage.object, self.began.elapsed()) {
            Admission::Now => true,
            Admission::At(at) => {
                self.counts.held_back();
                if !contested {
                    warn!(%damage, "somebody keeps undoing it; from now on it is mended after growing pauses");
                }
                let at = self.began + at;
                self.held_until = Some(self.held_until.map_or(at, |earlier| earlier.min(at)));
                false
            }
        }
    }

    fn mend_overlay(
        &mut self,
        datapath: &mut KernelDatapath,
        overlay: &Overlay,
        since: Instant,
    ) -> Result<Vec<Damage>, MendError> {
        let device = &overlay.config().vxlan_device;
        let observed = overlay_state(datapath.observe(device)?);
        let (mended, held): (Vec<_>, Vec<_>) =
            overlay.damages(&observed).into_iter().partition(|damage| self.admit(damage));
        let mut steps = overlay.repair(&observed);
        if held.iter().any(|damage| matches!(damage.object, Object::Device(_))) {
            // Nothing can stand on a device that has to wait.
            steps.clear();
        }
        let held: BTreeSet<Object> = held.into_iter().map(|damage| damage.object).collect();
        steps.retain(|step| !held.contains(&Object::of(step)));
        if !held.is_empty() {
            self.held.overlay = Some(since);
        }
        if !datapath.apply(&steps)?.remade.is_empty() {
            let observed = overlay_state(datapath.observe(device)?);
            datapath.apply(&overlay.repair(&observed))?;
        }
        Ok(mended)
    }

    fn mend_pods(&mut self, datapath: &mut KernelDatapath, since: Instant) -> Result<Vec<Damage>, MendError> {
        let mut mended = Vec::new();
        for damaged in host_end::damaged(datapath.route_socket(), &self.pods.all())? {
            let ifname = &damaged.end.ifname;
            // A DEL may have come between the look and now.
            if !self.pods.contains(ifname) {
                continue;
            }
            if !damaged.is_there() {
                self.tell_lost(ifname);
                continue;
            }
            let (admitted, held): (Vec<_>, Vec<_>) =
                damages(&damaged).into_iter().partition(|damage| self.admit(damage));
            if !held.is_empty() {
                self.held.pods = Some(since);
            }
            if !admitted.is_empty() {
                damaged.mend(datapath.route_socket())?;
                mended.extend(admitted);
            }
        }
        Ok(mended)
    }

    /// With its device a pod lost its end too, which only the runtime can make anew.
    fn tell_lost(&mut self, ifname: &LinkName) {
        if self.lost.insert(ifname.clone()) {
            warn!(device = %ifname, "a pod's device was deleted; the pod has no network until its sandbox is made anew");
        }
    }

    fn mend_rules(
        &mut self,
        datapath: &mut KernelDatapath,
        services: &Services,
        since: Instant,
        touched: bool,
    ) -> Result<Option<Damage>, MendError> {
        let is_there = datapath.nft_socket().tables()?.iter().any(|table| table == TABLE);
        let damage = Damage::new(Object::Table(TABLE.into()), if is_there { "was changed" } else { "was deleted" });
        if !self.admit(&damage) {
            self.held.rules = Some(since);
            self.held.rules_touched = touched;
            return Ok(None);
        }
        datapath.replace(TABLE, &services.desired())?;
        // Where notices were lost it is put in place to be sure, and nothing is known to have been wrong.
        Ok((touched || !is_there).then_some(damage))
    }

    fn mend_pod_rules(&mut self, since: Instant, touched: bool) -> Result<Option<Damage>, MendError> {
        let damage = Damage::new(Object::Table(rules::TABLE.into()), "was changed");
        if !self.admit(&damage) {
            self.held.pod_rules = Some(since);
            self.held.rules_touched = touched;
            return Ok(None);
        }
        self.pods.rules().restore()?;
        Ok(touched.then_some(damage))
    }

    fn mend_settings(
        &mut self,
        overlay: &Overlay,
        suspicion: &Suspicion,
        since: Instant,
    ) -> Result<Vec<Damage>, MendError> {
        let planned = overlay.desired();
        let mut own: BTreeSet<LinkName> = planned.tunnels.keys().cloned().collect();
        own.extend(planned.vxlan.as_ref().map(|vxlan| vxlan.name.clone()));
        own.extend(suspicion.settings_of.iter().filter(|device| self.pods.contains(device)).cloned());
        let own: Vec<LinkName> = own.into_iter().collect();
        let mut mended = Vec::new();
        for wrong in settings::wrong(&self.underlay.device, &own) {
            let what = format!("was {} and not {}", wrong.found, wrong.wanted);
            let damage = Damage::new(Object::Setting(wrong.key.replace('/', ".")), what);
            if !self.admit(&damage) {
                self.held.settings = Some(since);
                self.held.settings_of.extend(suspicion.settings_of.iter().cloned());
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
        Ok(mended)
    }

    fn mend_passage(
        &mut self,
        datapath: &mut KernelDatapath,
        overlay: &Overlay,
        since: Instant,
    ) -> Result<Vec<Damage>, MendError> {
        let ranges: BTreeSet<Ipv4Net> = overlay.pod_ranges().filter_map(v4).collect();
        let ranges: Vec<Ipv4Net> = ranges.into_iter().collect();
        let mut mended = Vec::new();
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
        Ok(mended)
    }
}

fn damages(damaged: &Damaged) -> Vec<Damage> {
    let damage = |difference: &Difference| {
        let ifname = &damaged.end.ifname;
        match difference {
            Difference::NoRoute { dst, .. } => {
                Damage::new(Object::Route(*dst), format!("does not go through {ifname} any more"))
            }
            Difference::NoNeighbour { addr, .. } => {
                Damage::new(Object::Neighbour(ifname.clone(), *addr), "was removed or replaced")
            }
            Difference::Down(_) => Damage::new(Object::Device(ifname.clone()), "was set down"),
            Difference::Mtu { found, .. } => {
                Damage::new(Object::Device(ifname.clone()), format!("had MTU {found} and not {}", damaged.end.mtu))
            }
            other => Damage::new(Object::Device(ifname.clone()), format!("is not as it was made: {other}")),
        }
    };
    damaged.differences.iter().map(damage).collect()
}

fn v4(range: IpNet) -> Option<Ipv4Net> {
    match range {
        IpNet::V4(range) => Some(range),
        IpNet::V6(_) => None,
    }
}
