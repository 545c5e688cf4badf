//! One field that does not hold what it may hold, in the words of Kubernetes' field errors.

use serde_json::{Value, json};

/// A cause of an `Invalid` status: where and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldCause {
    /// JSON path of the field, e.g. `spec.ports[0].port`.
    pub field: String,
    /// `metav1.CauseType`, e.g. `FieldValueInvalid`.
    pub reason: &'static str,
    /// The sentence without the field's path.
    pub message: String,
}

impl FieldCause {
    /// The field is absent but must not be.
    pub fn required(field: impl Into<String>, message: &str) -> Self {
        let message = if message.is_empty() { "Required value".to_owned() } else { format!("Required value: {message}") };
        Self { field: field.into(), reason: "FieldValueRequired", message }
    }

    /// The value breaks a rule.
    pub fn invalid(field: impl Into<String>, value: &Value, rule: &str) -> Self {
        let message = format!("Invalid value: {}: {rule}", shown(value));
        Self { field: field.into(), reason: "FieldValueInvalid", message }
    }

    /// The value has another type than the field.
    pub fn wrong_type(field: impl Into<String>, value: &Value, rule: &str) -> Self {
        let message = format!("Invalid value: {}: {rule}", shown_type(value));
        Self { field: field.into(), reason: "FieldValueTypeInvalid", message }
    }

    /// The value is none of an enumeration.
    pub fn not_supported(field: impl Into<String>, value: &Value, allowed: &[Value]) -> Self {
        let mut allowed: Vec<String> = allowed.iter().map(shown).collect();
        allowed.sort();
        let message = format!("Unsupported value: {}: supported values: {}", shown(value), allowed.join(", "));
        Self { field: field.into(), reason: "FieldValueNotSupported", message }
    }

    /// The value must not be set, or not be changed, here.
    pub fn forbidden(field: impl Into<String>, why: &str) -> Self {
        Self { field: field.into(), reason: "FieldValueForbidden", message: format!("Forbidden: {why}") }
    }

    /// The `metav1.StatusCause`.
    pub fn as_status_cause(&self) -> Value {
        json!({ "reason": self.reason, "message": self.message, "field": self.field })
    }
}

impl std::fmt::Display for FieldCause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.field, self.message)
    }
}

/// One cause stands by itself; several are put into brackets.
pub(super) fn sentence(causes: &[FieldCause]) -> String {
    let sentences: Vec<String> = causes.iter().map(ToString::to_string).collect();
    match sentences.as_slice() {
        [one] => one.clone(),
        several => format!("[{}]", several.join(", ")),
    }
}

/// A value as Kubernetes quotes it: strings and numbers as JSON, composites by their type's name.
fn shown(value: &Value) -> String {
    match value {
        Value::Object(_) | Value::Array(_) => value.to_string(),
        scalar => scalar.to_string(),
    }
}

fn shown_type(value: &Value) -> String {
    let name = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    format!("\"{name}\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unsupported_value_is_reported_with_path_value_and_alternatives() {
        let allowed = [json!("Never"), json!("Always"), json!("CrossSubnet")];
        let cause = FieldCause::not_supported("spec.vxlanMode", &json!("Neve"), &allowed);
        assert_eq!(
            cause.to_string(),
            r#"spec.vxlanMode: Unsupported value: "Neve": supported values: "Always", "CrossSubnet", "Never""#
        );
    }

    #[test]
    fn several_causes_are_put_into_brackets() {
        let causes = [FieldCause::required("spec.cidr", ""), FieldCause::required("spec.name", "must be set")];
        assert_eq!(sentence(&causes), "[spec.cidr: Required value, spec.name: Required value: must be set]");
    }
}
