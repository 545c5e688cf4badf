//! Field selectors: `metadata.name=web,status.phase!=Running` (Kubernetes documentation, "Field Selectors").

use serde_json::Value;

use super::SelectorError;

/// Requirements on fields, all of which must hold. The empty selector matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSelector {
    requirements: Vec<Requirement>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Requirement {
    field: String,
    value: String,
    equal: bool,
}

impl FieldSelector {
    /// Parses the text of a `fieldSelector` parameter. In values `\,`, `\=` and `\\` stand for the characters themselves.
    ///
    /// # Errors
    /// Names the requirement that is not well-formed.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let parts = split(text);
        let requirements = parts.iter().filter(|part| !part.is_empty()).map(|part| Requirement::parse(part));
        Ok(Self { requirements: requirements.collect::<Result<_, _>>()? })
    }

    /// Whether it selects everything.
    pub fn is_empty(&self) -> bool {
        self.requirements.is_empty()
    }

    /// Whether the object is selected. A field that is not there is the empty string, a flag that is not there `false`.
    pub fn matches(&self, object: &Value) -> bool {
        self.requirements.iter().all(|r| (field_text(object, &r.field) == r.value) == r.equal)
    }

    /// The name that an object must have to be selected, so that the object can be looked up instead of searched for.
    pub fn required_name(&self) -> Option<&str> {
        self.required("metadata.name")
    }

    /// The value that a field must have to be selected.
    pub fn required(&self, field: &str) -> Option<&str> {
        self.requirements.iter().find(|r| r.equal && r.field == field).map(|r| r.value.as_str())
    }

    /// Checks that objects of the kind can be selected by these fields.
    ///
    /// # Errors
    /// The first field that the kind does not support.
    pub fn validate(&self, group: &str, kind: &str) -> Result<(), SelectorError> {
        let known = fields(group, kind);
        let supports = |field: &str| COMMON.contains(&field) || known.contains(&field);
        match self.requirements.iter().find(|r| !supports(&r.field)) {
            None => Ok(()),
            Some(r) => Err(SelectorError::UnsupportedField {
                field: r.field.clone(),
                kind: kind.to_owned(),
                supported: [COMMON, known].concat().join(", "),
            }),
        }
    }
}

const COMMON: &[&str] = &["metadata.name", "metadata.namespace"];

/// What objects of a kind can be selected by beside name and namespace.
fn fields(group: &str, kind: &str) -> &'static [&'static str] {
    match (group, kind) {
        ("", "Pod") => &[
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.nominatedNodeName",
        ],
        ("" | "events.k8s.io", "Event") => &[
            "involvedObject.kind",
            "involvedObject.namespace",
            "involvedObject.name",
            "involvedObject.uid",
            "involvedObject.apiVersion",
            "involvedObject.resourceVersion",
            "involvedObject.fieldPath",
            "reason",
            "reportingComponent",
            "source",
            "type",
        ],
        ("", "Node") => &["spec.unschedulable"],
        ("", "Secret") => &["type"],
        ("", "Namespace") => &["status.phase"],
        ("", "Service") => &["spec.clusterIP", "spec.type"],
        _ => &[],
    }
}

/// A field as text.
fn field_text(object: &Value, field: &str) -> String {
    let value = match field {
        // Whoever reported the event, in the older or the newer field.
        "source" => match &object["source"]["component"] {
            Value::Null => &object["reportingComponent"],
            component => component,
        },
        _ => {
            let value = lookup(object, field);
            // The events.k8s.io form calls the object that the event is about differently.
            match field.strip_prefix("involvedObject.") {
                Some(rest) if value.is_null() => lookup(&object["regarding"], rest),
                _ => value,
            }
        }
    };
    match value {
        Value::Null if matches!(field, "spec.hostNetwork" | "spec.unschedulable") => "false".to_owned(),
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn lookup<'v>(object: &'v Value, field: &str) -> &'v Value {
    field.split('.').fold(object, |value, name| &value[name])
}

/// Splits at the commas that no backslash precedes.
fn split(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut start, mut escaped) = (0, false);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b',' => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

impl Requirement {
    fn parse(text: &str) -> Result<Self, SelectorError> {
        let wrong =
            |reason: &str| SelectorError::Requirement { requirement: text.to_owned(), reason: reason.to_owned() };
        let at = text.find('=').ok_or_else(|| wrong("found no operator: one of =, ==, != is expected"))?;
        let (field, equal, value) = match (text[..at].strip_suffix('!'), text[at..].strip_prefix("==")) {
            (Some(field), _) => (field, false, &text[at + 1..]),
            (None, Some(value)) => (&text[..at], true, value),
            (None, None) => (&text[..at], true, &text[at + 1..]),
        };
        if field.is_empty() {
            return Err(wrong("no field is named"));
        }
        Ok(Self { field: field.to_owned(), value: unescape(value).map_err(wrong)?, equal })
    }
}

fn unescape(value: &str) -> Result<String, &'static str> {
    let mut text = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(escaped @ ('\\' | ',' | '=')) => text.push(escaped),
                _ => return Err("a backslash may only precede ',', '=' and '\\'"),
            },
            '=' => return Err("'=' in a value has to be written '\\='"),
            other => text.push(other),
        }
    }
    Ok(text)
}
