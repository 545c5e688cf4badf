use serde_json::{Value, json};

use super::objects::{change_refusals, deployment, pod, service, with};

#[test]
fn of_a_pod_only_images_tolerations_and_the_deadline_change() {
    let allowed: [Value; 4] = [
        with(pod(), "/spec/containers/0/image", json!("nginx:1.28")),
        with(pod(), "/spec/activeDeadlineSeconds", json!(60)),
        with(pod(), "/metadata/labels", json!({"a": "b"})),
        with(pod(), "/spec/tolerations", json!([{"key": "k", "operator": "Exists"}])),
    ];
    for new in allowed {
        assert_eq!(change_refusals("", "Pod", pod(), new), Vec::<String>::new());
    }
    for (new, changed) in [
        (with(pod(), "/spec/restartPolicy", json!("Never")), "`spec.restartPolicy`"),
        (with(pod(), "/spec/containers/0/args", json!(["x"])), "`spec.containers[0].args`"),
    ] {
        let refusals = change_refusals("", "Pod", pod(), new);
        assert_eq!(refusals.len(), 1, "{refusals:?}");
        let wanted = "spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`,";
        assert!(refusals[0].starts_with(wanted) && refusals[0].ends_with(changed), "{refusals:?}");
    }
}

#[test]
fn a_pod_is_bound_to_a_node_once() {
    let on = |node: &str| with(pod(), "/spec/nodeName", json!(node));
    assert_eq!(change_refusals("", "Pod", pod(), on("node1")), Vec::<String>::new());
    let refusals = change_refusals("", "Pod", on("node1"), on("node2"));
    assert!(refusals[0].ends_with("changed here: `spec.nodeName`"), "{refusals:?}");
}

#[test]
fn a_pod_neither_gains_nor_loses_containers_or_tolerations() {
    let more = with(pod(), "/spec/containers", json!([{"name": "c", "image": "x"}, {"name": "d", "image": "x"}]));
    assert_eq!(
        change_refusals("", "Pod", pod(), more),
        ["spec.containers: Forbidden: pod updates may not add or remove containers"]
    );
    let tolerant = with(pod(), "/spec/tolerations", json!([{"key": "k", "operator": "Exists"}]));
    assert_eq!(
        change_refusals("", "Pod", tolerant, pod()),
        ["spec.tolerations: Forbidden: existing toleration can not be modified except its tolerationSeconds"]
    );
}

#[test]
fn a_workloads_selector_stays() {
    let labels = json!({"app": "b"});
    let new = with(deployment(), "/spec/selector/matchLabels", labels.clone());
    let new = with(new, "/spec/template/metadata/labels", labels);
    assert_eq!(
        change_refusals("apps", "Deployment", deployment(), new),
        ["spec.selector: Invalid value: {\"matchLabels\":{\"app\":\"b\"}}: field is immutable"]
    );
}

#[test]
fn a_services_address_stays_while_it_has_one() {
    let at = |ip: &str| with(with(service(), "/spec/clusterIP", json!(ip)), "/spec/clusterIPs", json!([ip]));
    assert_eq!(
        change_refusals("", "Service", at("10.0.0.1"), at("10.0.0.2")),
        ["spec.clusterIPs[0]: Invalid value: []string{\"10.0.0.2\"}: may not change once set"]
    );
    let external = with(with(service(), "/spec/type", json!("ExternalName")), "/spec/externalName", json!("a.org"));
    assert_eq!(change_refusals("", "Service", at("10.0.0.1"), external), Vec::<String>::new());
}

#[test]
fn of_two_families_the_second_one_goes_with_the_policy() {
    let dual = |addresses: Value, policy: &str| {
        let families = if addresses[1].is_null() { json!(["IPv4"]) } else { json!(["IPv4", "IPv6"]) };
        let service = with(with(service(), "/spec/clusterIPs", addresses), "/spec/ipFamilies", families);
        with(service, "/spec/ipFamilyPolicy", json!(policy))
    };
    let old = || dual(json!(["10.0.0.1", "fd00::1"]), "RequireDualStack");
    let single = json!(["10.0.0.1"]);
    assert_eq!(change_refusals("", "Service", old(), dual(single.clone(), "SingleStack")), Vec::<String>::new());
    assert_eq!(change_refusals("", "Service", dual(single.clone(), "SingleStack"), old()), Vec::<String>::new());
    assert_eq!(
        change_refusals("", "Service", old(), dual(single, "RequireDualStack")),
        [
            "spec.ipFamilyPolicy: Invalid value: \"RequireDualStack\": must be set to 'SingleStack' when releasing the secondary \
             clusterIP",
            "spec.ipFamilyPolicy: Invalid value: \"RequireDualStack\": must be set to 'SingleStack' when releasing the secondary \
             ipFamily",
        ]
    );
    assert_eq!(
        change_refusals("", "Service", old(), dual(json!(["10.0.0.1", "fd00::2"]), "RequireDualStack")),
        ["spec.clusterIPs[1]: Invalid value: []string{\"10.0.0.1\", \"fd00::2\"}: may not change once set"]
    );
}

#[test]
fn a_load_balancer_stays_with_its_class_and_its_health_check() {
    let balanced = |class: Value, health: Value| {
        let service = with(with(service(), "/spec/type", json!("LoadBalancer")), "/spec/loadBalancerClass", class);
        with(with(service, "/spec/externalTrafficPolicy", json!("Local")), "/spec/healthCheckNodePort", health)
    };
    let old = || balanced(json!("a/x"), json!(30001));
    assert_eq!(change_refusals("", "Service", old(), old()), Vec::<String>::new());
    assert_eq!(
        change_refusals("", "Service", old(), balanced(Value::Null, json!(30001))),
        ["spec.loadBalancerClass: Invalid value: null: may not change once set"]
    );
    assert_eq!(
        change_refusals("", "Service", old(), balanced(json!("a/x"), json!(30002))),
        ["spec.healthCheckNodePort: Forbidden: field is immutable"]
    );
    let plain = with(old(), "/spec/externalTrafficPolicy", json!("Cluster"));
    let plain = with(plain, "/spec/healthCheckNodePort", Value::Null);
    assert_eq!(change_refusals("", "Service", old(), plain), Vec::<String>::new());
}

#[test]
fn immutable_data_stays() {
    let map = |value: &str| json!({"metadata": {"name": "m"}, "immutable": true, "data": {"a": value}});
    assert_eq!(
        change_refusals("", "ConfigMap", map("1"), map("2")),
        ["data: Forbidden: field is immutable when `immutable` is set"]
    );
    let secret = |kind: &str| json!({"metadata": {"name": "m"}, "type": kind});
    assert_eq!(
        change_refusals("", "Secret", secret("a"), secret("b")),
        ["type: Invalid value: \"b\": field is immutable"]
    );
}

#[test]
fn identity_stays() {
    let old = with(pod(), "/metadata/uid", json!("u"));
    let new = with(pod(), "/metadata/uid", json!("v"));
    assert_eq!(change_refusals("", "Pod", old, new), ["metadata.uid: Invalid value: \"v\": field is immutable"]);
    let slice = |kind: &str| json!({"metadata": {"name": "s"}, "addressType": kind});
    assert_eq!(
        change_refusals("discovery.k8s.io", "EndpointSlice", slice("IPv4"), slice("IPv6")),
        ["addressType: Invalid value: \"IPv6\": field is immutable"]
    );
    let node = |cidr: &str| json!({"metadata": {"name": "n"}, "spec": {"podCIDRs": [cidr]}});
    assert_eq!(
        change_refusals("", "Node", node("10.0.0.0/24"), node("10.0.1.0/24")),
        ["spec.podCIDRs: Forbidden: node updates may not change podCIDR except from \"\" to valid"]
    );
}
