//! Objects as the table that `kubectl get` prints: `meta.k8s.io/v1` Table, asked for by
//! `Accept: application/json;as=Table;v=v1;g=meta.k8s.io`.
//!
//! The columns of the built-in kinds are the ones that users of kubectl know; custom resources bring theirs in the
//! CustomResourceDefinition's `additionalPrinterColumns`.

mod age;
mod cells;
mod custom;
mod events;
mod json_path;
mod network;
mod node;
mod pod;
mod storage;
mod workloads;

use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde_json::{Value, json};

/// A column of a custom resource: an element of `additionalPrinterColumns`, from which it can be deserialised.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CustomColumn {
    /// The heading.
    pub name: String,
    /// `string`, `integer`, `number`, `boolean` or `date`.
    pub r#type: String,
    /// OpenAPI format, such as `int64`; may be empty.
    pub format: String,
    /// What the column means; may be empty.
    pub description: String,
    /// Where the value is in the object, such as `.spec.cidr`.
    pub json_path: String,
    /// 0 is shown always, more only with `-o wide`.
    pub priority: i32,
}

/// What of the object each row carries (`includeObject` of the request).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IncludeObject {
    /// Nothing.
    None,
    /// `metadata`, as PartialObjectMetadata: the default.
    #[default]
    Metadata,
    /// All of it.
    Object,
}

/// A column's definition.
#[derive(Clone, Copy, Debug)]
struct Column {
    name: &'static str,
    r#type: &'static str,
    format: &'static str,
    priority: u8,
}

impl Column {
    const fn text(name: &'static str) -> Self {
        Self { name, r#type: "string", format: "", priority: 0 }
    }

    const fn number(name: &'static str) -> Self {
        Self { name, r#type: "integer", format: "", priority: 0 }
    }

    /// Shown with `-o wide` only.
    const fn wide(self) -> Self {
        Self { priority: 1, ..self }
    }
}

const NAME: Column = Column { name: "Name", r#type: "string", format: "name", priority: 0 };
const AGE: Column = Column::text("Age");

/// How a kind is printed: its columns, and a row's cells in the same order.
struct Printer {
    columns: &'static [Column],
    cells: fn(&Value, DateTime<Utc>) -> Vec<Value>,
}

static NAME_AND_AGE: Printer =
    Printer { columns: &[NAME, AGE], cells: |object, now| vec![cells::name(object), age::of(object, now)] };

fn printer(group: &str, kind: &str) -> Option<&'static Printer> {
    Some(match (group, kind) {
        ("", "Pod") => &pod::PODS,
        ("", "Node") => &node::NODES,
        ("", "Service") => &network::SERVICES,
        ("", "Endpoints") => &network::ENDPOINTS,
        ("discovery.k8s.io", "EndpointSlice") => &network::ENDPOINT_SLICES,
        ("", "Namespace") => &storage::NAMESPACES,
        ("", "ConfigMap") => &storage::CONFIG_MAPS,
        ("", "Secret") => &storage::SECRETS,
        ("", "ServiceAccount") => &storage::SERVICE_ACCOUNTS,
        ("coordination.k8s.io", "Lease") => &storage::LEASES,
        ("apiextensions.k8s.io", "CustomResourceDefinition") => &storage::CUSTOM_RESOURCE_DEFINITIONS,
        ("" | "events.k8s.io", "Event") => &events::EVENTS,
        ("apps", "Deployment") => &workloads::DEPLOYMENTS,
        ("apps", "ReplicaSet") => &workloads::REPLICA_SETS,
        ("apps", "StatefulSet") => &workloads::STATEFUL_SETS,
        ("apps", "DaemonSet") => &workloads::DAEMON_SETS,
        ("batch", "Job") => &workloads::JOBS,
        _ => return None,
    })
}

/// Renders objects as a Table.
///
/// `now` is the time that ages are counted to, `list_metadata` the metadata of the list (or of the single object).
/// Custom columns are used for kinds that are not built in.
#[allow(clippy::too_many_arguments, reason = "each is a different thing that the request or the registry says")]
pub fn render(
    group: &str,
    kind: &str,
    custom_columns: &[CustomColumn],
    objects: &[&Value],
    now: DateTime<Utc>,
    include_object: IncludeObject,
    list_metadata: Value,
) -> Value {
    let built_in = printer(group, kind);
    let (columns, rows): (Vec<Value>, Vec<Vec<Value>>) = match built_in {
        None if !custom_columns.is_empty() => {
            let printer = custom::CustomPrinter::new(custom_columns);
            (printer.definitions(), objects.iter().map(|object| printer.cells(object, now)).collect())
        }
        _ => {
            let printer = built_in.unwrap_or(&NAME_AND_AGE);
            (
                printer.columns.iter().map(definition).collect(),
                objects.iter().map(|object| (printer.cells)(object, now)).collect(),
            )
        }
    };
    let rows = objects.iter().zip(rows).map(|(object, cells)| row(object, cells, include_object)).collect();
    let mut table = json!({ "kind": "Table", "apiVersion": "meta.k8s.io/v1" });
    table["metadata"] = list_metadata;
    table["columnDefinitions"] = Value::Array(columns);
    table["rows"] = Value::Array(rows);
    table
}

fn definition(column: &Column) -> Value {
    json!({
        "name": column.name,
        "type": column.r#type,
        "format": column.format,
        "description": "",
        "priority": column.priority,
    })
}

fn row(object: &Value, cells: Vec<Value>, include: IncludeObject) -> Value {
    let mut row = json!({});
    row["cells"] = Value::Array(cells);
    match include {
        IncludeObject::None => {}
        IncludeObject::Object => row["object"] = object.clone(),
        IncludeObject::Metadata => {
            row["object"] = json!({
                "kind": "PartialObjectMetadata",
                "apiVersion": "meta.k8s.io/v1",
                "metadata": object["metadata"],
            });
        }
    }
    row
}

#[cfg(test)]
mod tests;
