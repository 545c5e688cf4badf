//! How a pod's traffic is shaped: from the bits per second that were asked for to token buckets, and to what has to be changed.
//!
//! What goes to a pod waits in a token bucket (`tc-tbf(8)`) at the node's end of its link. What comes from it is led through a device
//! of its own (`ifb`), where it waits in another one: what arrives cannot be queued. Packets and connections are limited by [`rules`].

pub mod rules;

use podnet_model::{
    LinkName,
    limits::{Bandwidth, Limits, Peak, PodLimits},
};
use serde::{Deserialize, Serialize};

/// Ethernet's header, which the kernel counts and the asker does not.
const HEADER: u32 = 14;
/// What may pass at once after a pause, in milliseconds of the rate. It is the error of the rate over a time: 1 % over ten seconds. And
/// it bounds how late a busy node may come to send without losing bandwidth.
const BURST_MS: u64 = 100;
/// What may wait, in milliseconds of the rate: the delay that a full queue adds.
const QUEUE_MS: u64 = 100;
/// The fewest packets that may wait: TCP's initial window (RFC 6928) has to fit, or every connection begins with a loss.
const QUEUE_FRAMES: u32 = 10;
/// The most bytes that the kernel hands over as one packet, to be split by the device (`GSO_MAX_SIZE`, with headers).
const LARGEST_UNSPLIT: u32 = 66 << 10;
/// The most bytes that may wait. It is the kernel's memory.
const QUEUE_MOST: u64 = 32 << 20;
/// In what the kernel tells sizes of buckets, as times at their rates (`PSCHED_TICK2NS`).
const TICK_NS: u64 = 64;
/// The longest burst, in seconds of the rate: the kernel tells it in 32 bits of ticks, which end at 274 s.
const BURST_LONGEST: u64 = 250;

/// How one pod's traffic is shaped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shaping {
    /// What goes to the pod.
    pub ingress: Option<Bucket>,
    /// What comes from the pod.
    pub egress: Option<Bucket>,
}

/// A token bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bucket {
    /// Bytes per second, Ethernet headers included.
    pub rate: u64,
    /// Bytes that pass at once after a pause.
    pub burst: u32,
    /// Bytes that may wait; what does not fit is dropped.
    pub queue: u32,
    /// How fast a burst passes.
    pub peak: Option<PeakBucket>,
}

/// The bucket that bounds a burst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PeakBucket {
    /// Bytes per second, Ethernet headers included.
    pub rate: u64,
    /// Bytes that pass at once.
    pub burst: u32,
}

/// What is there of a pod's shaping.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Found {
    /// The bucket of what goes to the pod.
    pub ingress: Option<Bucket>,
    /// The bucket of what comes from the pod, where all that leads there is in order.
    pub egress: Option<Bucket>,
    /// Something is there that leads the pod's traffic away from its link, in order or not.
    pub diverted: bool,
}

/// One thing to do to a pod's shaping. Each is idempotent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Let what goes to the pod pass through this bucket.
    SetIngress(Bucket),
    /// Let it pass freely.
    RemoveIngress,
    /// Let what comes from the pod pass through this bucket.
    SetEgress(Bucket),
    /// Let it pass freely.
    RemoveEgress,
}

/// How a pod's traffic is shaped that is limited so, on a link with this MTU in bytes.
///
/// The rate asked for is taken to be that of IP packets. The kernel counts Ethernet frames, so the bucket's rate is the larger by the
/// header of a full packet: then both the interface's counters and the payload of a TCP transfer are within 5 % of what was asked.
#[must_use]
pub fn shaping(limits: &PodLimits, mtu: u32) -> Shaping {
    let bucket = |limits: &Limits| limits.bandwidth.map(|bandwidth| bucket(bandwidth, mtu));
    Shaping { ingress: bucket(&limits.ingress), egress: bucket(&limits.egress) }
}

fn bucket(bandwidth: Bandwidth, mtu: u32) -> Bucket {
    let frame = mtu.saturating_add(HEADER);
    // A packet that is larger than the bucket never passes. Two, so that a VLAN's tag or another MTU of a device between do no harm.
    let least = frame.saturating_mul(2);
    let rate = frames(bandwidth.rate, mtu);
    let burst = bandwidth.burst.map_or(rate.saturating_mul(BURST_MS) / 1000, |bits| bits / 8);
    let burst = bytes(burst.min(rate.saturating_mul(BURST_LONGEST))).max(least);
    let queue = bytes((rate.saturating_mul(QUEUE_MS) / 1000).min(QUEUE_MOST)).max(frame.saturating_mul(QUEUE_FRAMES));
    Bucket {
        rate,
        burst,
        // What is no larger than the burst waits unsplit; were the queue smaller, it would never pass.
        queue: queue.saturating_add(burst.min(LARGEST_UNSPLIT)),
        peak: bandwidth.peak.map(|Peak { rate, min_burst }| PeakBucket {
            rate: frames(rate, mtu),
            burst: min_burst.unwrap_or(least).max(frame),
        }),
    }
}

/// Bits per second of full IP packets, in bytes per second of their frames.
fn frames(bits: u64, mtu: u32) -> u64 {
    let mtu = mtu.max(1);
    let bytes = u128::from(bits) * u128::from(mtu + HEADER) / (8 * u128::from(mtu));
    u64::try_from(bytes).unwrap_or(u64::MAX).max(1)
}

fn bytes(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// The limits of an attachment: what the pod's annotations say, and for a direction's bandwidth that they leave open what the runtime
/// gave at ADD.
#[must_use]
pub fn effective(annotated: &PodLimits, given: &PodLimits) -> PodLimits {
    let direction = |annotated: &Limits, given: &Limits| Limits {
        bandwidth: annotated.bandwidth.or(given.bandwidth),
        ..annotated.clone()
    };
    PodLimits {
        ingress: direction(&annotated.ingress, &given.ingress),
        egress: direction(&annotated.egress, &given.egress),
    }
}

/// What of a runtime's limits is to be remembered for an attachment: a runtime makes its values of the same annotations, and those
/// may change or go later.
#[must_use]
pub fn beyond_annotations(annotated: &PodLimits, given: &PodLimits) -> PodLimits {
    let direction = |annotated: &Limits, given: &Limits| Limits {
        bandwidth: given.bandwidth.filter(|_| annotated.bandwidth.is_none()),
        ..Limits::default()
    };
    PodLimits {
        ingress: direction(&annotated.ingress, &given.ingress),
        egress: direction(&annotated.egress, &given.egress),
    }
}

/// What makes `wanted` of what is there; nothing where all is well.
#[must_use]
pub fn steps(wanted: &Shaping, found: &Found) -> Vec<Step> {
    let is = |wanted: Bucket, found: Option<Bucket>| found.is_some_and(|found| wanted.is(&found));
    let ingress = match wanted.ingress {
        Some(bucket) if is(bucket, found.ingress) => None,
        Some(bucket) => Some(Step::SetIngress(bucket)),
        None => found.ingress.map(|_| Step::RemoveIngress),
    };
    let egress = match wanted.egress {
        Some(bucket) if is(bucket, found.egress) => None,
        Some(bucket) => Some(Step::SetEgress(bucket)),
        None => found.diverted.then_some(Step::RemoveEgress),
    };
    ingress.into_iter().chain(egress).collect()
}

impl Bucket {
    /// Whether this is the bucket that the kernel shows: it keeps sizes as times, and so rounds them.
    #[must_use]
    pub fn is(&self, shown: &Self) -> bool {
        let near = |rate: u64, one: u32, other: u32| {
            let ticks = rate.saturating_mul(2 * TICK_NS) / 1_000_000_000;
            u64::from(one.abs_diff(other)) <= ticks + u64::from(one / 64) + 1
        };
        let peak = match (self.peak, shown.peak) {
            (None, None) => true,
            (Some(one), Some(other)) => one.rate == other.rate && near(one.rate, one.burst, other.burst),
            _ => false,
        };
        self.rate == shown.rate && self.queue == shown.queue && near(self.rate, self.burst, shown.burst) && peak
    }
}

/// What the names of pods' links begin with, and those of the devices that their traffic is led through.
/// How the names of links begin, those of the agent's and those of networks without one, and of the devices that serve them.
const PREFIXES: [(&str, &str); 2] = [("pn", "pb"), ("pc", "pd")];

/// The name of the device that a pod's traffic is led through, made of the name of the node's end of its link; none where that is no
/// name of a pod's link.
#[must_use]
pub fn egress_device(host: &LinkName) -> Option<LinkName> {
    let named = |(link, device)| Some(LinkName::from(format!("{device}{}", host.as_str().strip_prefix(link)?)));
    PREFIXES.into_iter().find_map(named)
}

/// The pod's link that a device of that name serves; none where it is no such name.
#[must_use]
pub fn served_by(egress: &LinkName) -> Option<LinkName> {
    let named = |(link, device)| {
        let rest = egress.as_str().strip_prefix(device)?;
        // As `host_ifname` makes them: another program's device must not be taken for ours.
        let ours = rest.len() == 12 && rest.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        ours.then(|| LinkName::from(format!("{link}{rest}")))
    };
    PREFIXES.into_iter().find_map(named)
}

#[cfg(test)]
mod tests;
