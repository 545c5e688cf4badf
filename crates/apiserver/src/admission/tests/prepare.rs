use serde_json::json;

use super::objects::{deployment, pod, service, with};
use crate::admission::{generation_bumped, prepare_create, prepare_status_update, prepare_update};

#[test]
fn a_new_object_has_the_status_that_the_server_gives_it() {
    let claim = json!({"phase": "Running", "replicas": 7});
    for (group, kind, object, wanted) in [
        ("", "Pod", pod(), json!({"phase": "Pending", "qosClass": "BestEffort"})),
        ("", "Service", service(), json!({"loadBalancer": {}})),
        ("", "Namespace", json!({"spec": {}}), json!({"phase": "Active"})),
        ("apps", "Deployment", deployment(), json!({})),
        ("", "Node", json!({}), claim.clone()),
        ("example.org", "Thing", json!({}), claim.clone()),
    ] {
        let mut object = with(object, "/status", claim.clone());
        prepare_create(group, kind, &mut object);
        assert_eq!(object["status"], wanted, "{kind}");
    }
}

#[test]
fn the_quality_of_service_follows_from_requests_and_limits() {
    let (same, less) = (json!({"cpu": "1", "memory": "1Gi"}), json!({"cpu": "500m", "memory": "1Gi"}));
    for (resources, wanted) in [
        (json!({}), "BestEffort"),
        (json!({"requests": same}), "Burstable"),
        (json!({"limits": same, "requests": less}), "Burstable"),
        (json!({"limits": same}), "Guaranteed"),
        (json!({"limits": same, "requests": {"cpu": "1000m", "memory": "1024Mi"}}), "Guaranteed"),
    ] {
        let mut pod = with(pod(), "/spec/containers/0/resources", resources.clone());
        prepare_create("", "Pod", &mut pod);
        assert_eq!(pod["status"]["qosClass"], wanted, "{resources}");
    }
}

#[test]
fn a_change_of_the_main_resource_leaves_the_status_and_the_servers_metadata() {
    let old = with(deployment(), "/status", json!({"replicas": 3}));
    let old = with(with(old, "/metadata/uid", json!("u")), "/metadata/creationTimestamp", json!("t"));
    let mut new = with(deployment(), "/status", json!({"replicas": 99}));
    new["metadata"]["deletionTimestamp"] = json!("now");
    prepare_update("apps", "Deployment", &old, &mut new);
    assert_eq!(new["status"], json!({"replicas": 3}));
    assert_eq!(new["metadata"], json!({"name": "web", "namespace": "default", "uid": "u", "creationTimestamp": "t"}));
}

#[test]
fn what_the_server_chose_stays_when_a_replacement_leaves_it_out() {
    let old = with(pod(), "/spec/nodeName", json!("node1"));
    let mut new = pod();
    prepare_update("", "Pod", &old, &mut new);
    assert_eq!(new["spec"]["nodeName"], "node1");

    let old = json!({"spec": {"podCIDR": "10.0.0.0/24", "podCIDRs": ["10.0.0.0/24"]}});
    let mut new = json!({"spec": {"unschedulable": true}});
    prepare_update("", "Node", &old, &mut new);
    assert_eq!(new["spec"]["podCIDRs"], json!(["10.0.0.0/24"]));

    let mut created = json!({"metadata": {"name": "n"}});
    prepare_create("", "Namespace", &mut created);
    assert_eq!(created["spec"]["finalizers"], json!(["kubernetes"]));
    let mut new = json!({"spec": {"finalizers": []}});
    prepare_update("", "Namespace", &json!({"spec": {"finalizers": ["kubernetes"]}}), &mut new);
    assert_eq!(new["spec"]["finalizers"], json!(["kubernetes"]));
}

#[test]
fn a_replaced_service_is_prepared_with_what_was_allocated() {
    let old = json!({"type": "NodePort", "clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"], "ports": [{"port": 80, "nodePort": 30080}]});
    let old = with(service(), "/spec", old);
    let mut new = with(service(), "/spec/type", json!("NodePort"));
    prepare_update("", "Service", &old, &mut new);
    assert_eq!(new["spec"]["clusterIP"], "10.0.0.1");
    assert_eq!(new["spec"]["ports"][0]["nodePort"], 30080);
    let mut patched = with(old.clone(), "/spec/type", json!("ClusterIP"));
    prepare_update("", "Service", &old, &mut patched);
    assert_eq!(patched["spec"]["ports"][0].get("nodePort"), None);
}

#[test]
fn a_change_of_the_status_changes_the_status_alone() {
    let old = deployment();
    let mut new = with(with(deployment(), "/status", json!({"replicas": 3})), "/spec/replicas", json!(9));
    new["metadata"]["labels"] = json!({"a": "b"});
    new["metadata"]["resourceVersion"] = json!("7");
    prepare_status_update("apps", "Deployment", &old, &mut new);
    let wanted = with(with(old, "/status", json!({"replicas": 3})), "/metadata/resourceVersion", json!("7"));
    assert_eq!(new, wanted);
}

#[test]
fn a_node_agent_may_annotate_its_node_through_the_status() {
    let old = json!({"metadata": {"name": "n", "annotations": {"a": "1"}}, "spec": {}, "status": {}});
    let mut new = json!({"metadata": {"name": "n", "annotations": {"a": "1", "b": "2"}}, "spec": {"unschedulable": true}, "status": {"x": 1}});
    prepare_status_update("", "Node", &old, &mut new);
    assert_eq!(new["metadata"]["annotations"], json!({"a": "1", "b": "2"}));
    assert_eq!(new["spec"], json!({}));
}

#[test]
fn the_generation_counts_changes_of_the_desired_state() {
    let labelled = |object| with(object, "/metadata/labels", json!({"a": "b"}));
    for (group, kind, old, new, wanted) in [
        ("apps", "Deployment", deployment(), with(deployment(), "/spec/replicas", json!(2)), true),
        ("apps", "Deployment", deployment(), with(deployment(), "/metadata/annotations", json!({"a": "b"})), true),
        ("apps", "Deployment", deployment(), labelled(deployment()), false),
        ("apps", "ReplicaSet", deployment(), with(deployment(), "/status", json!({"replicas": 2})), false),
        ("", "Service", service(), with(service(), "/spec/type", json!("NodePort")), false),
        ("discovery.k8s.io", "EndpointSlice", json!({}), json!({"endpoints": []}), true),
        ("crd.projectcalico.org", "IPPool", json!({"spec": {"a": 1}}), json!({"spec": {"a": 2}}), true),
        ("crd.projectcalico.org", "IPPool", json!({"spec": {}}), json!({"spec": {}, "status": {"a": 1}}), false),
    ] {
        assert_eq!(generation_bumped(group, kind, &old, &new), wanted, "{kind} {new}");
    }
}
