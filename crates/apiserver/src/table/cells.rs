//! Cells that several kinds have, and reading fields for them.

use serde_json::{Map, Value, json};

/// What stands where there is nothing.
pub(super) const NONE: &str = "<none>";

/// The object's name.
pub(super) fn name(object: &Value) -> Value {
    object["metadata"]["name"].clone()
}

/// A list's elements; none where it is not a list.
pub(super) fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// A text; empty where it is not one.
pub(super) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// A whole number; 0 where it is not one.
pub(super) fn number(value: &Value) -> i64 {
    value.as_i64().unwrap_or_default()
}

/// How many fields an object has.
pub(super) fn size(value: &Value) -> usize {
    value.as_object().map_or(0, Map::len)
}

/// A text, or `<none>`.
pub(super) fn or_none(text: &str) -> Value {
    json!(if text.is_empty() { NONE } else { text })
}

/// Texts joined by commas, or `<none>`.
pub(super) fn joined<S: AsRef<str>>(texts: impl IntoIterator<Item = S>) -> Value {
    let texts: Vec<S> = texts.into_iter().collect();
    or_none(&texts.iter().map(AsRef::as_ref).collect::<Vec<&str>>().join(","))
}

/// A map as `a=1,b=2`, sorted by key, or `<none>`.
pub(super) fn pairs(map: &Value) -> Value {
    let mut pairs: Vec<String> =
        map.as_object().into_iter().flatten().map(|(key, value)| format!("{key}={}", text(value))).collect();
    pairs.sort();
    joined(pairs)
}

/// A label selector (`matchLabels`, `matchExpressions`) as text, or `<none>`.
pub(super) fn selector(selector: &Value) -> Value {
    let mut parts: Vec<String> = selector["matchLabels"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", text(value)))
        .collect();
    parts.sort();
    for expression in list(&selector["matchExpressions"]) {
        let key = text(&expression["key"]);
        let values = list(&expression["values"]).iter().map(text).collect::<Vec<_>>().join(",");
        parts.push(match text(&expression["operator"]) {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "Exists" => key.to_owned(),
            _ => format!("!{key}"),
        });
    }
    joined(parts)
}
