#![allow(clippy::needless_pass_by_value, reason = "the objects are literals at the call")]

use serde_json::{Value, json};

use super::*;

fn strategic(kind: &str, current: Value, patch: Value) -> Value {
    let group = if matches!(kind, "Deployment" | "ReplicaSet") { "apps" } else { "" };
    apply(PatchKind::Strategic, group, kind, &current, &patch).unwrap()
}

#[test]
fn merge_patch_follows_the_table_of_rfc_7396() {
    let table = [
        (json!({"a":"b"}), json!({"a":"c"}), json!({"a":"c"})),
        (json!({"a":"b"}), json!({"b":"c"}), json!({"a":"b","b":"c"})),
        (json!({"a":"b"}), json!({"a":null}), json!({})),
        (json!({"a":["b"]}), json!({"a":"c"}), json!({"a":"c"})),
        (json!({"a":{"b":"c"}}), json!({"a":{"b":"d","c":null}}), json!({"a":{"b":"d"}})),
        (json!({}), json!({"a":{"bb":{"ccc":null}}}), json!({"a":{"bb":{}}})),
    ];
    for (current, patch, wanted) in table {
        assert_eq!(apply(PatchKind::JsonMerge, "any.io", "Thing", &current, &patch).unwrap(), wanted);
    }
}

#[test]
fn json_patch_applies_all_operations_or_none() {
    let current = json!({"spec":{"replicas":1}});
    let patch =
        json!([{"op":"test","path":"/spec/replicas","value":1},{"op":"replace","path":"/spec/replicas","value":3}]);
    let patched = apply(PatchKind::Json, "apps", "Deployment", &current, &patch).unwrap();
    assert_eq!(patched, json!({"spec":{"replicas":3}}));

    let patch = json!([{"op":"add","path":"/x","value":1},{"op":"test","path":"/spec/replicas","value":2}]);
    let error = apply(PatchKind::Json, "apps", "Deployment", &current, &patch).unwrap_err();
    assert_eq!(error.fault(), PatchFault::Inapplicable);
    assert_eq!(
        error.to_string(),
        "operation 1 of the JSON patch cannot be applied at \"/spec/replicas\": value did not match"
    );
}

#[test]
fn a_malformed_patch_is_the_clients_fault() {
    let current = json!({});
    for (kind, patch) in [
        (PatchKind::JsonMerge, json!([1])),
        (PatchKind::Strategic, json!("x")),
        (PatchKind::Json, json!({"op":"add"})),
        (PatchKind::Strategic, json!({"spec":{"$patch":"explode"}})),
        (PatchKind::Strategic, json!({"spec":{"containers":[{"image":"x"}]}})),
        (PatchKind::Strategic, json!({"spec":{"$setElementOrder/containers":3}})),
    ] {
        let error = apply(kind, "", "Pod", &current, &patch).unwrap_err();
        assert_eq!(error.fault(), PatchFault::Malformed, "{patch}: {error}");
    }
}

#[test]
fn custom_resources_take_no_strategic_patch() {
    assert!(strategic_supported("", "ConfigMap"));
    assert!(strategic_supported("coordination.k8s.io", "Lease"));
    assert!(!strategic_supported("crd.projectcalico.org", "IPPool"));
    assert!(!strategic_supported("gateway.networking.k8s.io", "Gateway"));
    let error = apply(PatchKind::Strategic, "crd.projectcalico.org", "IPPool", &json!({}), &json!({})).unwrap_err();
    assert_eq!(error.fault(), PatchFault::Unsupported);
}

#[test]
fn keyed_lists_merge_by_their_key() {
    let template = |containers: Value| json!({"spec":{"template":{"spec":{"containers":containers}}}});
    let current = template(
        json!([{"name":"a","image":"a:1","env":[{"name":"X","value":"1"},{"name":"Y","value":"2"}]},{"name":"b","image":"b:1"}]),
    );
    let table = [
        // kubectl set image
        (json!([{"name":"a","image":"a:2"}]), "a:2 b:1"),
        // a container added
        (json!([{"name":"c","image":"c:1"}]), "a:1 b:1 c:1"),
        // a container removed
        (json!([{"$patch":"delete","name":"a"}]), "b:1"),
        // the list replaced
        (json!([{"name":"z","image":"z:1"},{"$patch":"replace"}]), "z:1"),
    ];
    for (patch, wanted) in table {
        let patched = strategic("Deployment", current.clone(), template(patch));
        let containers = patched["spec"]["template"]["spec"]["containers"].as_array().unwrap();
        let images: Vec<_> = containers.iter().map(|c| c["image"].as_str().unwrap()).collect();
        assert_eq!(images.join(" "), wanted);
    }
    let patch = template(json!([{"name":"a","env":[{"name":"X","value":"9"},{"name":"Y","$patch":"delete"}]}]));
    let patched = strategic("Deployment", current, patch);
    assert_eq!(patched["spec"]["template"]["spec"]["containers"][0]["env"], json!([{"name":"X","value":"9"}]));
}

#[test]
fn other_lists_are_replaced_and_objects_are_merged() {
    let current = json!({"spec":{"containers":[{"name":"a","args":["1","2"]}],"tolerations":[{"key":"a"}],"nodeSelector":{"a":"1","b":"2"}}});
    let patch = json!({"spec":{"containers":[{"name":"a","args":["3"]}],"tolerations":[{"key":"b"}],"nodeSelector":{"a":null,"c":"3"}}});
    let wanted = json!({"spec":{"containers":[{"name":"a","args":["3"]}],"tolerations":[{"key":"b"}],"nodeSelector":{"b":"2","c":"3"}}});
    assert_eq!(strategic("Pod", current, patch), wanted);
}

#[test]
fn a_list_that_is_replaced_may_hold_several_of_one_key() {
    let addresses = |list: &[&str]| -> Vec<Value> {
        list.iter().map(|address| json!({"type": "InternalIP", "address": address})).collect()
    };
    let current = json!({"status": {"addresses": addresses(&["192.0.2.9"])}});
    let mut patch = addresses(&["192.0.2.1", "fd00::1"]);
    patch.push(json!({"$patch": "replace"}));
    let patched = strategic("Node", current, json!({"status": {"addresses": patch}}));
    assert_eq!(patched, json!({"status": {"addresses": addresses(&["192.0.2.1", "fd00::1"])}}));
}

#[test]
fn taints_are_replaced_as_clients_send_them_whole() {
    let current = json!({"spec":{"taints":[{"key":"a","effect":"NoSchedule"},{"key":"b","effect":"NoExecute"}]}});
    let patch = json!({"spec":{"taints":[{"key":"b","effect":"NoExecute"}]}});
    assert_eq!(strategic("Node", current, patch)["spec"]["taints"], json!([{"key":"b","effect":"NoExecute"}]));
}

#[test]
fn finalizers_are_a_set_of_values() {
    let current = json!({"metadata":{"finalizers":["a/x","b/y"]}});
    let added = strategic("ConfigMap", current.clone(), json!({"metadata":{"finalizers":["b/y","c/z"]}}));
    assert_eq!(added["metadata"]["finalizers"], json!(["a/x", "b/y", "c/z"]));
    let removed = strategic("ConfigMap", current, json!({"metadata":{"$deleteFromPrimitiveList/finalizers":["a/x"]}}));
    assert_eq!(removed["metadata"]["finalizers"], json!(["b/y"]));
}

#[test]
fn the_element_order_holds_and_foreign_elements_keep_their_place() {
    let names = |list: &[&str]| list.iter().map(|name| json!({"name":name})).collect::<Vec<_>>();
    type Names = &'static [&'static str];
    let table: [(Names, Names, Names, Names); 4] = [
        (&["a", "b"], &[], &["b", "a"], &["b", "a"]),
        (&["a", "b"], &["c"], &["c", "a", "b"], &["c", "a", "b"]),
        // the sidecar was injected by somebody else, in the middle
        (&["a", "sidecar", "b"], &[], &["a", "b"], &["a", "sidecar", "b"]),
        (&["sidecar", "a"], &["b"], &["b", "a"], &["sidecar", "b", "a"]),
    ];
    for (before, added, order, wanted) in table {
        let current = json!({"spec":{"containers":names(before)}});
        let patch = json!({"spec":{"$setElementOrder/containers":names(order),"containers":names(added)}});
        assert_eq!(
            strategic("Pod", current, patch)["spec"]["containers"],
            json!(names(wanted)),
            "{before:?} {order:?}"
        );
    }
}

#[test]
fn retain_keys_drops_what_it_does_not_name() {
    let current = json!({"spec":{"strategy":{"type":"RollingUpdate","rollingUpdate":{"maxSurge":1}}}});
    let patch = json!({"spec":{"strategy":{"$retainKeys":["type"],"type":"Recreate"}}});
    assert_eq!(strategic("Deployment", current.clone(), patch), json!({"spec":{"strategy":{"type":"Recreate"}}}));

    let patch = json!({"spec":{"strategy":{"$retainKeys":["x"],"type":"Recreate"}}});
    let error = apply(PatchKind::Strategic, "apps", "Deployment", &current, &patch).unwrap_err();
    assert!(error.to_string().starts_with("spec.strategy.$retainKeys: does not name \"type\""), "{error}");
}

#[test]
fn a_volume_changes_its_source_with_retain_keys() {
    let current = json!({"spec":{"volumes":[{"name":"v","emptyDir":{}}]}});
    let patch = json!({"spec":{"volumes":[{"$retainKeys":["name","configMap"],"name":"v","configMap":{"name":"c"}}]}});
    assert_eq!(strategic("Pod", current, patch), json!({"spec":{"volumes":[{"name":"v","configMap":{"name":"c"}}]}}));
}

#[test]
fn an_object_can_be_replaced_or_emptied() {
    let current = json!({"data":{"a":"1","b":"2"}});
    let replaced = strategic("ConfigMap", current.clone(), json!({"data":{"$patch":"replace","c":"3"}}));
    assert_eq!(replaced, json!({"data":{"c":"3"}}));
    assert_eq!(strategic("ConfigMap", current, json!({"data":{"$patch":"delete"}})), json!({"data":{}}));
}

#[test]
fn what_is_new_loses_its_directives_and_nulls() {
    let patch = json!({"spec":{"template":{"spec":{"$setElementOrder/containers":[{"name":"a"}],"containers":[{"name":"a","image":null,"$patch":"merge"},{"name":"gone","$patch":"delete"}]}}}});
    assert_eq!(
        strategic("Deployment", json!({}), patch),
        json!({"spec":{"template":{"spec":{"containers":[{"name":"a"}]}}}})
    );
}

#[test]
fn ports_of_the_same_number_are_told_apart_by_protocol() {
    let current = json!({"spec":{"ports":[{"name":"dns","port":53,"protocol":"UDP"},{"name":"dns-tcp","port":53,"protocol":"TCP"}]}});
    let patch = json!({"spec":{"$setElementOrder/ports":[{"port":53},{"port":53}],"ports":[{"port":53,"protocol":"TCP","targetPort":5353}]}});
    let ports = strategic("Service", current, patch)["spec"]["ports"].clone();
    assert_eq!(
        ports,
        json!([{"name":"dns","port":53,"protocol":"UDP"},{"name":"dns-tcp","port":53,"protocol":"TCP","targetPort":5353}])
    );
}

#[test]
fn status_conditions_and_addresses_merge_by_type() {
    let current = json!({"status":{"conditions":[{"type":"Ready","status":"False"},{"type":"Disk","status":"True"}],"addresses":[{"type":"InternalIP","address":"1.1.1.1"}]}});
    let patch = json!({"status":{"$setElementOrder/conditions":[{"type":"Ready"}],"conditions":[{"type":"Ready","status":"True"}],"addresses":[{"type":"Hostname","address":"n"}]}});
    let status = strategic("Node", current, patch)["status"].clone();
    assert_eq!(status["conditions"], json!([{"type":"Ready","status":"True"},{"type":"Disk","status":"True"}]));
    assert_eq!(
        status["addresses"],
        json!([{"type":"InternalIP","address":"1.1.1.1"},{"type":"Hostname","address":"n"}])
    );
}

#[test]
fn a_small_patch_cannot_make_an_enormous_object() {
    let refusal = |current: Value, operations: Vec<Value>| {
        apply(PatchKind::Json, "any.io", "Thing", &current, &Value::from(operations)).unwrap_err().to_string()
    };
    let doubled: Vec<Value> =
        (0..40).map(|n| json!({"op": "copy", "from": "/data", "path": format!("/data/{n}")})).collect();
    let error = refusal(json!({"data": {"text": "0123456789"}}), doubled);
    assert!(error.contains("copies and moves more than"), "{error}");
    let wrapped = |_| {
        [
            json!({"op": "add", "path": "/b", "value": {}}),
            json!({"op": "move", "from": "/a", "path": "/b/a"}),
            json!({"op": "move", "from": "/b", "path": "/a"}),
        ]
    };
    let error = refusal(json!({"a": {}}), (0..3000).flat_map(wrapped).collect());
    assert!(error.contains("nested deeper than 100"), "{error}");
    let error = refusal(json!({}), vec![json!({"op": "test", "path": "", "value": {}}); 10_001]);
    assert!(error.contains("10001 operations are more than 10000"), "{error}");
}
