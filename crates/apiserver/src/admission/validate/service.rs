//! Services.

mod addresses;
mod change;
mod outside;
mod ports;

use serde_json::Value;

use super::{
    super::{
        FieldError, names,
        tree::{list, text},
    },
    labels, named, one_of,
};

pub(super) use change::validate_change;

/// A client may stay with its backend for a day.
const AFFINITY_SECONDS_MAX: i64 = 86_400;

pub(super) fn validate(service: &Value, errors: &mut Vec<FieldError>) {
    let spec = &service["spec"];
    let headless = is_headless(spec);
    one_of("spec.type", &spec["type"], &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"], errors);
    if list(&spec["ports"]).is_empty() && !headless && spec["type"] != "ExternalName" {
        errors.push(FieldError::required("spec.ports", ""));
    }
    match text(&spec["type"]) {
        "ExternalName" => validate_external_name(spec, errors),
        kind @ ("LoadBalancer" | "NodePort") if headless => {
            let message = format!("may not be set to 'None' for {kind} services");
            errors.push(FieldError::invalid("spec.clusterIPs[0]", "None", message));
        }
        _ => {}
    }
    labels("spec.selector", &spec["selector"], errors);
    ports::validate(spec, errors);
    validate_affinity(spec, errors);
    addresses::validate(spec, errors);
    outside::validate(service, errors);
    one_of("spec.internalTrafficPolicy", &spec["internalTrafficPolicy"], &["Cluster", "Local"], errors);
    let distributions = ["PreferClose", "PreferSameNode", "PreferSameZone"];
    one_of("spec.trafficDistribution", &spec["trafficDistribution"], &distributions, errors);
}

/// Whether the Service has no address of its own.
fn is_headless(spec: &Value) -> bool {
    spec["clusterIP"] == "None" || spec["clusterIPs"][0] == "None"
}

fn validate_external_name(spec: &Value, errors: &mut Vec<FieldError>) {
    let set = |field: &str| match &spec[field] {
        Value::Null => false,
        Value::Array(values) => !values.is_empty(),
        value => !text(value).is_empty(),
    };
    for (is_set, field) in [
        (set("clusterIP") || set("clusterIPs"), "clusterIPs"),
        (set("ipFamilies"), "ipFamilies"),
        (set("ipFamilyPolicy"), "ipFamilyPolicy"),
    ] {
        if is_set {
            let message = "may not be set when `type` is 'ExternalName'";
            errors.push(FieldError::forbidden(format!("spec.{field}"), message));
        }
    }
    match text(&spec["externalName"]) {
        "" => errors.push(FieldError::required("spec.externalName", "")),
        // A name with its final dot is one too.
        name => named("spec.externalName", name.strip_suffix('.').unwrap_or(name), names::subdomain, errors),
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
