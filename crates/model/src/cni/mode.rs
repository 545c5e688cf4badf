//! How containers of a network are joined: by a routed link each, or on a shared Ethernet segment.
//!
//! The keys of a segment are those of the `bridge` and `macvlan` plugins, with their meaning and their defaults, but for two: the one
//! that chooses between them (`mode`) is podnet's, so macvlan's own `mode` is `macvlanMode` here; and `macspoofchk` is true where it is
//! not given, and is about addresses of IP, ARP and ND as well as of Ethernet. Who has addresses in a container that the network did not
//! give it (VRRP, machines or bridges within, DHCP, a chained plugin that changes them) says `"macspoofchk": false`.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::InvalidConfig;
use crate::LinkName;

/// The keys of modes, beside which a network has those that every mode has.
pub const MODE_KEYS: [&str; 9] = [
    "mode",
    "bridge",
    "isGateway",
    "isDefaultGateway",
    "forceAddress",
    "hairpinMode",
    "macspoofchk",
    "master",
    "macvlanMode",
];

const BRIDGE_KEYS: [&str; 6] =
    ["bridge", "isGateway", "isDefaultGateway", "forceAddress", "hairpinMode", "macspoofchk"];
const MACVLAN_KEYS: [&str; 2] = ["master", "macvlanMode"];
const DEFAULT_BRIDGE: &str = "cni0";

/// How a network joins its containers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Each has a link of its own to the node, which routes (`veth`).
    #[default]
    Routed,
    /// They are ports of a bridge of the node.
    Bridge(Bridge),
    /// They share one of the node's devices with it, by Ethernet addresses of their own.
    Macvlan(Macvlan),
}

/// The keys of mode `bridge`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a key of the configuration")]
pub struct Bridge {
    /// The bridge, which is made where there is none.
    pub name: LinkName,
    /// The bridge has the gateway's address of each subnet.
    pub is_gateway: bool,
    /// The gateway is the containers' way to everything.
    pub is_default_gateway: bool,
    /// An address of the bridge that is in the way of the gateway's is removed.
    pub force_address: bool,
    /// A port gets back what it sent, where that is for itself.
    pub hairpin: bool,
    /// What a container sends must have its addresses (`macspoofchk`).
    pub senders_checked: bool,
}

/// The keys of mode `macvlan`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Macvlan {
    /// The node's device; none stands for the one of the default route.
    pub master: Option<LinkName>,
    /// Who reaches whom.
    pub kind: MacvlanKind,
}

/// Who reaches whom through one device (`ip-link(8)`, macvlan).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MacvlanKind {
    /// Containers reach each other within the node.
    #[default]
    Bridge,
    /// Containers of one device do not reach each other.
    Private,
    /// By the switch that the device leads to, which has to send back.
    Vepa,
    /// The one container has the device for itself.
    Passthru,
}

impl Mode {
    /// Reads the mode and its keys.
    ///
    /// # Errors
    ///
    /// A value that cannot be, a key of another mode, or keys that exclude each other.
    pub fn parse(config: &Value) -> Result<Self, InvalidConfig> {
        let mode = match &config["mode"] {
            Value::Null => "veth",
            other => other.as_str().unwrap_or_default(),
        };
        let (own, allowed): (&[&str], _) = match mode {
            "veth" => (&[], "mode veth has no such key; it belongs to mode bridge or macvlan"),
            "bridge" => (&BRIDGE_KEYS, "mode bridge has no such key; it belongs to mode macvlan"),
            "macvlan" => (&MACVLAN_KEYS, "mode macvlan has no such key; it belongs to mode bridge"),
            "private" | "vepa" | "passthru" => {
                return Err(wrong(
                    config,
                    "mode",
                    "veth, bridge or macvlan; the mode of macvlan is key \"macvlanMode\"",
                ));
            }
            _ => return Err(wrong(config, "mode", "veth, bridge or macvlan")),
        };
        let foreign =
            BRIDGE_KEYS.iter().chain(&MACVLAN_KEYS).find(|key| !config[**key].is_null() && !own.contains(key));
        if let Some(key) = foreign {
            return Err(wrong(config, key, allowed));
        }
        match mode {
            "bridge" => Bridge::parse(config).map(Self::Bridge),
            "macvlan" => Macvlan::parse(config).map(Self::Macvlan),
            _ => Ok(Self::Routed),
        }
    }
}

impl Mode {
    /// The bridge that an agent shall make pods ports of; none where it routes to each.
    ///
    /// # Errors
    ///
    /// As for [`Mode::parse`], and what only a network without an agent has.
    pub fn parse_with_agent(config: &Value) -> Result<Option<Bridge>, InvalidConfig> {
        let mut completed = config.clone();
        if completed["mode"] == "bridge" && completed["isGateway"].is_null() {
            completed["isGateway"] = Value::Bool(true);
        }
        let bridge = match Self::parse(&completed)? {
            Self::Routed => return Ok(None),
            Self::Bridge(bridge) => bridge,
            Self::Macvlan(_) => return Err(wrong(config, "mode", NO_MACVLAN)),
        };
        if !bridge.is_gateway {
            return Err(wrong(config, "isGateway", "true, as the node is the gateway of an agent's pods"));
        }
        if !bridge.senders_checked {
            return Err(wrong(config, "macspoofchk", "true, as an agent's pods are always checked"));
        }
        if bridge.force_address {
            return Err(wrong(
                config,
                "forceAddress",
                "false, as an agent gives the bridge its addresses and takes none",
            ));
        }
        if bridge.name.as_str().starts_with("pn") || bridge.name.as_str().starts_with("podnet") {
            return Err(wrong(config, "bridge", "a name that does not begin with pn or podnet, as the agent's own do"));
        }
        Ok(Some(bridge))
    }
}

/// The node's rules see nothing of what goes through a shared device: no Service, port, limit or check of senders would hold.
const NO_MACVLAN: &str = "veth or bridge, as pods of an agent have Services, limits and policies, and macvlan leads past the node that \
    has them; a network without an agent has it: another conflist, with \"ipam\": {\"type\": \"host-local\"} and without \"socket\"";

impl Bridge {
    fn parse(config: &Value) -> Result<Self, InvalidConfig> {
        let flag = |key: &str, default: bool| match &config[key] {
            Value::Null => Ok(default),
            Value::Bool(value) => Ok(*value),
            _ => Err(wrong(config, key, "true or false")),
        };
        let is_default_gateway = flag("isDefaultGateway", false)?;
        let bridge = Self {
            name: device(config, "bridge")?.unwrap_or_else(|| LinkName::from(DEFAULT_BRIDGE)),
            // As with the plugin `bridge`, the one implies the other.
            is_gateway: flag("isGateway", false)? || is_default_gateway,
            is_default_gateway,
            force_address: flag("forceAddress", false)?,
            hairpin: flag("hairpinMode", false)?,
            // Otherwise than with the plugin `bridge`, as pods of an agent are checked too.
            senders_checked: flag("macspoofchk", true)?,
        };
        if bridge.is_gateway {
            return Ok(bridge);
        }
        let needs = "it needs \"isGateway\": true, as the node has no address on the bridge otherwise";
        if config["ipMasq"] == true {
            return Err(wrong(config, "ipMasq", needs));
        }
        refuse_ports(config, needs)?;
        Ok(bridge)
    }
}

impl Macvlan {
    fn parse(config: &Value) -> Result<Self, InvalidConfig> {
        let kind = match config["macvlanMode"].as_str() {
            None if config["macvlanMode"].is_null() => MacvlanKind::default(),
            Some("" | "bridge") => MacvlanKind::Bridge,
            Some("private") => MacvlanKind::Private,
            Some("vepa") => MacvlanKind::Vepa,
            Some("passthru") => MacvlanKind::Passthru,
            _ => return Err(wrong(config, "macvlanMode", "bridge, private, vepa or passthru")),
        };
        // The kernel leads nothing between a device and those that share it.
        let cannot =
            "not in mode macvlan, where a node does not reach its own containers; mode bridge and veth have it";
        if config["ipMasq"] == true {
            return Err(wrong(config, "ipMasq", cannot));
        }
        refuse_ports(config, cannot)?;
        let bandwidth = &config["runtimeConfig"]["bandwidth"];
        if bandwidth.as_object().is_some_and(|keys| keys.values().any(|value| value.as_u64() != Some(0))) {
            return Err(InvalidConfig::Value {
                key: "runtimeConfig.bandwidth".to_owned(),
                value: bandwidth.to_string(),
                allowed: "not in mode macvlan, where the node has no link to limit; mode bridge and veth have it",
            });
        }
        Ok(Self { master: device(config, "master")?, kind })
    }
}

fn refuse_ports(config: &Value, allowed: &'static str) -> Result<(), InvalidConfig> {
    let ports = &config["runtimeConfig"]["portMappings"];
    if ports.as_array().is_none_or(Vec::is_empty) {
        return Ok(());
    }
    Err(InvalidConfig::Value { key: "runtimeConfig.portMappings".to_owned(), value: ports.to_string(), allowed })
}

/// `dev_valid_name` of the kernel: 1 to 15 bytes, no '/', no ':', no white space, not "." or "..".
fn device(config: &Value, key: &str) -> Result<Option<LinkName>, InvalidConfig> {
    let bad = |c: char| c == '/' || c == ':' || c.is_whitespace();
    match &config[key] {
        Value::Null => Ok(None),
        Value::String(name) if name.is_empty() => Ok(None),
        Value::String(name) if name.len() <= 15 && name != "." && name != ".." && !name.contains(bad) => {
            Ok(Some(LinkName::from(name.as_str())))
        }
        _ => Err(wrong(config, key, "the name of a device: at most 15 characters without '/', ':' and white space")),
    }
}

fn wrong(config: &Value, key: &str, allowed: &'static str) -> InvalidConfig {
    InvalidConfig::Value { key: key.to_owned(), value: config[key].to_string(), allowed }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn message(config: &Value) -> String {
        Mode::parse(config).unwrap_err().to_string()
    }

    #[test]
    fn keys_mean_what_they_mean_to_the_plugins_bridge_and_macvlan() {
        assert_eq!(Mode::parse(&json!({})), Ok(Mode::Routed));
        assert_eq!(Mode::parse(&json!({"mode": "veth"})), Ok(Mode::Routed));
        let bare = Bridge {
            name: "cni0".into(),
            is_gateway: false,
            is_default_gateway: false,
            force_address: false,
            hairpin: false,
            senders_checked: true,
        };
        assert_eq!(Mode::parse(&json!({"mode": "bridge"})), Ok(Mode::Bridge(bare.clone())));
        let default = json!({"mode": "bridge", "bridge": "br7", "isDefaultGateway": true, "ipMasq": true});
        let wanted = Bridge { name: "br7".into(), is_gateway: true, is_default_gateway: true, ..bare };
        assert_eq!(Mode::parse(&default), Ok(Mode::Bridge(wanted)));
        let macvlan = Macvlan { master: None, kind: MacvlanKind::Bridge };
        assert_eq!(Mode::parse(&json!({"mode": "macvlan"})), Ok(Mode::Macvlan(macvlan)));
        let passthru = json!({"mode": "macvlan", "master": "eth1", "macvlanMode": "passthru"});
        let wanted = Macvlan { master: Some("eth1".into()), kind: MacvlanKind::Passthru };
        assert_eq!(Mode::parse(&passthru), Ok(Mode::Macvlan(wanted)));
    }

    #[test]
    fn an_agent_serves_bridges_whose_gateway_is_the_node_and_no_macvlan() {
        let parse = |config: &Value| Mode::parse_with_agent(config);
        assert_eq!(parse(&json!({"mode": "veth"})), Ok(None));
        let ports = json!({"portMappings": [{"hostPort": 80, "containerPort": 80}]});
        let bridge = parse(&json!({"mode": "bridge", "hairpinMode": true, "runtimeConfig": ports})).unwrap().unwrap();
        assert!(bridge.is_gateway && bridge.hairpin && bridge.name.as_str() == "cni0");
        for (config, said) in [
            (json!({"mode": "macvlan"}), "key mode is \"macvlan\"; veth or bridge, as pods of an agent have Services"),
            (json!({"mode": "bridge", "isGateway": false}), "key isGateway is false; true"),
            (json!({"mode": "bridge", "macspoofchk": false}), "key macspoofchk is false; true"),
            (json!({"mode": "bridge", "forceAddress": true}), "key forceAddress is true; false"),
            (json!({"mode": "bridge", "bridge": "pn0"}), "key bridge is \"pn0\"; a name that does not begin with pn"),
        ] {
            let message = parse(&config).unwrap_err().to_string();
            assert!(message.contains(said), "{config}: {message}");
        }
    }

    #[test]
    fn what_cannot_be_together_is_told_with_key_and_value() {
        let ports = json!({"portMappings": [{"hostPort": 80, "containerPort": 80}]});
        for (config, said) in [
            (json!({"mode": "ipvlan"}), "key mode is \"ipvlan\"; veth, bridge or macvlan"),
            (json!({"mode": "vepa"}), "the mode of macvlan is key \"macvlanMode\""),
            (json!({"mode": 7}), "key mode is 7"),
            (json!({"bridge": "cni0"}), "key bridge is \"cni0\"; mode veth has no such key"),
            (json!({"mode": "bridge", "master": "eth0"}), "key master is \"eth0\"; mode bridge has no such key"),
            (json!({"mode": "macvlan", "isGateway": true}), "key isGateway is true; mode macvlan has no such key"),
            (json!({"mode": "bridge", "isGateway": "yes"}), "key isGateway is \"yes\"; true or false"),
            (json!({"mode": "bridge", "bridge": "a/b"}), "key bridge is \"a/b\"; the name of a device"),
            (json!({"mode": "bridge", "ipMasq": true}), "key ipMasq is true; it needs \"isGateway\": true"),
            (json!({"mode": "bridge", "runtimeConfig": ports}), "key runtimeConfig.portMappings is [{"),
            (json!({"mode": "macvlan", "ipMasq": true}), "key ipMasq is true; not in mode macvlan"),
            (json!({"mode": "macvlan", "runtimeConfig": ports}), "mode bridge and veth have it"),
            (
                json!({"mode": "macvlan", "runtimeConfig": {"bandwidth": {"ingressRate": 1000}}}),
                "key runtimeConfig.bandwidth is {\"ingressRate\":1000}; not in mode macvlan",
            ),
            (json!({"mode": "macvlan", "macvlanMode": "source"}), "bridge, private, vepa or passthru"),
        ] {
            let message = message(&config);
            assert!(message.contains(said), "{config}: {message}");
        }
    }
}
