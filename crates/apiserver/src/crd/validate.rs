//! Objects against schemas: unknown fields, defaults, and what is wrong.

use serde_json::{Map, Value};

use super::Schema;
use super::schema::{Additional, Bounds};
use crate::admission::FieldError;

/// Fields that every object has, whatever its schema says.
const OBJECT_FIELDS: [&str; 3] = ["apiVersion", "kind", "metadata"];

impl Schema {
    /// Removes the fields that the schema does not know; answers their paths.
    pub fn prune(&self, object: &mut Value) -> Vec<String> {
        let mut unknown = Vec::new();
        self.prune_at(object, "", true, &mut unknown);
        unknown
    }

    /// Fills in defaults.
    pub fn fill_defaults(&self, object: &mut Value) {
        match object {
            Value::Object(fields) => self.fill_fields(fields),
            Value::Array(elements) => {
                if let Some(items) = &self.items {
                    elements.iter_mut().for_each(|element| items.fill_defaults(element));
                }
            }
            _ => {}
        }
    }

    /// What is wrong with an object.
    pub fn faults(&self, object: &Value) -> Vec<FieldError> {
        let mut faults = Vec::new();
        self.check(object, "", true, &mut faults);
        faults
    }

    fn fill_fields(&self, fields: &mut Map<String, Value>) {
        for (name, schema) in &self.properties {
            // A null where null is not allowed counts as absent when there is a default.
            let absent = fields.get(name).is_none_or(|value| value.is_null() && !schema.nullable);
            if let Some(default) = schema.default.as_ref().filter(|_| absent) {
                fields.insert(name.clone(), default.clone());
            }
            if let Some(value) = fields.get_mut(name) {
                schema.fill_defaults(value);
            }
        }
        if let Additional::Like(schema) = &self.additional {
            fields.values_mut().for_each(|value| schema.fill_defaults(value));
        }
    }

    fn prune_at(&self, value: &mut Value, path: &str, is_root: bool, unknown: &mut Vec<String>) {
        match value {
            Value::Object(fields) => self.prune_fields(fields, path, is_root || self.is_embedded_object, unknown),
            Value::Array(elements) => {
                let Some(items) = &self.items else { return };
                for (index, element) in elements.iter_mut().enumerate() {
                    items.prune_at(element, &format!("{path}[{index}]"), false, unknown);
                }
            }
            _ => {}
        }
    }

    fn prune_fields(&self, fields: &mut Map<String, Value>, path: &str, is_object: bool, unknown: &mut Vec<String>) {
        fields.retain(|name, value| {
            if is_object && OBJECT_FIELDS.contains(&name.as_str()) {
                return true;
            }
            let path = joined(path, name);
            match (self.property(name), &self.additional) {
                (Some(schema), _) => schema.prune_at(value, &path, false, unknown),
                (None, Additional::Like(schema)) => schema.prune_at(value, &path, false, unknown),
                (None, Additional::Any) => {}
                (None, Additional::Unknown) if self.preserves_unknown => {}
                (None, Additional::Unknown) => {
                    unknown.push(path);
                    return false;
                }
            }
            true
        });
    }

    fn check(&self, value: &Value, path: &str, is_root: bool, faults: &mut Vec<FieldError>) {
        if value.is_null() && self.nullable {
            return;
        }
        if !self.type_fits(value) {
            faults.push(self.type_fault(value, path));
            return;
        }
        if let Some(allowed) = self.allowed.as_ref().filter(|allowed| !allowed.contains(value)) {
            faults.push(not_supported(path, value, allowed));
        }
        match value {
            Value::Object(fields) => self.check_fields(fields, path, is_root, faults),
            Value::Array(elements) => {
                for (index, element) in elements.iter().enumerate() {
                    if let Some(items) = &self.items {
                        items.check(element, &format!("{path}[{index}]"), false, faults);
                    }
                }
            }
            Value::String(text) => {
                if let Some(pattern) = self.pattern.as_ref().filter(|pattern| !pattern.is_match(text)) {
                    let rule = format!("{} in body should match '{}'", shown_path(path), pattern.as_str());
                    faults.push(FieldError::invalid(path, value.clone(), rule));
                }
            }
            _ => {}
        }
        if let Some(rule) = self.bounds.broken_by(value) {
            faults.push(FieldError::invalid(path, value.clone(), format!("{} in body {rule}", shown_path(path))));
        }
        self.check_combinations(value, path, is_root, faults);
    }

    fn check_fields(&self, fields: &Map<String, Value>, path: &str, is_root: bool, faults: &mut Vec<FieldError>) {
        for name in self.required.iter().filter(|name| !fields.contains_key(*name)) {
            faults.push(FieldError::required(joined(path, name), ""));
        }
        for (name, value) in fields {
            // `metadata` is checked by the server for all kinds alike.
            if (is_root || self.is_embedded_object) && OBJECT_FIELDS.contains(&name.as_str()) {
                continue;
            }
            let path = joined(path, name);
            match (self.property(name), &self.additional) {
                (Some(schema), _) => schema.check(value, &path, false, faults),
                (None, Additional::Like(schema)) => schema.check(value, &path, false, faults),
                (None, Additional::Any | Additional::Unknown) => {}
            }
        }
    }

    fn check_combinations(&self, value: &Value, path: &str, is_root: bool, faults: &mut Vec<FieldError>) {
        let fits = |schema: &Schema| {
            let mut faults = Vec::new();
            schema.check(value, path, is_root, &mut faults);
            faults.is_empty()
        };
        for schema in &self.all_of {
            schema.check(value, path, is_root, faults);
        }
        let shown = shown_path(path);
        let mut broken = |rule: String| faults.push(FieldError::invalid(path, value.clone(), rule));
        if !self.any_of.is_empty() && !self.any_of.iter().any(fits) {
            broken(format!("{shown} in body must validate at least one schema (anyOf)"));
        }
        if !self.one_of.is_empty() && self.one_of.iter().filter(|schema| fits(schema)).count() != 1 {
            broken(format!("{shown} in body must validate one and only one schema (oneOf)"));
        }
        if self.not.as_deref().is_some_and(fits) {
            broken(format!("{shown} in body must not validate the schema (not)"));
        }
    }

    fn type_fits(&self, value: &Value) -> bool {
        if self.int_or_string {
            return value.is_string() || is_integer(value);
        }
        match self.types.as_deref() {
            Some("object") => value.is_object(),
            Some("array") => value.is_array(),
            Some("string") => value.is_string(),
            Some("boolean") => value.is_boolean(),
            Some("integer") => is_integer(value),
            Some("number") => value.is_number(),
            _ => true,
        }
    }

    fn type_fault(&self, value: &Value, path: &str) -> FieldError {
        let expected = if self.int_or_string { "integer,string" } else { self.types.as_deref().unwrap_or("object") };
        let found = type_name(value);
        let rule = format!("{} in body must be of type {expected}: {found:?}", shown_path(path));
        FieldError::invalid(path, found, rule)
    }
}

impl Bounds {
    /// The first limit that a value exceeds, as a sentence after "in body".
    fn broken_by(&self, value: &Value) -> Option<String> {
        match value {
            Value::Number(number) => self.number_breaks(number.as_f64()?),
            Value::String(text) => {
                let length = text.chars().count() as u64;
                size_breaks(length, self.min_length, self.max_length, "be at least", "be at most", "chars long")
            }
            Value::Array(elements) => {
                let count = elements.len() as u64;
                size_breaks(count, self.min_items, self.max_items, "have at least", "have at most", "items")
            }
            Value::Object(fields) => {
                let count = fields.len() as u64;
                let (min, max) = (self.min_properties, self.max_properties);
                size_breaks(count, min, max, "have at least", "have at most", "properties")
            }
            _ => None,
        }
    }

    fn number_breaks(&self, number: f64) -> Option<String> {
        let below = |limit: f64| if self.exclusive_minimum { number <= limit } else { number < limit };
        let above = |limit: f64| if self.exclusive_maximum { number >= limit } else { number > limit };
        if let Some(limit) = self.minimum.filter(|limit| below(*limit)) {
            let or_equal = if self.exclusive_minimum { "" } else { " or equal to" };
            return Some(format!("should be greater than{or_equal} {limit}"));
        }
        if let Some(limit) = self.maximum.filter(|limit| above(*limit)) {
            let or_equal = if self.exclusive_maximum { "" } else { " or equal to" };
            return Some(format!("should be less than{or_equal} {limit}"));
        }
        let multiple = self.multiple_of.filter(|factor| *factor > 0.0 && (number / factor).fract() != 0.0)?;
        Some(format!("should be a multiple of {multiple}"))
    }
}

fn size_breaks(
    size: u64,
    min: Option<u64>,
    max: Option<u64>,
    at_least: &str,
    at_most: &str,
    unit: &str,
) -> Option<String> {
    if let Some(min) = min.filter(|min| size < *min) {
        return Some(format!("should {at_least} {min} {unit}"));
    }
    let max = max.filter(|max| size > *max)?;
    Some(format!("should {at_most} {max} {unit}"))
}

fn not_supported(path: &str, value: &Value, allowed: &[Value]) -> FieldError {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let mut allowed: Vec<String> = allowed.iter().map(text).collect();
    allowed.sort();
    let allowed: Vec<&str> = allowed.iter().map(String::as_str).collect();
    FieldError::not_supported(path, value.clone(), &allowed)
}

fn is_integer(value: &Value) -> bool {
    value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|number| number.fract() == 0.0)
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) if is_integer(value) => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn joined(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

fn shown_path(path: &str) -> &str {
    if path.is_empty() { "<root>" } else { path }
}
