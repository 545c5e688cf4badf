use serde_json::{Value, json};

use super::*;
use crate::BlockCidr;

fn schema_of(definition: &CustomResourceDefinition) -> Value {
    serde_json::to_value(&definition.spec.versions[0].schema).unwrap()["openAPIV3Schema"].clone()
}

/// What a structural schema may not contain (Kubernetes: "Specifying a structural schema"): lists of types, references,
/// and `null` among the values of an enum.
fn assert_structural(at: &str, schema: &Value) {
    let Some(fields) = schema.as_object() else { return };
    assert!(!fields.contains_key("$ref"), "{at}: $ref");
    assert!(!fields.contains_key("anyOf"), "{at}: anyOf");
    assert!(fields["type"].is_string(), "{at}: type is {:?}", fields["type"]);
    if let Some(values) = fields.get("enum") {
        assert!(values.as_array().unwrap().iter().all(Value::is_string), "{at}: {values}");
    }
    for (name, property) in fields.get("properties").and_then(Value::as_object).into_iter().flatten() {
        assert_structural(&format!("{at}.{name}"), property);
    }
    if let Some(items) = fields.get("items") {
        assert_structural(&format!("{at}[]"), items);
    }
}

#[test]
fn every_definition_is_structural_and_calicos_are_cluster_scoped_and_named_as_calico_names_them() {
    let mut names: Vec<_> = Vec::new();
    for definition in definitions() {
        // StickyAddress is podnet's own: it lies beside its StatefulSet, so that it can go with it.
        let own = definition.spec.names.kind == "StickyAddress";
        assert_eq!(definition.spec.scope, if own { "Namespaced" } else { "Cluster" });
        assert_eq!(definition.spec.group, if own { "ipam.podnet.io" } else { "crd.projectcalico.org" });
        assert_eq!(definition.spec.versions[0].name, "v1");
        assert_structural(&definition.spec.names.kind, &schema_of(&definition));
        names.push(definition.metadata.name.unwrap());
    }
    let plurals = [
        "ippools",
        "ipamblocks",
        "blockaffinities",
        "ipamhandles",
        "ipamconfigs",
        "ipreservations",
        "felixconfigurations",
    ];
    let calicos = plurals.map(|plural| format!("{plural}.crd.projectcalico.org"));
    assert_eq!(names.split_last(), Some((&"stickyaddresses.ipam.podnet.io".to_owned(), &calicos[..])));
}

#[test]
fn the_schema_of_a_pool_lists_the_modes_that_are_allowed() {
    let schema = schema_of(&IPPool::crd());
    let spec = &schema["properties"]["spec"];
    assert_eq!(spec["properties"]["vxlanMode"]["enum"], json!(["Always", "CrossSubnet", "Never"]));
    assert_eq!(spec["properties"]["ipipMode"]["enum"], json!(["Always", "CrossSubnet", "Never"]));
    assert_eq!(spec["properties"]["allowedUses"]["items"]["enum"], json!(["LoadBalancer", "Tunnel", "Workload"]));
    assert_eq!(spec["required"], json!(["cidr"]));
    assert!(spec["properties"]["disableBGPExport"].is_object());
    assert!(spec["properties"]["cidr"]["description"].is_string());
}

#[test]
fn the_schema_of_a_pool_says_what_counts_where_nothing_is_said_and_what_an_api_server_can_check() {
    let schema = schema_of(&IPPool::crd());
    let spec = &schema["properties"]["spec"];
    let minimal: IPPool = serde_json::from_value(json!({
        "apiVersion": "crd.projectcalico.org/v1", "kind": "IPPool", "metadata": {"name": "a"}, "spec": {"cidr": "10.0.0.0/16"},
    }))
    .unwrap();
    let mut explicit = serde_json::to_value(&minimal).unwrap();
    for (name, property) in spec["properties"].as_object().unwrap() {
        if let Some(default) = property.get("default") {
            explicit["spec"][name] = default.clone();
        }
    }
    let explicit: IPPool = serde_json::from_value(explicit).unwrap();
    assert_eq!(crate::Pool::try_from(&explicit), crate::Pool::try_from(&minimal), "what is filled in changes nothing");
    for field in [
        "vxlanMode",
        "ipipMode",
        "natOutgoing",
        "disabled",
        "disableBGPExport",
        "nodeSelector",
        "allowedUses",
        "assignmentMode",
    ] {
        assert!(!spec["properties"][field]["default"].is_null(), "{field}");
    }
    let rules = spec["x-kubernetes-validations"].as_array().unwrap();
    let fields: Vec<&str> = rules.iter().map(|rule| rule["fieldPath"].as_str().unwrap()).collect();
    assert_eq!(fields, [".cidr", ".blockSize", ".blockSize", ".vxlanMode"]);
}

#[test]
fn kubectl_shows_a_pool_with_its_range_and_modes() {
    let definition = IPPool::crd();
    let columns = definition.spec.versions[0].additional_printer_columns.as_ref().unwrap();
    let shown: Vec<_> =
        columns.iter().filter(|column| column.priority.unwrap_or(0) == 0).map(|column| column.name.as_str()).collect();
    assert_eq!(shown, ["CIDR", "BLOCKSIZE", "VXLAN", "NAT", "DISABLED", "AGE"]);
}

#[test]
fn a_claimed_block_is_written_as_calico_writes_it() {
    let block = IPAMBlock::claim(BlockCidr("10.233.64.0/30".parse().unwrap()), 4, &"node1".into());
    assert_eq!(
        serde_json::to_value(&block).unwrap(),
        json!({
            "apiVersion": "crd.projectcalico.org/v1",
            "kind": "IPAMBlock",
            "metadata": {"name": "10-233-64-0-30"},
            "spec": {
                "cidr": "10.233.64.0/30",
                "affinity": "host:node1",
                "allocations": [null, null, null, null],
                "unallocated": [0, 1, 2, 3],
                "attributes": [],
                "strictAffinity": false,
                "sequenceNumber": 0
            }
        })
    );
}

#[test]
fn a_pool_of_calico_with_every_field_reads_and_writes_back_unchanged() {
    let text = json!({
        "apiVersion": "crd.projectcalico.org/v1",
        "kind": "IPPool",
        "metadata": {"name": "full"},
        "spec": {
            "cidr": "10.200.64.0/24",
            "vxlanMode": "CrossSubnet",
            "ipipMode": "Never",
            "natOutgoing": true,
            "disabled": false,
            "disableBGPExport": true,
            "blockSize": 28,
            "nodeSelector": "all()",
            "namespaceSelector": "all()",
            "allowedUses": ["Workload", "Tunnel"],
            "assignmentMode": "Automatic"
        }
    });
    let pool: IPPool = serde_json::from_value(text.clone()).unwrap();
    assert_eq!(serde_json::to_value(&pool).unwrap(), text);
}

#[test]
fn the_definitions_of_load_balancers_addresses_are_structural_and_named_as_metallb_names_them() {
    let names = balancer_definitions().into_iter().map(|definition| {
        assert_eq!(definition.spec.scope, "Namespaced");
        assert_eq!(definition.spec.versions[0].name, "v1beta1");
        assert_structural(&definition.spec.names.kind, &schema_of(&definition));
        definition.metadata.name.unwrap()
    });
    assert_eq!(names.collect::<Vec<_>>(), ["ipaddresspools.metallb.io", "l2advertisements.metallb.io"]);
}
