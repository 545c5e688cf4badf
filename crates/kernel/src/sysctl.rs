//! Settings of a network namespace (`/proc/sys/net`, `sysctl(8)`).

use std::{fs, io, path::Path};

use crate::netns::{NetNs, NetNsError};

/// Whether the kernel has IPv6: it may be started without it, and has none of its settings then.
#[must_use]
pub fn has_ipv6() -> bool {
    Path::new("/proc/sys/net/ipv6").exists()
}

/// Sets a value in a namespace. `key` is dotted (`net.ipv4.ip_forward`) or, where a device's name may hold a dot, slashed
/// (`net/ipv4/conf/eth0.7/rp_filter`), as in `sysctl(8)`.
///
/// # Errors
/// Where the namespace cannot be entered, there is no such setting, or the kernel does not take the value.
pub fn set(netns: &NetNs, key: &str, value: &str) -> Result<(), SysctlError> {
    netns.run(|| set_here(key, value))?
}

/// Sets a value in the calling thread's namespace.
///
/// # Errors
/// As [`set`].
pub fn set_here(key: &str, value: &str) -> Result<(), SysctlError> {
    fs::write(path(key), value).map_err(|source| SysctlError::Set {
        key: key.to_owned(),
        value: value.to_owned(),
        source,
    })
}

/// Lets a device of a namespace have IPv6, where the namespace's default or somebody else keeps new devices from it. Done also where the
/// kernel has no IPv6, or the device none.
///
/// # Errors
/// Where the namespace cannot be entered or the kernel does not take the value.
pub fn allow_ipv6(netns: &NetNs, device: &str) -> Result<(), SysctlError> {
    let key = format!("net/ipv6/conf/{device}/disable_ipv6");
    netns.run(|| match read_here(&key) {
        Ok(value) if value != "0" => set_here(&key, "0"),
        _ => Ok(()),
    })?
}

/// A namespace's value, without the line's end.
///
/// # Errors
/// Where the namespace cannot be entered or there is no such setting.
pub fn read(netns: &NetNs, key: &str) -> Result<String, SysctlError> {
    netns.run(|| read_here(key))?
}

/// The value in the calling thread's namespace.
///
/// # Errors
/// As [`read`].
pub fn read_here(key: &str) -> Result<String, SysctlError> {
    fs::read_to_string(path(key))
        .map(|value| value.trim_end().to_owned())
        .map_err(|source| SysctlError::Read { key: key.to_owned(), source })
}

/// Whether what passes the bridges of a namespace is shown to rules, to those of IPv4 and to those of IPv6.
const SHOWN: [&str; 2] = ["net.bridge.bridge-nf-call-iptables", "net.bridge.bridge-nf-call-ip6tables"];

/// Whether what passes the bridges of a namespace is shown to rules of IPv4, and to those of IPv6 (`br_netfilter`). A kernel without that, which
/// has no such settings, shows nothing.
#[must_use]
pub fn shows_bridged(netns: &NetNs) -> [bool; 2] {
    SHOWN.map(|key| read(netns, key).is_ok_and(|value| value != "0"))
}

fn path(key: &str) -> String {
    let key = if key.contains('/') { key.to_owned() } else { key.replace('.', "/") };
    format!("/proc/sys/{key}")
}

/// Why a setting could not be set or read.
#[derive(Debug, thiserror::Error)]
pub enum SysctlError {
    /// It cannot be set.
    #[error("cannot set {key} to {value}")]
    Set {
        /// The setting.
        key: String,
        /// The value.
        value: String,
        /// Why.
        source: io::Error,
    },
    /// It cannot be read.
    #[error("cannot read {key}")]
    Read {
        /// The setting.
        key: String,
        /// Why.
        source: io::Error,
    },
    /// The namespace cannot be entered.
    #[error(transparent)]
    Namespace(#[from] NetNsError),
}

impl SysctlError {
    /// There is no such setting.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        match self {
            Self::Set { source, .. } | Self::Read { source, .. } => source.kind() == io::ErrorKind::NotFound,
            Self::Namespace(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TestNs;

    #[test]
    fn a_setting_belongs_to_its_namespace() {
        let (one, other) = (TestNs::new("sysctl-a"), TestNs::new("sysctl-b"));
        set(&one, "net.ipv4.ip_forward", "1").unwrap();
        set(&other, "net.ipv4.ip_forward", "0").unwrap();
        assert_eq!(read(&one, "net.ipv4.ip_forward").unwrap(), "1");
        assert_eq!(read(&other, "net/ipv4/ip_forward").unwrap(), "0");
    }

    #[test]
    fn what_passes_bridges_is_shown_to_rules_of_each_family_by_its_setting() {
        let namespace = TestNs::new("sysctl-d");
        for wanted in [[false, true], [true, false], [false, false]] {
            let mut expected = [false; 2];
            for ((key, shown), expected) in SHOWN.iter().zip(wanted).zip(&mut expected) {
                // A kernel without br_netfilter has no such setting.
                *expected = set(&namespace, key, if shown { "1" } else { "0" }).is_ok() && shown;
            }
            assert_eq!(shows_bridged(&namespace), expected);
        }
    }

    #[test]
    fn an_unknown_setting_is_named_by_the_error() {
        let namespace = TestNs::new("sysctl-c");
        let error = set(&namespace, "net.ipv4.no_such_setting", "1").unwrap_err();
        assert_eq!(error.to_string(), "cannot set net.ipv4.no_such_setting to 1");
    }
}
