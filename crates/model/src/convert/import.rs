//! ServiceImport.

use std::sync::Arc;

use super::{Faults, Invalid, Object, Partly};
use crate::{
    ClusterIp, Service, ServiceKey, ServicePort, crd,
    service::{Port, ServiceKind},
};

/// A Service of a cluster set as the cluster's own are read: a `ClusterSetIP` has its addresses, a `Headless` one those of its endpoints.
///
/// Wrong as a whole is one without a name, of no known type, or of type `ClusterSetIP` whose addresses are all wrong. One that was given
/// no address yet is right, and has none. Of the rest each wrong address and each wrong port is left out alone.
impl TryFrom<&crd::ServiceImport> for Partly<Service> {
    type Error = Invalid;

    fn try_from(import: &crd::ServiceImport) -> Result<Self, Invalid> {
        let object = Object::new("ServiceImport", &import.metadata);
        let key = ServiceKey::new(object.namespace()?, object.name()?);
        let mut faults = Faults::default();
        let allowed = "ClusterSetIP or Headless";
        let kind = match import.spec.type_.as_deref() {
            Some("ClusterSetIP") => {
                ServiceKind::Virtual { cluster_ips: addresses(&object, &import.spec, &mut faults)? }
            }
            Some("Headless") => ServiceKind::Headless,
            Some(other) => return Err(object.value("spec.type", other, allowed)),
            None => return Err(object.missing("spec.type", allowed)),
        };
        let ports = import.spec.ports.iter().flatten().enumerate();
        let ports = faults.all_right(ports.map(|(index, port)| self::port(&object, index, port)));
        let labels = Arc::new(import.metadata.labels.clone().unwrap_or_default());
        Ok(Self { right: Service { labels, ..Service::new(key, kind, ports) }, faults: faults.0 })
    }
}

fn addresses(
    object: &Object<'_>,
    spec: &crd::ServiceImportSpec,
    faults: &mut Faults,
) -> Result<Vec<ClusterIp>, Invalid> {
    let parse = |(index, text): (usize, &String)| {
        text.parse::<ClusterIp>().map_err(|_| object.value(format!("spec.ips[{index}]"), text, "an IP address"))
    };
    let right = faults.all_right(spec.ips.iter().flatten().enumerate().map(parse));
    match faults.0.first() {
        Some(first) if right.is_empty() => Err(first.clone()),
        _ => Ok(right),
    }
}

fn port(object: &Object<'_>, index: usize, port: &crd::ImportedPort) -> Result<Port, Invalid> {
    Ok(Port {
        name: port.name.as_deref().unwrap_or_default().into(),
        protocol: object.protocol(|| format!("spec.ports[{index}].protocol"), port.protocol.as_deref())?,
        port: ServicePort(object.port(|| format!("spec.ports[{index}].port"), port.port)?),
        node_port: None,
    })
}
