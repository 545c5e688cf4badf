//! Pods, and the specs of pods in templates.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{
    super::{
        FieldError, names,
        tree::{list, text},
    },
    containers, labels, named, not_negative, one_of,
};

pub(super) fn validate(pod: &Value, errors: &mut Vec<FieldError>) {
    one_of("spec.restartPolicy", &pod["spec"]["restartPolicy"], &["Always", "OnFailure", "Never"], errors);
    validate_spec(&pod["spec"], "spec", errors);
}

/// A pod's spec, wherever it stands. Which restart policies are allowed depends on who owns the pods.
pub(super) fn validate_spec(spec: &Value, at: &str, errors: &mut Vec<FieldError>) {
    let volumes = validate_volumes(&spec["volumes"], &format!("{at}.volumes"), errors);
    containers::validate(spec, at, &volumes, errors);
    one_of(
        &format!("{at}.dnsPolicy"),
        &spec["dnsPolicy"],
        &["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"],
        errors,
    );
    validate_dns(spec, at, errors);
    not_negative(&format!("{at}.terminationGracePeriodSeconds"), &spec["terminationGracePeriodSeconds"], errors);
    if let Some(seconds) = spec["activeDeadlineSeconds"].as_i64().filter(|s| !(1..=i64::from(i32::MAX)).contains(s)) {
        let field = format!("{at}.activeDeadlineSeconds");
        errors.push(FieldError::invalid(field, seconds, "must be between 1 and 2147483647, inclusive"));
    }
    labels(&format!("{at}.nodeSelector"), &spec["nodeSelector"], errors);
    for (field, check) in [
        ("serviceAccountName", names::subdomain as fn(&str) -> Result<(), String>),
        ("nodeName", names::subdomain),
        ("hostname", names::label),
        ("subdomain", names::label),
    ] {
        if let Some(name) = spec[field].as_str().filter(|name| !name.is_empty()) {
            named(&format!("{at}.{field}"), name, check, errors);
        }
    }
    for (i, toleration) in list(&spec["tolerations"]).iter().enumerate() {
        validate_toleration(toleration, &format!("{at}.tolerations[{i}]"), errors);
    }
    for (i, alias) in list(&spec["hostAliases"]).iter().enumerate() {
        let ip = text(&alias["ip"]);
        if ip.parse::<std::net::IpAddr>().is_err() {
            let field = format!("{at}.hostAliases[{i}].ip");
            errors.push(FieldError::invalid(
                field,
                ip,
                "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
            ));
        }
    }
    for (i, secret) in list(&spec["imagePullSecrets"]).iter().enumerate() {
        if text(&secret["name"]).is_empty() {
            errors.push(FieldError::required(format!("{at}.imagePullSecrets[{i}].name"), ""));
        }
    }
}

fn validate_dns(spec: &Value, at: &str, errors: &mut Vec<FieldError>) {
    let servers = list(&spec["dnsConfig"]["nameservers"]);
    if spec["dnsPolicy"] == "None" {
        let field = format!("{at}.dnsConfig");
        let reason = "must provide `dnsConfig` when `dnsPolicy` is None";
        if !spec["dnsConfig"].is_object() {
            errors.push(FieldError::required(field, reason));
        } else if servers.is_empty() {
            let reason = "must provide at least one DNS nameserver when `dnsPolicy` is None";
            errors.push(FieldError::required(format!("{field}.nameservers"), reason));
        }
    }
    if servers.len() > 3 {
        let field = format!("{at}.dnsConfig.nameservers");
        errors.push(FieldError::invalid(
            field,
            spec["dnsConfig"]["nameservers"].clone(),
            "must not have more than 3 nameservers",
        ));
    }
    for (i, server) in list(&spec["dnsConfig"]["nameservers"]).iter().enumerate() {
        if text(server).parse::<std::net::IpAddr>().is_err() {
            let field = format!("{at}.dnsConfig.nameservers[{i}]");
            let message = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
            errors.push(FieldError::invalid(field, server.clone(), message));
        }
    }
}

fn validate_toleration(toleration: &Value, at: &str, errors: &mut Vec<FieldError>) {
    let key = text(&toleration["key"]);
    if !key.is_empty() {
        named(&format!("{at}.key"), key, names::qualified_name, errors);
    }
    let operator = text(&toleration["operator"]);
    if key.is_empty() && operator != "Exists" {
        let message = "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
        errors.push(FieldError::invalid(format!("{at}.operator"), operator, message));
    }
    if !operator.is_empty() {
        one_of(&format!("{at}.operator"), &toleration["operator"], &["Equal", "Exists"], errors);
    }
    if operator == "Exists" && !text(&toleration["value"]).is_empty() {
        let message = "value must be empty when `operator` is 'Exists'";
        errors.push(FieldError::invalid(format!("{at}.operator"), toleration["value"].clone(), message));
    }
    if !text(&toleration["effect"]).is_empty() {
        let effects = ["NoSchedule", "PreferNoSchedule", "NoExecute"];
        one_of(&format!("{at}.effect"), &toleration["effect"], &effects, errors);
    }
    if !toleration["tolerationSeconds"].is_null() && toleration["effect"] != "NoExecute" {
        let message = "effect must be 'NoExecute' when `tolerationSeconds` is set";
        errors.push(FieldError::invalid(format!("{at}.effect"), text(&toleration["effect"]), message));
    }
}

/// Checks the volumes; answers with their names.
fn validate_volumes<'v>(volumes: &'v Value, at: &str, errors: &mut Vec<FieldError>) -> BTreeSet<&'v str> {
    let mut names = BTreeSet::new();
    for (i, volume) in list(volumes).iter().enumerate() {
        let at = format!("{at}[{i}]");
        match text(&volume["name"]) {
            "" => errors.push(FieldError::required(format!("{at}.name"), "")),
            name => {
                named(&format!("{at}.name"), name, names::label, errors);
                if !names.insert(name) {
                    errors.push(FieldError::duplicate(format!("{at}.name"), name));
                }
            }
        }
        validate_source(volume, &at, errors);
    }
    names
}

fn validate_source(volume: &Value, at: &str, errors: &mut Vec<FieldError>) {
    let sources = volume.as_object().into_iter().flatten();
    let sources = sources.filter(|(field, source)| *field != "name" && !source.is_null()).map(|(field, _)| field);
    for extra in sources.skip(1) {
        let message = "may not specify more than 1 volume type";
        errors.push(FieldError::forbidden(format!("{at}.{extra}"), message));
    }
    for (source, field) in
        [("configMap", "name"), ("secret", "secretName"), ("hostPath", "path"), ("persistentVolumeClaim", "claimName")]
    {
        if volume[source].is_object() && text(&volume[source][field]).is_empty() {
            errors.push(FieldError::required(format!("{at}.{source}.{field}"), ""));
        }
    }
}
