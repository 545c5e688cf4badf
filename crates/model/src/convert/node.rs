//! Node.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
    sync::Arc,
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use k8s_openapi::api::core::v1 as api;

use serde::Deserialize;

use super::{Invalid, Object};
use crate::{Dual, Mac, Node, NodeAddr, flannel::Lease, wireguard::PublicKey};

/// The annotation by which a node publishes its address with its prefix length, for example `172.29.0.11/24`.
pub const IPV4_ADDRESS: &str = "projectcalico.org/IPv4Address";

/// The same for its address by IPv6, for example `fd00:172:29::11/64`.
pub const IPV6_ADDRESS: &str = "projectcalico.org/IPv6Address";

/// The annotation by which a node publishes its WireGuard key, as Calico's nodes do.
pub const WIREGUARD_PUBLIC_KEY: &str = "projectcalico.org/WireguardPublicKey";

/// The annotation by which a node's agent says where its records of flows go, each place by a mark of its own, with commas between them: other
/// nodes' agents need not send there what it sends.
pub const RECORDED_TO: &str = "flows.podnet.io/recorded-to";

/// flannel's annotations (`--kube-annotation-prefix` where not given).
pub mod flannel_annotation {
    /// Type of the backend.
    pub const BACKEND_TYPE: &str = "flannel.alpha.coreos.com/backend-type";
    /// What peers need to know beside the address, in JSON.
    pub const BACKEND_DATA: &str = "flannel.alpha.coreos.com/backend-data";
    /// The same for packets of IPv6.
    pub const BACKEND_V6_DATA: &str = "flannel.alpha.coreos.com/backend-v6-data";
    /// Where peers send encapsulated packets.
    pub const PUBLIC_IP: &str = "flannel.alpha.coreos.com/public-ip";
    /// The same for packets of IPv6.
    pub const PUBLIC_IPV6: &str = "flannel.alpha.coreos.com/public-ipv6";
    /// By it somebody says what the node shall say in [`PUBLIC_IP`].
    pub const PUBLIC_IP_OVERWRITE: &str = "flannel.alpha.coreos.com/public-ip-overwrite";
    /// The same for [`PUBLIC_IPV6`].
    pub const PUBLIC_IPV6_OVERWRITE: &str = "flannel.alpha.coreos.com/public-ipv6-overwrite";
    /// `true`: the node's part of the range is its `spec.podCIDR`.
    pub const SUBNET_MANAGER: &str = "flannel.alpha.coreos.com/kube-subnet-manager";
}

impl TryFrom<&api::Node> for Node {
    type Error = Invalid;

    fn try_from(node: &api::Node) -> Result<Self, Invalid> {
        let object = Object::new("Node", &node.metadata);
        let internals = internals(&object, node)?;
        let internal_of = |v6: bool| internals.iter().copied().find(|addr| addr.0.is_ipv6() == v6);
        let subnet = published::<Ipv4Net>(&object, IPV4_ADDRESS)?.map(IpNet::V4);
        // The node is there by IPv4 whatever it says of IPv6.
        let (subnet6, wrong_subnet6) = lenient(published::<Ipv6Net>(&object, IPV6_ADDRESS));
        let subnet6 = subnet6.map(IpNet::V6);
        // Nothing but encryption and flannel's nodes needs these: a wrong one must not take the node out of the network.
        let (lease, wrong_lease) = lenient(lease(&object));
        let (overwrites, wrong_overwrite) = lenient(overwrites(&object).map(Some));
        let (wireguard_key, wrong_key) = lenient(wireguard_key(&object, lease.as_ref().and_then(|(_, key)| *key)));
        // A node that says where it is says all: it has no address of the family that it leaves out.
        let is_silent = subnet.is_none() && subnet6.is_none();
        let addr_of = |subnet: Option<IpNet>, v6| {
            subnet.map(|net| NodeAddr(net.addr())).or_else(|| internal_of(v6).filter(|_| is_silent))
        };
        let addr6 = addr_of(subnet6, true);
        let addr = addr_of(subnet, false)
            .or(addr6)
            .ok_or_else(|| object.missing("status.addresses[type=InternalIP]", "the node's address on the underlay"))?;
        Ok(Self {
            name: object.name()?.into(),
            pod_cidrs: pod_cidrs(&object, node)?,
            wireguard_key,
            lease: lease.map(|(lease, _)| lease),
            overwrites: overwrites.unwrap_or_default(),
            wrong: wrong_lease
                .or(wrong_overwrite)
                .or(wrong_key)
                .or(wrong_subnet6)
                .map(|wrong| wrong.to_string().into()),
            labels: Arc::new(node.metadata.labels.clone().unwrap_or_default()),
            addr,
            addr6,
            internal: internal_of(false).or(internal_of(true)),
            internal6: internal_of(true),
            addresses: addresses(node),
            subnet,
            subnet6,
            lost: is_lost(node),
            leaving: is_leaving(node),
            recorded_to: object.annotation(RECORDED_TO).filter(|text| !text.is_empty()).map(Arc::from),
        })
    }
}

/// Every `InternalIP`, in order.
fn internals(object: &Object<'_>, node: &api::Node) -> Result<Vec<NodeAddr>, Invalid> {
    let addresses = node.status.as_ref().and_then(|status| status.addresses.as_deref()).unwrap_or_default();
    let parse = |internal: &api::NodeAddress| {
        let field = "status.addresses[type=InternalIP].address";
        internal.address.parse().map_err(|_| object.value(field, &internal.address, "an IP address"))
    };
    addresses.iter().filter(|address| address.type_ == "InternalIP").map(parse).collect()
}

/// Every `InternalIP` and `ExternalIP` that is one: only names come from these.
fn addresses(node: &api::Node) -> Vec<IpAddr> {
    let all = node.status.as_ref().and_then(|status| status.addresses.as_deref()).unwrap_or_default();
    let own = all.iter().filter(|address| matches!(&*address.type_, "InternalIP" | "ExternalIP"));
    own.filter_map(|address| address.address.parse().ok()).collect()
}

/// The node's address with its prefix length, in one of the annotations for it.
fn published<T: FromStr>(object: &Object<'_>, annotation: &str) -> Result<Option<T>, Invalid> {
    let allowed = match annotation {
        IPV4_ADDRESS => "an IPv4 address with its prefix length, for example 172.29.0.11/24",
        _ => "an IPv6 address with its prefix length, for example fd00:172:29::11/64",
    };
    let wrong = |text: &str| object.value(format!("metadata.annotations[{annotation}]"), text, allowed);
    let text = object.annotation(annotation).filter(|text| !text.is_empty());
    text.map(|text| text.parse().map_err(|_| wrong(text))).transpose()
}

fn lenient<T>(said: Result<Option<T>, Invalid>) -> (Option<T>, Option<Invalid>) {
    match said {
        Ok(said) => (said, None),
        Err(wrong) => (None, Some(wrong)),
    }
}

fn is_lost(node: &api::Node) -> bool {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "Unknown")
}

/// As kube-proxy tells a node that load balancers shall not use any more.
fn is_leaving(node: &api::Node) -> bool {
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
    node.metadata.deletion_timestamp.is_some()
        || taints.iter().any(|taint| taint.key == "ToBeDeletedByClusterAutoscaler")
}

fn pod_cidrs(object: &Object<'_>, node: &api::Node) -> Result<Vec<IpNet>, Invalid> {
    let spec = node.spec.as_ref();
    let all = spec.and_then(|spec| spec.pod_cidrs.as_deref()).unwrap_or_default();
    let only = spec.and_then(|spec| spec.pod_cidr.as_ref()).filter(|cidr| all.is_empty() && !cidr.is_empty());
    let parse = |text: &String| {
        let cidr = text.parse::<IpNet>().map(|cidr| cidr.trunc());
        cidr.map_err(|_| object.value("spec.podCIDRs[]", text, "a range, for example 10.244.1.0/24"))
    };
    all.iter().chain(only).map(parse).collect()
}

fn wireguard_key(object: &Object<'_>, flannels: Option<PublicKey>) -> Result<Option<PublicKey>, Invalid> {
    let Some(text) = object.annotation(WIREGUARD_PUBLIC_KEY).filter(|text| !text.is_empty()) else {
        return Ok(flannels);
    };
    let field = || format!("metadata.annotations[{WIREGUARD_PUBLIC_KEY}]");
    text.parse().map(Some).map_err(|_| object.value(field(), text, "a WireGuard key: 32 bytes in Base64"))
}

/// flannel's `backend-data`, of whichever backend.
#[derive(Default, Deserialize)]
struct BackendData {
    #[serde(rename = "VtepMAC")]
    vtep_mac: Option<String>,
    #[serde(rename = "PublicKey")]
    public_key: Option<String>,
}

/// What the node says of itself to flannel's nodes, and its WireGuard key among that.
fn lease(object: &Object<'_>) -> Result<Option<(Lease, Option<PublicKey>)>, Invalid> {
    use flannel_annotation::{BACKEND_DATA, BACKEND_TYPE, BACKEND_V6_DATA, PUBLIC_IP, PUBLIC_IPV6};
    let public_ip = addr_in::<Ipv4Addr>(object, PUBLIC_IP, "an IPv4 address")?;
    let public_ipv6 = addr_in::<Ipv6Addr>(object, PUBLIC_IPV6, "an IPv6 address")?;
    let Some(backend) = object.annotation(BACKEND_TYPE).filter(|_| public_ip.is_some() || public_ipv6.is_some()) else {
        return Ok(None);
    };
    let (v4, key) = backend_data(object, BACKEND_DATA)?;
    let (v6, _) = backend_data(object, BACKEND_V6_DATA)?;
    Ok(Some((Lease { backend: backend.into(), public_ip, public_ipv6, vtep_macs: Dual { v4, v6 } }, key)))
}

/// The VXLAN device's MAC and the WireGuard key in one of the annotations for such.
fn backend_data(object: &Object<'_>, annotation: &str) -> Result<(Option<Mac>, Option<PublicKey>), Invalid> {
    let text = object.annotation(annotation).unwrap_or("null");
    let wrong = |allowed: &str| object.value(format!("metadata.annotations[{annotation}]"), text, allowed.to_owned());
    let data: Option<BackendData> = serde_json::from_str(text).map_err(|_| wrong("JSON, as flannel writes it"))?;
    let data = data.unwrap_or_default();
    let mac =
        data.vtep_mac.map(|mac| mac.parse::<Mac>().map_err(|_| wrong("JSON with a VtepMAC like 02:00:00:00:00:01")));
    let key = data.public_key.map(|key| key.parse().map_err(|_| wrong("JSON with a PublicKey: 32 bytes in Base64")));
    Ok((mac.transpose()?, key.transpose()?))
}

fn overwrites(object: &Object<'_>) -> Result<Dual<Option<IpAddr>>, Invalid> {
    use flannel_annotation::{PUBLIC_IP_OVERWRITE, PUBLIC_IPV6_OVERWRITE};
    let v4 = addr_in::<Ipv4Addr>(object, PUBLIC_IP_OVERWRITE, "an IPv4 address")?.map(IpAddr::from);
    let v6 = addr_in::<Ipv6Addr>(object, PUBLIC_IPV6_OVERWRITE, "an IPv6 address")?.map(IpAddr::from);
    Ok(Dual { v4, v6 })
}

fn addr_in<T: FromStr>(object: &Object<'_>, annotation: &str, allowed: &str) -> Result<Option<T>, Invalid> {
    let text = object.annotation(annotation).filter(|text| !text.is_empty());
    let wrong = |text: &str| object.value(format!("metadata.annotations[{annotation}]"), text, allowed.to_owned());
    text.map(|text| text.parse().map_err(|_| wrong(text))).transpose()
}
