//! Pod, and what its annotations ask of IPAM.

use std::{net::IpAddr, sync::Arc};

use ipnet::IpNet;
use k8s_openapi::api::core::v1 as api;

use super::{Invalid, Object};
use crate::{
    Pod, PodKey,
    limits::{self, PodLimits},
    pod::{AddressRequest, InvalidRequest},
};

/// The annotation that asks for exactly these addresses: a JSON list.
pub const IP_ADDRS: &str = "cni.projectcalico.org/ipAddrs";

/// The annotation that asks for pools, by name or CIDR: a JSON list.
pub const IPV4_POOLS: &str = "cni.projectcalico.org/ipv4pools";

impl TryFrom<&api::Pod> for Pod {
    type Error = Invalid;

    fn try_from(pod: &api::Pod) -> Result<Self, Invalid> {
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
            node: spec.and_then(|spec| spec.node_name.as_deref()).filter(|name| !name.is_empty()).map(Into::into),
            labels: Arc::new(pod.metadata.labels.clone().unwrap_or_default()),
            host_network: spec.and_then(|spec| spec.host_network).unwrap_or(false),
            addrs: addrs.collect::<Result<_, _>>()?,
            finished: matches!(status.and_then(|status| status.phase.as_deref()), Some("Succeeded" | "Failed")),
            request: request(object.annotation(IP_ADDRS), object.annotation(IPV4_POOLS)),
            limits: match &pod.metadata.annotations {
                Some(annotations) => limits::annotations::limits(annotations),
                None => Ok(PodLimits::default()),
            },
        })
    }
}

/// What the annotations `ipAddrs` and `ipv4pools` ask for.
fn request(addrs: Option<&str>, pools: Option<&str>) -> Result<AddressRequest, InvalidRequest> {
    let addrs = list(IP_ADDRS, addrs)?.iter().map(|text| address(text)).collect::<Result<Vec<_>, _>>()?;
    for (family, is) in [("IPv4", IpAddr::is_ipv4 as fn(&IpAddr) -> bool), ("IPv6", IpAddr::is_ipv6)] {
        if addrs.iter().filter(|addr| is(addr)).count() > 1 {
            return Err(InvalidRequest::TooMany { annotation: IP_ADDRS, family });
        }
    }
    let ipv4_pools = list(IPV4_POOLS, pools)?.into_iter().map(pool).collect::<Result<_, _>>()?;
    Ok(AddressRequest { addrs, ipv4_pools })
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

fn address(text: &str) -> Result<IpAddr, InvalidRequest> {
    text.parse().map_err(|_| InvalidRequest::Address { annotation: IP_ADDRS, value: text.to_owned() })
}

/// A pool's name, or a CIDR, which has to be an IPv4 one.
fn pool(text: String) -> Result<Arc<str>, InvalidRequest> {
    let is_right = match text.parse::<IpNet>() {
        Ok(cidr) => matches!(cidr, IpNet::V4(_)),
        Err(_) => !text.is_empty() && !text.contains('/'),
    };
    if is_right { Ok(Arc::from(text)) } else { Err(InvalidRequest::Pool { annotation: IPV4_POOLS, value: text }) }
}
