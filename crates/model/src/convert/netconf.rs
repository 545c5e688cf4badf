//! `net-conf.json` of the ConfigMap `kube-flannel-cfg`.

use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use k8s_openapi::api::core::v1::ConfigMap;
use serde::Deserialize;

use super::{Invalid, Object};
use crate::{Dual, NetConf, flannel::Backend, wireguard};

const KEY: &str = "data[net-conf.json]";
/// The kernel's own port of VXLAN, which flannel leaves as it is.
const VXLAN_PORT: u16 = 8472;
const UDP_PORT: u16 = 8285;
/// What flannel gives a node where nothing else is said.
const SUBNET_LEN: u8 = 24;

#[derive(Deserialize)]
struct Document {
    #[serde(rename = "Network")]
    network: Option<String>,
    #[serde(rename = "EnableIPv4", default = "on")]
    ipv4: bool,
    #[serde(rename = "SubnetLen", default)]
    subnet_len: u8,
    #[serde(rename = "Backend", default)]
    backend: Settings,
    #[serde(rename = "EnableIPv6", default)]
    ipv6: bool,
    #[serde(rename = "IPv6Network")]
    ipv6_network: Option<String>,
}

const fn on() -> bool {
    true
}

#[derive(Default, Deserialize)]
struct Settings {
    #[serde(rename = "Type", default)]
    kind: Option<String>,
    #[serde(rename = "VNI")]
    vni: Option<u32>,
    #[serde(rename = "Port")]
    port: Option<u16>,
    #[serde(rename = "ListenPort")]
    listen_port: Option<u16>,
    #[serde(rename = "DirectRouting", default)]
    direct_routing: bool,
    #[serde(rename = "GBP", default)]
    gbp: bool,
    #[serde(rename = "PSK")]
    preshared_key: Option<String>,
}

impl TryFrom<&ConfigMap> for NetConf {
    type Error = Invalid;

    fn try_from(map: &ConfigMap) -> Result<Self, Invalid> {
        let object = Object::new("ConfigMap", &map.metadata);
        let text = map.data.as_ref().and_then(|data| data.get("net-conf.json"));
        let text = text.ok_or_else(|| object.missing(KEY, "flannel's configuration in JSON"))?;
        let document: Document = serde_json::from_str(text)
            .map_err(|error| object.value(KEY, text.trim(), format!("flannel's configuration in JSON: {error}")))?;
        if !document.ipv4 && !document.ipv6 {
            return Err(object.value(format!("{KEY}.EnableIPv4"), "false", "true where EnableIPv6 is not"));
        }
        let Document { network, ipv6_network, subnet_len: asked, .. } = &document;
        let v4 = document.ipv4.then(|| network_of::<Ipv4Net>(&object, "Network", network)).transpose()?;
        let v6 = document.ipv6.then(|| network_of::<Ipv6Net>(&object, "IPv6Network", ipv6_network)).transpose()?;
        Ok(Self {
            networks: Dual { v4, v6 },
            subnet_len: v4.map_or(Ok(SUBNET_LEN), |network| subnet_len(&object, network.prefix_len(), *asked))?,
            backend: backend(&object, &document.backend)?,
        })
    }
}

/// The range in a field for one family.
fn network_of<T: FromStr + Into<IpNet>>(
    object: &Object<'_>,
    key: &str,
    text: &Option<String>,
) -> Result<IpNet, Invalid> {
    let text = text.as_deref().unwrap_or_default();
    let allowed = match key {
        "Network" => "an IPv4 range, for example 10.244.0.0/16",
        _ => "an IPv6 range where EnableIPv6 is true, for example fd00:10:244::/56",
    };
    let network = text.parse::<T>().map_err(|_| object.value(format!("{KEY}.{key}"), text, allowed))?;
    Ok(network.into().trunc())
}

/// flannel gives /24s of large networks, and halves of smaller ones.
fn subnet_len(object: &Object<'_>, network: u8, asked: u8) -> Result<u8, Invalid> {
    let longest = 30;
    let length = match asked {
        0 if network < SUBNET_LEN => SUBNET_LEN,
        0 => network + 1,
        asked => asked,
    };
    if (network..=longest).contains(&length) {
        return Ok(length);
    }
    Err(object.value(format!("{KEY}.SubnetLen"), &length, format!("{network} to {longest} for a /{network}")))
}

fn backend(object: &Object<'_>, settings: &Settings) -> Result<Backend, Invalid> {
    let field = |name: &str| format!("{KEY}.Backend.{name}");
    if settings.gbp {
        return Err(object.value(field("GBP"), "true", "false: group policies are not carried"));
    }
    if settings.preshared_key.as_deref().is_some_and(|key| !key.is_empty()) {
        return Err(object.value(field("PSK"), "(a key)", "absent: keys are made by each node alone"));
    }
    let direct_routing = settings.direct_routing;
    // What flannel takes where no type is given.
    match settings.kind.as_deref().unwrap_or("udp") {
        "vxlan" => {
            let vni = settings.vni.unwrap_or(1);
            if vni == 0 || vni >= 1 << 24 {
                return Err(object.value(field("VNI"), &vni, "1 to 16777215"));
            }
            Ok(Backend::Vxlan { vni, port: port(settings.port, VXLAN_PORT), direct_routing })
        }
        "host-gw" => Ok(Backend::HostGw),
        "ipip" => Ok(Backend::Ipip { direct_routing }),
        "wireguard" => Ok(Backend::WireGuard { port: port(settings.listen_port, wireguard::DEFAULT_PORT) }),
        "udp" => Ok(Backend::Udp { port: port(settings.port, UDP_PORT) }),
        "alloc" | "none" => Ok(Backend::Alloc),
        other => Err(object.value(field("Type"), other, "vxlan, host-gw, ipip, wireguard, udp, alloc or none")),
    }
}

fn port(asked: Option<u16>, default: u16) -> u16 {
    asked.filter(|port| *port != 0).unwrap_or(default)
}
