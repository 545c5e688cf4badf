//! `events.k8s.io/v1` and core Events are two spellings of one thing; core ones are stored.
//!
//! Names of fields: <https://kubernetes.io/docs/reference/kubernetes-api/cluster-resources/event-v1/>.

use serde_json::{Map, Value, json};

/// (field of `events.k8s.io/v1`, field of core `v1`).
const RENAMED: [(&str, &str); 6] = [
    ("regarding", "involvedObject"),
    ("note", "message"),
    ("reportingController", "reportingComponent"),
    ("deprecatedSource", "source"),
    ("deprecatedFirstTimestamp", "firstTimestamp"),
    ("deprecatedLastTimestamp", "lastTimestamp"),
];

const COUNT: (&str, &str) = ("deprecatedCount", "count");

/// A stored core Event as `events.k8s.io/v1` spells it.
pub(super) fn from_core(stored: &Value) -> Value {
    let renamed =
        |field: &str| RENAMED.iter().chain([&COUNT]).find(|(_, core)| *core == field).map(|(events, _)| *events);
    respelled(stored, "events.k8s.io/v1", renamed)
}

/// The reverse. A series keeps its time under another name in core Events; both are understood by readers of `eventTime`.
pub(super) fn to_core(object: Value) -> Value {
    let renamed =
        |field: &str| RENAMED.iter().chain([&COUNT]).find(|(events, _)| *events == field).map(|(_, core)| *core);
    let mut core = respelled(&object, "v1", renamed);
    drop(object);
    if let Some(fields) = core.as_object_mut() {
        fill_times(fields);
    }
    core
}

fn respelled(object: &Value, api_version: &str, renamed: impl Fn(&str) -> Option<&'static str>) -> Value {
    let Some(fields) = object.as_object() else {
        return object.clone();
    };
    let mut out: Map<String, Value> = fields
        .iter()
        .map(|(name, value)| (renamed(name).map_or_else(|| name.clone(), str::to_owned), value.clone()))
        .collect();
    out.insert("apiVersion".to_owned(), json!(api_version));
    Value::Object(out)
}

/// `kubectl get events` sorts and ages by the core fields, which new-style writers leave out.
fn fill_times(fields: &mut Map<String, Value>) {
    let Some(time) = fields.get("eventTime").filter(|time| time.is_string()).cloned() else {
        return;
    };
    for field in ["firstTimestamp", "lastTimestamp"] {
        if fields.get(field).is_none_or(Value::is_null) {
            fields.insert(field.to_owned(), time.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_event_reads_as_a_core_event_and_back() {
        let new = json!({
            "apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "e"},
            "regarding": {"kind": "Pod", "name": "p"}, "note": "Pulled image", "reason": "Pulled",
            "reportingController": "kubelet", "type": "Normal",
        });
        let core = to_core(new.clone());
        assert_eq!(core["involvedObject"]["name"], "p");
        assert_eq!(core["message"], "Pulled image");
        assert_eq!(core["apiVersion"], "v1");
        assert_eq!(from_core(&core), new);
    }

    #[test]
    fn a_new_event_gets_the_times_by_which_kubectl_sorts() {
        let core = to_core(json!({"eventTime": "2026-01-01T00:00:00.000000Z", "metadata": {}}));
        assert_eq!(core["lastTimestamp"], "2026-01-01T00:00:00.000000Z");
    }
}
