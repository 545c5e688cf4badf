//! Limits of a pod's traffic: what its annotations and its runtime ask for.
//!
//! - [`annotations`]: `kubernetes.io/*-bandwidth` and `qos.projectcalico.org/*`
//! - [`capability`]: the value of the CNI capability `bandwidth`

pub mod annotations;
pub mod capability;

use crate::quantity;

/// The slowest and the fastest bandwidth, in bits per second, as Kubernetes has them (`pkg/util/bandwidth`): less is a mistake in the
/// unit, and no link has more.
pub const BANDWIDTH: std::ops::RangeInclusive<u64> = 1_000..=1_000_000_000_000_000;

/// How a pod's traffic is limited.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodLimits {
    /// What goes to the pod.
    pub ingress: Limits,
    /// What comes from the pod.
    pub egress: Limits,
}

impl PodLimits {
    /// Nothing is limited.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Limits of one direction; none means no limit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Bits.
    pub bandwidth: Option<Bandwidth>,
    /// Packets.
    pub packets: Option<PacketRate>,
    /// Connections that are open at once.
    pub connections: Option<u32>,
}

/// A bandwidth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bandwidth {
    /// Bits per second, within [`BANDWIDTH`].
    pub rate: u64,
    /// Bits that may pass at once after a pause; none leaves it to podnet.
    pub burst: Option<u64>,
    /// Bits per second that even a burst does not exceed; more than `rate`.
    pub peak: Option<Peak>,
}

/// The bounds of a burst.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peak {
    /// Bits per second.
    pub rate: u64,
    /// Bytes that pass at once at the peak rate; none leaves it to podnet.
    pub min_burst: Option<u32>,
}

/// A rate of packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PacketRate {
    /// Packets per second, at least 1.
    pub rate: u32,
    /// Packets that may pass at once after a pause, at least 1.
    pub burst: u32,
}

/// Why limits cannot be taken over.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidLimit {
    /// A value is no quantity or out of range.
    #[error("{place} is {value:?}; it must be {allowed}")]
    Value {
        /// The annotation or key.
        place: String,
        /// Its value.
        value: String,
        /// What it must be.
        allowed: &'static str,
    },
    /// It says more about a limit that is not there.
    #[error("{place} needs {needed} beside it")]
    Alone {
        /// The annotation or key.
        place: String,
        /// What is missing.
        needed: String,
    },
    /// The peak is below what it is the peak of.
    #[error("{place} is {value:?}; it must be more than the bandwidth, which is {bandwidth} bits per second")]
    Peak {
        /// The annotation.
        place: String,
        /// Its value.
        value: String,
        /// The bandwidth.
        bandwidth: u64,
    },
}

/// What a kind of value may be.
struct Allowed {
    least: u64,
    most: u64,
    words: &'static str,
}

const BANDWIDTHS: Allowed = Allowed {
    least: *BANDWIDTH.start(),
    most: *BANDWIDTH.end(),
    words: "a quantity of bits per second from 1k to 1P, such as 10M",
};

/// The most is what the kernel's token bucket holds: 2³² - 1 bytes.
const BURSTS: Allowed =
    Allowed { least: 1_000, most: 34_359_738_360, words: "a quantity of bits from 1k to 34359738360, such as 1M" };

impl Allowed {
    fn read(&self, place: &str, text: &str) -> Result<u64, InvalidLimit> {
        let value = quantity::whole(text.trim()).and_then(|value| u64::try_from(value).ok());
        self.check(place, text, value)
    }

    fn check(&self, place: &str, text: &str, value: Option<u64>) -> Result<u64, InvalidLimit> {
        value.filter(|value| (self.least..=self.most).contains(value)).ok_or_else(|| InvalidLimit::Value {
            place: place.to_owned(),
            value: text.to_owned(),
            allowed: self.words,
        })
    }
}
