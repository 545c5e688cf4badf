//! Structural OpenAPI v3 schemas, as CustomResourceDefinitions hold them:
//! <https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#specifying-a-structural-schema>.

use regex_lite::Regex;
use serde_json::{Map, Value};
use tracing::warn;

use crate::admission::FieldError;

/// Nesting of a schema at most; deeper ones are not written by people.
const MAX_DEPTH: usize = 64;

/// What a value has to look like.
#[derive(Debug, Default)]
pub struct Schema {
    pub(super) types: Option<String>,
    pub(super) nullable: bool,
    pub(super) int_or_string: bool,
    pub(super) preserves_unknown: bool,
    pub(super) is_embedded_object: bool,
    pub(super) properties: Vec<(String, Schema)>,
    pub(super) additional: Additional,
    pub(super) items: Option<Box<Schema>>,
    pub(super) required: Vec<String>,
    pub(super) allowed: Option<Vec<Value>>,
    pub(super) pattern: Option<Regex>,
    pub(super) bounds: Bounds,
    pub(super) default: Option<Value>,
    pub(super) all_of: Vec<Schema>,
    pub(super) any_of: Vec<Schema>,
    pub(super) one_of: Vec<Schema>,
    pub(super) not: Option<Box<Schema>>,
}

/// What is known of the properties that are not named.
#[derive(Debug, Default)]
pub(super) enum Additional {
    /// Nothing: they are unknown fields.
    #[default]
    Unknown,
    /// All are fine.
    Any,
    /// All have to look like this.
    Like(Box<Schema>),
}

/// Limits of sizes and numbers.
#[derive(Debug, Default)]
pub(super) struct Bounds {
    pub(super) minimum: Option<f64>,
    pub(super) exclusive_minimum: bool,
    pub(super) maximum: Option<f64>,
    pub(super) exclusive_maximum: bool,
    pub(super) multiple_of: Option<f64>,
    pub(super) min_length: Option<u64>,
    pub(super) max_length: Option<u64>,
    pub(super) min_items: Option<u64>,
    pub(super) max_items: Option<u64>,
    pub(super) min_properties: Option<u64>,
    pub(super) max_properties: Option<u64>,
}

impl Schema {
    /// The schema that everything fits.
    pub fn anything() -> Self {
        Self { preserves_unknown: true, ..Self::default() }
    }

    /// Reads a schema. Errors name the field within the schema.
    pub fn parse(schema: &Value) -> Result<Self, Vec<FieldError>> {
        let mut errors = Vec::new();
        let parsed = parse_at(schema, "openAPIV3Schema", MAX_DEPTH, &mut errors);
        if errors.is_empty() { Ok(parsed) } else { Err(errors) }
    }

    pub(super) fn property(&self, name: &str) -> Option<&Schema> {
        self.properties.iter().find(|(property, _)| property == name).map(|(_, schema)| schema)
    }
}

fn parse_at(schema: &Value, path: &str, depth: usize, errors: &mut Vec<FieldError>) -> Schema {
    let Some(fields) = schema.as_object() else {
        errors.push(FieldError::required(path, "schemas are required"));
        return Schema::default();
    };
    if depth == 0 {
        errors.push(FieldError::forbidden(path, format!("schemas may not be nested deeper than {MAX_DEPTH}")));
        return Schema::default();
    }
    let is = |name: &str| fields.get(name).and_then(Value::as_bool).unwrap_or(false);
    let mut child = |name: &str| fields.get(name).map(|s| parse_at(s, &format!("{path}.{name}"), depth - 1, errors));
    let items = child("items").map(Box::new);
    let not = child("not").map(Box::new);
    let mut several = |name: &str| parse_list(fields.get(name), &format!("{path}.{name}"), depth, errors);
    let (all_of, any_of, one_of) = (several("allOf"), several("anyOf"), several("oneOf"));
    Schema {
        types: fields.get("type").and_then(Value::as_str).map(str::to_owned),
        nullable: is("nullable"),
        int_or_string: is("x-kubernetes-int-or-string"),
        preserves_unknown: is("x-kubernetes-preserve-unknown-fields"),
        is_embedded_object: is("x-kubernetes-embedded-resource"),
        properties: parse_properties(fields.get("properties"), path, depth, errors),
        additional: parse_additional(fields.get("additionalProperties"), path, depth, errors),
        items,
        required: super::texts(fields.get("required").unwrap_or(&Value::Null)),
        allowed: fields.get("enum").and_then(Value::as_array).cloned(),
        pattern: parse_pattern(fields, path),
        bounds: parse_bounds(fields),
        default: fields.get("default").cloned(),
        all_of,
        any_of,
        one_of,
        not,
    }
}

fn parse_list(list: Option<&Value>, path: &str, depth: usize, errors: &mut Vec<FieldError>) -> Vec<Schema> {
    let list = list.and_then(Value::as_array).into_iter().flatten();
    list.enumerate().map(|(index, schema)| parse_at(schema, &format!("{path}[{index}]"), depth - 1, errors)).collect()
}

fn parse_properties(
    properties: Option<&Value>,
    path: &str,
    depth: usize,
    errors: &mut Vec<FieldError>,
) -> Vec<(String, Schema)> {
    let properties = properties.and_then(Value::as_object).into_iter().flatten();
    properties
        .map(|(name, schema)| {
            let schema = parse_at(schema, &format!("{path}.properties[{name}]"), depth - 1, errors);
            (name.clone(), schema)
        })
        .collect()
}

fn parse_additional(schema: Option<&Value>, path: &str, depth: usize, errors: &mut Vec<FieldError>) -> Additional {
    match schema {
        None | Some(Value::Null | Value::Bool(false)) => Additional::Unknown,
        Some(Value::Bool(true)) => Additional::Any,
        Some(schema) => {
            let path = format!("{path}.additionalProperties");
            Additional::Like(Box::new(parse_at(schema, &path, depth - 1, errors)))
        }
    }
}

/// Patterns are written for Go's RE2. What the engine here does not know (Unicode classes) is not checked rather than refused: the
/// definition belongs to somebody else, and the same definition works elsewhere.
fn parse_pattern(fields: &Map<String, Value>, path: &str) -> Option<Regex> {
    let pattern = fields.get("pattern")?.as_str()?;
    match Regex::new(pattern) {
        Ok(regex) => Some(regex),
        Err(error) => {
            warn!(%path, %pattern, %error, "pattern of a definition is not understood and not checked");
            None
        }
    }
}

fn parse_bounds(fields: &Map<String, Value>) -> Bounds {
    let float = |name: &str| fields.get(name).and_then(Value::as_f64);
    let size = |name: &str| fields.get(name).and_then(Value::as_u64);
    let is = |name: &str| fields.get(name).and_then(Value::as_bool).unwrap_or(false);
    Bounds {
        minimum: float("minimum"),
        exclusive_minimum: is("exclusiveMinimum"),
        maximum: float("maximum"),
        exclusive_maximum: is("exclusiveMaximum"),
        multiple_of: float("multipleOf"),
        min_length: size("minLength"),
        max_length: size("maxLength"),
        min_items: size("minItems"),
        max_items: size("maxItems"),
        min_properties: size("minProperties"),
        max_properties: size("maxProperties"),
    }
}
