//! What a name of the cluster's says of what it stands for, as CoreDNS tells it under `metadata`.

/// What two labels before a Service's may mean in a zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Deep {
    /// A port and its protocol.
    Ports,
    /// That, or a zone of the topology (`zonal`).
    Zones,
    /// That, or an endpoint and its cluster (`multicluster`).
    Clusters,
}

/// What a name in a zone, both in lower case, says under a label without its `kubernetes/`; none where it says nothing of that.
pub(super) fn told(label: &str, name: &str, zone: &str, deep: Deep) -> Option<String> {
    let below = name.strip_suffix(zone)?.strip_suffix('.')?;
    // From behind: the kind, the namespace, the Service or the pod's address, and what is before that.
    let mut parts = below.rsplit('.');
    let (kind, namespace, service) = (parts.next()?, parts.next(), parts.next());
    if !matches!(kind, "svc" | "pod") {
        return None;
    }
    let (near, far) = (parts.next(), parts.next());
    // Deeper than there are names.
    if parts.next().is_some() || (kind == "pod" && near.is_some()) {
        return None;
    }
    if deep == Deep::Zones && near == Some("_zone") {
        return match label {
            "kind" => Some(kind),
            "namespace" => namespace,
            "service" => service,
            "zone" => far,
            _ => None,
        }
        .map(str::to_owned);
    }
    let said = match (label, near, far) {
        ("kind", ..) => Some(kind),
        ("namespace", ..) => namespace,
        ("service", ..) if kind == "svc" => service,
        // Before a pod's kind stands its address.
        ("endpoint", ..) if kind == "pod" => service,
        ("endpoint", Some(endpoint), None) if deep != Deep::Clusters => Some(endpoint),
        ("endpoint" | "cluster", Some(cluster), Some(endpoint)) if deep == Deep::Clusters => {
            let are_names = !endpoint.starts_with('_') && !cluster.starts_with('_');
            are_names.then_some(if label == "cluster" { cluster } else { endpoint })
        }
        ("protocol", Some(protocol), Some(_)) => protocol.strip_prefix('_'),
        ("port-name", Some(_), Some(port)) => port.strip_prefix('_'),
        _ => None,
    };
    said.map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::Deep;

    #[test]
    fn a_name_says_what_it_stands_for() {
        let labels = ["kind", "namespace", "service", "endpoint", "protocol", "port-name"];
        for (name, expected) in [
            ("web.shop.svc.", [Some("svc"), Some("shop"), Some("web"), None, None, None]),
            ("a-1.web.shop.svc.", [Some("svc"), Some("shop"), Some("web"), Some("a-1"), None, None]),
            ("_http._tcp.web.shop.svc.", [Some("svc"), Some("shop"), Some("web"), None, Some("tcp"), Some("http")]),
            ("10-0-0-1.shop.pod.", [Some("pod"), Some("shop"), None, Some("10-0-0-1"), None, None]),
            ("shop.svc.", [Some("svc"), Some("shop"), None, None, None, None]),
            ("shop.other.", [None; 6]),
            ("a.b.c.d.e.svc.", [None; 6]),
        ] {
            let told =
                labels.map(|label| super::told(label, &format!("{name}cluster.local."), "cluster.local.", Deep::Ports));
            assert_eq!(told, expected.map(|text| text.map(str::to_owned)), "{name}");
        }
    }

    #[test]
    fn two_labels_before_a_service_say_what_they_mean_in_their_zone() {
        let labels = ["service", "endpoint", "protocol", "port-name", "zone", "cluster"];
        let (zonal, host) = ("east._zone.web.shop.svc.", "a-1.north.web.shop.svc.");
        for (name, deep, expected) in [
            (zonal, Deep::Ports, [Some("web"), None, Some("zone"), None, None, None]),
            (zonal, Deep::Zones, [Some("web"), None, None, None, Some("east"), None]),
            ("a-1.web.shop.svc.", Deep::Zones, [Some("web"), Some("a-1"), None, None, None, None]),
            (host, Deep::Ports, [Some("web"), None, None, None, None, None]),
            (host, Deep::Clusters, [Some("web"), Some("a-1"), None, None, None, Some("north")]),
            ("north.web.shop.svc.", Deep::Clusters, [Some("web"), None, None, None, None, None]),
            ("_http._tcp.web.shop.svc.", Deep::Clusters, [Some("web"), None, Some("tcp"), Some("http"), None, None]),
        ] {
            let told = labels.map(|label| super::told(label, &format!("{name}set.local."), "set.local.", deep));
            assert_eq!(told, expected.map(|text| text.map(str::to_owned)), "{name} {deep:?}");
        }
    }
}
