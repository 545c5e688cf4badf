//! Deployments, ReplicaSets, StatefulSets, DaemonSets and Jobs.

use serde_json::Value;

use super::{
    super::{
        FieldError, names,
        tree::{entries, list, text},
    },
    immutable, metadata, named, not_negative, one_of, pod,
};

/// Checks a kind whose pods run for ever.
pub(super) fn validate(kind: &str, object: &Value, errors: &mut Vec<FieldError>) {
    let spec = &object["spec"];
    for field in ["replicas", "minReadySeconds", "revisionHistoryLimit"] {
        not_negative(&format!("spec.{field}"), &spec[field], errors);
    }
    validate_selector(kind, spec, errors);
    let template = &spec["template"];
    if list(&template["spec"]["containers"]).is_empty() && !template.is_object() {
        errors.push(FieldError::required("spec.template", ""));
        return;
    }
    metadata::validate_template(&template["metadata"], "spec.template.metadata", errors);
    pod::validate_spec(&with_claims(spec), "spec.template.spec", errors);
    one_of("spec.template.spec.restartPolicy", &template["spec"]["restartPolicy"], &["Always"], errors);
    if !template["spec"]["activeDeadlineSeconds"].is_null() {
        let field = "spec.template.spec.activeDeadlineSeconds";
        errors.push(FieldError::forbidden(field, format!("activeDeadlineSeconds in {kind} is not Supported")));
    }
    match kind {
        "Deployment" => validate_strategy(spec, errors),
        "StatefulSet" | "DaemonSet" => {
            let kinds = ["RollingUpdate", "OnDelete"];
            one_of("spec.updateStrategy.type", &spec["updateStrategy"]["type"], &kinds, errors);
        }
        _ => {}
    }
}

/// The template's spec with the volumes that its containers find by their claims.
fn with_claims(spec: &Value) -> Value {
    let mut pod = spec["template"]["spec"].clone();
    for claim in list(&spec["volumeClaimTemplates"]) {
        let volume = serde_json::json!({"name": claim["metadata"]["name"], "emptyDir": {}});
        match &mut pod["volumes"] {
            Value::Array(volumes) => volumes.push(volume),
            volumes => *volumes = Value::from(vec![volume]),
        }
    }
    pod
}

/// Checks a Job: its pods end.
pub(super) fn validate_job(job: &Value, errors: &mut Vec<FieldError>) {
    let spec = &job["spec"];
    for field in ["parallelism", "completions", "backoffLimit", "activeDeadlineSeconds", "ttlSecondsAfterFinished"] {
        not_negative(&format!("spec.{field}"), &spec[field], errors);
    }
    let template = &spec["template"];
    metadata::validate_template(&template["metadata"], "spec.template.metadata", errors);
    pod::validate_spec(&template["spec"], "spec.template.spec", errors);
    let policies = ["OnFailure", "Never"];
    let policy = "spec.template.spec.restartPolicy";
    if template["spec"]["restartPolicy"] == "Always" {
        errors.push(FieldError { message: String::new(), ..FieldError::not_supported(policy, "Always", &policies) });
    } else {
        one_of(policy, &template["spec"]["restartPolicy"], &policies, errors);
    }
}

fn validate_selector(kind: &str, spec: &Value, errors: &mut Vec<FieldError>) {
    let selector = &spec["selector"];
    if !selector.is_object() {
        errors.push(FieldError::required("spec.selector", ""));
        return;
    }
    let count = entries(&selector["matchLabels"]).count() + list(&selector["matchExpressions"]).len();
    if count == 0 {
        let kind = kind.to_lowercase();
        let message = format!("empty selector is invalid for {kind}");
        errors.push(FieldError::invalid("spec.selector", selector.clone(), message));
        return;
    }
    super::labels("spec.selector.matchLabels", &selector["matchLabels"], errors);
    for (i, expression) in list(&selector["matchExpressions"]).iter().enumerate() {
        validate_expression(expression, &format!("spec.selector.matchExpressions[{i}]"), errors);
    }
    let labels = &spec["template"]["metadata"]["labels"];
    if !selects(selector, labels) {
        let shown = if labels.is_object() { labels.clone() } else { Value::Null };
        let message = "`selector` does not match template `labels`";
        errors.push(FieldError::invalid("spec.template.metadata.labels", shown, message));
    }
}

fn validate_expression(expression: &Value, at: &str, errors: &mut Vec<FieldError>) {
    named(&format!("{at}.key"), text(&expression["key"]), names::qualified_name, errors);
    let empty = list(&expression["values"]).is_empty();
    match text(&expression["operator"]) {
        "In" | "NotIn" if empty => {
            let message = "must be specified when `operator` is 'In' or 'NotIn'";
            errors.push(FieldError::required(format!("{at}.values"), message));
        }
        "Exists" | "DoesNotExist" if !empty => {
            let message = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
            errors.push(FieldError::forbidden(format!("{at}.values"), message));
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
        other => {
            errors.push(FieldError::invalid(format!("{at}.operator"), other, "not a valid selector operator"));
        }
    }
}

/// Whether a selector of a spec selects these labels.
fn selects(selector: &Value, labels: &Value) -> bool {
    let label = |key: &str| labels[key].as_str();
    let equal = entries(&selector["matchLabels"]).all(|(key, value)| label(key) == value.as_str());
    equal
        && list(&selector["matchExpressions"]).iter().all(|expression| {
            let found = label(text(&expression["key"]));
            let listed = || found.is_some_and(|found| list(&expression["values"]).iter().any(|value| value == found));
            match text(&expression["operator"]) {
                "In" => listed(),
                "NotIn" => !listed(),
                "Exists" => found.is_some(),
                "DoesNotExist" => found.is_none(),
                _ => false,
            }
        })
}

fn validate_strategy(spec: &Value, errors: &mut Vec<FieldError>) {
    let strategy = &spec["strategy"];
    one_of("spec.strategy.type", &strategy["type"], &["Recreate", "RollingUpdate"], errors);
    let rolling = &strategy["rollingUpdate"];
    if strategy["type"] == "Recreate" {
        if rolling.is_object() {
            let message = "may not be specified when strategy `type` is 'Recreate'";
            errors.push(FieldError::forbidden("spec.strategy.rollingUpdate", message));
        }
        return;
    }
    for field in ["maxUnavailable", "maxSurge"] {
        validate_share(&format!("spec.strategy.rollingUpdate.{field}"), &rolling[field], errors);
    }
    let is_zero = |value: &Value| *value == 0 || *value == "0%";
    if is_zero(&rolling["maxUnavailable"]) && is_zero(&rolling["maxSurge"]) {
        let field = "spec.strategy.rollingUpdate.maxUnavailable";
        let message = "may not be 0 when `maxSurge` is 0";
        errors.push(FieldError::invalid(field, rolling["maxUnavailable"].clone(), message));
    }
    let (deadline, ready) = (&spec["progressDeadlineSeconds"], &spec["minReadySeconds"]);
    not_negative("spec.progressDeadlineSeconds", deadline, errors);
    if let Some(deadline) = deadline.as_i64()
        && deadline <= ready.as_i64().unwrap_or_default()
    {
        errors.push(FieldError::invalid(
            "spec.progressDeadlineSeconds",
            deadline,
            "must be greater than minReadySeconds",
        ));
    }
}

/// A number of pods, or a share of them in percent.
fn validate_share(field: &str, value: &Value, errors: &mut Vec<FieldError>) {
    not_negative(field, value, errors);
    let Some(share) = value.as_str() else { return };
    match share.strip_suffix('%').and_then(|percent| percent.parse::<u32>().ok()) {
        None => {
            let message = "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', \
                           regex used for validation is '[0-9]+%')";
            errors.push(FieldError::invalid(field, share, message));
        }
        Some(percent) if percent > 100 && field.ends_with("maxUnavailable") => {
            errors.push(FieldError::invalid(field, share, "must not be greater than 100%"));
        }
        Some(_) => {}
    }
}

/// What of a workload cannot change.
pub(super) fn validate_change(kind: &str, old: &Value, new: &Value, errors: &mut Vec<FieldError>) {
    if matches!(kind, "Deployment" | "ReplicaSet" | "DaemonSet" | "StatefulSet") {
        immutable("spec.selector", &old["spec"]["selector"], &new["spec"]["selector"], errors);
    }
    if kind == "StatefulSet" {
        for field in ["serviceName", "podManagementPolicy", "volumeClaimTemplates"] {
            if old["spec"][field] != new["spec"][field] {
                let message = "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', \
                               'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and \
                               'minReadySeconds' are forbidden";
                errors.push(FieldError::forbidden("spec", message));
                return;
            }
        }
    }
}
