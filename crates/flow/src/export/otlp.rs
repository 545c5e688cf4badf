//! OTLP logs in JSON (OpenTelemetry protocol 1.x, `ExportLogsServiceRequest`): one log record for each item.
//!
//! Names of attributes are those of OpenTelemetry's semantic conventions where it has one; numbers of 64 bits are strings there.

use serde_json::{Value, json};

use super::{Taken, micros, name, sentence};
use crate::{Drops, Gap, Interface, Item, Numbered, PodIdentity, Record, record::End};

/// Severities (data model of logs): INFO, WARN.
const INFO: (u8, &str) = (9, "INFO");
const WARN: (u8, &str) = (13, "WARN");

/// The body of a request.
#[must_use]
pub fn request(items: &[Numbered], version: &str) -> Vec<u8> {
    let node = items.first().map(|item| item.record.node.to_string()).unwrap_or_default();
    let resource = [text("service.name", "podnet"), text("k8s.node.name", &node)];
    let records: Vec<Value> = items.iter().map(record).collect();
    let scope = json!({"name": "podnet.flows", "version": version});
    let logs = json!({"resource": {"attributes": resource}, "scopeLogs": [{"scope": scope, "logRecords": records}]});
    json!({"resourceLogs": [logs]}).to_string().into_bytes()
}

fn record(item: &Numbered) -> Value {
    let ((number, severity), event, mut attributes) = match &item.item {
        Item::Flow(record) => (INFO, "podnet.flow", flow(record)),
        Item::Gap(missing) => (WARN, "podnet.gap", gap(missing)),
        Item::Drops(dropped) => (INFO, "podnet.drops", drops(dropped)),
    };
    attributes.push(text("log.record.uid", &item.record.to_string()));
    let nanos = micros(item.item.at()).as_nanosecond().to_string();
    json!({
        "timeUnixNano": nanos, "observedTimeUnixNano": nanos, "severityNumber": number, "severityText": severity,
        "eventName": event, "body": {"stringValue": sentence(&item.item)}, "attributes": attributes,
    })
}

fn flow(record: &Record) -> Vec<Value> {
    let mut attributes = vec![
        text("podnet.flow.id", &record.id.to_string()),
        text("podnet.flow.report", &word(record.report)),
        text("podnet.flow.start", &record.start.to_string()),
        text("podnet.flow.class", &record.class.to_string()),
        text("podnet.flow.verdict", &record.verdict.to_string()),
        text("podnet.flow.reporter", &word(record.reporter)),
        text("network.transport", &record.protocol.to_string().to_lowercase()),
        text("network.type", if record.source.ip.is_ipv4() { "ipv4" } else { "ipv6" }),
    ];
    end(&mut attributes, "source", &record.source);
    end(&mut attributes, "destination", &record.destination);
    for (side, way) in [("sent", &record.sent), ("received", &record.received)] {
        let counters = [("packets", way.packets), ("bytes", way.bytes)];
        attributes.extend(counters.map(|(what, count)| number(&format!("podnet.flow.{side}.{what}"), count)));
    }
    attributes.extend(record.cause.map(|cause| text("podnet.flow.cause", &cause.to_string())));
    attributes.extend(record.handshake_micros.map(|micros| number("podnet.flow.handshake_us", micros.into())));
    if let Some(asked) = &record.service {
        attributes.push(text("podnet.service.name", &asked.service.to_string()));
        attributes.push(text("podnet.service.address", &asked.ip.to_string()));
        attributes.push(number("podnet.service.port", asked.port.into()));
    }
    attributes
}

fn end(attributes: &mut Vec<Value>, side: &str, end: &End) {
    attributes.push(text(&format!("{side}.address"), &end.ip.to_string()));
    attributes.push(number(&format!("{side}.port"), end.port.into()));
    match &end.pod {
        Some(pod) => {
            let names = [
                ("namespace.name", &*pod.namespace),
                ("pod.name", &*pod.name),
                ("pod.uid", &*pod.uid),
                ("node.name", pod.node.as_str()),
            ];
            attributes.extend(names.map(|(what, name)| text(&format!("{side}.k8s.{what}"), name)));
            if let Some(owner) = &pod.owner {
                let kind = owner.kind.to_lowercase();
                attributes.push(text(&format!("{side}.k8s.{kind}.name"), &owner.name));
            }
        }
        None if end.node.is_some() => attributes.push(text(&format!("{side}.k8s.node.name"), &name(end))),
        None => {}
    }
}

fn gap(gap: &Gap) -> Vec<Value> {
    let mut attributes = vec![
        text("podnet.gap.at", &word(gap.at)),
        text("podnet.gap.start", &gap.start.to_string()),
        number("podnet.gap.packets", gap.packets),
        number("podnet.gap.bytes", gap.bytes),
        number("podnet.gap.flows", gap.flows),
    ];
    place(&mut attributes, "podnet.gap.interface", gap.device.as_ref(), gap.pod.as_deref());
    attributes
}

fn drops(drops: &Drops) -> Vec<Value> {
    let mut attributes = vec![
        text("podnet.drops.cause", &drops.cause.to_string()),
        text("podnet.drops.direction", &word(drops.direction)),
        text("podnet.drops.start", &drops.start.to_string()),
        number("podnet.drops.packets", drops.packets),
    ];
    place(&mut attributes, "podnet.drops.interface", drops.device.as_ref(), drops.pod.as_deref());
    attributes
}

/// The interface, and the pod that it is of, where they are known.
fn place(attributes: &mut Vec<Value>, key: &str, device: Option<&Interface>, pod: Option<&PodIdentity>) {
    if let Some(name) = device.and_then(|device| device.name.as_ref()) {
        attributes.push(text(key, name.as_str()));
    }
    if let Some(pod) = pod {
        attributes.push(text("k8s.namespace.name", &pod.namespace));
        attributes.push(text("k8s.pod.name", &pod.name));
    }
}

/// As serde calls it.
fn word(value: impl serde::Serialize) -> String {
    serde_json::to_value(value).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

fn text(key: &str, value: &str) -> Value {
    json!({"key": key, "value": {"stringValue": value}})
}

fn number(key: &str, value: u64) -> Value {
    // A counter that is larger than what there is room for would have taken centuries.
    json!({"key": key, "value": {"intValue": i64::try_from(value).unwrap_or(i64::MAX).to_string()}})
}

/// What an answer (`ExportLogsServiceResponse`) says: records that are rejected must not be sent again. An empty body is an answer, too.
///
/// # Errors
/// Where it is none.
pub fn taken(answer: &[u8]) -> Result<Taken, serde_json::Error> {
    if answer.is_empty() {
        return Ok(Taken::default());
    }
    let answer: Value = serde_json::from_slice(answer)?;
    let partial = &answer["partialSuccess"];
    let rejected = &partial["rejectedLogRecords"];
    let refused = rejected.as_u64().or_else(|| rejected.as_str()?.parse().ok()).unwrap_or(0);
    let why = partial["errorMessage"].as_str().filter(|why| !why.is_empty()).map(str::to_owned);
    Ok(Taken { refused, why, again: false })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{drops, flow, flow_v6, gap};

    fn attribute<'a>(record: &'a Value, key: &str) -> &'a Value {
        let found = record["attributes"].as_array().unwrap().iter().find(|attribute| attribute["key"] == key);
        found.map_or(&Value::Null, |attribute| &attribute["value"])
    }

    #[test]
    fn an_item_is_a_log_record_with_attributes() {
        let request: Value = serde_json::from_slice(&request(&[flow(7), gap(8), drops(9)], "1.2")).unwrap();
        let logs = &request["resourceLogs"][0];
        assert_eq!(logs["resource"]["attributes"][1], text("k8s.node.name", "node1"));
        let records = &logs["scopeLogs"][0]["logRecords"];
        assert_eq!(records[0]["timeUnixNano"], "1767225602500000000");
        assert_eq!((&records[0]["severityNumber"], &records[1]["severityText"]), (&json!(9), &json!("WARN")));
        for (key, value) in [
            ("log.record.uid", json!({"stringValue": "node1/1/7"})),
            ("source.k8s.pod.name", json!({"stringValue": "client"})),
            ("destination.port", json!({"intValue": "8080"})),
            ("podnet.flow.received.bytes", json!({"intValue": "5000"})),
            ("podnet.service.name", json!({"stringValue": "shop/web"})),
            ("network.transport", json!({"stringValue": "tcp"})),
        ] {
            assert_eq!(*attribute(&records[0], key), value, "{key}");
        }
        assert_eq!(*attribute(&records[1], "podnet.gap.flows"), json!({"intValue": "3"}));
        assert_eq!(*attribute(&records[0], "podnet.flow.cause"), Value::Null, "nothing stopped it");
        for (key, value) in [
            ("podnet.drops.cause", json!({"stringValue": "limit"})),
            ("podnet.drops.direction", json!({"stringValue": "egress"})),
            ("podnet.drops.packets", json!({"intValue": "12"})),
            ("podnet.drops.interface", json!({"stringValue": "pn00c0ffee"})),
            ("k8s.pod.name", json!({"stringValue": "client"})),
        ] {
            assert_eq!(*attribute(&records[2], key), value, "{key}");
        }
    }

    #[test]
    fn what_stopped_a_flow_is_an_attribute_beside_the_verdict() {
        let request: Value = serde_json::from_slice(&request(&[flow_v6(7)], "1.2")).unwrap();
        let record = &request["resourceLogs"][0]["scopeLogs"][0]["logRecords"][0];
        let values =
            ["podnet.flow.verdict", "podnet.flow.cause"].map(|key| attribute(record, key)["stringValue"].clone());
        assert_eq!(values, ["dropped", "no-route"]);
    }

    #[test]
    fn records_that_are_rejected_are_told() {
        let answer = br#"{"partialSuccess":{"rejectedLogRecords":"2","errorMessage":"too old"}}"#;
        assert_eq!(taken(answer).unwrap(), Taken { refused: 2, why: Some("too old".to_owned()), again: false });
        assert_eq!((taken(b"{}").unwrap(), taken(b"").unwrap()), (Taken::default(), Taken::default()));
        assert!(taken(b"no").is_err());
    }
}
