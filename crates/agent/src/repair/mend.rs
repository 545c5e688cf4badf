//! Looking at what is suspected, and mending what differs from the plan.

mod host;
mod rules;

use std::{collections::BTreeSet, net::IpAddr, time::Instant};

use podnet_kernel::{
    datapath::{Datapath, KernelDatapath},
    executor::StepFailed,
    link,
    netlink::NetlinkError,
    nft::NftError,
    pod_interface::{
        self, Difference, HostEnd,
        host_end::{self, Damaged},
    },
    sysctl::SysctlError,
};
use podnet_model::LinkName;
use podnet_planner::{
    overlay::{self, Overlay},
    repair::{Admission, Damage, Object, summary, without},
};
use tracing::{debug, warn};

use super::{Repair, Suspicion};
use crate::{network::rules::ClusterRules, proxy::mode::RulesError, underlay::UnderlayError};

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
    Rules(#[from] RulesError),
    /// nf_tables cannot be asked.
    #[error("cannot look at the rules")]
    Nftables(#[from] NftError),
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
    pub(crate) fn mend(
        &mut self,
        datapath: &mut KernelDatapath,
        overlay: &Overlay,
        rules: &mut ClusterRules,
    ) -> Result<(), MendError> {
        let now = Instant::now();
        self.limiter.forget_quiet(now.duration_since(self.began));
        let mut suspicion = std::mem::take(&mut self.suspicion);
        if self.held_until.is_some_and(|until| until <= now) {
            self.held_until = None;
            suspicion.join(std::mem::take(&mut self.held));
        }
        match suspicion.compare.filter(|due| *due <= now) {
            None => self.suspicion.compare = suspicion.compare,
            // Nothing is known to be wrong.
            due => suspicion.rules = suspicion.rules.or(due),
        }
        self.suspicion.passage_seen = suspicion.passage_seen;
        self.suspicion.underlay = suspicion.underlay;
        let mut mended = Vec::new();
        let outcome = self.mend_parts(datapath, overlay, rules, &mut suspicion, &mut mended);
        let first = [
            suspicion.overlay,
            suspicion.pods,
            suspicion.rules,
            suspicion.elements,
            suspicion.pod_rules,
            suspicion.settings,
            suspicion.passage,
        ];
        let elapsed = first.into_iter().flatten().min().map_or_else(Default::default, |since| since.elapsed());
        if mended.is_empty() {
            if outcome.is_ok() {
                debug!(heard = suspicion.heard.join("; "), ?elapsed, "looked at what is there; it is as planned");
            }
            return outcome;
        }
        self.counts.repaired(&mended);
        let (what, heard) = (summary(&mended), suspicion.heard.join("; "));
        warn!(what, heard, elapsed_ms = elapsed.as_millis() as u64, "mended what somebody else damaged");
        outcome
    }

    /// An obstacle in one part does not keep the others from being mended: that part waits until it is tried again, and the first error is
    /// told.
    fn mend_parts(
        &mut self,
        datapath: &mut KernelDatapath,
        overlay: &Overlay,
        rules: &mut ClusterRules,
        suspicion: &mut Suspicion,
        mended: &mut Vec<Damage>,
    ) -> Result<(), MendError> {
        let mut failed = Suspicion::default();
        let mut first = self.relist_devices(datapath);
        let mut note = |since: Instant, done: Result<(), MendError>| {
            let since = done.is_err().then_some(since);
            let before = std::mem::replace(&mut first, Ok(()));
            first = before.and(done);
            since
        };
        if let Some(since) = suspicion.overlay {
            failed.overlay = note(since, self.mend_overlay(datapath, overlay, since, mended));
        }
        if let Some(since) = suspicion.pods {
            failed.pods = note(since, self.mend_pods(datapath, since, mended));
        }
        if let Some(since) = suspicion.rules {
            failed.rules = note(since, self.mend_rules(datapath, rules, since, suspicion.rules_touched, mended));
        } else if let Some(since) = suspicion.elements {
            let touched = std::mem::take(&mut suspicion.touched);
            failed.rules = note(since, self.mend_elements(datapath, rules, since, touched, mended));
        }
        if let Some(since) = suspicion.pod_rules {
            failed.pod_rules = note(since, self.mend_pod_rules(since, suspicion.rules_touched, mended));
        }
        failed.rules_touched = suspicion.rules_touched && (failed.rules.is_some() || failed.pod_rules.is_some());
        if let Some(since) = suspicion.settings {
            failed.settings = note(since, self.mend_settings(overlay, suspicion, since, mended));
            if failed.settings.is_some() {
                failed.settings_of.clone_from(&suspicion.settings_of);
                failed.settings_of_all_pods = suspicion.settings_of_all_pods;
            }
        }
        if let Some(since) = suspicion.passage {
            self.suspicion.passage_seen = Some(Instant::now());
            let before = mended.len();
            failed.passage = note(since, self.mend_passage(datapath, overlay, since, mended));
            failed.passage_by.clone_from(&suspicion.passage_by);
            if mended.len() > before && !suspicion.passage_by.is_empty() {
                suspicion.heard.push(format!("{} changed other rules", suspicion.passage_by));
            }
        }
        self.refused.join(failed);
        first
    }

    /// Where notices were lost, devices may have other names and indices than was heard.
    fn relist_devices(&mut self, datapath: &mut KernelDatapath) -> Result<(), MendError> {
        if self.devices_unknown {
            let links = link::list(datapath.route_socket())?;
            self.devices = links.into_iter().map(|link| (link.index, link.name)).collect();
            self.devices_unknown = false;
        }
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
        mended: &mut Vec<Damage>,
    ) -> Result<(), MendError> {
        let devices = overlay.config().vxlan_names();
        let observed = overlay::State::from(datapath.observe(&devices)?);
        let mut steps = self.pods.without_theirs(overlay.repair(&observed));
        let (of_devices, others): (Vec<_>, Vec<_>) =
            overlay.damages(&observed).into_iter().partition(|damage| matches!(damage.object, Object::Device(_)));
        let mut held = BTreeSet::new();
        let mut admitted = Vec::new();
        for damages in [of_devices, others] {
            // Nothing can stand on a device that has to wait: it is neither mended nor counted before that.
            let possible: BTreeSet<Object> = steps.iter().map(Object::of).collect();
            for damage in damages.into_iter().filter(|damage| possible.contains(&damage.object)) {
                if self.admit(&damage) {
                    admitted.push(damage);
                } else {
                    held.insert(damage.object);
                }
            }
            steps = without(steps, &held);
        }
        if !held.is_empty() {
            self.held.overlay = Some(since);
        }
        if !datapath.apply(&steps)?.remade.is_empty() {
            let observed = overlay::State::from(datapath.observe(&devices)?);
            datapath.apply(&without(self.pods.without_theirs(overlay.repair(&observed)), &held))?;
        }
        mended.extend(admitted);
        Ok(())
    }

    fn mend_pods(
        &mut self,
        datapath: &mut KernelDatapath,
        since: Instant,
        mended: &mut Vec<Damage>,
    ) -> Result<(), MendError> {
        let mut first = self.mend_bridges(datapath, since, mended);
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
                let done = damaged.mend(datapath.route_socket());
                if !self.pods.contains(ifname) {
                    // A DEL came in between, and what is on a bridge does not go with the device.
                    first = first.and(close_again(datapath, &damaged.end));
                    continue;
                }
                match done {
                    Ok(()) => mended.extend(admitted),
                    // The other pods do not wait for this one.
                    Err(error) => first = first.and(Err(error.into())),
                }
            }
        }
        first
    }

    /// Pods' ports and ways are looked at after the bridges that they are on.
    fn mend_bridges(
        &mut self,
        datapath: &mut KernelDatapath,
        since: Instant,
        mended: &mut Vec<Damage>,
    ) -> Result<(), MendError> {
        let mut is_damaged = false;
        for bridge in self.pods.bridges().into_values() {
            let differences = bridge.differences(datapath.route_socket())?;
            let damages = differences.iter().map(|difference| damage(&bridge.name, bridge.mtu, difference));
            let (admitted, held): (Vec<_>, Vec<_>) = damages.partition(|damage| self.admit(damage));
            if !held.is_empty() {
                self.held.pods = Some(since);
            }
            is_damaged |= !admitted.is_empty();
            mended.extend(admitted);
        }
        if is_damaged {
            self.pods.mend_bridges(datapath.route_socket());
        }
        Ok(())
    }

    /// With its device a pod lost its end too, which only the runtime can make anew.
    fn tell_lost(&mut self, ifname: &LinkName) {
        if self.lost.insert(ifname.clone()) {
            warn!(device = %ifname, "a pod's device was deleted; the pod has no network until its sandbox is made anew");
        }
    }
}

fn close_again(datapath: &mut KernelDatapath, end: &HostEnd) -> Result<(), MendError> {
    let Some(on) = &end.bridge else { return Ok(()) };
    let cut = |addr: &IpAddr| pod_interface::cut_off(datapath.route_socket(), *addr, Some(&on.bridge));
    Ok(end.addrs.iter().try_for_each(cut)?)
}

fn damages(damaged: &Damaged) -> Vec<Damage> {
    damaged.differences.iter().map(|difference| damage(&damaged.end.ifname, damaged.end.mtu, difference)).collect()
}

fn damage(ifname: &LinkName, mtu: u32, difference: &Difference) -> Damage {
    match difference {
        Difference::NoRoute { dst, .. } => {
            Damage::new(Object::Route(*dst), format!("does not go through {ifname} any more"))
        }
        Difference::NoNeighbour { addr, .. } => {
            Damage::new(Object::Neighbour(ifname.clone(), *addr), "was removed or replaced")
        }
        Difference::Down(_) => Damage::new(Object::Device(ifname.clone()), "was set down"),
        Difference::Mtu { found, .. } => {
            Damage::new(Object::Device(ifname.clone()), format!("had MTU {found} and not {mtu}"))
        }
        other => Damage::new(Object::Device(ifname.clone()), format!("is not as it was made: {other}")),
    }
}
