//! What is wrong with a field, worded as Kubernetes words it: people search for these sentences.

use std::fmt;

use serde_json::Value;

/// A field that has to be mended.
#[derive(Clone, Debug, PartialEq)]
pub struct FieldError {
    /// Where it is: `spec.ports[0].port`.
    pub field: String,
    /// What kind of mistake it is.
    pub kind: FieldErrorKind,
    /// What is allowed; may be empty.
    pub message: String,
}

/// Kinds of mistakes (`metav1.CauseType`).
#[derive(Clone, Debug, PartialEq)]
pub enum FieldErrorKind {
    /// Has to be set.
    Required,
    /// Has a value that it may not have.
    Invalid {
        /// The value.
        value: Value,
    },
    /// Has a value that is not in the list.
    NotSupported {
        /// The value.
        value: Value,
        /// The list.
        supported: Vec<String>,
    },
    /// Has a value that something else has already.
    Duplicate {
        /// The value.
        value: Value,
    },
    /// Names something that is not there.
    NotFound {
        /// The name.
        value: Value,
    },
    /// May not be set, or not be set so.
    Forbidden,
    /// Has more bytes than are allowed.
    TooLong {
        /// The most bytes that are allowed.
        max: usize,
    },
    /// Has more elements than are allowed.
    TooMany {
        /// How many there are.
        count: usize,
        /// How many there may be.
        max: usize,
    },
    /// The server cannot do what the field asks for, for reasons of its own.
    Internal,
}

impl FieldError {
    /// A field that is missing.
    pub fn required(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { field: field.into(), kind: FieldErrorKind::Required, message: message.into() }
    }

    /// A value that is not allowed.
    pub fn invalid(field: impl Into<String>, value: impl Into<Value>, message: impl Into<String>) -> Self {
        Self { field: field.into(), kind: FieldErrorKind::Invalid { value: value.into() }, message: message.into() }
    }

    /// A value that is none of the supported ones.
    pub fn not_supported(field: impl Into<String>, value: impl Into<Value>, supported: &[&str]) -> Self {
        let supported = supported.iter().map(|&s| s.to_owned()).collect();
        let kind = FieldErrorKind::NotSupported { value: value.into(), supported };
        Self { field: field.into(), kind, message: String::new() }
    }

    /// A value that is there twice.
    pub fn duplicate(field: impl Into<String>, value: impl Into<Value>) -> Self {
        Self { field: field.into(), kind: FieldErrorKind::Duplicate { value: value.into() }, message: String::new() }
    }

    /// A name of something that is not there.
    pub fn not_found(field: impl Into<String>, value: impl Into<Value>) -> Self {
        Self { field: field.into(), kind: FieldErrorKind::NotFound { value: value.into() }, message: String::new() }
    }

    /// A field that may not be set so.
    pub fn forbidden(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { field: field.into(), kind: FieldErrorKind::Forbidden, message: message.into() }
    }

    /// A value with more than `max` bytes.
    pub fn too_long(field: impl Into<String>, max: usize) -> Self {
        let message = format!("may not be more than {max} bytes");
        Self { field: field.into(), kind: FieldErrorKind::TooLong { max }, message }
    }

    /// The `reason` of the Status' cause.
    pub fn reason(&self) -> &'static str {
        match self.kind {
            FieldErrorKind::Required => "FieldValueRequired",
            FieldErrorKind::Invalid { .. } => "FieldValueInvalid",
            FieldErrorKind::NotSupported { .. } => "FieldValueNotSupported",
            FieldErrorKind::Duplicate { .. } => "FieldValueDuplicate",
            FieldErrorKind::NotFound { .. } => "FieldValueNotFound",
            FieldErrorKind::Forbidden => "FieldValueForbidden",
            FieldErrorKind::TooLong { .. } => "FieldValueTooLong",
            FieldErrorKind::TooMany { .. } => "FieldValueTooMany",
            FieldErrorKind::Internal => "InternalError",
        }
    }

    /// The error without the field: the `message` of the Status' cause.
    pub fn body(&self) -> String {
        let head = match &self.kind {
            FieldErrorKind::Required => "Required value".to_owned(),
            FieldErrorKind::Forbidden => "Forbidden".to_owned(),
            FieldErrorKind::Internal => "Internal error".to_owned(),
            FieldErrorKind::Invalid { value } => format!("Invalid value: {}", shown(value)),
            FieldErrorKind::Duplicate { value } => format!("Duplicate value: {}", shown(value)),
            FieldErrorKind::NotFound { value } => format!("Not found: {}", shown(value)),
            FieldErrorKind::TooLong { .. } => "Too long".to_owned(),
            FieldErrorKind::TooMany { count, max } => format!("Too many: {count}: must have at most {max} items"),
            FieldErrorKind::NotSupported { value, supported } => {
                let supported: Vec<String> = supported.iter().map(|s| format!("{s:?}")).collect();
                format!("Unsupported value: {}: supported values: {}", shown(value), supported.join(", "))
            }
        };
        if self.message.is_empty() { head } else { format!("{head}: {}", self.message) }
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // An error about the object as a whole has no field; Kubernetes writes an empty path so.
        let field = if self.field.is_empty() { "[]" } else { &self.field };
        write!(f, "{field}: {}", self.body())
    }
}

/// A value in a message: texts quoted, maps and lists of texts in the notation that Kubernetes' messages have, the rest JSON.
fn shown(value: &Value) -> String {
    match value {
        Value::Object(map) if !map.is_empty() && map.values().all(Value::is_string) => {
            let mut pairs: Vec<String> = map.iter().map(|(key, value)| format!("{key:?}:{value}")).collect();
            pairs.sort();
            format!("map[string]string{{{}}}", pairs.join(", "))
        }
        Value::Array(list) if !list.is_empty() && list.iter().all(Value::is_string) => {
            let texts: Vec<String> = list.iter().map(Value::to_string).collect();
            format!("[]string{{{}}}", texts.join(", "))
        }
        other => other.to_string(),
    }
}
