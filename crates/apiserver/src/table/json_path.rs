//! The part of JSONPath that printer columns use (Kubernetes documentation, "JSONPath Support"): fields, quoted fields, indices,
//! wildcards and equality filters.

use serde_json::Value;

/// A parsed path such as `.status.conditions[?(@.type=="Ready")].status`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct JsonPath {
    steps: Vec<Step>,
}

#[derive(Debug, Clone, PartialEq)]
enum Step {
    Field(String),
    /// Negative counts from the end.
    Index(i64),
    All,
    Filter {
        path: JsonPath,
        equal: bool,
        value: Value,
    },
}

impl JsonPath {
    /// Parses a path, with or without the braces and the `$` of the full notation.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let text = text.strip_prefix('{').and_then(|inner| inner.strip_suffix('}')).unwrap_or(text);
        let mut rest = text.strip_prefix('$').unwrap_or(text);
        let mut steps = Vec::new();
        while !rest.is_empty() {
            let (step, after) = if let Some(bracket) = rest.strip_prefix('[') {
                let end = closing(bracket).ok_or_else(|| format!("']' is missing in {text:?}"))?;
                (Step::bracket(&bracket[..end])?, &bracket[end + 1..])
            } else {
                let field = rest.strip_prefix('.').unwrap_or(rest);
                let end = field_end(field);
                let name = field[..end].replace("\\.", ".");
                match (name.as_str(), &field[end..]) {
                    ("", after) if after.starts_with('[') => {
                        rest = after;
                        continue;
                    }
                    ("", _) => return Err(format!("a field is missing in {text:?}")),
                    ("*", after) => (Step::All, after),
                    (_, after) => (Step::Field(name), after),
                }
            };
            steps.push(step);
            rest = after;
        }
        Ok(Self { steps })
    }

    /// All values at the path.
    pub(super) fn find<'v>(&self, value: &'v Value) -> Vec<&'v Value> {
        let mut found = vec![value];
        for step in &self.steps {
            found = found.into_iter().flat_map(|value| step.find(value)).collect();
        }
        found
    }
}

/// Where a field's name ends: at the next dot or bracket that no backslash precedes.
fn field_end(text: &str) -> usize {
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'.' | b'[' => return at,
            _ => {}
        }
    }
    text.len()
}

/// Where the bracket closes that was opened just before.
fn closing(text: &str) -> Option<usize> {
    let mut quote = None;
    let mut depth = 0;
    for (at, byte) in text.bytes().enumerate() {
        match (quote, byte) {
            (Some(open), byte) if open == byte => quote = None,
            (Some(_), _) => {}
            (None, b'\'' | b'"') => quote = Some(byte),
            (None, b'[') => depth += 1,
            (None, b']') if depth == 0 => return Some(at),
            (None, b']') => depth -= 1,
            _ => {}
        }
    }
    None
}

impl Step {
    fn bracket(inner: &str) -> Result<Self, String> {
        let inner = inner.trim();
        if inner == "*" {
            return Ok(Self::All);
        }
        if let Some(name) = quoted(inner) {
            return Ok(Self::Field(name.to_owned()));
        }
        if let Some(filter) = inner.strip_prefix("?(").and_then(|filter| filter.strip_suffix(')')) {
            let (path, equal, value) = match (filter.split_once("=="), filter.split_once("!=")) {
                (Some((path, value)), _) => (path, true, value),
                (None, Some((path, value))) => (path, false, value),
                (None, None) => return Err(format!("the filter {filter:?} is no comparison by == or !=")),
            };
            let path = path.trim().strip_prefix('@').ok_or_else(|| format!("the filter {filter:?} has no @"))?;
            let value = value.trim();
            let value = match quoted(value) {
                Some(text) => Value::String(text.to_owned()),
                None => serde_json::from_str(value).map_err(|e| format!("{value:?} is no value: {e}"))?,
            };
            return Ok(Self::Filter { path: JsonPath::parse(path)?, equal, value });
        }
        inner.parse().map(Self::Index).map_err(|_| format!("{inner:?} is no index, field or filter"))
    }

    fn find<'v>(&self, value: &'v Value) -> Vec<&'v Value> {
        match self {
            Self::Field(name) => value.get(name).filter(|found| !found.is_null()).into_iter().collect(),
            Self::Index(index) => element(value, *index).into_iter().collect(),
            Self::All => match value {
                Value::Array(list) => list.iter().collect(),
                Value::Object(map) => map.values().collect(),
                _ => Vec::new(),
            },
            Self::Filter { path, equal, value: wanted } => {
                let holds = |element: &&Value| path.find(element).contains(&wanted) == *equal;
                value.as_array().into_iter().flatten().filter(holds).collect()
            }
        }
    }
}

fn element(value: &Value, index: i64) -> Option<&Value> {
    let list = value.as_array()?;
    let index = if index < 0 { i64::try_from(list.len()).ok()? + index } else { index };
    list.get(usize::try_from(index).ok()?)
}

fn quoted(text: &str) -> Option<&str> {
    ['\'', '"'].iter().find_map(|quote| text.strip_prefix(*quote)?.strip_suffix(*quote))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn paths_of_printer_columns_find_their_values() {
        let object = json!({
            "metadata": {"labels": {"a.b/c": "label"}, "annotations": {"x.y": "dotted"}},
            "spec": {"cidr": "10.0.0.0/8", "names": ["a", "b"], "null": null},
            "status": {"conditions": [{"type": "Ready", "status": "True"}, {"type": "Other", "status": "False"}]},
        });
        for (path, wanted) in [
            (".spec.cidr", json!(["10.0.0.0/8"])),
            ("{.spec.cidr}", json!(["10.0.0.0/8"])),
            ("$.spec.cidr", json!(["10.0.0.0/8"])),
            (".spec.names[0]", json!(["a"])),
            (".spec.names[-1]", json!(["b"])),
            (".spec.names[7]", json!([])),
            (".spec.names[*]", json!(["a", "b"])),
            (".spec['cidr']", json!(["10.0.0.0/8"])),
            (".metadata.labels['a.b/c']", json!(["label"])),
            (".metadata.annotations.x\\.y", json!(["dotted"])),
            (".status.conditions[?(@.type==\"Ready\")].status", json!(["True"])),
            (".status.conditions[?(@.type=='Missing')].status", json!([])),
            (".status.conditions[?(@.type!='Ready')].status", json!(["False"])),
            (".spec.missing.deeper", json!([])),
            (".spec.null", json!([])),
        ] {
            let found: Vec<_> = JsonPath::parse(path).unwrap().find(&object).into_iter().cloned().collect();
            assert_eq!(json!(found), wanted, "{path}");
        }
        for wrong in [".spec[", ".a[x]", ".a[?(b)]", "..a"] {
            assert!(JsonPath::parse(wrong).is_err(), "{wrong}");
        }
    }
}
