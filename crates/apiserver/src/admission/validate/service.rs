//! Services.

use std::{collections::BTreeSet, net::IpAddr};

use serde_json::{Value, json};

use super::{
    super::{
        FieldError, names,
        tree::{list, text},
    },
    labels, named, one_of, port_number, port_reference,
};

/// A client may stay with its backend for a day.
const AFFINITY_SECONDS_MAX: i64 = 86_400;

pub(super) fn validate(service: &Value, errors: &mut Vec<FieldError>) {
    let spec = &service["spec"];
    let kind = text(&spec["type"]);
    let headless = spec["clusterIP"] == "None";
    one_of("spec.type", &spec["type"], &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"], errors);
    if list(&spec["ports"]).is_empty() && !headless && kind != "ExternalName" {
        errors.push(FieldError::required("spec.ports", ""));
    }
    match kind {
        "ExternalName" => validate_external_name(spec, errors),
        "LoadBalancer" if headless => {
            let message = "may not be set to 'None' for LoadBalancer services";
            errors.push(FieldError::invalid("spec.clusterIPs[0]", "None", message));
        }
        "NodePort" if headless => {
            let message = "may not be set to 'None' for NodePort services";
            errors.push(FieldError::invalid("spec.clusterIPs[0]", "None", message));
        }
        _ => {}
    }
    labels("spec.selector", &spec["selector"], errors);
    validate_ports(spec, errors);
    validate_affinity(spec, errors);
    validate_addresses(spec, errors);
    validate_policies(spec, errors);
}

fn validate_external_name(spec: &Value, errors: &mut Vec<FieldError>) {
    if spec["clusterIP"].as_str().is_some_and(|address| !address.is_empty()) {
        let message = "may not be set when `type` is 'ExternalName'";
        errors.push(FieldError::forbidden("spec.clusterIPs", message));
    }
    match text(&spec["externalName"]) {
        "" => errors.push(FieldError::required("spec.externalName", "")),
        // A name with its final dot is one too.
        name => named("spec.externalName", name.strip_suffix('.').unwrap_or(name), names::subdomain, errors),
    }
}

fn validate_ports(spec: &Value, errors: &mut Vec<FieldError>) {
    let ports = list(&spec["ports"]);
    let mut seen_names = BTreeSet::new();
    let mut seen = Vec::new();
    for (i, port) in ports.iter().enumerate() {
        let at = format!("spec.ports[{i}]");
        match text(&port["name"]) {
            "" if ports.len() > 1 => errors.push(FieldError::required(format!("{at}.name"), "")),
            "" => {}
            name => {
                named(&format!("{at}.name"), name, names::label, errors);
                if !seen_names.insert(name) {
                    errors.push(FieldError::duplicate(format!("{at}.name"), name));
                }
            }
        }
        match &port["port"] {
            Value::Null => errors.push(FieldError::invalid(format!("{at}.port"), 0, super::MUST_BE_PORT)),
            number => port_number(&format!("{at}.port"), number, errors),
        }
        match text(&port["protocol"]) {
            "" => errors.push(FieldError::required(format!("{at}.protocol"), "")),
            _ => one_of(&format!("{at}.protocol"), &port["protocol"], &["SCTP", "TCP", "UDP"], errors),
        }
        if spec["type"] != "ExternalName" {
            port_reference(&format!("{at}.targetPort"), &port["targetPort"], errors);
        }
        let asks_node_port = port["nodePort"].as_i64().is_some_and(|number| number != 0);
        if asks_node_port && matches!(text(&spec["type"]), "ClusterIP" | "ExternalName") {
            let message = format!("may not be used when `type` is '{}'", text(&spec["type"]));
            errors.push(FieldError::forbidden(format!("{at}.nodePort"), message));
        }
        let key = (&port["port"], &port["protocol"]);
        if seen.contains(&key) {
            errors.push(FieldError::duplicate(at, json!({ "port": port["port"], "protocol": port["protocol"] })));
        }
        seen.push(key);
    }
    validate_node_ports(ports, errors);
}

/// Two ports of one Service cannot have the same node port.
fn validate_node_ports(ports: &[Value], errors: &mut Vec<FieldError>) {
    let mut seen = Vec::new();
    for (i, port) in ports.iter().enumerate() {
        let Some(number) = port["nodePort"].as_i64().filter(|number| *number != 0) else { continue };
        let key = (number, &port["protocol"]);
        if seen.contains(&key) {
            errors.push(FieldError::duplicate(format!("spec.ports[{i}].nodePort"), number));
        }
        seen.push(key);
    }
}

fn validate_affinity(spec: &Value, errors: &mut Vec<FieldError>) {
    one_of("spec.sessionAffinity", &spec["sessionAffinity"], &["ClientIP", "None"], errors);
    let seconds = &spec["sessionAffinityConfig"]["clientIP"]["timeoutSeconds"];
    if let Some(seconds) = seconds.as_i64().filter(|seconds| !(1..=AFFINITY_SECONDS_MAX).contains(seconds)) {
        let message = format!("must be greater than 0 and less than {AFFINITY_SECONDS_MAX}");
        errors.push(FieldError::invalid("spec.sessionAffinityConfig.clientIP.timeoutSeconds", seconds, message));
    }
}

fn validate_addresses(spec: &Value, errors: &mut Vec<FieldError>) {
    for (i, address) in list(&spec["clusterIPs"]).iter().enumerate() {
        let address = text(address);
        if address != "None" && address.parse::<IpAddr>().is_err() {
            let message = "must be empty, 'None', or a valid IP address";
            errors.push(FieldError::invalid(format!("spec.clusterIPs[{i}]"), address, message));
        }
    }
    for (i, address) in list(&spec["externalIPs"]).iter().enumerate() {
        let field = format!("spec.externalIPs[{i}]");
        let refusal = match text(address).parse::<IpAddr>() {
            Err(_) => "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
            Ok(ip) if ip.is_unspecified() => "may not be unspecified (0.0.0.0 or ::)",
            Ok(ip) if ip.is_loopback() => "may not be in the loopback range (127.0.0.0/8, ::1/128)",
            Ok(ip) if ip.is_multicast() => "may not be in the multicast range (224.0.0.0/4, ff00::/8)",
            Ok(_) => continue,
        };
        errors.push(FieldError::invalid(field, address.clone(), refusal));
    }
    for (i, range) in list(&spec["loadBalancerSourceRanges"]).iter().enumerate() {
        if text(range).trim().parse::<ipnet::IpNet>().is_err() {
            let field = format!("spec.loadBalancerSourceRanges[{i}]");
            let message = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
            errors.push(FieldError::invalid(field, range.clone(), message));
        }
    }
}

fn validate_policies(spec: &Value, errors: &mut Vec<FieldError>) {
    one_of("spec.internalTrafficPolicy", &spec["internalTrafficPolicy"], &["Cluster", "Local"], errors);
    one_of("spec.externalTrafficPolicy", &spec["externalTrafficPolicy"], &["Cluster", "Local"], errors);
    let policies = ["SingleStack", "PreferDualStack", "RequireDualStack"];
    one_of("spec.ipFamilyPolicy", &spec["ipFamilyPolicy"], &policies, errors);
    for (i, family) in list(&spec["ipFamilies"]).iter().enumerate() {
        one_of(&format!("spec.ipFamilies[{i}]"), family, &["IPv4", "IPv6"], errors);
    }
    let reachable =
        matches!(text(&spec["type"]), "NodePort" | "LoadBalancer") || !list(&spec["externalIPs"]).is_empty();
    if !reachable && !text(&spec["externalTrafficPolicy"]).is_empty() {
        let message = "may only be set for externally-accessible services";
        errors.push(FieldError::invalid("spec.externalTrafficPolicy", spec["externalTrafficPolicy"].clone(), message));
    }
}

/// A Service keeps its address as long as it has one.
pub(super) fn validate_change(old: &Value, new: &Value, errors: &mut Vec<FieldError>) {
    let (old, new) = (&old["spec"], &new["spec"]);
    if old["type"] == "ExternalName" || new["type"] == "ExternalName" {
        return;
    }
    let (before, after) = (text(&old["clusterIP"]), text(&new["clusterIP"]));
    if !before.is_empty() && before != after {
        let value = if after.is_empty() { Value::Null } else { json!([after]) };
        errors.push(FieldError::invalid("spec.clusterIPs[0]", value, "may not change once set"));
    }
}
