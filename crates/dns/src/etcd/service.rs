//! What one key says.

use std::{net::IpAddr, str::FromStr};

use serde::{Deserialize, Deserializer, de::Error as _};

use super::{Entry, place::segments};
use crate::{chain::EtcdOptions, name::Name};

/// The priority of what has none.
const PRIORITY: u16 = 10;
/// The time to live of what has none and no lease either, in seconds.
const TTL: u32 = 300;
/// The most labels that are taken off a target.
const MAX_STRIP: usize = 127;

/// What a key says of its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Where it is.
    pub host: Host,
    /// Its port, where it has one.
    pub port: u16,
    /// The lower, the sooner it is taken (SRV), and the preference of a mail exchanger (MX); 10 where nothing is said.
    pub priority: u16,
    /// Its share among those with its priority; 0: the usual one.
    pub weight: u16,
    /// Text.
    pub text: String,
    /// It takes mail.
    pub mail: bool,
    /// Seconds for which it may be kept.
    pub ttl: u32,
    /// The name that its key spells, less what `targetstrip` takes off; none where the key spells no name.
    pub own: Option<Name>,
    group: String,
    depth: usize,
    strip: usize,
}

/// Where a service is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// At an address.
    Address(IpAddr),
    /// Where another name is.
    Alias(Name),
    /// Nowhere: it only says something.
    Text,
}

/// Why a value says nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the value of {key} is no record: {reason}")]
pub struct BadService {
    /// Its key.
    pub key: String,
    /// What is wrong with it.
    pub reason: String,
}

/// The value, as SkyDNS defines it. What else it says is not for DNS.
#[derive(Deserialize)]
#[serde(default)]
#[derive(Default)]
struct Value {
    host: String,
    #[serde(deserialize_with = "number")]
    port: u16,
    #[serde(deserialize_with = "number")]
    priority: u16,
    #[serde(deserialize_with = "number")]
    weight: u16,
    text: String,
    mail: bool,
    #[serde(deserialize_with = "number")]
    ttl: u32,
    #[serde(deserialize_with = "number")]
    targetstrip: usize,
    group: String,
}

/// CoreDNS's documentation has numbers as strings, too.
fn number<'de, D: Deserializer<'de>, N: FromStr + TryFrom<u64>>(from: D) -> Result<N, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Number {
        Plain(u64),
        Text(String),
    }
    let number = match Number::deserialize(from)? {
        Number::Plain(number) => N::try_from(number).ok(),
        Number::Text(text) => text.parse().ok(),
    };
    number.ok_or_else(|| D::Error::custom("a number is out of its range"))
}

impl Service {
    /// Reads an entry.
    ///
    /// # Errors
    /// When its value is not what SkyDNS defines.
    pub fn read(entry: &Entry, options: &EtcdOptions) -> Result<Self, BadService> {
        let bad = |reason: String| BadService { key: String::from_utf8_lossy(&entry.key).into_owned(), reason };
        let value: Value = serde_json::from_slice(&entry.value).map_err(|error| bad(error.to_string()))?;
        let host = match value.host.parse::<IpAddr>() {
            Ok(address) => Host::Address(address),
            // What has text and no address is there for its text.
            Err(_) if !value.text.is_empty() || value.host.is_empty() => Host::Text,
            Err(_) => Host::Alias(Name::parse(&value.host).map_err(|error| bad(error.to_string()))?),
        };
        let path = options.path.trim_end_matches('/').len();
        Ok(Self {
            host,
            port: value.port,
            priority: if value.priority == 0 { PRIORITY } else { value.priority },
            weight: value.weight,
            text: value.text,
            mail: value.mail,
            ttl: ttl(value.ttl, entry.lease, options.lease_ttl),
            own: spelled(&entry.key, path).map(|name| stripped(name, value.targetstrip)),
            group: value.group,
            depth: segments(&entry.key, path).count(),
            strip: value.targetstrip,
        })
    }

    /// The name that others are sent to: the host's, or that of the key where the host is an address.
    #[must_use]
    pub fn target(&self) -> Option<Name> {
        match &self.host {
            Host::Address(_) => self.own.clone(),
            Host::Alias(name) => Some(stripped(name.clone(), self.strip)),
            Host::Text => None,
        }
    }

    /// Whether it counts where `text` is asked for, or something else: what has no host has nothing but its text.
    #[must_use]
    pub fn counts(&self, text: bool) -> bool {
        self.host != Host::Text || (text && !self.text.is_empty())
    }
}

/// The shorter of what the value and its lease say, the lease within its bounds.
fn ttl(own: u32, lease: Option<u32>, (least, most): (u32, u32)) -> u32 {
    let lease = lease.map(|left| left.min(most).max(least));
    match (own, lease) {
        (0, None) => TTL,
        (0, Some(lease)) => lease,
        (own, lease) => lease.map_or(own, |lease| lease.min(own)),
    }
}

/// The name that a key spells.
fn spelled(key: &[u8], path: usize) -> Option<Name> {
    segments(key, path).try_fold(Name::root(), |name, label| name.child(std::str::from_utf8(label).ok()?).ok())
}

/// The name without so many labels; the whole name where it has not more.
fn stripped(name: Name, labels: usize) -> Name {
    if labels >= name.labels() {
        return name;
    }
    let parent = |name: Name, _| name.parent().unwrap_or(name);
    (0..labels.min(MAX_STRIP)).fold(name, parent)
}

/// Those that are told together: where the shortest keys name one group, it and what is in none; otherwise all.
#[must_use]
pub fn grouped(mut services: Vec<Service>) -> Vec<Service> {
    let Some(least) = services.iter().map(|service| service.depth).min() else { return services };
    let mut named = services.iter().filter(|service| service.depth == least && !service.group.is_empty());
    let Some(group) = named.next().map(|service| service.group.clone()) else { return services };
    if named.all(|service| service.group == group) {
        services.retain(|service| service.group.is_empty() || service.group == group);
    }
    services
}
