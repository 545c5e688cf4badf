//! Containers of a pod's spec.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{
    super::{
        FieldError, names,
        quantity::milli,
        tree::{entries, list, text},
    },
    named, not_negative, one_of, port_number, port_reference,
};

/// Checks all containers of a spec against each other and against its volumes.
pub(super) fn validate(spec: &Value, at: &str, volumes: &BTreeSet<&str>, errors: &mut Vec<FieldError>) {
    if list(&spec["containers"]).is_empty() {
        errors.push(FieldError::required(format!("{at}.containers"), ""));
    }
    let mut known = BTreeSet::new();
    for group in ["containers", "initContainers", "ephemeralContainers"] {
        for (i, container) in list(&spec[group]).iter().enumerate() {
            let at = format!("{at}.{group}[{i}]");
            match text(&container["name"]) {
                "" => errors.push(FieldError::required(format!("{at}.name"), "")),
                name => {
                    named(&format!("{at}.name"), name, names::label, errors);
                    if !known.insert(name) {
                        errors.push(FieldError::duplicate(format!("{at}.name"), name));
                    }
                }
            }
            validate_container(container, &at, volumes, errors);
        }
    }
}

fn validate_container(container: &Value, at: &str, volumes: &BTreeSet<&str>, errors: &mut Vec<FieldError>) {
    let image = text(&container["image"]);
    if image.is_empty() {
        errors.push(FieldError::required(format!("{at}.image"), ""));
    } else if image.trim() != image {
        errors.push(FieldError::invalid(format!("{at}.image"), image, "must not have leading or trailing whitespace"));
    }
    let policies = ["Always", "IfNotPresent", "Never"];
    one_of(&format!("{at}.imagePullPolicy"), &container["imagePullPolicy"], &policies, errors);
    let policies = ["File", "FallbackToLogsOnError"];
    one_of(&format!("{at}.terminationMessagePolicy"), &container["terminationMessagePolicy"], &policies, errors);
    validate_ports(&container["ports"], &format!("{at}.ports"), errors);
    validate_environment(&container["env"], &format!("{at}.env"), errors);
    validate_mounts(&container["volumeMounts"], &format!("{at}.volumeMounts"), volumes, errors);
    validate_resources(&container["resources"], &format!("{at}.resources"), errors);
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if container[probe].is_object() {
            validate_probe(&container[probe], &format!("{at}.{probe}"), probe != "readinessProbe", errors);
        }
    }
    for handler in ["postStart", "preStop"] {
        let hook = &container["lifecycle"][handler];
        if hook.is_object() {
            validate_handler(
                hook,
                &["exec", "httpGet", "tcpSocket", "sleep"],
                &format!("{at}.lifecycle.{handler}"),
                errors,
            );
        }
    }
}

fn validate_ports(ports: &Value, at: &str, errors: &mut Vec<FieldError>) {
    let mut names = BTreeSet::new();
    for (i, port) in list(ports).iter().enumerate() {
        let at = format!("{at}[{i}]");
        let name = text(&port["name"]);
        if !name.is_empty() {
            named(&format!("{at}.name"), name, names::port_name, errors);
            if !names.insert(name) {
                errors.push(FieldError::duplicate(format!("{at}.name"), name));
            }
        }
        if port["containerPort"].is_null() || port["containerPort"] == 0 {
            errors.push(FieldError::required(format!("{at}.containerPort"), ""));
        }
        for field in ["containerPort", "hostPort"] {
            if port[field] != 0 {
                port_number(&format!("{at}.{field}"), &port[field], errors);
            }
        }
        one_of(&format!("{at}.protocol"), &port["protocol"], &["SCTP", "TCP", "UDP"], errors);
    }
}

fn validate_environment(variables: &Value, at: &str, errors: &mut Vec<FieldError>) {
    for (i, variable) in list(variables).iter().enumerate() {
        let at = format!("{at}[{i}]");
        match text(&variable["name"]) {
            "" => errors.push(FieldError::required(format!("{at}.name"), "")),
            name => named(&format!("{at}.name"), name, names::environment_name, errors),
        }
        let from = &variable["valueFrom"];
        if !from.is_object() {
            continue;
        }
        if !text(&variable["value"]).is_empty() {
            let message = "may not be specified when `value` is not empty";
            errors.push(FieldError::invalid(format!("{at}.valueFrom"), "", message));
        }
        let sources = ["fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef", "fileKeyRef"];
        match sources.iter().filter(|source| from[**source].is_object()).count() {
            1 => {}
            0 => {
                let message =
                    "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef` or `secretKeyRef`";
                errors.push(FieldError::invalid(format!("{at}.valueFrom"), "", message));
            }
            _ => {
                let message = "may not have more than one field specified at a time";
                errors.push(FieldError::invalid(format!("{at}.valueFrom"), "", message));
            }
        }
    }
}

fn validate_mounts(mounts: &Value, at: &str, volumes: &BTreeSet<&str>, errors: &mut Vec<FieldError>) {
    let mut paths = BTreeSet::new();
    for (i, mount) in list(mounts).iter().enumerate() {
        let at = format!("{at}[{i}]");
        match text(&mount["name"]) {
            "" => errors.push(FieldError::required(format!("{at}.name"), "")),
            name if !volumes.contains(name) => errors.push(FieldError::not_found(format!("{at}.name"), name)),
            _ => {}
        }
        match text(&mount["mountPath"]) {
            "" => errors.push(FieldError::required(format!("{at}.mountPath"), "")),
            path if !paths.insert(path) => {
                errors.push(FieldError::invalid(format!("{at}.mountPath"), path, "must be unique"));
            }
            _ => {}
        }
        let inside = text(&mount["subPath"]);
        if inside.starts_with('/') {
            errors.push(FieldError::invalid(format!("{at}.subPath"), inside, "must be a relative path"));
        }
        if inside.split('/').any(|part| part == "..") {
            errors.push(FieldError::invalid(format!("{at}.subPath"), inside, "must not contain '..'"));
        }
    }
}

fn validate_resources(resources: &Value, at: &str, errors: &mut Vec<FieldError>) {
    for (group, name, quantity) in ["limits", "requests"]
        .into_iter()
        .flat_map(|group| entries(&resources[group]).map(move |(name, quantity)| (group, name, quantity)))
    {
        let field = format!("{at}.{group}.{name}");
        match amount(quantity) {
            None => {
                let message = "quantities must match the regular expression \
                               '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";
                errors.push(FieldError::invalid(field, quantity.clone(), message));
            }
            Some(amount) if amount < 0 => {
                errors.push(FieldError::invalid(field, quantity.clone(), super::NOT_NEGATIVE));
            }
            Some(_) => {}
        }
    }
    for (name, request) in entries(&resources["requests"]) {
        let limit = &resources["limits"][name];
        if let (Some(asked), Some(most)) = (amount(request), amount(limit))
            && asked > most
        {
            let message = format!("must be less than or equal to {name} limit of {}", written(limit));
            errors.push(FieldError::invalid(format!("{at}.requests"), written(request), message));
        }
    }
}

/// A quantity in thousandths; clients may write whole ones as numbers.
fn amount(quantity: &Value) -> Option<i128> {
    milli(&written(quantity))
}

fn written(quantity: &Value) -> String {
    quantity.as_str().map_or_else(|| quantity.to_string(), str::to_owned)
}

fn validate_probe(probe: &Value, at: &str, once: bool, errors: &mut Vec<FieldError>) {
    validate_handler(probe, &["exec", "httpGet", "tcpSocket", "grpc"], at, errors);
    for field in ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"] {
        not_negative(&format!("{at}.{field}"), &probe[field], errors);
    }
    if once && probe["successThreshold"].as_i64().is_some_and(|threshold| threshold != 1) {
        errors.push(FieldError::invalid(
            format!("{at}.successThreshold"),
            probe["successThreshold"].clone(),
            "must be 1",
        ));
    }
}

fn validate_handler(handler: &Value, kinds: &[&str], at: &str, errors: &mut Vec<FieldError>) {
    let mut given = kinds.iter().filter(|kind| handler[**kind].is_object());
    if given.next().is_none() {
        errors.push(FieldError::required(at, "must specify a handler type"));
    }
    if let Some(extra) = given.next() {
        errors.push(FieldError::forbidden(format!("{at}.{extra}"), "may not specify more than 1 handler type"));
    }
    for kind in ["httpGet", "tcpSocket", "grpc"] {
        if handler[kind].is_object() {
            let field = format!("{at}.{kind}.port");
            match &handler[kind]["port"] {
                Value::Null => errors.push(FieldError::required(field, "")),
                port => port_reference(&field, port, errors),
            }
        }
    }
    if handler["exec"].is_object() && list(&handler["exec"]["command"]).is_empty() {
        errors.push(FieldError::required(format!("{at}.exec.command"), ""));
    }
}
