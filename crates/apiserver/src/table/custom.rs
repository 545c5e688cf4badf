//! Custom resources: the columns that their CustomResourceDefinition names.

use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use super::{CustomColumn, NAME, age, cells, definition, json_path::JsonPath};

/// A definition's columns, their paths parsed once for all rows.
pub(super) struct CustomPrinter<'c> {
    columns: Vec<(&'c CustomColumn, Option<JsonPath>)>,
}

impl<'c> CustomPrinter<'c> {
    /// A column whose path is not understood stays empty.
    pub(super) fn new(columns: &'c [CustomColumn]) -> Self {
        let columns = columns.iter().map(|column| (column, JsonPath::parse(&column.json_path).ok()));
        Self { columns: columns.collect() }
    }

    /// The object's name, then the columns.
    pub(super) fn definitions(&self) -> Vec<Value> {
        let columns = self.columns.iter().map(|(column, _)| {
            json!({
                "name": column.name,
                "type": column.r#type,
                "format": column.format,
                "description": column.description,
                "priority": column.priority,
            })
        });
        std::iter::once(definition(&NAME)).chain(columns).collect()
    }

    pub(super) fn cells(&self, object: &Value, now: DateTime<Utc>) -> Vec<Value> {
        let cells = self.columns.iter().map(|(column, path)| {
            let found = path.as_ref().map(|path| path.find(object)).unwrap_or_default();
            cell(&column.r#type, &found, now)
        });
        std::iter::once(cells::name(object)).chain(cells).collect()
    }
}

/// A cell of the column's type; values of another type leave it empty.
fn cell(column_type: &str, found: &[&Value], now: DateTime<Utc>) -> Value {
    match (column_type, found) {
        ("date", [first, ..]) => json!(age::since(first, now)),
        ("date", []) => json!(age::UNKNOWN),
        (_, []) => Value::Null,
        ("string", many) => json!(many.iter().map(|value| as_text(value)).collect::<Vec<_>>().join(",")),
        ("integer", [first, ..]) => {
            first.as_i64().or_else(|| first.as_f64().map(|n| n as i64)).map_or(Value::Null, |n| json!(n))
        }
        ("number", [first, ..]) if first.is_number() => (*first).clone(),
        ("boolean", [first, ..]) if first.is_boolean() => (*first).clone(),
        _ => Value::Null,
    }
}

fn as_text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}
