//! What a container runtime asks of a network plugin (CNI specification 1.1.0, and its conventions for `runtimeConfig` and
//! `CNI_ARGS`).
//!
//! - [`Wishes`]: what one attachment shall be like, from all the places where a runtime may say so
//! - [`PortMapping`]: a port of the node that leads to the attachment
//! - [`hosts_file`]: the names of attachments
//! - [`Mode`]: how the attachments of a network are joined
//! - [`LocalIpam`]: ranges of addresses of this machine alone, as the `host-local` plugin has them
//! - [`InvalidConfig`]: what is wrong with a configuration, with the specification's code

mod error;
mod hosts;
mod mode;
mod ports;
mod ranges;
mod wishes;

pub use error::InvalidConfig;
pub use hosts::hosts_file;
pub use mode::{Bridge, MODE_KEYS, Macvlan, MacvlanKind, Mode};
pub use ports::PortMapping;
pub use ranges::{AskedRoute, Choice, LocalIpam, Range, choose};
pub use wishes::{Dns, Wishes};

use serde_json::{Map, Value};

/// Keys that any network configuration may have: the specification's, and those that its libraries write.
const KNOWN: [&str; 15] = [
    "cniVersion",
    "cniVersions",
    "name",
    "type",
    "capabilities",
    "args",
    "ipMasq",
    "ipam",
    "dns",
    "runtimeConfig",
    "prevResult",
    "disableCheck",
    "disableGC",
    "loadOnlyInlinedPlugins",
    "mtu",
];

/// Refuses keys that nobody would heed: what is misspelt would otherwise be silently without effect.
///
/// # Errors
///
/// The first key that is neither the specification's, nor begins with `cni.dev/`, nor is among `own`.
pub fn check_keys(config: &Map<String, Value>, own: &[&str]) -> Result<(), InvalidConfig> {
    let known = |key: &str| KNOWN.contains(&key) || own.contains(&key) || key.starts_with("cni.dev/");
    match config.iter().find(|(key, _)| !known(key)) {
        None => Ok(()),
        Some((key, value)) => {
            let own = own.iter().chain(&["mtu", "ipam", "dns", "capabilities"]).copied().collect::<Vec<_>>().join(", ");
            Err(InvalidConfig::UnknownKey { key: key.clone(), value: value.to_string(), known: own })
        }
    }
}

#[cfg(test)]
mod tests;
