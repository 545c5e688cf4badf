//! Service.

use k8s_openapi::api::core::v1 as api;

use super::{Invalid, Object};
use crate::{
    NodePort, Service, ServiceKey, ServicePort,
    service::{Port, ServiceKind},
};

impl TryFrom<&api::Service> for Service {
    type Error = Invalid;

    fn try_from(service: &api::Service) -> Result<Self, Invalid> {
        let object = Object::new("Service", &service.metadata);
        let spec = service.spec.as_ref().ok_or_else(|| object.missing("spec", "the Service's specification"))?;
        let ports = spec.ports.as_deref().unwrap_or_default().iter().enumerate();
        Ok(Self {
            key: ServiceKey::new(object.namespace()?, object.name()?),
            kind: kind(&object, spec)?,
            ports: ports.map(|(index, port)| self::port(&object, index, port)).collect::<Result<_, _>>()?,
            publish_not_ready: spec.publish_not_ready_addresses.unwrap_or(false),
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
