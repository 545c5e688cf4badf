//! Which names a pod's resolver asks for, and what cluster DNS answers by the Services that there are.

use std::net::IpAddr;

use podnet_model::{Endpoint, Pod, ServiceKey, service::ServiceKind};
use podnet_planner::trace::Cluster;

/// With fewer dots than these a name is completed before it is asked for as it stands (`ndots` of the cluster's resolv.conf), where the pod says
/// nothing else.
pub(super) const DOTS: u8 = 5;

/// What became of a name.
pub(super) struct Resolved {
    /// The names that are asked for, in order, the last one with an answer.
    pub(super) asked: Vec<String>,
    /// What the last one is.
    pub(super) answer: Answer,
}

/// What a name leads to.
pub(super) enum Answer {
    /// A Service.
    Service(ServiceKey),
    /// These endpoints of a headless Service.
    Addresses(ServiceKey, Vec<IpAddr>),
    /// The addresses of one host: an endpoint of a headless Service by its name, or a pod by its address.
    Host(Vec<IpAddr>),
    /// A name outside of the cluster.
    Outside(String),
    /// Nothing: the cluster's domain does not have it.
    Nothing,
}

/// Asks as the resolver of the pod does; of nobody's where none is named.
pub(super) fn resolve(cluster: &Cluster, domain: &str, pod: Option<&Pod>, name: &str) -> Resolved {
    let (mut asked, mut as_given) = (Vec::new(), None);
    for candidate in candidates(domain, pod, name) {
        asked.push(format!("{candidate}."));
        match answer(cluster, domain, &candidate) {
            Answer::Nothing => {}
            // What is completed by a path of the pod's own and is none of the cluster's is taken not to exist; a name as it is given, where the
            // cluster has none of the others.
            Answer::Outside(outside) if outside == candidate => {
                if candidate.eq_ignore_ascii_case(name.trim_end_matches('.')) {
                    as_given = Some((asked.len(), outside));
                }
            }
            answer => return Resolved { asked, answer },
        }
    }
    let Some((count, outside)) = as_given else { return Resolved { asked, answer: Answer::Nothing } };
    asked.truncate(count);
    Resolved { asked, answer: Answer::Outside(outside) }
}

fn candidates(domain: &str, pod: Option<&Pod>, name: &str) -> Vec<String> {
    let absolute = name.trim_end_matches('.').to_ascii_lowercase();
    let searches = pod.and_then(|pod| Some((pod, pod.searches.as_ref()?)));
    let Some((pod, more)) = searches.filter(|_| !name.ends_with('.')) else { return vec![absolute] };
    let own = [format!("{}.svc.{domain}", pod.key.namespace), format!("svc.{domain}"), domain.to_owned()];
    let path = own.into_iter().chain(more.iter().map(ToString::to_string));
    let mut all: Vec<String> = path.map(|place| format!("{absolute}.{place}")).collect();
    match absolute.matches('.').count() < usize::from(pod.ndots.unwrap_or(DOTS)) {
        true => all.push(absolute),
        false => all.insert(0, absolute),
    }
    all
}

fn answer(cluster: &Cluster, domain: &str, name: &str) -> Answer {
    let Some(inside) = name.strip_suffix(domain).and_then(|rest| rest.strip_suffix('.')) else {
        return Answer::Outside(name.to_owned());
    };
    if let Some(labels) = inside.strip_suffix(".pod") {
        return of_pod(labels).map_or(Answer::Nothing, |addr| Answer::Host(vec![addr]));
    }
    let Some(labels) = inside.strip_suffix(".svc") else { return Answer::Nothing };
    let labels: Vec<&str> = labels.split('.').collect();
    let (key, host) = match labels.as_slice() {
        [service, namespace] => (ServiceKey::new(namespace, service), None),
        [host, service, namespace] => (ServiceKey::new(namespace, service), Some(*host)),
        _ => return Answer::Nothing,
    };
    match (cluster.services().get(&key).map(|service| &service.kind), host) {
        // Endpoints have names of their own also where their Service has an address.
        (Some(ServiceKind::Headless), _) | (Some(ServiceKind::Virtual { .. }), Some(_)) => {
            let slices = cluster.slices_of(&key).flat_map(|slice| &slice.endpoints);
            let is_it = |endpoint: &&Endpoint| match (host, endpoint.hostname.as_deref()) {
                (None, _) => true,
                (Some(host), Some(name)) => name == host,
                // Who has no name of its own has one of its address.
                (Some(host), None) => dashed(host) == Some(endpoint.addr.0),
            };
            let ready = slices.filter(|endpoint| endpoint.ready).filter(is_it);
            let addrs: Vec<IpAddr> = ready.map(|endpoint| endpoint.addr.0).collect();
            match host {
                None => Answer::Addresses(key, addrs),
                Some(_) if addrs.is_empty() => Answer::Nothing,
                Some(_) => Answer::Host(addrs),
            }
        }
        (Some(ServiceKind::External { name }), None) => match answer(cluster, domain, name.trim_end_matches('.')) {
            Answer::Nothing => Answer::Outside(name.to_string()),
            answer => answer,
        },
        (Some(ServiceKind::Virtual { .. }), None) => Answer::Service(key),
        // Below an alias there are no names.
        _ => Answer::Nothing,
    }
}

/// `10-1-2-3.NAMESPACE` ("DNS for Services and Pods", pods' A and AAAA records): whether such a pod is there is not asked under `pods insecure`.
fn of_pod(labels: &str) -> Option<IpAddr> {
    let (addr, namespace) = labels.split_once('.')?;
    if namespace.contains('.') { None } else { dashed(addr) }
}

/// An address with dashes where its own dots or colons are.
fn dashed(label: &str) -> Option<IpAddr> {
    label.replace('-', ".").parse().or_else(|_| label.replace('-', ":").parse()).ok()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use k8s_openapi::api::core::v1 as api;
    use podnet_model::{Change, EndpointSlice, PodAddr, SliceKey, convert::Partly};
    use serde_json::json;

    use super::*;

    fn service(name: &str, spec: &serde_json::Value) -> Change {
        let object = json!({"metadata": {"name": name, "namespace": "web"}, "spec": spec});
        let object: api::Service = serde_json::from_value(object).unwrap();
        let service = Partly::<podnet_model::Service>::try_from(&object).unwrap().right;
        Change::Service(service.key.clone(), Some(service))
    }

    fn pod(spec: &serde_json::Value) -> Pod {
        let object = json!({"metadata": {"name": "client", "namespace": "web", "uid": "u"}, "spec": spec});
        Pod::try_from(&serde_json::from_value::<api::Pod>(object).unwrap()).unwrap()
    }

    #[test]
    fn endpoints_have_names_below_headless_services_and_those_with_an_address_and_nobody_below_an_alias() {
        let endpoints = |service: &str, number: u8| {
            let called = |last: u8, hostname: Option<&str>| Endpoint {
                hostname: hostname.map(Into::into),
                ..Endpoint::new(PodAddr(IpAddr::from([10, 244, number, last])))
            };
            let slice = EndpointSlice {
                key: SliceKey::new("web", &format!("{service}-1")),
                service: ServiceKey::new("web", service),
                ports: Vec::new(),
                endpoints: vec![called(2, None), called(3, Some("db-0"))],
                triggered: None,
                unproxied: false,
            };
            Change::Slice(slice.key.clone(), Some(slice))
        };
        let ports = json!([{"port": 80}]);
        let changes = vec![
            service("shop", &json!({"clusterIP": "10.96.0.9", "clusterIPs": ["10.96.0.9"], "ports": ports})),
            service("db", &json!({"clusterIP": "None", "clusterIPs": ["None"], "ports": ports})),
            service("alias", &json!({"type": "ExternalName", "externalName": "shop.web.svc.cluster.local"})),
            endpoints("shop", 1),
            endpoints("db", 2),
        ];
        let cluster = Cluster::new(changes, BTreeMap::new());
        for (name, addr) in [
            ("10-244-1-2.shop", Some([10_u8, 244, 1, 2])),
            ("db-0.shop", Some([10, 244, 1, 3])),
            ("10-244-2-2.db", Some([10, 244, 2, 2])),
            ("db-0.db", Some([10, 244, 2, 3])),
            ("10-244-1-3.shop", None),
            ("10-244-1-9.shop", None),
            ("10-244-1-2.alias", None),
            ("db-0.alias", None),
        ] {
            let absolute = format!("{name}.web.svc.cluster.local.");
            let addrs = match resolve(&cluster, "cluster.local", None, &absolute).answer {
                Answer::Host(addrs) => Some(addrs),
                Answer::Nothing => None,
                _ => panic!("{name} is no host's name"),
            };
            assert_eq!(addrs, addr.map(|addr| vec![IpAddr::from(addr)]), "{name}");
        }
    }

    #[test]
    fn names_are_completed_as_the_pods_resolver_does_until_one_is_answered() {
        let ports = json!([{"port": 80}]);
        let changes = vec![
            service("shop", &json!({"clusterIP": "10.96.0.9", "clusterIPs": ["10.96.0.9"], "ports": ports})),
            service("alias", &json!({"type": "ExternalName", "externalName": "shop.web.svc.cluster.local"})),
            service("abroad", &json!({"type": "ExternalName", "externalName": "example.org"})),
        ];
        let cluster = Cluster::new(changes, BTreeMap::new());
        let (client, stranger) =
            (pod(&json!({"containers": []})), pod(&json!({"dnsPolicy": "Default", "containers": []})));
        let asked = |pod: &Pod, name: &str| {
            let Resolved { asked, answer } = resolve(&cluster, "cluster.local", Some(pod), name);
            let answer = match answer {
                Answer::Service(key) => key.to_string(),
                Answer::Addresses(key, addrs) => format!("{key} {addrs:?}"),
                Answer::Host(addrs) => format!("host {addrs:?}"),
                Answer::Outside(name) => format!("outside {name}"),
                Answer::Nothing => "nothing".to_owned(),
            };
            (asked.len(), answer)
        };
        assert_eq!(asked(&client, "shop"), (1, "web/shop".to_owned()));
        assert_eq!(asked(&client, "shop.web"), (2, "web/shop".to_owned()));
        assert_eq!(asked(&client, "shop.web.svc"), (3, "web/shop".to_owned()));
        assert_eq!(asked(&client, "SHOP.web.svc.cluster.local"), (4, "web/shop".to_owned()));
        assert_eq!(asked(&client, "shop.web.svc.cluster.local."), (1, "web/shop".to_owned()));
        assert_eq!(asked(&client, "alias"), (1, "web/shop".to_owned()));
        assert_eq!(asked(&client, "abroad"), (1, "outside example.org".to_owned()));
        assert_eq!(asked(&client, "example.com"), (4, "outside example.com".to_owned()));
        assert_eq!(asked(&client, "nobody.web.svc.cluster.local."), (1, "nothing".to_owned()));
        assert_eq!(asked(&client, "10-1-2-3.web.pod.cluster.local."), (1, "host [10.1.2.3]".to_owned()));
        assert_eq!(asked(&client, "fd00--1.web.pod"), (3, "host [fd00::1]".to_owned()));
        for odd in ["10-1-2.web", "10-1-2-3", "a.10-1-2-3.web"] {
            let odd = format!("{odd}.pod.cluster.local.");
            assert_eq!(asked(&client, &odd), (1, "nothing".to_owned()), "{odd}");
        }
        let options =
            |ndots: &str| json!({"options": [{"name": "ndots", "value": ndots}], "searches": ["lab.example"]});
        let [direct, patient] = ["1", "99"].map(|ndots| pod(&json!({"containers": [], "dnsConfig": options(ndots)})));
        assert_eq!(asked(&direct, "example.com"), (1, "outside example.com".to_owned()), "ndots of the pod");
        assert_eq!(asked(&direct, "shop"), (1, "web/shop".to_owned()));
        assert_eq!(asked(&direct, "shop.web"), (3, "web/shop".to_owned()), "first as it stands");
        assert_eq!(asked(&patient, "a.b.c.d.e.f.example"), (5, "outside a.b.c.d.e.f.example".to_owned()), "its path");
        assert_eq!(asked(&stranger, "shop"), (1, "outside shop".to_owned()), "without the cluster's search path");
    }
}
