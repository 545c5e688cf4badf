//! A Service's addresses inside the cluster, and its families.

use std::net::IpAddr;

use serde_json::{Value, json};

use super::super::{
    super::{
        FieldError,
        tree::{list, text},
    },
    one_of,
};

const UP_TO_TWO: &str = "may only hold up to 2 values";

pub(super) fn validate(spec: &Value, errors: &mut Vec<FieldError>) {
    let policies = ["SingleStack", "PreferDualStack", "RequireDualStack"];
    one_of("spec.ipFamilyPolicy", &spec["ipFamilyPolicy"], &policies, errors);
    validate_families(spec, errors);
    validate_addresses(spec, errors);
    for (i, address) in list(&spec["externalIPs"]).iter().enumerate() {
        validate_external(&format!("spec.externalIPs[{i}]"), address, errors);
    }
}

fn validate_families(spec: &Value, errors: &mut Vec<FieldError>) {
    let families = list(&spec["ipFamilies"]);
    for (i, family) in families.iter().enumerate() {
        let field = format!("spec.ipFamilies[{i}]");
        one_of(&field, family, &["IPv4", "IPv6"], errors);
        if families[..i].contains(family) {
            errors.push(FieldError::duplicate(field, family.clone()));
        }
    }
}

fn validate_addresses(spec: &Value, errors: &mut Vec<FieldError>) {
    let addresses = list(&spec["clusterIPs"]);
    let field = "spec.clusterIPs";
    let mut parsed = Vec::new();
    for (i, address) in addresses.iter().enumerate() {
        match (text(address), text(address).parse::<IpAddr>()) {
            ("None", _) if addresses.len() == 1 => {}
            ("None", _) => {
                let message = "'None' must be the first and only value";
                errors.push(FieldError::invalid(field, json!(addresses), message));
                return;
            }
            (_, Ok(ip)) => parsed.push(ip),
            (other, Err(_)) => {
                let message = "must be empty, 'None', or a valid IP address";
                errors.push(FieldError::invalid(format!("{field}[{i}]"), other, message));
            }
        }
    }
    match &parsed[..] {
        [one, other] if one.is_ipv4() == other.is_ipv4() => {
            let message = "may specify no more than one IP for each IP family";
            errors.push(FieldError::invalid(field, json!(addresses), message));
        }
        [_, _, _, ..] => errors.push(FieldError::invalid(field, json!(addresses), UP_TO_TWO)),
        _ => {}
    }
    for (i, (address, family)) in parsed.iter().zip(list(&spec["ipFamilies"])).enumerate() {
        let expected = text(family);
        if expected != if address.is_ipv4() { "IPv4" } else { "IPv6" } {
            let message = format!("expected an {expected} value as indicated by `ipFamilies[{i}]`");
            errors.push(FieldError::invalid(format!("{field}[{i}]"), address.to_string(), message));
        }
    }
}

fn validate_external(field: &str, address: &Value, errors: &mut Vec<FieldError>) {
    let link_local = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    let refusal = match text(address).parse::<IpAddr>() {
        Err(_) => "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
        Ok(ip) if ip.is_unspecified() => "may not be unspecified (0.0.0.0 or ::)",
        Ok(ip) if ip.is_loopback() => "may not be in the loopback range (127.0.0.0/8, ::1/128)",
        Ok(ip) if link_local(ip) => "may not be in the link-local range (169.254.0.0/16, fe80::/10)",
        Ok(ip) if ip.is_multicast() => "may not be in the multicast range (224.0.0.0/4, ff00::/8)",
        Ok(_) => return,
    };
    errors.push(FieldError::invalid(field, address.clone(), refusal));
}
