//! Port mappings (the capability `portMappings`).

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::InvalidConfig;
use crate::Protocol;

/// A port of the node that leads to a port of the attachment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PortMapping {
    /// The node's address that the port is on; an unspecified address means every address of the node that is of its family.
    pub host_ip: IpAddr,
    /// Transport protocol.
    pub protocol: Protocol,
    /// The node's port, 1–65535.
    pub host_port: u16,
    /// The attachment's port, 1–65535.
    pub container_port: u16,
}

impl PortMapping {
    /// Reads one entry of `portMappings`. One without `hostIP` is a mapping for each family of addresses.
    ///
    /// # Errors
    ///
    /// The first key whose value cannot be; `at` is where the entry stands.
    pub(super) fn parse(entry: &Value, at: &str) -> Result<Vec<Self>, InvalidConfig> {
        let wrong = |key: &str, allowed| InvalidConfig::Value {
            key: format!("{at}.{key}"),
            value: entry.get(key).map_or_else(|| "missing".to_owned(), Value::to_string),
            allowed,
        };
        let port = |key: &str| {
            let number = entry.get(key).and_then(Value::as_u64).and_then(|port| u16::try_from(port).ok());
            number.filter(|port| *port > 0).ok_or_else(|| wrong(key, "a port is a number from 1 to 65535"))
        };
        let protocol = match entry.get("protocol").map(|value| value.as_str().map(str::to_ascii_lowercase)) {
            None => Protocol::Tcp,
            Some(Some(name)) if name == "tcp" || name.is_empty() => Protocol::Tcp,
            Some(Some(name)) if name == "udp" => Protocol::Udp,
            Some(Some(name)) if name == "sctp" => Protocol::Sctp,
            Some(_) => return Err(wrong("protocol", "allowed are tcp, udp and sctp")),
        };
        let host_ips = match entry.get("hostIP").map(Value::as_str) {
            None | Some(Some("")) => vec![Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()],
            Some(text) => {
                let parsed = text.and_then(|text| text.parse().ok());
                vec![parsed.ok_or_else(|| wrong("hostIP", "an IP address of the node, or nothing for all of them"))?]
            }
        };
        let (host_port, container_port) = (port("hostPort")?, port("containerPort")?);
        Ok(host_ips.into_iter().map(|host_ip| Self { host_ip, protocol, host_port, container_port }).collect())
    }
}

impl fmt::Display for PortMapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host_ip {
            ip if ip.is_unspecified() => write!(f, "{}/{}", self.host_port, self.protocol),
            ip => write!(f, "{}:{}/{}", ip, self.host_port, self.protocol),
        }
    }
}
