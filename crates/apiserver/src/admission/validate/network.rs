//! Nodes, Endpoints and EndpointSlices.

use std::net::IpAddr;

use serde_json::Value;

use super::{
    super::{
        FieldError, names,
        tree::{list, text},
    },
    named, one_of, port_number,
};

const VALID_ADDRESS: &str = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";

pub(super) fn validate_node(node: &Value, errors: &mut Vec<FieldError>) {
    for (i, cidr) in list(&node["spec"]["podCIDRs"]).iter().enumerate() {
        if text(cidr).parse::<ipnet::IpNet>().is_err() {
            let message = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
            errors.push(FieldError::invalid(format!("spec.podCIDRs[{i}]"), cidr.clone(), message));
        }
    }
    let mut seen = Vec::new();
    for (i, taint) in list(&node["spec"]["taints"]).iter().enumerate() {
        let at = format!("spec.taints[{i}]");
        named(&format!("{at}.key"), text(&taint["key"]), names::qualified_name, errors);
        named(&format!("{at}.value"), text(&taint["value"]), names::label_value, errors);
        match text(&taint["effect"]) {
            "" => errors.push(FieldError::required(format!("{at}.effect"), "")),
            _ => one_of(
                &format!("{at}.effect"),
                &taint["effect"],
                &["NoSchedule", "PreferNoSchedule", "NoExecute"],
                errors,
            ),
        }
        let key = (&taint["key"], &taint["effect"]);
        if seen.contains(&key) {
            errors.push(FieldError::duplicate(at, taint.clone()));
        }
        seen.push(key);
    }
}

/// A node's pod range is given once.
pub(super) fn validate_node_change(old: &Value, new: &Value, errors: &mut Vec<FieldError>) {
    let (before, after) = (&old["spec"]["podCIDRs"], &new["spec"]["podCIDRs"]);
    if !list(before).is_empty() && before != after {
        let message = "node updates may not change podCIDR except from \"\" to valid";
        errors.push(FieldError::forbidden("spec.podCIDRs", message));
    }
    let (before, after) = (text(&old["spec"]["providerID"]), text(&new["spec"]["providerID"]));
    if !before.is_empty() && before != after {
        let message = "node updates may not change providerID except from \"\" to valid";
        errors.push(FieldError::forbidden("spec.providerID", message));
    }
}

pub(super) fn validate_endpoints(endpoints: &Value, errors: &mut Vec<FieldError>) {
    for (i, subset) in list(&endpoints["subsets"]).iter().enumerate() {
        let at = format!("subsets[{i}]");
        if list(&subset["addresses"]).is_empty() && list(&subset["notReadyAddresses"]).is_empty() {
            errors.push(FieldError::required(at.as_str(), "must specify `addresses` or `notReadyAddresses`"));
        }
        for field in ["addresses", "notReadyAddresses"] {
            for (k, address) in list(&subset[field]).iter().enumerate() {
                validate_address(&format!("{at}.{field}[{k}].ip"), &address["ip"], errors);
            }
        }
        validate_ports(&subset["ports"], &format!("{at}.ports"), true, errors);
    }
}

pub(super) fn validate_endpoint_slice(slice: &Value, errors: &mut Vec<FieldError>) {
    let kinds = ["FQDN", "IPv4", "IPv6"];
    match text(&slice["addressType"]) {
        "" => errors.push(FieldError::required("addressType", "")),
        _ => one_of("addressType", &slice["addressType"], &kinds, errors),
    }
    for (i, endpoint) in list(&slice["endpoints"]).iter().enumerate() {
        let at = format!("endpoints[{i}].addresses");
        let addresses = list(&endpoint["addresses"]);
        if addresses.is_empty() {
            errors.push(FieldError::required(at.as_str(), "must contain at least 1 address"));
        }
        if addresses.len() > 100 {
            let kind = super::super::FieldErrorKind::TooMany { count: addresses.len(), max: 100 };
            errors.push(FieldError { field: at.clone(), kind, message: String::new() });
        }
        for (k, address) in addresses.iter().enumerate() {
            validate_slice_address(&format!("{at}[{k}]"), text(&slice["addressType"]), address, errors);
        }
    }
    validate_ports(&slice["ports"], "ports", false, errors);
}

fn validate_slice_address(field: &str, kind: &str, address: &Value, errors: &mut Vec<FieldError>) {
    let parsed = text(address).parse::<IpAddr>();
    match (kind, parsed) {
        ("IPv4", Ok(IpAddr::V4(ip))) => refuse_special(field, ip.into(), errors),
        ("IPv6", Ok(IpAddr::V6(ip))) => refuse_special(field, ip.into(), errors),
        ("IPv4", _) => errors.push(FieldError::invalid(field, address.clone(), "must be an IPv4 address")),
        ("IPv6", _) => errors.push(FieldError::invalid(field, address.clone(), "must be an IPv6 address")),
        ("FQDN", _) => named(field, text(address), names::subdomain, errors),
        _ => {}
    }
}

fn validate_address(field: &str, address: &Value, errors: &mut Vec<FieldError>) {
    match text(address).parse::<IpAddr>() {
        Ok(ip) => refuse_special(field, ip, errors),
        Err(_) => errors.push(FieldError::invalid(field, text(address), VALID_ADDRESS)),
    }
}

/// Traffic to an endpoint must leave the node's own network namespace.
fn refuse_special(field: &str, ip: IpAddr, errors: &mut Vec<FieldError>) {
    let link_local = match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    let refusal = if ip.is_unspecified() {
        "may not be unspecified (0.0.0.0 or ::)"
    } else if ip.is_loopback() {
        "may not be in the loopback range (127.0.0.0/8, ::1/128)"
    } else if link_local {
        "may not be in the link-local range (169.254.0.0/16, fe80::/10)"
    } else if ip.is_multicast() {
        "may not be in the multicast range (224.0.0.0/4, ff00::/8)"
    } else {
        return;
    };
    errors.push(FieldError::invalid(field, ip.to_string(), refusal));
}

fn validate_ports(ports: &Value, at: &str, number_required: bool, errors: &mut Vec<FieldError>) {
    let several = list(ports).len() > 1;
    let mut seen = Vec::new();
    for (i, port) in list(ports).iter().enumerate() {
        let at = format!("{at}[{i}]");
        match text(&port["name"]) {
            "" if several && number_required => errors.push(FieldError::required(format!("{at}.name"), "")),
            "" => {}
            name => named(&format!("{at}.name"), name, names::label, errors),
        }
        if seen.contains(&text(&port["name"])) {
            errors.push(FieldError::duplicate(format!("{at}.name"), text(&port["name"])));
        }
        seen.push(text(&port["name"]));
        match &port["port"] {
            Value::Null if number_required => {
                errors.push(FieldError::invalid(format!("{at}.port"), 0, super::MUST_BE_PORT));
            }
            number => port_number(&format!("{at}.port"), number, errors),
        }
        one_of(&format!("{at}.protocol"), &port["protocol"], &["SCTP", "TCP", "UDP"], errors);
    }
}
