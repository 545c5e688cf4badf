//! EndpointSlice.

use std::sync::Arc;

use k8s_openapi::api::discovery::v1 as api;

use super::{Faults, Invalid, Object, Partly, service::PROXY_NAME};
use crate::{
    Endpoint, EndpointSlice, PodAddr, PodKey, ServiceKey, SliceKey, TargetPort,
    endpoints::{EndpointPort, Hints, ImportedSlice},
};

/// The label selector of slices that belong to ServiceImports: by this label they do.
pub const IMPORTED_SLICES: &str = "multicluster.kubernetes.io/service-name";

/// The label by which a slice belongs to a Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// The label with the cluster that an imported slice comes from.
const SOURCE_CLUSTER: &str = "multicluster.kubernetes.io/source-cluster";
/// The longest label of a name (RFC 1035 §2.3.4).
const MAX_LABEL: usize = 63;
/// The label of slices of a headless Service.
const HEADLESS: &str = "service.kubernetes.io/headless";

/// The annotation with the time of the change that a slice tells.
const TRIGGER_TIME: &str = "endpoints.kubernetes.io/last-change-trigger-time";

/// What can be taken of it, wrong ports and endpoints left out.
impl TryFrom<&api::EndpointSlice> for EndpointSlice {
    type Error = Invalid;

    fn try_from(slice: &api::EndpointSlice) -> Result<Self, Invalid> {
        Partly::<Self>::try_from(slice).map(|partly| partly.right)
    }
}

/// Wrong as a whole is one without a name, of no Service or of no known address type. Else each wrong port and each wrong endpoint is
/// left out alone.
impl TryFrom<&api::EndpointSlice> for Partly<EndpointSlice> {
    type Error = Invalid;

    fn try_from(slice: &api::EndpointSlice) -> Result<Self, Invalid> {
        slice_of(SERVICE_NAME, "the name of the Service that it belongs to", slice)
    }
}

/// As of a cluster's own; wrong as a whole, too, is one that does not say from which cluster it comes.
impl TryFrom<&api::EndpointSlice> for Partly<ImportedSlice> {
    type Error = Invalid;

    fn try_from(slice: &api::EndpointSlice) -> Result<Self, Invalid> {
        let object = Object::new("EndpointSlice", &slice.metadata);
        let field = || format!("metadata.labels[{SOURCE_CLUSTER}]");
        let allowed = "the id of the cluster that its endpoints are in";
        let cluster = object.label(SOURCE_CLUSTER).ok_or_else(|| object.missing(field(), allowed))?;
        let is_label = |text: &str| {
            let right = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
            (1..=MAX_LABEL).contains(&text.len()) && text.bytes().all(right)
        };
        if !is_label(cluster) {
            return Err(object.value(field(), cluster, "a DNS label: 1 to 63 letters, digits and dashes"));
        }
        let Partly { right: slice, faults } =
            slice_of(IMPORTED_SLICES, "the name of the ServiceImport that it belongs to", slice)?;
        Ok(Self { right: ImportedSlice { cluster: cluster.into(), slice }, faults })
    }
}

/// Whether a slice is none of this cluster's: it belongs to a ServiceImport, and to no Service.
#[must_use]
pub fn is_only_imported(slice: &api::EndpointSlice) -> bool {
    let object = Object::new("EndpointSlice", &slice.metadata);
    object.label(IMPORTED_SLICES).is_some() && object.label(SERVICE_NAME).is_none()
}

/// A slice that belongs to what a label names.
fn slice_of(
    label: &'static str,
    allowed: &'static str,
    slice: &api::EndpointSlice,
) -> Result<Partly<EndpointSlice>, Invalid> {
    let object = Object::new("EndpointSlice", &slice.metadata);
    let namespace = object.namespace()?;
    let named = object.label(label).filter(|name| !name.is_empty());
    let service = named.ok_or_else(|| object.missing(format!("metadata.labels[{label}]"), allowed))?;
    let endpoints = match slice.address_type.as_str() {
        "IPv4" | "IPv6" => slice.endpoints.as_deref().unwrap_or_default(),
        // Names are for nobody who proxies; the slice is right all the same.
        "FQDN" => &[],
        other => return Err(object.value("addressType", other, "IPv4, IPv6 or FQDN")),
    };
    let mut faults = Faults::default();
    let ports = slice.ports.as_deref().unwrap_or_default().iter().enumerate();
    let ports = ports.filter_map(|(index, port)| self::port(&object, index, port).transpose());
    let ports = faults.all_right(ports);
    let endpoints = endpoints.iter().enumerate();
    let endpoints = endpoints.map(|(index, endpoint)| self::endpoint(&object, index, &slice.address_type, endpoint));
    let right = EndpointSlice {
        key: SliceKey::new(namespace, object.name()?),
        service: ServiceKey::new(namespace, service),
        ports,
        endpoints: faults.all_right(endpoints),
        // It says how long programming takes, and nothing else depends on it.
        triggered: object.annotation(TRIGGER_TIME).and_then(|time| time.parse().ok()),
        unproxied: object.label(HEADLESS).is_some() || object.label(PROXY_NAME).is_some(),
    };
    Ok(Partly { right, faults: faults.0 })
}

/// A port; none where its number is absent, which means "all ports" and serves no Service port.
fn port(object: &Object<'_>, index: usize, port: &api::EndpointPort) -> Result<Option<EndpointPort>, Invalid> {
    let Some(number) = port.port else { return Ok(None) };
    Ok(Some(EndpointPort {
        name: port.name.as_deref().unwrap_or_default().into(),
        protocol: object.protocol(|| format!("ports[{index}].protocol"), port.protocol.as_deref())?,
        port: TargetPort(object.port(|| format!("ports[{index}].port"), number)?),
    }))
}

fn endpoint(
    object: &Object<'_>,
    index: usize,
    address_type: &str,
    endpoint: &api::Endpoint,
) -> Result<Endpoint, Invalid> {
    let field = || format!("endpoints[{index}].addresses[0]");
    let allowed = if address_type == "IPv4" {
        "an IPv4 address, as addressType says"
    } else {
        "an IPv6 address, as addressType says"
    };
    let text = endpoint.addresses.first().ok_or_else(|| object.missing(field(), allowed))?;
    let addr = text.parse().ok().filter(|addr: &PodAddr| addr.0.is_ipv4() == (address_type == "IPv4"));
    let addr = addr.ok_or_else(|| object.value(field(), text, allowed))?;
    let conditions = endpoint.conditions.as_ref();
    let ready = conditions.and_then(|conditions| conditions.ready).unwrap_or(true);
    let target = endpoint.target_ref.as_ref().filter(|target| target.kind.as_deref() == Some("Pod"));
    Ok(Endpoint {
        addr,
        ready,
        serving: conditions.and_then(|conditions| conditions.serving).unwrap_or(ready),
        terminating: conditions.and_then(|conditions| conditions.terminating).unwrap_or(false),
        hostname: endpoint.hostname.as_deref().filter(|name| !name.is_empty()).map(Arc::from),
        node: endpoint.node_name.as_deref().map(Into::into),
        zone: endpoint.zone.as_deref().filter(|zone| !zone.is_empty()).map(Arc::from),
        pod: target.and_then(|target| {
            let namespace = target.namespace.as_deref().or(object.meta.namespace.as_deref())?;
            Some(PodKey::new(namespace, target.name.as_deref()?))
        }),
        hints: endpoint.hints.as_ref().map(hints).unwrap_or_default(),
    })
}

fn hints(hints: &api::EndpointHints) -> Hints {
    let zones = hints.for_zones.iter().flatten().map(|zone| zone.name.as_str().into());
    let nodes = hints.for_nodes.iter().flatten().map(|node| node.name.as_str().into());
    Hints { zones: zones.collect(), nodes: nodes.collect() }
}
