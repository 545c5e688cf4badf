//! Service.

use std::{net::IpAddr, sync::Arc};

use ipnet::IpNet;
use k8s_openapi::api::core::v1 as api;

use super::{Invalid, Object};
use crate::{
    NodePort, Service, ServiceKey, ServicePort,
    service::{Ingress, Port, ServiceKind, TrafficPolicy},
};

/// The label of Services, and of their slices, that another program proxies.
pub(super) const PROXY_NAME: &str = "service.kubernetes.io/service-proxy-name";
/// `sessionAffinityConfig.clientIP.timeoutSeconds` where nothing is said: three hours.
const AFFINITY_TIMEOUT: i32 = 10_800;
/// The longest that may be said: a day.
const AFFINITY_TIMEOUT_MAX: i32 = 86_400;

impl TryFrom<&api::Service> for Service {
    type Error = Invalid;

    fn try_from(service: &api::Service) -> Result<Self, Invalid> {
        let object = Object::new("Service", &service.metadata);
        let spec = service.spec.as_ref().ok_or_else(|| object.missing("spec", "the Service's specification"))?;
        let ports = spec.ports.as_deref().unwrap_or_default().iter().enumerate();
        let ports = ports.map(|(index, port)| self::port(&object, index, port)).collect::<Result<_, _>>()?;
        let key = ServiceKey::new(object.namespace()?, object.name()?);
        let proxy = object.label(PROXY_NAME).map(Into::into);
        let labels = Arc::new(service.metadata.labels.clone().unwrap_or_default());
        let plain = Self { proxy, labels, ..Self::new(key, kind(&object, spec)?, ports) };
        let plain = Self { publish_not_ready: spec.publish_not_ready_addresses.unwrap_or(false), ..plain };
        match plain.kind {
            ServiceKind::Virtual { .. } => {}
            // Nothing leads there, but names may.
            ServiceKind::Headless => return Ok(Self { external_ips: external_ips(&object, spec)?, ..plain }),
            ServiceKind::External { .. } => return Ok(plain),
        }
        let is_load_balancer = spec.type_.as_deref() == Some("LoadBalancer");
        let policy = |field, value: &Option<String>| policy(&object, field, value.as_deref());
        Ok(Self {
            external_ips: external_ips(&object, spec)?,
            ingress: if is_load_balancer { ingress(&object, service)? } else { Vec::new() },
            ingress_names: if is_load_balancer { ingress_names(service) } else { Vec::new() },
            source_ranges: if is_load_balancer { source_ranges(&object, spec)? } else { Vec::new() },
            affinity: affinity(&object, spec)?,
            internal_policy: policy("spec.internalTrafficPolicy", &spec.internal_traffic_policy)?,
            external_policy: policy("spec.externalTrafficPolicy", &spec.external_traffic_policy)?,
            health_check: match spec.health_check_node_port {
                None | Some(0) => None,
                Some(number) => Some(NodePort(object.port(|| "spec.healthCheckNodePort".into(), number)?)),
            },
            traffic_distribution: spec.traffic_distribution.as_deref().map(Into::into),
            ..plain
        })
    }
}

fn kind(object: &Object<'_>, spec: &api::ServiceSpec) -> Result<ServiceKind, Invalid> {
    match spec.type_.as_deref() {
        None | Some("" | "ClusterIP" | "NodePort" | "LoadBalancer") => {}
        Some("ExternalName") => {
            let name = spec.external_name.as_deref().filter(|name| !name.is_empty());
            let name = name.ok_or_else(|| object.missing("spec.externalName", "a DNS name"))?;
            return Ok(ServiceKind::External { name: name.trim_end_matches('.').into() });
        }
        Some(other) => {
            return Err(object.value("spec.type", other, "ClusterIP, NodePort, LoadBalancer or ExternalName"));
        }
    }
    // An old writer may have set `clusterIP` alone; the API server keeps the two alike.
    let texts: Vec<&str> = match spec.cluster_ips.as_deref() {
        Some(ips) if !ips.is_empty() => ips.iter().map(String::as_str).collect(),
        _ => spec.cluster_ip.as_deref().filter(|ip| !ip.is_empty()).into_iter().collect(),
    };
    if texts.is_empty() {
        return Err(object.missing("spec.clusterIPs", "the addresses that the API server allocates"));
    }
    if texts == ["None"] {
        return Ok(ServiceKind::Headless);
    }
    let parse =
        |text: &&str| text.parse().map_err(|_| object.value("spec.clusterIPs[]", text, "an IP address or None"));
    Ok(ServiceKind::Virtual { cluster_ips: texts.iter().map(parse).collect::<Result<_, _>>()? })
}

fn port(object: &Object<'_>, index: usize, port: &api::ServicePort) -> Result<Port, Invalid> {
    let field = |name: &str| format!("spec.ports[{index}].{name}");
    let node_port = match port.node_port {
        None | Some(0) => None,
        Some(number) => Some(NodePort(object.port(|| field("nodePort"), number)?)),
    };
    Ok(Port {
        name: port.name.as_deref().unwrap_or_default().into(),
        protocol: object.protocol(|| field("protocol"), port.protocol.as_deref())?,
        port: ServicePort(object.port(|| field("port"), port.port)?),
        node_port,
    })
}

fn external_ips(object: &Object<'_>, spec: &api::ServiceSpec) -> Result<Vec<IpAddr>, Invalid> {
    let texts = spec.external_ips.as_deref().unwrap_or_default().iter().enumerate();
    texts.map(|(index, text)| unicast(object, &format!("spec.externalIPs[{index}]"), text)).collect()
}

fn ingress_names(service: &api::Service) -> Vec<Arc<str>> {
    let status = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let all = status.and_then(|status| status.ingress.as_deref()).unwrap_or_default().iter();
    all.filter_map(|ingress| ingress.hostname.as_deref()).filter(|name| !name.is_empty()).map(Into::into).collect()
}

fn ingress(object: &Object<'_>, service: &api::Service) -> Result<Vec<Ingress>, Invalid> {
    let status = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let all = status.and_then(|status| status.ingress.as_deref()).unwrap_or_default().iter().enumerate();
    let with_addr = all.filter_map(|(index, ingress)| {
        Some((index, ingress.ip.as_deref().filter(|ip| !ip.is_empty())?, ingress.ip_mode.as_deref()))
    });
    with_addr
        .map(|(index, ip, mode)| {
            let field = format!("status.loadBalancer.ingress[{index}]");
            let is_proxy = match mode {
                None | Some("" | "VIP") => false,
                Some("Proxy") => true,
                Some(other) => return Err(object.value(format!("{field}.ipMode"), other, "VIP or Proxy")),
            };
            Ok(Ingress { addr: unicast(object, &format!("{field}.ip"), ip)?, is_proxy })
        })
        .collect()
}

/// An address that a packet can be sent to from another machine: nobody's Service takes the loopback's, or everybody's.
fn unicast(object: &Object<'_>, field: &str, text: &str) -> Result<IpAddr, Invalid> {
    let is_link_local = |addr: &IpAddr| match addr {
        IpAddr::V4(addr) => addr.is_link_local() || addr.is_broadcast(),
        IpAddr::V6(addr) => addr.is_unicast_link_local(),
    };
    let addr = text.trim().parse().ok().filter(|addr: &IpAddr| {
        !addr.is_unspecified() && !addr.is_loopback() && !addr.is_multicast() && !is_link_local(addr)
    });
    let allowed = "an IP address that is not unspecified, of the loopback, link-local or multicast";
    addr.ok_or_else(|| object.value(field.to_owned(), text, allowed))
}

fn source_ranges(object: &Object<'_>, spec: &api::ServiceSpec) -> Result<Vec<IpNet>, Invalid> {
    /// What said the same before there was a field.
    const ANNOTATION: &str = "service.beta.kubernetes.io/load-balancer-source-ranges";
    let parse = |field: String, text: &str| {
        let range = text.trim().parse::<IpNet>().map(|range| range.trunc());
        range.map_err(|_| object.value(field, text, "a range, for example 192.0.2.0/24"))
    };
    let ranges = spec.load_balancer_source_ranges.as_deref().unwrap_or_default();
    if ranges.is_empty() {
        let text = object.annotation(ANNOTATION).map(str::trim).unwrap_or_default();
        let parts = text.split(',').filter(|part| !part.is_empty());
        return parts.map(|part| parse(format!("metadata.annotations[{ANNOTATION}]"), part)).collect();
    }
    let ranges = ranges.iter().enumerate();
    ranges.map(|(index, text)| parse(format!("spec.loadBalancerSourceRanges[{index}]"), text)).collect()
}

fn affinity(object: &Object<'_>, spec: &api::ServiceSpec) -> Result<Option<u32>, Invalid> {
    match spec.session_affinity.as_deref() {
        None | Some("" | "None") => return Ok(None),
        Some("ClientIP") => {}
        Some(other) => return Err(object.value("spec.sessionAffinity", other, "ClientIP or None")),
    }
    let config = spec.session_affinity_config.as_ref().and_then(|config| config.client_ip.as_ref());
    let seconds = config.and_then(|config| config.timeout_seconds).unwrap_or(AFFINITY_TIMEOUT);
    let fits = u32::try_from(seconds).ok().filter(|_| (1..=AFFINITY_TIMEOUT_MAX).contains(&seconds));
    let field = "spec.sessionAffinityConfig.clientIP.timeoutSeconds";
    fits.map(Some).ok_or_else(|| object.value(field, &seconds.to_string(), "1 to 86400"))
}

fn policy(object: &Object<'_>, field: &'static str, value: Option<&str>) -> Result<TrafficPolicy, Invalid> {
    match value {
        None | Some("" | "Cluster") => Ok(TrafficPolicy::Cluster),
        Some("Local") => Ok(TrafficPolicy::Local),
        Some(other) => Err(object.value(field, other, "Cluster or Local")),
    }
}
