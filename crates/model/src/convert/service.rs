//! Service.

use std::{net::IpAddr, sync::Arc};

use ipnet::IpNet;
use k8s_openapi::api::core::v1 as api;

use super::{Faults, Invalid, Object, Partly};
use crate::{
    NodePort, Service, ServiceKey, ServicePort,
    balancer::CLASS,
    names::interned,
    service::{Ingress, Port, ServiceKind, TrafficPolicy},
};

/// The label of Services, and of their slices, that another program proxies.
pub(super) const PROXY_NAME: &str = "service.kubernetes.io/service-proxy-name";
/// `sessionAffinityConfig.clientIP.timeoutSeconds` where nothing is said: three hours.
const AFFINITY_TIMEOUT: u32 = 10_800;
/// The longest that may be said: a day.
const AFFINITY_TIMEOUT_MAX: u32 = 86_400;

/// What can be taken of it, wrong parts left out.
impl TryFrom<&api::Service> for Service {
    type Error = Invalid;

    fn try_from(service: &api::Service) -> Result<Self, Invalid> {
        Partly::try_from(service).map(|partly| partly.right)
    }
}

/// Wrong as a whole is one without a name, of no known type, or with no address or no port that is right. Of the rest each wrong part is
/// left out alone: an address, a port, a range; a wrong policy, affinity or time is the default's.
impl TryFrom<&api::Service> for Partly<Service> {
    type Error = Invalid;

    fn try_from(service: &api::Service) -> Result<Self, Invalid> {
        let object = Object::new("Service", &service.metadata);
        let spec = service.spec.as_ref().ok_or_else(|| object.missing("spec", "the Service's specification"))?;
        let key = ServiceKey::new(object.namespace()?, object.name()?);
        let mut faults = Faults::default();
        let kind = kind(&object, spec, &mut faults)?;
        let ports = ports(&object, spec, &mut faults)?;
        let proxy = object.label(PROXY_NAME).map(Into::into);
        let labels = Arc::new(service.metadata.labels.clone().unwrap_or_default());
        let plain = Service { proxy, labels, ..Service::new(key, kind, ports) };
        let created = service.metadata.creation_timestamp.as_ref().map(|time| time.0.as_second());
        let created = created.and_then(|seconds| u32::try_from(seconds).ok()).unwrap_or(0);
        let publish_not_ready = spec.publish_not_ready_addresses.unwrap_or(false);
        let plain = Service { publish_not_ready, created, ..plain };
        let right = match plain.kind {
            ServiceKind::Virtual { .. } => virtual_one(&object, service, spec, plain, &mut faults),
            // Nothing leads there, but names may.
            ServiceKind::Headless => Service { external_ips: external_ips(&object, spec, &mut faults), ..plain },
            ServiceKind::External { .. } => plain,
        };
        Ok(Self { right, faults: faults.0 })
    }
}

/// A Service with virtual addresses, from what all Services have.
fn virtual_one(
    object: &Object<'_>,
    service: &api::Service,
    spec: &api::ServiceSpec,
    plain: Service,
    faults: &mut Faults,
) -> Service {
    let is_load_balancer = spec.type_.as_deref() == Some("LoadBalancer");
    let mut balanced = Service { external_ips: external_ips(object, spec, faults), ..plain };
    if is_load_balancer {
        balanced.ingress_names = ingress_names(service);
        balanced.ingress = ingress(object, service, faults);
        balanced.is_anothers = spec.load_balancer_class.as_deref().is_some_and(|class| class != CLASS);
        match source_ranges(object, spec, faults) {
            Some(ranges) => balanced.source_ranges = ranges,
            // No range at all means everybody, and that is not what is meant: nobody comes by these addresses.
            None => balanced.ingress.clear(),
        }
    }
    let mut policy =
        |field, value: &Option<String>| faults.right(self::policy(object, field, value.as_deref())).unwrap_or_default();
    let internal_policy = policy("spec.internalTrafficPolicy", &spec.internal_traffic_policy);
    let external_policy = policy("spec.externalTrafficPolicy", &spec.external_traffic_policy);
    let health_check = spec.health_check_node_port.filter(|number| *number != 0);
    let health_check = health_check.map(|number| object.port(|| "spec.healthCheckNodePort".into(), number));
    Service {
        affinity: affinity(object, spec, faults),
        internal_policy,
        external_policy,
        health_check: health_check.and_then(|port| faults.right(port)).map(NodePort),
        traffic_distribution: spec.traffic_distribution.as_deref().map(Into::into),
        ..balanced
    }
}

fn kind(object: &Object<'_>, spec: &api::ServiceSpec, faults: &mut Faults) -> Result<ServiceKind, Invalid> {
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
    match some_right(texts.iter().map(parse), faults)? {
        Some(cluster_ips) => Ok(ServiceKind::Virtual { cluster_ips }),
        None => Err(object.missing("spec.clusterIPs", "the addresses that the API server allocates")),
    }
}

fn ports(object: &Object<'_>, spec: &api::ServiceSpec, faults: &mut Faults) -> Result<Vec<Port>, Invalid> {
    let all = spec.ports.as_deref().unwrap_or_default().iter().enumerate();
    let mut wrong = Faults::default();
    let ports: Vec<_> = all.map(|(index, port)| self::port(object, index, port, &mut wrong)).collect();
    let ports = some_right(ports.into_iter(), faults)?;
    faults.0.append(&mut wrong.0);
    Ok(ports.unwrap_or_default())
}

/// Those that are right; none where there are none at all, and the first fault where all are wrong.
fn some_right<T>(
    parts: impl Iterator<Item = Result<T, Invalid>>,
    faults: &mut Faults,
) -> Result<Option<Vec<T>>, Invalid> {
    let before = faults.0.len();
    let right = faults.all_right(parts);
    match faults.0.get(before) {
        Some(first) if right.is_empty() => Err(first.clone()),
        _ => Ok(Some(right).filter(|right| !right.is_empty())),
    }
}

fn port(object: &Object<'_>, index: usize, port: &api::ServicePort, faults: &mut Faults) -> Result<Port, Invalid> {
    let field = |name: &str| format!("spec.ports[{index}].{name}");
    let node_port = port.node_port.filter(|number| *number != 0);
    let node_port = node_port.map(|number| object.port(|| field("nodePort"), number));
    Ok(Port {
        name: interned(port.name.as_deref().unwrap_or_default()).into(),
        protocol: object.protocol(|| field("protocol"), port.protocol.as_deref())?,
        port: ServicePort(object.port(|| field("port"), port.port)?),
        node_port: node_port.and_then(|port| faults.right(port)).map(NodePort),
    })
}

fn external_ips(object: &Object<'_>, spec: &api::ServiceSpec, faults: &mut Faults) -> Vec<IpAddr> {
    let texts = spec.external_ips.as_deref().unwrap_or_default().iter().enumerate();
    faults.all_right(texts.map(|(index, text)| unicast(object, &format!("spec.externalIPs[{index}]"), text)))
}

fn ingress_names(service: &api::Service) -> Vec<Arc<str>> {
    let status = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let all = status.and_then(|status| status.ingress.as_deref()).unwrap_or_default().iter();
    all.filter_map(|ingress| ingress.hostname.as_deref()).filter(|name| !name.is_empty()).map(Into::into).collect()
}

fn ingress(object: &Object<'_>, service: &api::Service, faults: &mut Faults) -> Vec<Ingress> {
    let status = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let all = status.and_then(|status| status.ingress.as_deref()).unwrap_or_default().iter().enumerate();
    let with_addr = all.filter_map(|(index, ingress)| {
        Some((index, ingress.ip.as_deref().filter(|ip| !ip.is_empty())?, ingress.ip_mode.as_deref()))
    });
    faults.all_right(with_addr.map(|(index, ip, mode)| {
        let field = format!("status.loadBalancer.ingress[{index}]");
        let is_proxy = match mode {
            None | Some("" | "VIP") => false,
            Some("Proxy") => true,
            Some(other) => return Err(object.value(format!("{field}.ipMode"), other, "VIP or Proxy")),
        };
        Ok(Ingress { addr: unicast(object, &format!("{field}.ip"), ip)?, is_proxy })
    }))
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

/// What said the same as `loadBalancerSourceRanges` before there was a field.
pub(crate) const RANGES_ANNOTATION: &str = "service.beta.kubernetes.io/load-balancer-source-ranges";

/// The ranges that are said, each with the field that says it.
fn said_ranges<'a>(object: &Object<'a>, spec: &'a api::ServiceSpec) -> Vec<(String, &'a str)> {
    let ranges = spec.load_balancer_source_ranges.as_deref().unwrap_or_default().iter().enumerate();
    let ranges: Vec<_> =
        ranges.map(|(index, text)| (format!("spec.loadBalancerSourceRanges[{index}]"), text.trim())).collect();
    if !ranges.is_empty() {
        return ranges;
    }
    let text = object.annotation(RANGES_ANNOTATION).unwrap_or_default();
    let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    parts.map(|part| (format!("metadata.annotations[{RANGES_ANNOTATION}]"), part)).collect()
}

/// The ranges; none where some are said and none of them is right.
fn source_ranges(object: &Object<'_>, spec: &api::ServiceSpec, faults: &mut Faults) -> Option<Vec<IpNet>> {
    let parse = |(field, text): &(String, &str)| {
        let range = text.parse::<IpNet>().map(|range| range.trunc());
        range.map_err(|_| object.value(field, text, "a range, for example 192.0.2.0/24"))
    };
    let said = said_ranges(object, spec);
    let right = faults.all_right(said.iter().map(parse));
    (said.is_empty() || !right.is_empty()).then_some(right)
}

fn affinity(object: &Object<'_>, spec: &api::ServiceSpec, faults: &mut Faults) -> Option<u32> {
    match spec.session_affinity.as_deref() {
        None | Some("" | "None") => return None,
        Some("ClientIP") => {}
        Some(other) => {
            return faults.right(Err(object.value("spec.sessionAffinity", other, "ClientIP or None")));
        }
    }
    let config = spec.session_affinity_config.as_ref().and_then(|config| config.client_ip.as_ref());
    let Some(seconds) = config.and_then(|config| config.timeout_seconds) else { return Some(AFFINITY_TIMEOUT) };
    let fits = u32::try_from(seconds).ok().filter(|seconds| (1..=AFFINITY_TIMEOUT_MAX).contains(seconds));
    let field = "spec.sessionAffinityConfig.clientIP.timeoutSeconds";
    let fits = fits.ok_or_else(|| object.value(field, &seconds, "1 to 86400"));
    Some(faults.right(fits).unwrap_or(AFFINITY_TIMEOUT))
}

fn policy(object: &Object<'_>, field: &'static str, value: Option<&str>) -> Result<TrafficPolicy, Invalid> {
    match value {
        None | Some("" | "Cluster") => Ok(TrafficPolicy::Cluster),
        Some("Local") => Ok(TrafficPolicy::Local),
        Some(other) => Err(object.value(field, other, "Cluster or Local")),
    }
}
