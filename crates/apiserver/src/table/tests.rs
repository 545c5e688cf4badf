#![allow(clippy::needless_pass_by_value, reason = "the objects are literals at the call")]

use serde_json::json;

use super::*;

fn now() -> DateTime<Utc> {
    "2026-03-01T12:00:00Z".parse().unwrap()
}

/// A row of a table, the wide columns after a bar.
fn printed(group: &str, kind: &str, object: &Value) -> String {
    let mut object = object.clone();
    if object["metadata"].is_null() {
        object["metadata"] = json!({"name": "x", "creationTimestamp": "2026-03-01T11:55:00Z"});
    }
    let table = render(group, kind, &[], &[&object], now(), IncludeObject::None, json!({}));
    let columns = table["columnDefinitions"].as_array().unwrap();
    let cells = table["rows"][0]["cells"].as_array().unwrap();
    assert_eq!(columns.len(), cells.len());
    let show = |cell: &Value| cell.as_str().map_or_else(|| cell.to_string(), str::to_owned);
    let of = |priority: i64| {
        let cells = columns.iter().zip(cells).filter(|(column, _)| column["priority"] == priority);
        cells.map(|(_, cell)| show(cell)).collect::<Vec<_>>().join(" ")
    };
    let (shown, wide) = (of(0), of(1));
    if wide.is_empty() { shown } else { format!("{shown} | {wide}") }
}

fn headings(group: &str, kind: &str) -> String {
    let table = render(group, kind, &[], &[], now(), IncludeObject::None, json!({}));
    let names = table["columnDefinitions"].as_array().unwrap().iter().map(|c| c["name"].as_str().unwrap());
    names.collect::<Vec<_>>().join(",").to_uppercase()
}

#[test]
fn the_headings_are_the_ones_that_users_know() {
    for (group, kind, wanted) in [
        ("", "Pod", "NAME,READY,STATUS,RESTARTS,AGE,IP,NODE,NOMINATED NODE,READINESS GATES"),
        ("", "Service", "NAME,TYPE,CLUSTER-IP,EXTERNAL-IP,PORT(S),AGE,SELECTOR"),
        ("", "Node", "NAME,STATUS,ROLES,AGE,VERSION,INTERNAL-IP,EXTERNAL-IP,OS-IMAGE,KERNEL-VERSION,CONTAINER-RUNTIME"),
        ("apps", "Deployment", "NAME,READY,UP-TO-DATE,AVAILABLE,AGE,CONTAINERS,IMAGES,SELECTOR"),
        ("apps", "ReplicaSet", "NAME,DESIRED,CURRENT,READY,AGE,CONTAINERS,IMAGES,SELECTOR"),
        ("", "Endpoints", "NAME,ENDPOINTS,AGE"),
        ("discovery.k8s.io", "EndpointSlice", "NAME,ADDRESSTYPE,PORTS,ENDPOINTS,AGE"),
        ("", "Event", "LAST SEEN,TYPE,REASON,OBJECT,SUBOBJECT,SOURCE,MESSAGE,FIRST SEEN,COUNT,NAME"),
        ("", "ConfigMap", "NAME,DATA,AGE"),
        ("", "Secret", "NAME,TYPE,DATA,AGE"),
        ("", "ServiceAccount", "NAME,SECRETS,AGE"),
        ("", "Namespace", "NAME,STATUS,AGE"),
        ("coordination.k8s.io", "Lease", "NAME,HOLDER,AGE"),
        ("apiextensions.k8s.io", "CustomResourceDefinition", "NAME,CREATED AT"),
        ("example.org", "Thing", "NAME,AGE"),
    ] {
        assert_eq!(headings(group, kind), wanted, "{kind}");
    }
}

/// A pod of one container in this state, in this phase.
fn pod(phase: &str, state: Value, ready: bool) -> Value {
    json!({
        "metadata": {"name": "web", "creationTimestamp": "2026-03-01T11:55:00Z"},
        "spec": {"containers": [{"name": "c"}], "nodeName": "node1"},
        "status": {"phase": phase, "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}],
                   "containerStatuses": [{"name": "c", "state": state, "ready": ready, "restartCount": 0}]},
    })
}

#[test]
fn a_pods_status_is_the_word_that_says_most() {
    let waiting = |reason: &str| json!({"waiting": {"reason": reason}});
    let ended = |reason: &str, code: i64| json!({"terminated": {"reason": reason, "exitCode": code}});
    for (pod, wanted) in [
        (pod("Pending", waiting("ContainerCreating"), false), "web 0/1 ContainerCreating 0 5m"),
        (pod("Running", json!({"running": {}}), true), "web 1/1 Running 0 5m"),
        (pod("Running", json!({"running": {}}), false), "web 0/1 Running 0 5m"),
        (pod("Running", waiting("CrashLoopBackOff"), false), "web 0/1 CrashLoopBackOff 0 5m"),
        (pod("Pending", waiting("ErrImagePull"), false), "web 0/1 ErrImagePull 0 5m"),
        (pod("Succeeded", ended("Completed", 0), false), "web 0/1 Completed 0 5m"),
        (pod("Failed", ended("Error", 1), false), "web 0/1 Error 0 5m"),
        (pod("Failed", ended("OOMKilled", 137), false), "web 0/1 OOMKilled 0 5m"),
        (pod("Failed", ended("", 3), false), "web 0/1 ExitCode:3 0 5m"),
        (pod("Failed", json!({"terminated": {"signal": 9}}), false), "web 0/1 Signal:9 0 5m"),
    ] {
        assert_eq!(printed("", "Pod", &pod), format!("{wanted} | 10.0.0.1 node1 <none> <none>"));
    }
}

#[test]
fn a_pod_that_is_deleted_is_terminating_until_it_has_ended() {
    let mut running = pod("Running", json!({"running": {}}), true);
    running["metadata"]["deletionTimestamp"] = json!("2026-03-01T12:00:00Z");
    assert!(printed("", "Pod", &running).starts_with("web 1/1 Terminating 0 5m"));
    running["status"]["reason"] = json!("NodeLost");
    assert!(printed("", "Pod", &running).starts_with("web 1/1 Unknown 0 5m"));
    let mut done = pod("Succeeded", json!({"terminated": {"reason": "Completed"}}), false);
    done["metadata"]["deletionTimestamp"] = json!("2026-03-01T12:00:00Z");
    assert!(printed("", "Pod", &done).starts_with("web 0/1 Completed 0 5m"));
}

#[test]
fn restarts_say_how_long_ago_the_last_one_was() {
    let mut restarted = pod("Running", json!({"running": {}}), true);
    restarted["status"]["containerStatuses"][0]["restartCount"] = json!(2);
    assert!(printed("", "Pod", &restarted).starts_with("web 1/1 Running 2 5m"));
    restarted["status"]["containerStatuses"][0]["lastState"] =
        json!({"terminated": {"finishedAt": "2026-03-01T11:57:30Z"}});
    assert!(printed("", "Pod", &restarted).starts_with("web 1/1 Running 2 (2m30s ago) 5m"));
}

#[test]
fn a_pod_that_initialises_says_how_far_it_is() {
    let init = |statuses: Value| {
        let mut pod = pod("Pending", json!({"waiting": {"reason": "PodInitializing"}}), false);
        pod["spec"]["initContainers"] = json!([{"name": "a"}, {"name": "b"}]);
        pod["status"]["initContainerStatuses"] = statuses;
        printed("", "Pod", &pod).split(' ').nth(2).unwrap().to_owned()
    };
    let done = json!({"name": "a", "state": {"terminated": {"exitCode": 0, "reason": "Completed"}}});
    assert_eq!(init(json!([{"name": "a", "state": {"running": {}}}])), "Init:0/2");
    assert_eq!(init(json!([done, {"name": "b", "state": {"waiting": {"reason": "PodInitializing"}}}])), "Init:1/2");
    assert_eq!(
        init(json!([{"name": "a", "state": {"waiting": {"reason": "CrashLoopBackOff"}}}])),
        "Init:CrashLoopBackOff"
    );
    assert_eq!(init(json!([{"name": "a", "state": {"terminated": {"exitCode": 1, "reason": "Error"}}}])), "Init:Error");
    assert_eq!(init(json!([{"name": "a", "state": {"terminated": {"exitCode": 2}}}])), "Init:ExitCode:2");
    assert_eq!(init(json!([done, done])), "PodInitializing");
}

#[test]
fn a_sidecar_counts_among_the_ready_containers() {
    let mut pod = pod("Running", json!({"running": {}}), true);
    pod["spec"]["initContainers"] = json!([{"name": "s", "restartPolicy": "Always"}]);
    pod["status"]["initContainerStatuses"] =
        json!([{"name": "s", "started": true, "ready": true, "restartCount": 1, "state": {"running": {}}}]);
    assert!(printed("", "Pod", &pod).starts_with("web 2/2 Running 1 5m"));
}

#[test]
fn services_show_their_ports_and_addresses() {
    for (spec, wanted) in [
        (
            json!({"type":"ClusterIP","clusterIP":"10.0.0.1","ports":[{"port":80,"protocol":"TCP"}],"selector":{"b":"2","a":"1"}}),
            "x ClusterIP 10.0.0.1 <none> 80/TCP 5m | a=1,b=2",
        ),
        (
            json!({"type":"NodePort","clusterIP":"10.0.0.1","ports":[{"port":80,"nodePort":30080,"protocol":"TCP"},{"port":53,"protocol":"UDP"}]}),
            "x NodePort 10.0.0.1 <none> 80:30080/TCP,53/UDP 5m | <none>",
        ),
        (json!({"type":"ClusterIP","clusterIP":"None"}), "x ClusterIP None <none> <none> 5m | <none>"),
        (json!({"type":"ExternalName","externalName":"a.org"}), "x ExternalName <none> a.org <none> 5m | <none>"),
        (
            json!({"type":"LoadBalancer","clusterIP":"10.0.0.1","ports":[{"port":80,"protocol":"TCP"}]}),
            "x LoadBalancer 10.0.0.1 <pending> 80/TCP 5m | <none>",
        ),
        (
            json!({"type":"ClusterIP","clusterIP":"10.0.0.1","externalIPs":["1.2.3.4"]}),
            "x ClusterIP 10.0.0.1 1.2.3.4 <none> 5m | <none>",
        ),
    ] {
        assert_eq!(printed("", "Service", &json!({"spec": spec})), wanted);
    }
}

#[test]
fn endpoints_name_three_and_count_the_rest() {
    let addresses = |n: u8| (1..=n).map(|i| json!({"ip": format!("10.0.0.{i}")})).collect::<Vec<_>>();
    for (subsets, wanted) in [
        (json!([]), "x <none> 5m"),
        (json!([{"addresses": addresses(2), "ports": [{"port": 80}]}]), "x 10.0.0.1:80,10.0.0.2:80 5m"),
        (
            json!([{"addresses": addresses(4), "ports": [{"port": 80}]}]),
            "x 10.0.0.1:80,10.0.0.2:80,10.0.0.3:80 + 1 more... 5m",
        ),
        (json!([{"addresses": addresses(1)}]), "x 10.0.0.1 5m"),
    ] {
        assert_eq!(printed("", "Endpoints", &json!({"subsets": subsets})), wanted);
    }
    let slice = json!({"addressType":"IPv4","ports":[{"port":80}],"endpoints":[{"addresses":["10.0.0.1"]}]});
    assert_eq!(printed("discovery.k8s.io", "EndpointSlice", &slice), "x IPv4 80 10.0.0.1 5m");
    let empty = json!({"addressType":"IPv4"});
    assert_eq!(printed("discovery.k8s.io", "EndpointSlice", &empty), "x IPv4 <unset> <unset> 5m");
}

#[test]
fn nodes_show_readiness_roles_and_addresses() {
    let node = json!({
        "metadata": {"name": "n1", "creationTimestamp": "2026-03-01T11:55:00Z",
                     "labels": {"node-role.kubernetes.io/worker": "", "node-role.kubernetes.io/control-plane": ""}},
        "spec": {"unschedulable": true},
        "status": {
            "conditions": [{"type": "Ready", "status": "True"}],
            "addresses": [{"type": "InternalIP", "address": "172.29.0.11"}],
            "nodeInfo": {"kubeletVersion": "v1.32.0", "osImage": "Debian", "kernelVersion": "6.1", "containerRuntimeVersion": "podnet://1"},
        },
    });
    assert_eq!(
        printed("", "Node", &node),
        "n1 Ready,SchedulingDisabled control-plane,worker 5m v1.32.0 | 172.29.0.11 <none> Debian 6.1 podnet://1"
    );
    let fresh = json!({"status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}});
    assert!(printed("", "Node", &fresh).starts_with("x NotReady <none> 5m"));
    assert!(printed("", "Node", &json!({})).starts_with("x Unknown <none> 5m"));
}

#[test]
fn workloads_show_their_counts_images_and_selector() {
    let object = json!({
        "spec": {"replicas": 3, "selector": {"matchLabels": {"app": "web"}, "matchExpressions": [{"key": "e", "operator": "In", "values": ["a", "b"]}]},
                 "template": {"spec": {"containers": [{"name": "a", "image": "a:1"}, {"name": "b", "image": "b:2"}]}}},
        "status": {"replicas": 3, "readyReplicas": 2, "updatedReplicas": 3, "availableReplicas": 1},
    });
    assert_eq!(printed("apps", "Deployment", &object), "x 2/3 3 1 5m | a,b a:1,b:2 app=web,e in (a,b)");
    assert_eq!(printed("apps", "ReplicaSet", &object), "x 3 3 2 5m | a,b a:1,b:2 app=web,e in (a,b)");
    assert_eq!(printed("apps", "StatefulSet", &object), "x 2/3 5m | a,b a:1,b:2");
}

#[test]
fn events_show_what_happened_to_what() {
    let event = json!({
        "metadata": {"name": "web.1", "creationTimestamp": "2026-03-01T11:55:00Z"},
        "type": "Warning", "reason": "BackOff", "message": "Back-off restarting\n", "count": 4,
        "involvedObject": {"kind": "Pod", "name": "web", "fieldPath": "spec.containers{c}"},
        "firstTimestamp": "2026-03-01T11:50:00Z", "lastTimestamp": "2026-03-01T11:59:30Z",
        "source": {"component": "kubelet", "host": "n1"},
    });
    assert_eq!(
        printed("", "Event", &event),
        "30s Warning BackOff pod/web Back-off restarting | spec.containers{c} kubelet, n1 10m 4 web.1"
    );
}

#[test]
fn small_kinds_count_their_data() {
    assert_eq!(printed("", "ConfigMap", &json!({"data": {"a": "1"}, "binaryData": {"b": "eA=="}})), "x 2 5m");
    assert_eq!(printed("", "Secret", &json!({"type": "Opaque", "data": {"a": "eA=="}})), "x Opaque 1 5m");
    assert_eq!(printed("", "Namespace", &json!({"status": {"phase": "Active"}})), "x Active 5m");
    assert_eq!(printed("coordination.k8s.io", "Lease", &json!({"spec": {"holderIdentity": "n1"}})), "x n1 5m");
    assert_eq!(printed("apiextensions.k8s.io", "CustomResourceDefinition", &json!({})), "x 2026-03-01T11:55:00Z");
    assert_eq!(printed("example.org", "Thing", &json!({})), "x 5m");
}

#[test]
fn custom_columns_are_read_by_their_paths() {
    let columns: Vec<CustomColumn> = serde_json::from_value(json!([
        {"name": "CIDR", "type": "string", "jsonPath": ".spec.cidr"},
        {"name": "Size", "type": "integer", "jsonPath": ".spec.blockSize", "priority": 1},
        {"name": "Off", "type": "boolean", "jsonPath": ".spec.disabled"},
        {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
        {"name": "Broken", "type": "string", "jsonPath": ".["},
    ]))
    .unwrap();
    let pool = json!({"metadata":{"name":"p","creationTimestamp":"2026-03-01T11:00:00Z"},"spec":{"cidr":"10.0.0.0/8","blockSize":26}});
    let table = render("crd.projectcalico.org", "IPPool", &columns, &[&pool], now(), IncludeObject::None, json!({}));
    assert_eq!(table["rows"][0]["cells"], json!(["p", "10.0.0.0/8", 26, null, "60m", null]));
    assert_eq!(table["columnDefinitions"][2]["priority"], 1);
}

#[test]
fn a_row_carries_as_much_of_the_object_as_was_asked_for() {
    let object = json!({"kind":"ConfigMap","metadata":{"name":"a"},"data":{}});
    let table = |include| render("", "ConfigMap", &[], &[&object], now(), include, json!({"resourceVersion":"7"}));
    assert_eq!(table(IncludeObject::None)["rows"][0].get("object"), None);
    assert_eq!(table(IncludeObject::Object)["rows"][0]["object"], object);
    assert_eq!(
        table(IncludeObject::Metadata)["rows"][0]["object"],
        json!({"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1","metadata":{"name":"a"}})
    );
    assert_eq!(table(IncludeObject::default())["metadata"]["resourceVersion"], "7");
    assert_eq!(table(IncludeObject::default())["kind"], "Table");
}
