//! Pod, and what its annotations ask of IPAM.

use std::{net::IpAddr, sync::Arc};

use ipnet::IpNet;
use k8s_openapi::api::core::v1 as api;

use super::{Invalid, Object};
use crate::{
    Dual, Family, Pod, PodKey, crd, excerpt,
    limits::{self, PodLimits},
    names::interned,
    pod::{AddressRequest, InvalidRequest, StickyOwner},
};

/// The annotation that asks for exactly these addresses: a JSON list.
pub const IP_ADDRS: &str = "cni.projectcalico.org/ipAddrs";

/// The annotation that asks for IPv4 pools, by name or CIDR: a JSON list.
pub const IPV4_POOLS: &str = "cni.projectcalico.org/ipv4pools";

/// The annotation that asks for IPv6 pools, by name or CIDR: a JSON list.
pub const IPV6_POOLS: &str = "cni.projectcalico.org/ipv6pools";

/// The annotation that asks for exactly these addresses without IPAM: a JSON list.
pub const IP_ADDRS_NO_IPAM: &str = "cni.projectcalico.org/ipAddrsNoIpam";

/// On the mirror pod of a static pod, by the kubelet: the static pod's uid ("Well-Known Labels, Annotations and Taints").
const MIRROR: &str = "kubernetes.io/config.mirror";

impl TryFrom<&api::Pod> for Pod {
    type Error = Invalid;

    fn try_from(pod: &api::Pod) -> Result<Self, Invalid> {
        Self::try_from(&excerpt::Pod::from(pod))
    }
}

impl TryFrom<&excerpt::Pod> for Pod {
    type Error = Invalid;

    fn try_from(pod: &excerpt::Pod) -> Result<Self, Invalid> {
        let object = Object::new("Pod", &pod.metadata);
        let uid = pod.metadata.uid.as_deref().ok_or_else(|| object.missing("metadata.uid", "the pod's unique id"))?;
        let spec = pod.spec.as_ref();
        let status = pod.status.as_ref();
        let addrs = status.and_then(|status| status.pod_ips.as_deref()).unwrap_or_default().iter().map(|pod_ip| {
            pod_ip.ip.parse().map_err(|_| object.value("status.podIPs[].ip", &pod_ip.ip, "an IP address"))
        });
        Ok(Self {
            key: PodKey::new(object.namespace()?, object.name()?),
            uid: Arc::from(uid),
            static_uid: object.annotation(MIRROR).map(Arc::from),
            node: spec
                .and_then(|spec| spec.node_name.as_deref())
                .filter(|name| !name.is_empty())
                .map(|name| interned(name).into()),
            labels: Arc::clone(&pod.labels),
            host_network: spec.and_then(|spec| spec.host_network).unwrap_or(false),
            addrs: addrs.collect::<Result<_, _>>()?,
            finished: matches!(status.and_then(|status| status.phase.as_deref()), Some("Succeeded" | "Failed")),
            searches: spec.and_then(searches),
            ndots: spec.and_then(ndots),
            request: request(&object),
            limits: match &pod.metadata.annotations {
                Some(annotations) => limits::annotations::limits(annotations),
                None => Ok(PodLimits::default()),
            },
        })
    }
}

/// What the pod's resolver searches behind the cluster's own path. A pod of the host's network shares its address with others.
fn searches(spec: &excerpt::PodSpec) -> Option<Box<[Arc<str>]>> {
    let of_cluster = matches!(spec.dns_policy.as_deref(), None | Some("" | "ClusterFirst" | "ClusterFirstWithHostNet"));
    let config = spec.dns_config.as_ref();
    let mut options = config.and_then(|config| config.options.as_deref()).unwrap_or_default().iter();
    // Such a resolver does not look for a single label as it stands.
    let in_own_manner = options.any(|option| option.name.as_deref() == Some("no-tld-query"));
    let more = config.and_then(|config| config.searches.as_deref()).unwrap_or_default();
    (of_cluster && !in_own_manner && spec.host_network != Some(true))
        .then(|| more.iter().map(|name| Arc::from(name.as_str())).collect())
}

/// The last that is said counts, as in the file that it becomes; what is no number is nothing to a resolver.
fn ndots(spec: &excerpt::PodSpec) -> Option<u8> {
    const MOST: u64 = 15;
    let options = spec.dns_config.as_ref()?.options.as_deref()?.iter();
    let said =
        options.filter(|option| option.name.as_deref() == Some("ndots")).filter_map(|option| option.value.as_deref());
    let number = said.filter_map(|value| value.parse::<u64>().ok()).next_back()?;
    u8::try_from(number.min(MOST)).ok()
}

/// What the annotations ask for.
fn request(object: &Object<'_>) -> Result<AddressRequest, InvalidRequest> {
    let addrs = addresses(object, IP_ADDRS)?;
    let addrs_no_ipam = addresses(object, IP_ADDRS_NO_IPAM)?;
    if !addrs.is_empty() && !addrs_no_ipam.is_empty() {
        return Err(InvalidRequest::Both { first: IP_ADDRS, second: IP_ADDRS_NO_IPAM });
    }
    let pools = Dual { v4: pools(object, Family::V4)?, v6: pools(object, Family::V6)? };
    Ok(AddressRequest { addrs, addrs_no_ipam, pools, sticky: sticky(object)? })
}

/// The StatefulSet that the pod is of, where it is to keep its address.
fn sticky(object: &Object<'_>) -> Result<Option<StickyOwner>, InvalidRequest> {
    match object.annotation(crd::STICKY).map(str::trim) {
        None | Some("" | "false") => return Ok(None),
        Some("true") => {}
        Some(other) => {
            return Err(InvalidRequest::Boolean { annotation: crd::STICKY, value: other.to_owned() });
        }
    }
    let owners = object.meta.owner_references.as_deref().unwrap_or_default();
    let set = owners.iter().find(|owner| owner.kind == "StatefulSet" && owner.api_version.starts_with("apps/"));
    let set = set.ok_or(InvalidRequest::NotSticky { annotation: crd::STICKY })?;
    Ok(Some(StickyOwner { name: Arc::from(&*set.name), uid: Arc::from(&*set.uid) }))
}

/// The addresses of an annotation, at most one of each family.
fn addresses(object: &Object<'_>, annotation: &'static str) -> Result<Vec<IpAddr>, InvalidRequest> {
    let texts = list(annotation, object.annotation(annotation))?;
    let addrs = texts.iter().map(|text| address(annotation, text)).collect::<Result<Vec<_>, _>>()?;
    for family in Family::ALL {
        if addrs.iter().filter(|addr| Family::of(addr) == family).count() > 1 {
            return Err(InvalidRequest::TooMany { annotation, family });
        }
    }
    Ok(addrs)
}

/// The pools of a family that a pod's or a namespace's annotation names.
pub(super) fn pools(object: &Object<'_>, family: Family) -> Result<Vec<Arc<str>>, InvalidRequest> {
    let annotation = match family {
        Family::V4 => IPV4_POOLS,
        Family::V6 => IPV6_POOLS,
    };
    list(annotation, object.annotation(annotation))?.into_iter().map(|text| pool(annotation, family, text)).collect()
}

/// The strings of a JSON list; none where the annotation is absent or empty.
fn list(annotation: &'static str, text: Option<&str>) -> Result<Vec<String>, InvalidRequest> {
    match text.map(str::trim) {
        None | Some("") => Ok(Vec::new()),
        Some(text) => serde_json::from_str(text).map_err(|error| InvalidRequest::List {
            annotation,
            value: text.to_owned(),
            reason: error.to_string(),
        }),
    }
}

fn address(annotation: &'static str, text: &str) -> Result<IpAddr, InvalidRequest> {
    text.parse().map_err(|_| InvalidRequest::Address { annotation, value: text.to_owned() })
}

/// A pool's name, or a CIDR, which has to be of the family.
fn pool(annotation: &'static str, family: Family, text: String) -> Result<Arc<str>, InvalidRequest> {
    let is_right = match text.parse::<IpNet>() {
        Ok(cidr) => Family::of_net(&cidr) == family,
        Err(_) => !text.is_empty() && !text.contains('/'),
    };
    if is_right { Ok(Arc::from(text)) } else { Err(InvalidRequest::Pool { annotation, family, value: text }) }
}
