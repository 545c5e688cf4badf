//! What of a Service stays as it is once it is set.

use serde_json::{Value, json};

use super::super::super::{
    FieldError,
    allocate::needs_health_check,
    tree::{list, text},
};

const ONCE_SET: &str = "may not change once set";

/// A Service keeps its addresses and families as long as it has some; a second one may come and go with the policy.
pub(in crate::admission::validate) fn validate_change(old: &Value, new: &Value, errors: &mut Vec<FieldError>) {
    let (old, new) = (&old["spec"], &new["spec"]);
    if old["type"] == "LoadBalancer"
        && new["type"] == "LoadBalancer"
        && old["loadBalancerClass"] != new["loadBalancerClass"]
    {
        errors.push(FieldError::invalid("spec.loadBalancerClass", new["loadBalancerClass"].clone(), ONCE_SET));
    }
    let health = |spec: &Value| spec["healthCheckNodePort"].as_i64().filter(|number| *number != 0);
    if needs_health_check(old) && needs_health_check(new) && health(old).is_some() && health(old) != health(new) {
        errors.push(FieldError::forbidden("spec.healthCheckNodePort", "field is immutable"));
    }
    if old["type"] == "ExternalName" || new["type"] == "ExternalName" {
        return;
    }
    let single = new["ipFamilyPolicy"] == "SingleStack";
    let asked = addresses(new);
    for (field, what, before, after) in [
        ("clusterIPs", "clusterIP", addresses(old), asked),
        ("ipFamilies", "ipFamily", texts(&old["ipFamilies"]), texts(&new["ipFamilies"])),
    ] {
        let value = json!(after);
        match (&before[..], &after[..]) {
            ([], _) => {}
            ([_, ..], []) => {
                let message = format!("primary {what} can not be unset");
                errors.push(FieldError::invalid(format!("spec.{field}[0]"), value, message));
            }
            ([first, ..], [other, ..]) if first != other => {
                errors.push(FieldError::invalid(format!("spec.{field}[0]"), value, ONCE_SET));
            }
            ([_, second, ..], [_, other, ..]) if second != other => {
                errors.push(FieldError::invalid(format!("spec.{field}[1]"), value, ONCE_SET));
            }
            ([_, _, ..], [_]) if !single => {
                let message = format!("must be set to 'SingleStack' when releasing the secondary {what}");
                errors.push(FieldError::invalid("spec.ipFamilyPolicy", new["ipFamilyPolicy"].clone(), message));
            }
            _ => {}
        }
    }
}

fn addresses(spec: &Value) -> Vec<&str> {
    match texts(&spec["clusterIPs"]) {
        all if all.is_empty() => Some(text(&spec["clusterIP"])).filter(|one| !one.is_empty()).into_iter().collect(),
        all => all,
    }
}

fn texts(values: &Value) -> Vec<&str> {
    list(values).iter().map(text).collect()
}
