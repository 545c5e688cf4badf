//! What a Service says about the address that it wants from outside.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use k8s_openapi::api::core::v1::{Namespace, Service, ServiceSpec};
use kube::ResourceExt;
use podnet_model::{Family, Protocol, ServiceKey, balancer::CLASS, labels::Labels};
use podnet_planner::loadbalancer::{Request, Sharing};

/// The annotations' prefixes: MetalLB's, and that of before 0.13.
const PREFIXES: [&str; 2] = ["metallb.io", "metallb.universe.tf"];

/// Whether the Service has its address from here: it is a load balancer's, and of no other class. One on its way out keeps it until
/// it is gone: nodes serve it until then.
pub(super) fn is_ours(service: &Service) -> bool {
    let Some(spec) = &service.spec else { return false };
    let class = spec.load_balancer_class.as_deref();
    spec.type_.as_deref() == Some("LoadBalancer") && class.is_none_or(|class| class == CLASS)
}

/// Leaves of a Service what is asked of it here: nothing but its name, where it is not ours.
pub(super) fn prune(service: &mut Service) {
    service.metadata.managed_fields = None;
    if !is_ours(service) {
        (service.spec, service.status) = (None, None);
        (service.metadata.annotations, service.metadata.labels) = (None, None);
    }
}

/// The addresses that the Service's status says.
pub(super) fn current(service: &Service) -> Vec<IpAddr> {
    let balancer = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let ingress = balancer.iter().flat_map(|balancer| balancer.ingress.iter().flatten());
    ingress.filter_map(|ingress| ingress.ip.as_deref()?.parse().ok()).collect()
}

/// What the Service asks for, or what is wrong with it.
pub(super) fn of(service: &Service, namespace: Option<&Namespace>) -> Result<Request, String> {
    let spec = service.spec.as_ref().ok_or("it has no spec")?;
    let ports = spec.ports.iter().flatten().filter_map(|port| {
        let protocol = match port.protocol.as_deref() {
            Some("UDP") => Protocol::Udp,
            Some("SCTP") => Protocol::Sctp,
            _ => Protocol::Tcp,
        };
        Some((protocol, u16::try_from(port.port).ok()?))
    });
    let labels =
        |labels: Option<&std::collections::BTreeMap<String, String>>| Labels::new(labels.cloned().unwrap_or_default());
    Ok(Request {
        key: ServiceKey::new(&service.namespace().unwrap_or_default(), &service.name_any()),
        labels: labels(service.metadata.labels.as_ref()),
        namespace_labels: labels(namespace.and_then(|namespace| namespace.metadata.labels.as_ref())),
        families: families(spec),
        needs_all: spec.ip_family_policy.as_deref() == Some("RequireDualStack"),
        asked: asked(service, spec)?,
        pool: annotation(service, "address-pool").map(Arc::from),
        ports: ports.collect::<BTreeSet<_>>(),
        sharing: annotation(service, "allow-shared-ip").map(|key| sharing(key, spec)),
    })
}

fn families(spec: &ServiceSpec) -> Vec<Family> {
    let addresses = spec.cluster_ips.iter().flatten().filter_map(|addr| addr.parse::<IpAddr>().ok());
    let families: Vec<_> = addresses.map(|addr| Family::of(&addr)).collect();
    if families.is_empty() { vec![Family::V4] } else { families }
}

fn asked(service: &Service, spec: &ServiceSpec) -> Result<Vec<IpAddr>, String> {
    let field = spec.load_balancer_ip.as_deref().filter(|addr| !addr.is_empty());
    let texts = match (annotation(service, "loadBalancerIPs"), field) {
        (Some(_), Some(_)) => {
            return Err("it has both the annotation metallb.io/loadBalancerIPs and spec.loadBalancerIP".to_owned());
        }
        (texts, field) => texts.or(field).unwrap_or_default(),
    };
    let texts = texts.split(',').map(str::trim).filter(|text| !text.is_empty());
    texts.map(|text| text.parse().map_err(|_| format!("{text:?}, which it asks for, is no IP address"))).collect()
}

fn sharing(key: &str, spec: &ServiceSpec) -> Sharing {
    let local = spec.external_traffic_policy.as_deref() == Some("Local");
    let selector = spec.selector.iter().flatten().map(|(key, value)| format!("{key}={value}"));
    let backends = local.then(|| Arc::from(selector.collect::<Vec<_>>().join(",")));
    Sharing { key: key.into(), backends }
}

fn annotation<'s>(service: &'s Service, name: &str) -> Option<&'s str> {
    let found = PREFIXES.iter().find_map(|prefix| service.annotations().get(&format!("{prefix}/{name}")));
    found.map(String::as_str).filter(|value| !value.is_empty())
}

#[cfg(test)]
#[allow(clippy::needless_pass_by_value, reason = "json!(…) as an argument reads best by value")]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn service(annotations: Value, spec: Value) -> Service {
        let object = json!({ "metadata": { "name": "a", "namespace": "b", "annotations": annotations }, "spec": spec });
        serde_json::from_value(object).unwrap()
    }

    #[test]
    fn annotations_of_both_prefixes_say_what_is_wanted() {
        for prefix in PREFIXES {
            let annotations = json!({
                format!("{prefix}/loadBalancerIPs"): "192.0.2.1, 2001:db8::1",
                format!("{prefix}/address-pool"): "p",
                format!("{prefix}/allow-shared-ip"): "k",
            });
            let spec = json!({
                "clusterIPs": ["fd00::1", "10.0.0.1"], "externalTrafficPolicy": "Local", "selector": { "a": "b", "c": "d" },
                "ports": [{ "port": 53, "protocol": "UDP" }],
            });
            let request = of(&service(annotations, spec), None).unwrap();
            assert_eq!(request.asked.iter().map(ToString::to_string).collect::<Vec<_>>(), ["192.0.2.1", "2001:db8::1"]);
            assert_eq!((request.pool.as_deref(), request.families), (Some("p"), vec![Family::V6, Family::V4]));
            assert_eq!(request.ports, [(Protocol::Udp, 53)].into());
            assert_eq!(request.sharing, Some(Sharing { key: "k".into(), backends: Some("a=b,c=d".into()) }));
        }
    }

    #[test]
    fn what_cannot_be_meant_is_named() {
        let error = |annotation: &str, field: Value| {
            let service =
                service(json!({ "metallb.io/loadBalancerIPs": annotation }), json!({ "loadBalancerIP": field }));
            of(&service, None).unwrap_err()
        };
        assert_eq!(error("x", Value::Null), "\"x\", which it asks for, is no IP address");
        assert!(error("192.0.2.1", json!("192.0.2.1")).starts_with("it has both"));
    }

    #[test]
    fn a_service_on_its_way_out_has_its_address_from_here_still() {
        let metadata = json!({ "name": "a", "namespace": "b", "deletionTimestamp": "2026-01-01T00:00:00Z" });
        let object = json!({ "metadata": metadata, "spec": { "type": "LoadBalancer" } });
        assert!(is_ours(&serde_json::from_value(object).unwrap()));
    }

    #[test]
    fn services_of_another_class_are_anothers() {
        let of_class =
            |class: Value| is_ours(&service(json!({}), json!({ "type": "LoadBalancer", "loadBalancerClass": class })));
        assert!(of_class(Value::Null) && of_class(json!(CLASS)) && !of_class(json!("example.com/x")));
        assert!(!is_ours(&service(json!({}), json!({ "type": "NodePort" }))));
    }
}
