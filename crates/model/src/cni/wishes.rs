//! What a runtime wishes an attachment to be like.

use std::{collections::BTreeMap, net::IpAddr};

use ipnet::IpNet;
use serde_json::{Value, json};

use super::{InvalidConfig, PortMapping};
use crate::Mac;

/// Keys of `CNI_ARGS` that are known: those of the conventions, and those that Kubernetes' runtimes send.
const ARGUMENTS: [&str; 7] =
    ["IgnoreUnknown", "IP", "MAC", "K8S_POD_NAMESPACE", "K8S_POD_NAME", "K8S_POD_INFRA_CONTAINER_ID", "K8S_POD_UID"];

/// What one attachment shall be like beyond its network: from `runtimeConfig`, from `args.cni`, and from `CNI_ARGS`; what comes
/// first in this order counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wishes {
    /// `ips`: these addresses. A prefix length that came with one says nothing that podnet needs.
    pub addrs: Vec<IpAddr>,
    /// `mac`: this Ethernet address.
    pub mac: Option<Mac>,
    /// `portMappings`, sorted, each once.
    pub ports: Vec<PortMapping>,
    /// `ipRanges`: the subnets to take an address from, in order of preference.
    pub ranges: Vec<IpNet>,
    /// `dns`: what the result shall say, where the runtime or the network's own key says something.
    pub dns: Dns,
    /// `aliases`: further names of the attachment in this network, sorted, each once.
    pub aliases: Vec<String>,
}

/// The resolver's configuration in a result.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dns {
    /// Servers by address, best first.
    pub nameservers: Vec<String>,
    /// The local domain.
    pub domain: Option<String>,
    /// Search domains, first first.
    pub search: Vec<String>,
    /// The resolver's options.
    pub options: Vec<String>,
}

impl Wishes {
    /// Reads them from a network configuration and the pairs of `CNI_ARGS`.
    ///
    /// # Errors
    ///
    /// The first value that cannot be, with what is allowed.
    pub fn parse(config: &Value, args: &BTreeMap<String, String>) -> Result<Self, InvalidConfig> {
        check_arguments(args)?;
        let runtime = &config["runtimeConfig"];
        let wished = &config["args"]["cni"];
        let mut addrs = addresses(&runtime["ips"], "runtimeConfig.ips")?;
        if addrs.is_empty() {
            addrs = addresses(&wished["ips"], "args.cni.ips")?;
        }
        if addrs.is_empty()
            && let Some(list) = args.get("IP").filter(|list| !list.is_empty())
        {
            addrs =
                list.split(',').map(|text| argument("IP", text, address(text), ADDRESS)).collect::<Result<_, _>>()?;
        }
        let mac = match (&runtime["mac"], args.get("MAC").filter(|text| !text.is_empty())) {
            (Value::Null, None) => None,
            (Value::Null, Some(text)) => Some(argument("MAC", text, unicast(text), MAC)?),
            (value, _) if value.as_str() == Some("") => None,
            (value, _) => {
                let read = value.as_str().and_then(unicast);
                Some(read.ok_or_else(|| wrong("runtimeConfig.mac", value, MAC))?)
            }
        };
        Ok(Self {
            addrs,
            mac,
            ports: ports(&runtime["portMappings"])?,
            ranges: ranges(&runtime["ipRanges"])?,
            dns: Dns::parse(&config["dns"])?.overlaid(Dns::of_runtime(&runtime["dns"])?),
            aliases: aliases(&runtime["aliases"], config["name"].as_str().unwrap_or_default())?,
        })
    }
}

impl Dns {
    /// Reads the key `dns` of a network configuration or of a result.
    ///
    /// # Errors
    ///
    /// The first entry that is no text.
    pub fn parse(value: &Value) -> Result<Self, InvalidConfig> {
        Ok(Self {
            nameservers: texts(&value["nameservers"], "dns.nameservers")?,
            domain: value["domain"].as_str().filter(|domain| !domain.is_empty()).map(str::to_owned),
            search: texts(&value["search"], "dns.search")?,
            options: texts(&value["options"], "dns.options")?,
        })
    }

    /// The capability `dns` has other names for the same.
    fn of_runtime(value: &Value) -> Result<Self, InvalidConfig> {
        Ok(Self {
            nameservers: texts(&value["servers"], "runtimeConfig.dns.servers")?,
            domain: None,
            search: texts(&value["searches"], "runtimeConfig.dns.searches")?,
            options: texts(&value["options"], "runtimeConfig.dns.options")?,
        })
    }

    fn overlaid(self, over: Self) -> Self {
        let either = |over: Vec<String>, own: Vec<String>| if over.is_empty() { own } else { over };
        Self {
            nameservers: either(over.nameservers, self.nameservers),
            domain: over.domain.or(self.domain),
            search: either(over.search, self.search),
            options: either(over.options, self.options),
        }
    }

    /// As a result says it; keys that say nothing are left out.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let mut value = json!({});
        for (key, list) in [("nameservers", &self.nameservers), ("search", &self.search), ("options", &self.options)] {
            if !list.is_empty() {
                value[key] = json!(list);
            }
        }
        if let Some(domain) = &self.domain {
            value["domain"] = json!(domain);
        }
        value
    }
}

const ADDRESS: &str = "an IP address, with or without prefix length";
const MAC: &str = "a unicast Ethernet address of six hexadecimal numbers, such as 0a:58:0a:00:00:01";

/// Unknown arguments are an error unless the runtime says that they are not (CONVENTIONS.md, "CNI_ARGS").
fn check_arguments(args: &BTreeMap<String, String>) -> Result<(), InvalidConfig> {
    let ignore = args.get("IgnoreUnknown").map(|value| value.to_ascii_lowercase());
    if ignore.as_deref().is_some_and(|value| matches!(value, "1" | "true" | "t" | "yes" | "y" | "on")) {
        return Ok(());
    }
    match args.iter().find(|(key, _)| !ARGUMENTS.contains(&key.as_str())) {
        None => Ok(()),
        Some((key, value)) => Err(InvalidConfig::Argument {
            key: key.clone(),
            value: value.clone(),
            allowed: "the key is unknown; IgnoreUnknown=1 allows such keys",
        }),
    }
}

fn ports(value: &Value) -> Result<Vec<PortMapping>, InvalidConfig> {
    const AT: &str = "runtimeConfig.portMappings";
    let mut ports = Vec::new();
    for (index, entry) in list(value, AT)?.iter().enumerate() {
        ports.extend(PortMapping::parse(entry, &format!("{AT}[{index}]"))?);
    }
    ports.sort_unstable();
    ports.dedup();
    let frontend = |port: &PortMapping| (port.host_ip, port.protocol, port.host_port);
    match ports.windows(2).find(|pair| frontend(&pair[0]) == frontend(&pair[1])) {
        None => Ok(ports),
        Some(pair) => Err(InvalidConfig::Value {
            key: AT.to_owned(),
            value: format!("{} twice, to {} and to {}", pair[0], pair[0].container_port, pair[1].container_port),
            allowed: "a port of the node leads to one port",
        }),
    }
}

/// A list of sets of ranges, one set for each address that is wanted; podnet gives one, from the first that has room.
fn ranges(value: &Value) -> Result<Vec<IpNet>, InvalidConfig> {
    const AT: &str = "runtimeConfig.ipRanges";
    let mut all = Vec::new();
    for set in list(value, AT)? {
        for range in list(set, AT)? {
            let subnet = range["subnet"].as_str().and_then(|text| text.parse().ok());
            all.push(
                subnet
                    .ok_or_else(|| wrong(&format!("{AT}[][].subnet"), &range["subnet"], "a subnet in CIDR notation"))?,
            );
        }
    }
    Ok(all)
}

/// A list, or, as podman has it, lists by the names of networks, of which this network's counts. Each is a name that a resolver could
/// be asked for: labels of letters, digits, '-' and, as containers have them, '_'.
fn aliases(value: &Value, network: &str) -> Result<Vec<String>, InvalidConfig> {
    const AT: &str = "runtimeConfig.aliases";
    const ALLOWED: &str =
        "names of at most 253 characters; their parts, between dots, are of 1 to 63 letters, digits, '-' and '_'";
    let own = match value {
        Value::Object(networks) => networks.get(network).unwrap_or(&Value::Null),
        value => value,
    };
    let mut aliases = texts(own, AT)?;
    let is_label = |label: &str| {
        (1..=63).contains(&label.len()) && label.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))
    };
    if let Some(wrong) = aliases.iter().find(|name| name.len() > 253 || !name.split('.').all(is_label)) {
        return Err(InvalidConfig::Value { key: AT.to_owned(), value: format!("{wrong:?}"), allowed: ALLOWED });
    }
    aliases.sort();
    aliases.dedup();
    Ok(aliases)
}

fn addresses(value: &Value, at: &str) -> Result<Vec<IpAddr>, InvalidConfig> {
    let read = |entry: &Value| entry.as_str().and_then(address).ok_or_else(|| wrong(at, entry, ADDRESS));
    list(value, at)?.iter().map(read).collect()
}

fn address(text: &str) -> Option<IpAddr> {
    text.parse().ok().or_else(|| text.parse::<IpNet>().ok().map(|net| net.addr()))
}

/// The kernel gives no interface a group address, nor the one of all zeros (`is_valid_ether_addr`).
fn unicast(text: &str) -> Option<Mac> {
    text.parse::<Mac>().ok().filter(|mac| mac.0[0] & 1 == 0 && mac.0 != [0; 6])
}

fn argument<T>(key: &str, text: &str, read: Option<T>, allowed: &'static str) -> Result<T, InvalidConfig> {
    read.ok_or_else(|| InvalidConfig::Argument { key: key.to_owned(), value: text.to_owned(), allowed })
}

fn texts(value: &Value, at: &str) -> Result<Vec<String>, InvalidConfig> {
    let text = |entry: &Value| entry.as_str().map(str::to_owned).ok_or_else(|| wrong(at, entry, "a list of strings"));
    list(value, at)?.iter().map(text).collect()
}

fn list<'a>(value: &'a Value, at: &str) -> Result<&'a [Value], InvalidConfig> {
    match value {
        Value::Null => Ok(&[]),
        Value::Array(entries) => Ok(entries),
        other => Err(wrong(at, other, "a list")),
    }
}

fn wrong(at: &str, value: &Value, allowed: &'static str) -> InvalidConfig {
    InvalidConfig::Value { key: at.to_owned(), value: value.to_string(), allowed }
}
