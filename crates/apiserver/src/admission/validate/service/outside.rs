//! How a Service is reached from outside the cluster, and what a load balancer says of itself.

use std::net::IpAddr;

use serde_json::Value;

use super::super::{
    super::{
        FieldError,
        allocate::{is_external, needs_health_check},
        names,
        tree::{list, text},
    },
    MUST_BE_PORT, named, one_of,
};

const ONLY_FOR_LOAD_BALANCERS: &str = "may only be used when `type` is 'LoadBalancer'";
/// An older spelling of `loadBalancerSourceRanges`: ranges with commas between them.
const SOURCE_RANGES: &str = "service.beta.kubernetes.io/load-balancer-source-ranges";

pub(super) fn validate(service: &Value, errors: &mut Vec<FieldError>) {
    let spec = &service["spec"];
    let balanced = spec["type"] == "LoadBalancer";
    validate_source_ranges(service, balanced, errors);
    if !balanced && !spec["allocateLoadBalancerNodePorts"].is_null() {
        errors.push(FieldError::forbidden("spec.allocateLoadBalancerNodePorts", ONLY_FOR_LOAD_BALANCERS));
    }
    match spec["loadBalancerClass"].as_str() {
        Some(class) if balanced => named("spec.loadBalancerClass", class, names::qualified_name, errors),
        Some(_) => errors.push(FieldError::forbidden("spec.loadBalancerClass", ONLY_FOR_LOAD_BALANCERS)),
        None => {}
    }
    one_of("spec.externalTrafficPolicy", &spec["externalTrafficPolicy"], &["Cluster", "Local"], errors);
    if !is_external(spec) && !text(&spec["externalTrafficPolicy"]).is_empty() {
        let message = "may only be set for externally-accessible services";
        errors.push(FieldError::invalid("spec.externalTrafficPolicy", spec["externalTrafficPolicy"].clone(), message));
    }
    validate_health_check(spec, errors);
    validate_status(service, balanced, errors);
}

fn validate_source_ranges(service: &Value, balanced: bool, errors: &mut Vec<FieldError>) {
    let ranges: Vec<(String, &str)> = match list(&service["spec"]["loadBalancerSourceRanges"]) {
        [] => {
            let annotation = text(&service["metadata"]["annotations"][SOURCE_RANGES]).trim();
            let field = format!("metadata.annotations[{SOURCE_RANGES}]");
            annotation.split(',').filter(|range| !range.is_empty()).map(|range| (field.clone(), range)).collect()
        }
        ranges => {
            let field = |i| format!("spec.loadBalancerSourceRanges[{i}]");
            ranges.iter().enumerate().map(|(i, range)| (field(i), text(range))).collect()
        }
    };
    if !balanced && let Some((field, _)) = ranges.first() {
        let field = field.strip_suffix("[0]").unwrap_or(field);
        errors.push(FieldError::forbidden(field, ONLY_FOR_LOAD_BALANCERS));
    }
    for (field, range) in ranges {
        if range.trim().parse::<ipnet::IpNet>().is_err() {
            let message = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
            errors.push(FieldError::invalid(field, range, message));
        }
    }
}

fn validate_health_check(spec: &Value, errors: &mut Vec<FieldError>) {
    let field = "spec.healthCheckNodePort";
    match spec["healthCheckNodePort"].as_i64().filter(|number| *number != 0) {
        Some(number) if !needs_health_check(spec) => {
            let message = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
            errors.push(FieldError::invalid(field, number, message));
        }
        Some(number) if !(1..=65535).contains(&number) => errors.push(FieldError::invalid(field, number, MUST_BE_PORT)),
        _ => {}
    }
}

/// What a load balancer wrote: where the Service is reached.
fn validate_status(service: &Value, balanced: bool, errors: &mut Vec<FieldError>) {
    let ingresses = list(&service["status"]["loadBalancer"]["ingress"]);
    let at = "status.loadBalancer.ingress";
    if !balanced && !ingresses.is_empty() {
        errors.push(FieldError::forbidden(at, "may only be used when `spec.type` is \"LoadBalancer\""));
    }
    for (i, ingress) in ingresses.iter().enumerate() {
        let field = |name: &str| format!("{at}[{i}].{name}");
        let ip = text(&ingress["ip"]);
        if !ip.is_empty() && ip.parse::<IpAddr>().is_err() {
            let message = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
            errors.push(FieldError::invalid(field("ip"), ip, message));
        }
        match &ingress["ipMode"] {
            Value::Null => {}
            _ if ip.is_empty() => {
                errors.push(FieldError::forbidden(field("ipMode"), "may not be specified when `ip` is not set"));
            }
            mode => one_of(&field("ipMode"), mode, &["Proxy", "VIP"], errors),
        }
        match text(&ingress["hostname"]) {
            "" => {}
            name if name.parse::<IpAddr>().is_ok() => {
                errors.push(FieldError::invalid(field("hostname"), name, "must be a DNS name, not an IP address"));
            }
            name => named(&field("hostname"), name, names::subdomain, errors),
        }
    }
}
