use serde_json::json;

use super::*;
use crate::crd::definition::{check, complete, establish};

fn pool_schema() -> Schema {
    Schema::parse(&json!({
        "type": "object",
        "properties": {
            "spec": {
                "type": "object",
                "required": ["cidr"],
                "properties": {
                    "cidr": {"type": "string", "pattern": "^[0-9./]+$"},
                    "vxlanMode": {"type": "string", "enum": ["Never", "Always", "CrossSubnet"], "default": "Never"},
                    "blockSize": {"type": "integer", "minimum": 20, "maximum": 32, "default": 26},
                    "labels": {"type": "object", "additionalProperties": {"type": "string"}},
                    "port": {"x-kubernetes-int-or-string": true},
                    "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
                    "list": {"type": "array", "maxItems": 2, "items": {"type": "object", "properties": {"a": {"type": "string"}}}},
                },
            },
        },
    }))
    .unwrap()
}

#[allow(clippy::needless_pass_by_value, reason = "reads better")]
fn faults(spec: Value) -> Vec<String> {
    pool_schema().faults(&json!({"spec": spec})).iter().map(ToString::to_string).collect()
}

#[test]
fn an_unsupported_value_is_named_with_its_path_and_the_alternatives() {
    assert_eq!(
        faults(json!({"cidr": "10.0.0.0/8", "vxlanMode": "Neve"})),
        [r#"spec.vxlanMode: Unsupported value: "Neve": supported values: "Always", "CrossSubnet", "Never""#]
    );
}

#[test]
fn missing_ill_typed_and_out_of_range_fields_are_named() {
    assert_eq!(faults(json!({})), ["spec.cidr: Required value"]);
    assert_eq!(
        faults(json!({"cidr": "10.0.0.0/8", "blockSize": 33})),
        ["spec.blockSize: Invalid value: 33: spec.blockSize in body should be less than or equal to 32"]
    );
    assert_eq!(
        faults(json!({"cidr": 5})),
        [r#"spec.cidr: Invalid value: "integer": spec.cidr in body must be of type string: "integer""#]
    );
    assert_eq!(faults(json!({"cidr": "no"})).len(), 1);
    assert_eq!(faults(json!({"cidr": "1", "labels": {"a": 1}, "list": [{}, {}, {}]})).len(), 2);
}

#[test]
fn a_port_may_be_a_number_or_a_name() {
    assert!(faults(json!({"cidr": "1", "port": 80})).is_empty());
    assert!(faults(json!({"cidr": "1", "port": "http"})).is_empty());
    assert_eq!(faults(json!({"cidr": "1", "port": true})).len(), 1);
}

#[test]
fn unknown_fields_are_removed_except_where_they_are_preserved() {
    let mut object = json!({
        "apiVersion": "v1", "kind": "K", "metadata": {"name": "p"},
        "spec": {"cidr": "1", "cdir": "2", "free": {"x": 1}, "labels": {"x": "y"}, "list": [{"a": "1", "b": "2"}]},
    });
    assert_eq!(pool_schema().prune(&mut object), ["spec.cdir", "spec.list[0].b"]);
    assert_eq!(object["spec"], json!({"cidr": "1", "free": {"x": 1}, "labels": {"x": "y"}, "list": [{"a": "1"}]}));
    assert_eq!(object["metadata"]["name"], "p");
}

#[test]
fn defaults_are_filled_in() {
    let mut object = json!({"spec": {"cidr": "1"}});
    pool_schema().fill_defaults(&mut object);
    assert_eq!(object["spec"], json!({"cidr": "1", "vxlanMode": "Never", "blockSize": 26}));
}

fn definition(plural: &str, short: &str) -> Value {
    let mut definition = json!({
        "metadata": {"name": format!("{plural}.example.org")},
        "spec": {
            "group": "example.org", "scope": "Cluster",
            "names": {"plural": plural, "kind": "Thing", "shortNames": [short]},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object"}},
                          "subresources": {"status": {}}}],
        },
    });
    complete(&mut definition);
    definition
}

#[test]
fn a_definition_is_completed_established_and_served() {
    let mut definition = definition("things", "th");
    assert!(check(&definition, |_| false).is_empty());
    establish(&mut definition, &[], "2026-01-01T00:00:00Z");
    let served = resources(&definition);
    assert_eq!(served.len(), 1);
    assert_eq!(served[0].list_kind, "ThingList");
    assert_eq!(served[0].group_resource(), "things.example.org");
    assert!(served[0].has_status());
    assert_eq!(definition["status"]["storedVersions"], json!(["v1"]));
}

#[test]
fn a_name_that_is_taken_is_not_accepted() {
    let first = definition("things", "th");
    let mut second = definition("others", "th");
    second["spec"]["names"]["singular"] = json!("other");
    establish(&mut second, &[&first], "2026-01-01T00:00:00Z");
    assert!(!is_established(&second));
    assert_eq!(second["status"]["conditions"][0]["message"], "\"th\" is already in use");
}

#[test]
fn a_definition_has_to_be_called_after_its_kind_and_may_not_extend_built_in_groups() {
    let mut definition = definition("things", "th");
    definition["metadata"]["name"] = json!("thing");
    let errors = check(&definition, |group| group == "example.org");
    assert_eq!(errors.len(), 2);
}
