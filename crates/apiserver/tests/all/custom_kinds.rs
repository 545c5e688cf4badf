use std::time::Duration;

use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::cluster::Cluster;

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const POOLS: &str = "/apis/crd.projectcalico.org/v1/ippools";

fn definition() -> Value {
    json!({
        "metadata": {"name": "ippools.crd.projectcalico.org"},
        "spec": {
            "group": "crd.projectcalico.org", "scope": "Cluster",
            "names": {"plural": "ippools", "kind": "IPPool"},
            "versions": [{
                "name": "v1", "served": true, "storage": true, "subresources": {"status": {}},
                "additionalPrinterColumns": [{"name": "CIDR", "type": "string", "jsonPath": ".spec.cidr"}],
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                    "spec": {"type": "object", "required": ["cidr"], "properties": {
                        "cidr": {"type": "string"},
                        "vxlanMode": {"type": "string", "enum": ["Never", "Always", "CrossSubnet"], "default": "Never"},
                    }},
                    "status": {"type": "object", "properties": {"used": {"type": "integer"}}},
                }}},
            }],
        },
    })
}

fn pool(name: &str) -> Value {
    json!({"apiVersion": "crd.projectcalico.org/v1", "kind": "IPPool", "metadata": {"name": name}, "spec": {"cidr": "10.0.0.0/16"}})
}

#[tokio::test]
async fn a_defined_kind_is_served_at_once_and_after_a_restart() {
    let cluster = Cluster::start().await;
    let created = cluster.create(DEFINITIONS, definition()).await;
    assert_eq!(created["status"]["acceptedNames"]["listKind"], "IPPoolList");
    assert_eq!(created["status"]["conditions"][1]["type"], "Established");
    let stored = cluster.create(POOLS, pool("a")).await;
    assert_eq!(stored["spec"]["vxlanMode"], "Never");
    let (_, discovered) = cluster.get("/apis/crd.projectcalico.org/v1").await;
    assert_eq!(discovered["resources"][1]["name"], "ippools/status");
    let cluster = Cluster::start_in(cluster.stop().await).await;
    let (status, list) = cluster.get(POOLS).await;
    assert_eq!((status, list["items"].as_array().unwrap().len()), (StatusCode::OK, 1));
}

#[tokio::test]
async fn a_wrong_value_is_refused_with_the_values_that_are_right() {
    let cluster = Cluster::start().await;
    cluster.create(DEFINITIONS, definition()).await;
    let mut wrong = pool("a");
    wrong["spec"]["vxlanMode"] = json!("Neve");
    let (status, refusal) = cluster.call(Method::POST, POOLS, Some(wrong)).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(
        refusal["message"],
        "IPPool.crd.projectcalico.org \"a\" is invalid: spec.vxlanMode: Unsupported value: \"Neve\": \
         supported values: \"Always\", \"CrossSubnet\", \"Never\""
    );
    assert_eq!(refusal["details"]["causes"][0]["field"], "spec.vxlanMode");
}

#[tokio::test]
async fn status_is_written_through_its_own_path_only() {
    let cluster = Cluster::start().await;
    cluster.create(DEFINITIONS, definition()).await;
    let mut with_status = pool("a");
    with_status["status"] = json!({"used": 1});
    let created = cluster.create(POOLS, with_status).await;
    assert!(created["status"].is_null());
    let patch = json!({"status": {"used": 2}, "spec": {"cidr": "10.1.0.0/16"}});
    let (_, changed) = cluster.call(Method::PATCH, &format!("{POOLS}/a/status"), Some(patch)).await;
    assert_eq!((&changed["status"]["used"], &changed["spec"]["cidr"]), (&json!(2), &json!("10.0.0.0/16")));
    let (_, kept) = cluster.call(Method::PATCH, &format!("{POOLS}/a"), Some(json!({"status": {"used": 3}}))).await;
    assert_eq!(kept["status"]["used"], 2);
}

#[tokio::test]
async fn an_update_without_a_revision_is_refused() {
    let cluster = Cluster::start().await;
    cluster.create(DEFINITIONS, definition()).await;
    cluster.create(POOLS, pool("a")).await;
    let (status, refusal) = cluster.call(Method::PUT, &format!("{POOLS}/a"), Some(pool("a"))).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(refusal["message"].as_str().unwrap().contains("must be specified for an update"));
}

#[tokio::test]
async fn with_its_definition_a_kind_and_its_objects_go() {
    let cluster = Cluster::start().await;
    cluster.create(DEFINITIONS, definition()).await;
    cluster.create(POOLS, pool("a")).await;
    let path = format!("{DEFINITIONS}/ippools.crd.projectcalico.org");
    cluster.call(Method::DELETE, &path, None).await;
    let gone = async {
        while cluster.get(&path).await.0 != StatusCode::NOT_FOUND {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), gone).await.expect("the definition goes");
    assert_eq!(cluster.get(POOLS).await.0, StatusCode::NOT_FOUND);
    cluster.create(DEFINITIONS, definition()).await;
    assert_eq!(cluster.get(POOLS).await.1["items"], json!([]));
}

#[tokio::test]
async fn a_definition_that_makes_no_sense_is_refused() {
    let cluster = Cluster::start().await;
    let mut wrong = definition();
    wrong["spec"]["versions"][0]["storage"] = json!(false);
    wrong["spec"]["scope"] = json!("World");
    let (status, refusal) = cluster.call(Method::POST, DEFINITIONS, Some(wrong)).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{refusal}");
}
