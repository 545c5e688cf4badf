//! EndpointSlice.

use std::sync::Arc;

use k8s_openapi::{Metadata, api::discovery::v1 as api, apimachinery::pkg::apis::meta::v1::ObjectMeta};

use super::{Faults, Invalid, Object, Partly, service::PROXY_NAME};
use crate::{
    Endpoint, EndpointSlice, PodAddr, PodKey, ServiceKey, SliceKey, TargetPort,
    endpoints::{EndpointPort, Hints, ImportedSlice},
    excerpt::{self, Address},
    names::interned,
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

/// The labels and annotations that are read of a slice.
pub(crate) const SLICE_KEYS: [&str; 6] =
    [SERVICE_NAME, HEADLESS, PROXY_NAME, IMPORTED_SLICES, SOURCE_CLUSTER, TRIGGER_TIME];

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
        Self::try_from(&excerpt::EndpointSlice::from(slice))
    }
}

/// As of a whole one.
impl TryFrom<&excerpt::EndpointSlice> for Partly<EndpointSlice> {
    type Error = Invalid;

    fn try_from(slice: &excerpt::EndpointSlice) -> Result<Self, Invalid> {
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
            slice_of(IMPORTED_SLICES, "the name of the ServiceImport that it belongs to", &slice.into())?;
        Ok(Self { right: ImportedSlice { cluster: cluster.into(), slice }, faults })
    }
}

/// Whether a slice is none of this cluster's: it belongs to a ServiceImport, and to no Service.
#[must_use]
pub fn is_only_imported(slice: &impl Metadata<Ty = ObjectMeta>) -> bool {
    let object = Object::new("EndpointSlice", slice.metadata());
    object.label(IMPORTED_SLICES).is_some() && object.label(SERVICE_NAME).is_none()
}

/// A slice that belongs to what a label names.
fn slice_of(
    label: &'static str,
    allowed: &'static str,
    slice: &excerpt::EndpointSlice,
) -> Result<Partly<EndpointSlice>, Invalid> {
    let object = Object::new("EndpointSlice", &slice.metadata);
    let namespace = object.namespace()?;
    let key = SliceKey::new(namespace, object.name()?);
    let named = object.label(label).filter(|name| !name.is_empty());
    let service = named.ok_or_else(|| object.missing(format!("metadata.labels[{label}]"), allowed))?;
    let endpoints = match slice.address_type.as_str() {
        "IPv4" | "IPv6" => slice.endpoints.as_slice(),
        // Names are for nobody who proxies; the slice is right all the same.
        "FQDN" => &[],
        other => return Err(object.value("addressType", other, "IPv4, IPv6 or FQDN")),
    };
    let mut faults = Faults::default();
    let ports = slice.ports.iter().enumerate();
    let ports = ports.filter_map(|(index, port)| self::port(&object, index, port).transpose());
    let ports = faults.all_right(ports);
    let is_v4 = slice.address_type == "IPv4";
    let endpoints = endpoints.iter().enumerate();
    let endpoints = endpoints.map(|(index, endpoint)| self::endpoint(&object, &key, index, is_v4, endpoint));
    let endpoints = faults.all_right(endpoints);
    let right = EndpointSlice {
        service: ServiceKey::new(namespace, service),
        key,
        ports,
        endpoints,
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
        name: interned(port.name.as_deref().unwrap_or_default()).into(),
        protocol: object.protocol(|| format!("ports[{index}].protocol"), port.protocol.as_deref())?,
        port: TargetPort(object.port(|| format!("ports[{index}].port"), number)?),
    }))
}

fn endpoint(
    object: &Object<'_>,
    key: &SliceKey,
    index: usize,
    is_v4: bool,
    endpoint: &excerpt::Endpoint,
) -> Result<Endpoint, Invalid> {
    let field = || format!("endpoints[{index}].addresses[0]");
    let allowed = if is_v4 { "an IPv4 address, as addressType says" } else { "an IPv6 address, as addressType says" };
    let addr = match endpoint.address() {
        Some(Address::Right(addr)) if addr.is_ipv4() == is_v4 => PodAddr(*addr),
        Some(Address::Right(addr)) => return Err(object.value(field(), addr, allowed)),
        Some(Address::Wrong(text)) => return Err(object.value(field(), text, allowed)),
        None => return Err(object.missing(field(), allowed)),
    };
    let conditions = endpoint.conditions();
    let ready = conditions.ready.unwrap_or(true);
    Ok(Endpoint {
        addr,
        ready,
        serving: conditions.serving.unwrap_or(ready),
        terminating: conditions.terminating.unwrap_or(false),
        hostname: endpoint.hostname().filter(|name| !name.is_empty()).cloned(),
        node: endpoint.node().cloned().map(Into::into),
        zone: endpoint.zone().filter(|zone| !zone.is_empty()).cloned(),
        pod: endpoint.pod().map(|(other, name)| PodKey {
            namespace: other.map_or_else(|| key.namespace.clone(), |other| Arc::clone(other).into()),
            name: Arc::clone(name),
        }),
        hints: Hints {
            zones: endpoint.for_zones().cloned().collect(),
            nodes: endpoint.for_nodes().cloned().map(Into::into).collect(),
        },
    })
}
