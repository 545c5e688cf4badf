//! Limits of pods' traffic: in force before the pod runs, changed with its annotations, mended where others broke them.

use std::{net::IpAddr, time::Duration};

use podnet_kernel::{
    cni_wire::{Failure, Request, host_ifname},
    fastpath::{Behind, FastPathError},
    netlink::{NetlinkError, RtSocket},
    nft::NftError,
    tc,
};
use podnet_model::{LinkName, Pod, PodKey, limits::PodLimits, limits::capability};
use podnet_planner::{
    ipam::Holder,
    limits::{Found, Shaping, beyond_annotations, effective, shaping, steps},
};
use serde_json::Value;
use tracing::{info, warn};

use super::{Attachment, Attachments, add::Asker, chain, limit_rules::counts};

/// Why a pod's limits stay as they were.
#[derive(Debug, thiserror::Error)]
pub enum LimitError {
    /// The kernel refused.
    #[error("cannot limit the traffic of {interface}")]
    Kernel {
        /// The node's end of the pod's link.
        interface: LinkName,
        /// Why.
        source: NetlinkError,
    },
    /// Its packets pass by what limits them.
    #[error("cannot lead the traffic of {interface} through its limits")]
    FastPath {
        /// The node's end of the pod's link.
        interface: LinkName,
        /// Why.
        source: Box<FastPathError>,
    },
    /// The rules could not be changed.
    #[error("cannot limit the packets and connections of pods")]
    Rules(#[from] NftError),
}

/// What became of a pod's changed limits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Limited {
    /// They are in force, or there is nothing to limit.
    InForce,
    /// An annotation is wrong; those of before stay in force.
    Refused {
        /// The pod's uid.
        uid: std::sync::Arc<str>,
        /// What is wrong.
        reason: String,
    },
}

/// The limits that a request comes with. Refused before anything is done for it: a pod whose limits are not understood must not run
/// without.
pub(super) fn wished_limits(request: &Request, pod: Option<&Pod>) -> Result<PodLimits, Failure> {
    let refused = |reason: String| Failure::new(Failure::INVALID_CONFIG, reason);
    // The runtime makes its values of the annotations: what is wrong is named by where people wrote it.
    if let Some((key, Err(error))) = pod.map(|pod| (&pod.key, &pod.limits)) {
        return Err(refused(format!("pod {key}: {error}")));
    }
    let given = request.config.pointer("/runtimeConfig/bandwidth").unwrap_or(&Value::Null);
    capability::limits(given).map_err(|error| refused(error.to_string()))
}

/// The limits of an attachment that is being made.
pub(super) struct NewLimits {
    shaping: Shaping,
    /// Its packets or connections are limited.
    counted: bool,
    /// Its packets have to pass the stack, whatever its limits: it is on a bridge, which the fast path knows nothing of.
    pub(super) passes_stack: bool,
    /// What is to be remembered: a value of the capability.
    pub(super) kept: Value,
}

/// How an attachment's traffic should be treated.
struct Wanted {
    shaping: Shaping,
    /// Its packets may pass by the stack, which is where they are held back and counted.
    may_pass: bool,
}

impl Attachments {
    /// The limits of a new attachment. Asked for when its address is recorded: a change of its pod's annotations that comes later
    /// finds the attachment and waits for its turn.
    pub(super) fn new_limits(&self, asker: &Asker) -> Result<NewLimits, Failure> {
        let annotated = match self.annotated(&asker.pod, &asker.uid).filter(|_| asker.in_cluster) {
            Some(annotated) => annotated.map_err(|error| Failure::new(Failure::INVALID_CONFIG, error))?,
            None => PodLimits::default(),
        };
        let kept = beyond_annotations(&annotated, &asker.given);
        let kept = if kept.is_empty() { Value::Null } else { capability::value(&kept) };
        let counted = counts(&annotated.ingress) || counts(&annotated.egress);
        let shaping = shaping(&effective(&annotated, &asker.given), self.pods.wanted_mtu());
        Ok(NewLimits { shaping, counted, passes_stack: false, kept })
    }

    /// Puts limits of a new interface in force. Nothing is there yet: no need to look.
    pub(super) fn limit_new(
        &self,
        attachment: &Attachment,
        addrs: &[IpAddr],
        limits: &NewLimits,
    ) -> Result<(), Failure> {
        let host = &attachment.host_ifname;
        if let Err(error) = self.count(host) {
            warn!(interface = %host, error = %chain(&error), "the flows of a pod are not recorded");
        }
        let steps = steps(&limits.shaping, &Found::default());
        let shaped = match steps.is_empty() {
            true => Ok(()),
            false => self.looking(host, |socket| tc::apply(socket, host, &steps)),
        };
        // An address may have been a limited pod's.
        let counted = limits.counted || addrs.iter().any(|addr| self.limit_rules.mentions(*addr));
        // Nothing can be at a new interface that would have to be taken away.
        let may_pass =
            self.pods.fast_path().is_on() && !limits.passes_stack && !limits.counted && shapes_nothing(&limits.shaping);
        shaped
            .and_then(|()| if counted { self.set_rules() } else { Ok(()) })
            .and_then(|()| if may_pass { self.follow(host, true) } else { Ok(()) })
            .map_err(|error| Failure::new(Failure::INTERFACE, chain(&error)))
    }

    /// Counts the flows at an interface, where flows are recorded.
    fn count(&self, host: &LinkName) -> Result<(), LimitError> {
        let counting = self.pods.fast_path().counting();
        if counting.flows().is_none() {
            return Ok(());
        }
        self.looking(host, |socket| {
            counting.follow(socket, host);
            Ok(())
        })
    }

    /// Lets the packets of an interface pass by the stack or not.
    fn follow(&self, host: &LinkName, may_pass: bool) -> Result<(), LimitError> {
        self.looking(host, |socket| {
            // An error of this one leaves the socket as it was.
            Ok(self.pods.fast_path().follow(socket, host, Behind::Pod, may_pass))
        })?
        .map_err(|source| LimitError::FastPath { interface: host.clone(), source: Box::new(source) })
    }

    /// Limits packets and connections as the annotations of all pods that are attached say now.
    fn set_rules(&self) -> Result<(), LimitError> {
        Ok(self.limit_rules.set(|known| {
            let limited = self.addresses.holders().into_iter().filter_map(|(addr, holder)| {
                let limits = match self.annotated(&holder.pod, &holder.uid) {
                    Some(Ok(limits)) => limits,
                    // Wrong, or of a pod that is about to go: those of before stay.
                    Some(Err(_)) | None => known.get(&addr)?.clone(),
                };
                Some((addr, limits))
            });
            limited.collect()
        })?)
    }

    /// Takes the limits of an address that is about to be free out of the rules.
    pub(super) fn forget_rules(&self, addr: IpAddr) {
        if let Err(error) = self.limit_rules.forget(addr) {
            warn!(%addr, error = &error as &dyn std::error::Error, "limits of a pod that is gone not removed; it is tried again");
        }
    }

    /// Brings a pod's attachments to what its annotations say now.
    ///
    /// # Errors
    ///
    /// When the kernel refuses; the rounds try again.
    pub fn limit_again(&self, pod: &PodKey) -> Result<Limited, LimitError> {
        for (_, holder) in self.addresses.holders().into_iter().filter(|(_, holder)| holder.pod == *pod) {
            if let Some(Err(reason)) = self.annotated(pod, &holder.uid) {
                return Ok(Limited::Refused { uid: holder.uid, reason });
            }
            self.reshape(&holder)?;
        }
        self.set_rules()?;
        Ok(Limited::InForce)
    }

    /// Brings all attachments to what they should be, and removes what serves none any more. It looks at all at once and then works
    /// only where something differs.
    ///
    /// # Errors
    ///
    /// When the kernel cannot be asked; what can be mended is.
    pub fn mend_limits(&self) -> Result<(), LimitError> {
        self.pods.fast_path().live();
        let holders: Vec<(LinkName, Holder)> =
            self.addresses.holders().into_iter().filter_map(|(_, holder)| named(holder)).collect();
        let hosts: Vec<LinkName> = holders.iter().map(|(host, _)| host.clone()).collect();
        let observed = self.looking(&"all pods".into(), |socket| tc::observe(socket, &hosts))?;
        for (host, holder) in &holders {
            let (Some(found), Some(wanted)) = (observed.links.get(host), self.wanted(holder)) else { continue };
            self.count(host)?;
            let differs = self.looking(host, |socket| {
                Ok(self.pods.fast_path().differs(socket, host, Behind::Pod, wanted.may_pass))
            })?;
            if (differs || !steps(&wanted.shaping, found).is_empty())
                && let Err(error) = self.reshape(holder)
            {
                warn!(pod = %holder.pod, error = %chain(&error), "limits not mended; it is tried again");
            }
        }
        for stray in &observed.strays {
            info!(device = %stray, "device for the traffic of a pod that is gone removed");
            self.looking(stray, |socket| tc::remove_stray(socket, stray))?;
        }
        self.limit_rules.verify()?;
        self.set_rules()
    }

    /// Whether an attachment's limits are as they should be, in words where not.
    pub(super) fn check_limits(&self, attachment: &Attachment) -> Result<Option<String>, LimitError> {
        let holder = self.addresses.holders().into_iter().find(|(_, holder)| holder.handle == attachment.handle);
        let Some((_, holder)) = holder else { return Ok(None) };
        let Some(wanted) = self.wanted(&holder) else { return Ok(None) };
        let host = &attachment.host_ifname;
        let passes_by = !wanted.may_pass
            && self.looking(host, |socket| Ok(self.pods.fast_path().differs(socket, host, Behind::Pod, false)))?;
        let found = self.looking(host, |socket| tc::find(socket, host))?;
        let differs = passes_by || found.is_some_and(|found| !steps(&wanted.shaping, &found).is_empty());
        Ok(differs.then(|| "its traffic is not limited as asked".to_owned()))
    }

    fn reshape(&self, holder: &Holder) -> Result<(), LimitError> {
        let _turn = self.turns.take(holder.handle.clone());
        // Detached since, or given anew to another life of the pod: not ours to touch then.
        let (Some((host, holder)), true) = (named(holder.clone()), !self.addresses.of(&holder.handle).is_empty())
        else {
            return Ok(());
        };
        let Some(wanted) = self.wanted(&holder) else { return Ok(()) };
        if !wanted.may_pass {
            self.follow(&host, false)?;
        }
        let done = self.looking(&host, |socket| {
            let Some(found) = tc::find(socket, &host)? else { return Ok(Vec::new()) };
            let steps = steps(&wanted.shaping, &found);
            tc::apply(socket, &host, &steps).map(|()| steps)
        })?;
        if !done.is_empty() {
            info!(pod = %holder.pod, interface = %host, ?done, "limits of a pod's traffic changed");
        }
        if wanted.may_pass { self.follow(&host, true) } else { Ok(()) }
    }

    /// How an attachment's traffic should be treated; none where that cannot be known, and so nothing is to be changed: its pod is
    /// unknown, or an annotation is wrong.
    fn wanted(&self, holder: &Holder) -> Option<Wanted> {
        let kept = self.records.of(&holder.handle).map(|record| record.bandwidth).unwrap_or_default();
        // It was refused at ADD where it was wrong.
        let given = capability::limits(&kept).unwrap_or_default();
        let annotated = match holder.pod.namespace.as_str() {
            "" => PodLimits::default(),
            _ => self.annotated(&holder.pod, &holder.uid)?.ok()?,
        };
        let shaping = shaping(&effective(&annotated, &given), self.pods.wanted_mtu());
        let counted = counts(&annotated.ingress) || counts(&annotated.egress);
        let is_on_bridge = self.records.of(&holder.handle).is_some_and(|record| record.bridge.is_some());
        Some(Wanted { may_pass: !is_on_bridge && !counted && shapes_nothing(&shaping), shaping })
    }

    /// The pod's own limits, or what is wrong with them; none where the pod is not known.
    fn annotated(&self, pod: &PodKey, uid: &str) -> Option<Result<PodLimits, String>> {
        let uid = Some(uid).filter(|uid| !uid.is_empty());
        let pod = self.view.pod(pod, uid, Duration::ZERO)?;
        Some(pod.limits.map_err(|error| error.to_string()))
    }

    fn looking<T>(
        &self,
        interface: &LinkName,
        work: impl FnOnce(&mut RtSocket) -> Result<T, NetlinkError>,
    ) -> Result<T, LimitError> {
        self.lending(|error| error, work).map_err(|source| LimitError::Kernel { interface: interface.clone(), source })
    }
}

fn shapes_nothing(shaping: &Shaping) -> bool {
    steps(shaping, &Found::default()).is_empty()
}

fn named(holder: Holder) -> Option<(LinkName, Holder)> {
    let (container_id, ifname) = holder.handle.as_str().rsplit_once('/')?;
    Some((host_ifname(container_id, ifname), holder))
}
