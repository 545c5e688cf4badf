//! Events, in the core form and in the form of `events.k8s.io`.

use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use super::{
    Column, Printer, age,
    cells::{name, number, text},
};

pub(super) static EVENTS: Printer = Printer {
    columns: &[
        Column::text("Last Seen"),
        Column::text("Type"),
        Column::text("Reason"),
        Column::text("Object"),
        Column::text("Subobject").wide(),
        Column::text("Source").wide(),
        Column::text("Message"),
        Column::text("First Seen").wide(),
        Column::number("Count").wide(),
        Column { name: "Name", r#type: "string", format: "name", priority: 1 },
    ],
    cells,
};

fn cells(event: &Value, now: DateTime<Utc>) -> Vec<Value> {
    let about = either(event, "involvedObject", "regarding");
    let first = match either(event, "firstTimestamp", "deprecatedFirstTimestamp") {
        Value::Null => &event["eventTime"],
        time => time,
    };
    let (last, count) = last_seen(event, first);
    vec![
        json!(age::since(last, now)),
        json!(text(&event["type"])),
        json!(text(&event["reason"])),
        json!(format!("{}/{}", text(&about["kind"]).to_lowercase(), text(&about["name"]))),
        json!(text(&about["fieldPath"])),
        json!(source(event)),
        json!(text(either(event, "message", "note")).trim()),
        json!(age::since(first, now)),
        json!(count),
        name(event),
    ]
}

/// When the event was seen last, and how often.
fn last_seen<'e>(event: &'e Value, first: &'e Value) -> (&'e Value, i64) {
    if event["series"].is_object() {
        return (&event["series"]["lastObservedTime"], number(&event["series"]["count"]));
    }
    let last = match either(event, "lastTimestamp", "deprecatedLastTimestamp") {
        Value::Null => first,
        time => time,
    };
    (last, number(either(event, "count", "deprecatedCount")).max(1))
}

fn source(event: &Value) -> String {
    let source = either(event, "source", "deprecatedSource");
    let component = match text(&source["component"]) {
        "" => text(&event["reportingComponent"]),
        component => component,
    };
    let component = if component.is_empty() { text(&event["reportingController"]) } else { component };
    let host = match text(&source["host"]) {
        "" => text(&event["reportingInstance"]),
        host => host,
    };
    if host.is_empty() { component.to_owned() } else { format!("{component}, {host}") }
}

fn either<'e>(event: &'e Value, core: &str, newer: &str) -> &'e Value {
    if event[core].is_null() { &event[newer] } else { &event[core] }
}
