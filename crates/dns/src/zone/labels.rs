//! What a name of the cluster's says of what it stands for, as CoreDNS tells it under `metadata`.

/// What a name in a zone, both in lower case, says under a label without its `kubernetes/`; none where it says nothing of that.
pub(super) fn told(label: &str, name: &str, zone: &str) -> Option<String> {
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
    let said = match (label, near, far) {
        ("kind", ..) => Some(kind),
        ("namespace", ..) => namespace,
        ("service", ..) if kind == "svc" => service,
        // Before a pod's kind stands its address.
        ("endpoint", ..) if kind == "pod" => service,
        ("endpoint", Some(endpoint), None) => Some(endpoint),
        ("protocol", Some(protocol), Some(_)) => protocol.strip_prefix('_'),
        ("port-name", Some(_), Some(port)) => port.strip_prefix('_'),
        _ => None,
    };
    said.map(str::to_owned)
}

#[cfg(test)]
mod tests {
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
            let told = labels.map(|label| super::told(label, &format!("{name}cluster.local."), "cluster.local."));
            assert_eq!(told, expected.map(|text| text.map(str::to_owned)), "{name}");
        }
    }
}
