//! The `scale` subresource: one shape (`autoscaling/v1` Scale) for the numbers of all kinds that have them.

use std::fmt::Write;

use serde_json::{Value, json};

use super::{Api, Part, Place, Saved, WriteOptions};
use crate::admission::FieldError;
use crate::errors::ApiError;
use crate::patch::{self, PatchKind};
use crate::registry::ScalePaths;

impl Api {
    /// The Scale of an object.
    pub fn scale(&self, at: &Place<'_>) -> Result<Value, ApiError> {
        Ok(scale_of(&self.existing(at)?.value, paths(at)?))
    }

    /// Changes an object's number through a Scale that replaces the present one.
    pub async fn update_scale(&self, at: &Place<'_>, scale: &Value, options: WriteOptions) -> Result<Value, ApiError> {
        self.rescale(at, options, |_| Ok(scale.clone())).await
    }

    /// Changes an object's number through a patch of its Scale.
    pub async fn patch_scale(
        &self,
        at: &Place<'_>,
        kind: PatchKind,
        patch: &Value,
        options: WriteOptions,
    ) -> Result<Value, ApiError> {
        let patched = |current: &Value| {
            // A Scale has no lists, so a strategic merge is a plain one.
            let kind = if kind == PatchKind::Strategic { PatchKind::JsonMerge } else { kind };
            patch::apply(kind, "autoscaling", "Scale", current, patch)
                .map_err(|error| ApiError::bad_request(error.to_string()))
        };
        self.rescale(at, options, patched).await
    }

    async fn rescale(
        &self,
        at: &Place<'_>,
        options: WriteOptions,
        change: impl Fn(&Value) -> Result<Value, ApiError>,
    ) -> Result<Value, ApiError> {
        let paths = paths(at)?;
        let rescaled = |object: &Value| {
            let scale = change(&scale_of(object, paths))?;
            let expected = scale["metadata"]["resourceVersion"].as_str().filter(|version| !version.is_empty());
            if expected.is_some_and(|version| object["metadata"]["resourceVersion"] != version) {
                return Err(ApiError::modified(at.resource, at.name));
            }
            let replicas = replicas(at, &scale)?;
            let mut object = object.clone();
            set(&mut object, &paths.spec, Value::from(replicas));
            Ok(object)
        };
        let Saved { object, .. } = self.modify(at, Part::Main, options, false, rescaled).await?;
        Ok(scale_of(object.value(), paths))
    }
}

fn paths<'a>(at: &Place<'a>) -> Result<&'a ScalePaths, ApiError> {
    at.resource.scale.as_ref().ok_or_else(ApiError::no_such_path)
}

fn replicas(at: &Place<'_>, scale: &Value) -> Result<i64, ApiError> {
    let value = &scale["spec"]["replicas"];
    match value {
        Value::Null => Ok(0),
        _ => value.as_i64().filter(|replicas| *replicas >= 0).ok_or_else(|| {
            let cause = FieldError::invalid("spec.replicas", value.clone(), "must be greater than or equal to 0");
            ApiError::invalid("autoscaling", "Scale", at.name, &[cause])
        }),
    }
}

fn scale_of(object: &Value, paths: &ScalePaths) -> Value {
    let metadata = &object["metadata"];
    let number = |path: &[String]| at_path(object, path).and_then(Value::as_i64).unwrap_or(0);
    let mut scale = json!({
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {
            "name": metadata["name"],
            "namespace": metadata["namespace"],
            "uid": metadata["uid"],
            "resourceVersion": metadata["resourceVersion"],
            "creationTimestamp": metadata["creationTimestamp"],
        },
        "spec": { "replicas": number(&paths.spec) },
        "status": { "replicas": number(&paths.status) },
    });
    let selector = paths.selector.as_ref().and_then(|path| at_path(object, path));
    if let Some(selector) = selector.and_then(selector_text) {
        scale["status"]["selector"] = Value::from(selector);
    }
    scale
}

fn at_path<'v>(object: &'v Value, path: &[String]) -> Option<&'v Value> {
    path.iter().try_fold(object, |value, field| value.get(field))
}

fn set(object: &mut Value, path: &[String], value: Value) {
    let mut place = object;
    for field in path {
        if !place.is_object() {
            *place = json!({});
        }
        place = &mut place[field.as_str()];
    }
    *place = value;
}

/// A selector in its text form; custom kinds keep it as text already.
fn selector_text(selector: &Value) -> Option<String> {
    if let Some(text) = selector.as_str() {
        return Some(text.to_owned());
    }
    let labels = selector["matchLabels"].as_object().into_iter().flatten();
    let mut parts: Vec<String> =
        labels.map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default())).collect();
    parts.sort();
    parts.extend(selector["matchExpressions"].as_array().into_iter().flatten().filter_map(expression_text));
    Some(parts.join(","))
}

fn expression_text(expression: &Value) -> Option<String> {
    let key = expression["key"].as_str()?;
    let values: Vec<&str> = expression["values"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let mut text = String::new();
    match expression["operator"].as_str()? {
        "In" => write!(text, "{key} in ({})", values.join(",")),
        "NotIn" => write!(text, "{key} notin ({})", values.join(",")),
        "Exists" => write!(text, "{key}"),
        "DoesNotExist" => write!(text, "!{key}"),
        _ => return None,
    }
    .ok()?;
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selector_is_told_as_text() {
        let selector = json!({
            "matchLabels": {"b": "2", "a": "1"},
            "matchExpressions": [{"key": "c", "operator": "In", "values": ["x", "y"]}, {"key": "d", "operator": "DoesNotExist"}],
        });
        assert_eq!(selector_text(&selector).unwrap(), "a=1,b=2,c in (x,y),!d");
    }
}
