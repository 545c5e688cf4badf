//! What others did to podnet's objects, in words, and when it is mended: at once, unless somebody keeps undoing it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
    time::Duration,
};

use ipnet::IpNet;
use podnet_model::{LinkName, Mac, wireguard::PublicKey};

use crate::step::{RouteTarget, Step};

/// One of podnet's objects in the kernel.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Object {
    /// A device: VXLAN, or the node's end of a pod's interface.
    Device(LinkName),
    /// A route, by its destination.
    Route(IpNet),
    /// A permanent neighbour.
    Neighbour(LinkName, IpAddr),
    /// An FDB entry.
    Fdb(LinkName, Mac),
    /// A peer of a WireGuard device, by its key.
    Peer(LinkName, PublicKey),
    /// A table of nf_tables.
    Table(String),
    /// A setting of the kernel (`sysctl(8)`).
    Setting(String),
    /// The rules that let pods' packets through somebody else's chain.
    Passage(String),
    /// Services' chains of iptables.
    Chains,
    /// Programs at sockets, and what they know.
    Programs,
}

impl Object {
    /// Every kind, as metrics name it.
    pub const KINDS: [&str; 10] =
        ["device", "route", "neighbour", "fdb", "peer", "table", "setting", "passage", "iptables", "sockets"];

    /// Its kind, one of [`Object::KINDS`].
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Device(_) => "device",
            Self::Route(_) => "route",
            Self::Neighbour(..) => "neighbour",
            Self::Fdb(..) => "fdb",
            Self::Peer(..) => "peer",
            Self::Table(_) => "table",
            Self::Setting(_) => "setting",
            Self::Passage(_) => "passage",
            Self::Chains => "iptables",
            Self::Programs => "sockets",
        }
    }

    /// What a step sets or removes.
    #[must_use]
    pub fn of(step: &Step) -> Self {
        match step {
            Step::SetVxlan(vxlan) => Self::Device(vxlan.name.clone()),
            Step::SetTunnel(tunnel) => Self::Device(tunnel.name().clone()),
            Step::SetPeer(peer) | Step::RemovePeer(peer) => Self::Peer(peer.device.clone(), peer.key),
            Step::RemoveLink(name) => Self::Device(name.clone()),
            Step::SetRoute(route) | Step::RemoveRoute(route) => Self::Route(route.dst),
            Step::SetNeighbour(entry) | Step::RemoveNeighbour(entry) => {
                Self::Neighbour(entry.device.clone(), entry.addr)
            }
            Step::SetFdb(entry) | Step::RemoveFdb(entry) => Self::Fdb(entry.device.clone(), entry.mac),
        }
    }
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Device(name) => write!(f, "device {name}"),
            Self::Route(dst) => write!(f, "route {dst}"),
            Self::Neighbour(device, addr) => write!(f, "neighbour {addr} on {device}"),
            Self::Fdb(device, mac) => write!(f, "FDB entry {mac} on {device}"),
            Self::Peer(device, key) => write!(f, "peer {key} of {device}"),
            Self::Table(name) => write!(f, "table {name}"),
            Self::Setting(key) => f.write_str(key),
            Self::Passage(chain) => write!(f, "chain {chain}"),
            Self::Chains => f.write_str("chains of Services"),
            Self::Programs => f.write_str("programs at sockets"),
        }
    }
}

/// What is wrong with an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The object.
    pub object: Object,
    /// What is wrong, as the end of a sentence that begins with the object: "was removed".
    pub what: String,
}

impl Damage {
    /// A damage in words.
    #[must_use]
    pub fn new(object: Object, what: impl Into<String>) -> Self {
        Self { object, what: what.into() }
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.object, self.what)
    }
}

/// Many damages in one line: the first ones, and how many more.
#[must_use]
pub fn summary(damages: &[Damage]) -> String {
    const NAMED: usize = 4;
    let named: Vec<String> = damages.iter().take(NAMED).map(ToString::to_string).collect();
    match damages.len().saturating_sub(NAMED) {
        0 => named.join("; "),
        more => format!("{}; and {more} more", named.join("; ")),
    }
}

/// These steps without those that are about one of the objects, and without those that stand on a device among them.
#[must_use]
pub fn without(mut steps: Vec<Step>, held: &BTreeSet<Object>) -> Vec<Step> {
    let stands_on_held = |step: &Step| {
        let device = device_under(step);
        device.is_some_and(|device| held.contains(&Object::Device(device.clone())))
    };
    steps.retain(|step| !held.contains(&Object::of(step)) && !stands_on_held(step));
    steps
}

/// The device that has to be there for what the step sets or removes.
fn device_under(step: &Step) -> Option<&LinkName> {
    match step {
        Step::SetRoute(route) | Step::RemoveRoute(route) => match &route.target {
            RouteTarget::Device(device) | RouteTarget::OnLink { device, .. } => Some(device),
            RouteTarget::Via(_) | RouteTarget::Blackhole => None,
        },
        Step::SetNeighbour(entry) | Step::RemoveNeighbour(entry) => Some(&entry.device),
        Step::SetFdb(entry) | Step::RemoveFdb(entry) => Some(&entry.device),
        Step::SetPeer(peer) | Step::RemovePeer(peer) => Some(&peer.device),
        Step::SetVxlan(_) | Step::SetTunnel(_) | Step::RemoveLink(_) => None,
    }
}

/// How often an object is mended at once.
pub const FREE: u32 = 8;
/// The first pause after that; it doubles up to the longest.
pub const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// The longest pause.
pub const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// An object that stayed whole for so long is mended at once again.
pub const QUIET: Duration = Duration::from_secs(30);

/// When each object is mended. An object that somebody keeps undoing is mended ever less often, so that two programs that want
/// different things do not occupy the machine; every other object is mended at once all the same.
///
/// Times are what has passed since a moment of the caller's choice.
#[derive(Clone, Debug, Default)]
pub struct Limiter {
    past: BTreeMap<Object, Past>,
}

#[derive(Clone, Copy, Debug)]
struct Past {
    times: u32,
    last: Duration,
}

/// Whether an object is mended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Now, and noted.
    Now,
    /// At this time at the earliest.
    At(Duration),
}

impl Limiter {
    /// Whether the object may be mended now. One that may is noted as mended.
    pub fn admit(&mut self, object: &Object, now: Duration) -> Admission {
        let past = self.past.get(object).filter(|past| now.saturating_sub(past.last) < QUIET + pause(past.times));
        let (times, last) = past.map_or((0, now), |past| (past.times, past.last));
        let at = last + pause(times);
        if times >= FREE && now < at {
            return Admission::At(at);
        }
        self.past.insert(object.clone(), Past { times: times + 1, last: now });
        Admission::Now
    }

    /// Whether the object has been mended so often that it waits now.
    #[must_use]
    pub fn is_contested(&self, object: &Object) -> bool {
        self.past.get(object).is_some_and(|past| past.times > FREE)
    }

    /// Forgets what stayed whole.
    pub fn forget_quiet(&mut self, now: Duration) {
        self.past.retain(|_, past| now.saturating_sub(past.last) < QUIET + pause(past.times));
    }
}

/// The pause after so many repairs.
fn pause(times: u32) -> Duration {
    match times.checked_sub(FREE) {
        None => Duration::ZERO,
        Some(beyond) => FIRST_PAUSE.saturating_mul(1 << beyond.min(16)).min(LONGEST_PAUSE),
    }
}

#[cfg(test)]
mod tests;
