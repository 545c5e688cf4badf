use serde_json::{Value, json};

use super::objects::{defaulted, deployment, pod, service, with};
use crate::admission::default_object;

/// Each group, kind and object of a small zoo.
fn zoo() -> Vec<(&'static str, &'static str, Value)> {
    vec![
        ("", "Pod", pod()),
        ("", "Service", with(service(), "/spec/type", json!("LoadBalancer"))),
        ("apps", "Deployment", deployment()),
        ("", "Secret", json!({"metadata": {"name": "s"}, "stringData": {"a": "b"}})),
        ("", "Namespace", json!({"metadata": {"name": "n"}})),
        ("", "Node", json!({"metadata": {"name": "n"}, "status": {"capacity": {"cpu": "2"}}})),
        (
            "batch",
            "Job",
            json!({"metadata": {"name": "j"}, "spec": {"template": {"spec": {"containers": [{"name": "c"}]}}}}),
        ),
    ]
}

#[test]
fn defaulting_twice_changes_nothing() {
    for (group, kind, object) in zoo() {
        let once = defaulted(group, kind, object);
        assert_eq!(defaulted(group, kind, once.clone()), once, "{kind}");
    }
}

#[test]
fn objects_of_wrong_types_are_left_alone() {
    for (group, kind, _) in zoo() {
        for object in
            [json!(null), json!([1]), json!({"metadata": 1, "spec": "x", "status": [], "subsets": 3, "stringData": 1})]
        {
            let mut changed = object.clone();
            default_object(group, kind, &mut changed);
            assert_eq!(changed["spec"], object["spec"], "{kind}");
        }
    }
}

#[test]
fn a_pod_has_the_defaults_of_the_api() {
    let pod = defaulted("", "Pod", pod());
    let spec = &pod["spec"];
    for (field, wanted) in [
        ("restartPolicy", json!("Always")),
        ("dnsPolicy", json!("ClusterFirst")),
        ("terminationGracePeriodSeconds", json!(30)),
        ("schedulerName", json!("default-scheduler")),
        ("securityContext", json!({})),
        ("enableServiceLinks", json!(true)),
        ("serviceAccountName", json!("default")),
        ("serviceAccount", json!("default")),
        ("priority", json!(0)),
        ("preemptionPolicy", json!("PreemptLowerPriority")),
    ] {
        assert_eq!(spec[field], wanted, "{field}");
    }
    let container = &spec["containers"][0];
    assert_eq!(container["terminationMessagePath"], "/dev/termination-log");
    assert_eq!(container["terminationMessagePolicy"], "File");
    assert_eq!(container["resources"], json!({}));
}

#[test]
fn a_template_has_a_pods_defaults_without_its_identity() {
    let deployment = defaulted("apps", "Deployment", deployment());
    let template = &deployment["spec"]["template"]["spec"];
    assert_eq!(template["restartPolicy"], "Always");
    for absent in ["serviceAccountName", "tolerations", "volumes", "enableServiceLinks", "priority"] {
        assert_eq!(template.get(absent), None, "{absent}");
    }
}

#[test]
fn the_pull_policy_follows_the_tag() {
    for (image, wanted) in [
        ("nginx", "Always"),
        ("nginx:latest", "Always"),
        ("nginx:1.27", "IfNotPresent"),
        ("registry:5000/nginx", "Always"),
        ("registry:5000/nginx:1", "IfNotPresent"),
        ("nginx@sha256:abc", "IfNotPresent"),
    ] {
        let pod = defaulted("", "Pod", with(pod(), "/spec/containers/0/image", json!(image)));
        assert_eq!(pod["spec"]["containers"][0]["imagePullPolicy"], wanted, "{image}");
    }
}

#[test]
fn a_container_is_given_its_service_accounts_token() {
    let created = defaulted("", "Pod", pod());
    let volume = &created["spec"]["volumes"][0];
    let name = volume["name"].as_str().unwrap();
    assert!(name.starts_with("kube-api-access-") && name.len() == "kube-api-access-".len() + 5, "{name}");
    assert_eq!(
        volume["projected"]["sources"],
        json!([
            {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
            {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
            {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]}},
        ])
    );
    assert_eq!(
        created["spec"]["containers"][0]["volumeMounts"],
        json!([{"name": name, "readOnly": true, "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"}])
    );
    let other = defaulted("", "Pod", with(pod(), "/metadata/name", json!("other")));
    assert_ne!(other["spec"]["volumes"][0]["name"], name);
}

#[test]
fn no_token_is_mounted_where_none_is_wanted_or_one_is_there() {
    let without = defaulted("", "Pod", with(pod(), "/spec/automountServiceAccountToken", json!(false)));
    assert_eq!(without["spec"].get("volumes"), None);
    let own = json!([{"name": "mine", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount/"}]);
    let own = defaulted("", "Pod", with(pod(), "/spec/containers/0/volumeMounts", own));
    assert_eq!(own["spec"].get("volumes"), None);
}

#[test]
fn pods_leave_a_node_that_does_not_answer_after_five_minutes() {
    let keys = |pod: &Value| {
        let tolerations = pod["spec"]["tolerations"].as_array().unwrap().clone();
        tolerations.iter().map(|t| format!("{}={}", t["key"], t["tolerationSeconds"])).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(
        keys(&defaulted("", "Pod", pod())),
        "\"node.kubernetes.io/not-ready\"=300 \"node.kubernetes.io/unreachable\"=300"
    );
    let own = json!([{"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5}]);
    assert_eq!(
        keys(&defaulted("", "Pod", with(pod(), "/spec/tolerations", own))),
        "\"node.kubernetes.io/not-ready\"=5 \"node.kubernetes.io/unreachable\"=300"
    );
    let all = json!([{"operator": "Exists"}]);
    assert_eq!(keys(&defaulted("", "Pod", with(pod(), "/spec/tolerations", all))), "null=null");
}

#[test]
fn parts_of_a_container_have_their_defaults() {
    let container = json!({
        "name": "c", "image": "x:1",
        "ports": [{"containerPort": 80}],
        "env": [{"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}],
        "readinessProbe": {"httpGet": {"port": 80}},
        "resources": {"limits": {"cpu": "1"}},
    });
    let pod = with(with(pod(), "/spec/containers/0", container), "/spec/hostNetwork", json!(true));
    let pod = defaulted("", "Pod", pod);
    let container = &pod["spec"]["containers"][0];
    assert_eq!(container["ports"], json!([{"containerPort": 80, "protocol": "TCP", "hostPort": 80}]));
    assert_eq!(container["env"][0]["valueFrom"]["fieldRef"]["apiVersion"], "v1");
    assert_eq!(
        container["readinessProbe"],
        json!({"httpGet": {"port": 80, "path": "/", "scheme": "HTTP"}, "timeoutSeconds": 1, "periodSeconds": 10,
               "successThreshold": 1, "failureThreshold": 3})
    );
    assert_eq!(container["resources"]["requests"], json!({"cpu": "1"}));
}

#[test]
fn volumes_have_modes_and_a_source() {
    let volumes = json!([{"name": "a"}, {"name": "b", "configMap": {"name": "m"}}, {"name": "c", "secret": {"secretName": "s"}},
        {"name": "d", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}, {"name": "e", "hostPath": {"path": "/x"}}]);
    let pod = defaulted("", "Pod", with(pod(), "/spec/volumes", volumes));
    let volumes = &pod["spec"]["volumes"];
    assert_eq!(volumes[0], json!({"name": "a", "emptyDir": {}}));
    assert_eq!(volumes[1]["configMap"]["defaultMode"], 420);
    assert_eq!(volumes[2]["secret"]["defaultMode"], 420);
    assert_eq!(volumes[3]["projected"]["sources"][0]["serviceAccountToken"]["expirationSeconds"], 3600);
    assert_eq!(volumes[4]["hostPath"]["type"], "");
}

#[test]
fn services_have_the_defaults_of_their_type() {
    let spec = |kind: &str| defaulted("", "Service", with(service(), "/spec/type", json!(kind)))["spec"].clone();
    let plain = defaulted("", "Service", service())["spec"].clone();
    assert_eq!(plain["type"], "ClusterIP");
    assert_eq!(plain["sessionAffinity"], "None");
    assert_eq!(plain["internalTrafficPolicy"], "Cluster");
    assert_eq!(plain.get("externalTrafficPolicy"), None);
    assert_eq!(plain["ports"], json!([{"port": 80, "protocol": "TCP", "targetPort": 80}]));
    assert_eq!(spec("NodePort")["externalTrafficPolicy"], "Cluster");
    assert_eq!(spec("LoadBalancer")["allocateLoadBalancerNodePorts"], true);
    assert_eq!(spec("ExternalName").get("internalTrafficPolicy"), None);
    let sticky = defaulted("", "Service", with(service(), "/spec/sessionAffinity", json!("ClientIP")));
    assert_eq!(sticky["spec"]["sessionAffinityConfig"]["clientIP"]["timeoutSeconds"], 10800);
}

#[test]
fn deployments_roll_a_quarter_at_a_time() {
    let spec = defaulted("apps", "Deployment", deployment())["spec"].clone();
    assert_eq!(spec["replicas"], 1);
    assert_eq!(spec["revisionHistoryLimit"], 10);
    assert_eq!(spec["progressDeadlineSeconds"], 600);
    assert_eq!(
        spec["strategy"],
        json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "25%", "maxSurge": "25%"}})
    );
    let recreate = defaulted("apps", "Deployment", with(deployment(), "/spec/strategy/type", json!("Recreate")));
    assert_eq!(recreate["spec"]["strategy"], json!({"type": "Recreate"}));
    let none = defaulted("apps", "Deployment", with(deployment(), "/spec/replicas", json!(0)));
    assert_eq!(none["spec"]["replicas"], 0);
}

#[test]
fn a_secrets_plain_texts_are_encoded() {
    let secret =
        json!({"metadata": {"name": "s"}, "data": {"a": "eA==", "b": "eQ=="}, "stringData": {"b": "new", "c": ""}});
    let secret = defaulted("", "Secret", secret);
    assert_eq!(secret["type"], "Opaque");
    assert_eq!(secret["data"], json!({"a": "eA==", "b": "bmV3", "c": ""}));
    assert_eq!(secret.get("stringData"), None);
}

#[test]
fn small_kinds_have_their_defaults() {
    let namespace =
        defaulted("", "Namespace", json!({"metadata": {"name": "n", "labels": {"kubernetes.io/metadata.name": "x"}}}));
    assert_eq!(namespace["status"]["phase"], "Active");
    assert_eq!(namespace["metadata"]["labels"]["kubernetes.io/metadata.name"], "n");
    let slice = defaulted("discovery.k8s.io", "EndpointSlice", json!({"ports": [{"port": 80}]}));
    assert_eq!(slice["ports"], json!([{"port": 80, "name": "", "protocol": "TCP"}]));
    let endpoints = defaulted("", "Endpoints", json!({"subsets": [{"ports": [{"port": 80}]}]}));
    assert_eq!(endpoints["subsets"][0]["ports"][0]["protocol"], "TCP");
    let node = defaulted("", "Node", json!({"status": {"capacity": {"cpu": "2"}}}));
    assert_eq!(node["status"]["allocatable"], json!({"cpu": "2"}));
    let policy = defaulted("networking.k8s.io", "NetworkPolicy", json!({"spec": {"egress": [{}]}}));
    assert_eq!(policy["spec"]["policyTypes"], json!(["Ingress", "Egress"]));
}
