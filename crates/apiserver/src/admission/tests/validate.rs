use serde_json::{Value, json};

use super::objects::{deployment, pod, refusals, service, with};
use crate::admission::validate_create;

fn pod_refusals(pointer: &str, value: Value) -> Vec<String> {
    refusals("", "Pod", with(pod(), pointer, value))
}

#[test]
fn ordinary_objects_are_accepted() {
    assert_eq!(refusals("", "Pod", pod()), Vec::<String>::new());
    assert_eq!(refusals("apps", "Deployment", deployment()), Vec::<String>::new());
    assert_eq!(refusals("", "Service", service()), Vec::<String>::new());
    assert_eq!(
        refusals("", "Secret", json!({"metadata": {"name": "s"}, "stringData": {"a.b-C_d": "x"}})),
        Vec::<String>::new()
    );
    assert_eq!(
        refusals("crd.projectcalico.org", "IPPool", json!({"metadata": {"name": "p"}, "spec": 1})),
        Vec::<String>::new()
    );
    assert_eq!(
        refusals("rbac.authorization.k8s.io", "Role", json!({"metadata": {"name": "system:x"}})),
        Vec::<String>::new()
    );
}

#[test]
fn names_follow_the_rule_of_their_kind() {
    for (group, kind, name, wanted) in [
        ("", "ConfigMap", "", "metadata.name: Required value: name or generateName is required"),
        ("", "ConfigMap", "Foo", "metadata.name: Invalid value: \"Foo\": a lowercase RFC 1123 subdomain must consist"),
        (
            "",
            "ConfigMap",
            "a..b",
            "metadata.name: Invalid value: \"a..b\": a lowercase RFC 1123 subdomain must consist",
        ),
        ("", "Namespace", "a.b", "metadata.name: Invalid value: \"a.b\": a lowercase RFC 1123 label must consist"),
        ("", "Service", "1web", "metadata.name: Invalid value: \"1web\": a DNS-1035 label must consist"),
        ("rbac.authorization.k8s.io", "Role", "a/b", "metadata.name: Invalid value: \"a/b\": may not contain '/'"),
    ] {
        let errors = validate_create(group, kind, &json!({"metadata": {"name": name}}));
        assert!(errors[0].to_string().starts_with(wanted), "{errors:?}");
    }
    let long = "a".repeat(64);
    let errors = validate_create("", "Namespace", &json!({"metadata": {"name": long}}));
    assert!(errors[0].to_string().ends_with("must be no more than 63 characters"));
    assert!(validate_create("", "ConfigMap", &json!({"metadata": {"generateName": "web-"}})).is_empty());
}

#[test]
fn labels_annotations_and_owners_are_checked() {
    let metadata = |field: &str, value: Value| {
        let errors = refusals("", "ConfigMap", json!({"metadata": {"name": "m", field: value}}));
        errors.first().cloned().unwrap_or_default()
    };
    assert!(
        metadata("labels", json!({"a b": "c"})).starts_with("metadata.labels: Invalid value: \"a b\": name part must")
    );
    assert!(
        metadata("labels", json!({"a": "-c"}))
            .starts_with("metadata.labels: Invalid value: \"-c\": a valid label must")
    );
    assert!(
        metadata("labels", json!({"A_b/c": "d"})).starts_with("metadata.labels: Invalid value: \"A_b/c\": prefix part")
    );
    assert_eq!(metadata("labels", json!({"a.b/c": "", "d": "E_f.g-1"})), "");
    assert!(metadata("annotations", json!({"a b": ""})).starts_with("metadata.annotations: Invalid value: \"a b\""));
    assert_eq!(
        metadata("annotations", json!({"a": "x".repeat(300_000)})),
        "metadata.annotations: Too long: may not be more than 262144 bytes"
    );
    let owner = json!([{"apiVersion": "v1", "kind": "Pod", "name": "p"}]);
    assert_eq!(
        metadata("ownerReferences", owner),
        "metadata.ownerReferences[0].uid: Invalid value: \"\": must not be empty"
    );
}

#[test]
fn a_pods_containers_are_checked() {
    for (pointer, value, wanted) in [
        ("/spec/containers", json!([]), "spec.containers: Required value"),
        ("/spec/containers/0/image", json!(""), "spec.containers[0].image: Required value"),
        ("/spec/containers/0/name", json!(null), "spec.containers[0].name: Required value"),
        (
            "/spec/initContainers",
            json!([{"name": "c", "image": "x"}]),
            "spec.initContainers[0].name: Duplicate value: \"c\"",
        ),
        (
            "/spec/containers/0/imagePullPolicy",
            json!("Sometimes"),
            "spec.containers[0].imagePullPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \
             \"IfNotPresent\", \"Never\"",
        ),
        (
            "/spec/containers/0/ports",
            json!([{"containerPort": 70000}]),
            "spec.containers[0].ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive",
        ),
        (
            "/spec/containers/0/ports",
            json!([{"containerPort": 80, "name": "a-name-that-is-too-long"}]),
            "spec.containers[0].ports[0].name: Invalid value: \"a-name-that-is-too-long\": must be no more than 15 characters",
        ),
        (
            "/spec/containers/0/ports",
            json!([{"containerPort": 80, "protocol": "tcp"}]),
            "spec.containers[0].ports[0].protocol: Unsupported value: \"tcp\": supported values: \"SCTP\", \"TCP\", \"UDP\"",
        ),
        (
            "/spec/containers/0/volumeMounts",
            json!([{"name": "data", "mountPath": "/data"}]),
            "spec.containers[0].volumeMounts[0].name: Not found: \"data\"",
        ),
        ("/spec/containers/0/env", json!([{"value": "x"}]), "spec.containers[0].env[0].name: Required value"),
        (
            "/spec/containers/0/resources",
            json!({"limits": {"cpu": "1"}, "requests": {"cpu": "2"}}),
            "spec.containers[0].resources.requests: Invalid value: \"2\": must be less than or equal to cpu limit of 1",
        ),
        (
            "/spec/containers/0/readinessProbe",
            json!({"periodSeconds": 5}),
            "spec.containers[0].readinessProbe: Required value: must specify a handler type",
        ),
    ] {
        assert_eq!(pod_refusals(pointer, value), [wanted]);
    }
}

#[test]
fn a_pods_spec_is_checked() {
    for (pointer, value, wanted) in [
        (
            "/spec/restartPolicy",
            json!("Sometimes"),
            "spec.restartPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \"OnFailure\", \"Never\"",
        ),
        (
            "/spec/dnsPolicy",
            json!("None"),
            "spec.dnsConfig: Required value: must provide `dnsConfig` when `dnsPolicy` is None",
        ),
        ("/spec/volumes", json!([{"name": "v"}, {"name": "v"}]), "spec.volumes[1].name: Duplicate value: \"v\""),
        (
            "/spec/volumes",
            json!([{"name": "v", "configMap": {"name": "m"}, "emptyDir": {}}]),
            "spec.volumes[0].emptyDir: Forbidden: may not specify more than 1 volume type",
        ),
        (
            "/spec/terminationGracePeriodSeconds",
            json!(-1),
            "spec.terminationGracePeriodSeconds: Invalid value: -1: must be greater than or equal to 0",
        ),
        (
            "/spec/tolerations",
            json!([{"key": "k", "operator": "Like"}]),
            "spec.tolerations[0].operator: Unsupported value: \"Like\": supported values: \"Equal\", \"Exists\"",
        ),
        (
            "/spec/hostAliases",
            json!([{"ip": "1.2.3"}]),
            "spec.hostAliases[0].ip: Invalid value: \"1.2.3\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
        ),
    ] {
        assert_eq!(pod_refusals(pointer, value), [wanted]);
    }
}

#[test]
fn a_deployments_selector_has_to_select_its_own_pods() {
    let refused = |pointer: &str, value: Value| refusals("apps", "Deployment", with(deployment(), pointer, value));
    assert_eq!(
        refused("/spec/template/metadata/labels", json!({"app": "b", "x": "y"})),
        [
            "spec.template.metadata.labels: Invalid value: map[string]string{\"app\":\"b\", \"x\":\"y\"}: `selector` does not \
          match template `labels`"
        ]
    );
    assert_eq!(refused("/spec/selector", json!(null)), ["spec.selector: Required value"]);
    assert_eq!(
        refused("/spec/selector", json!({})),
        ["spec.selector: Invalid value: {}: empty selector is invalid for deployment"]
    );
    let expression = |operator: &str, values: Value| json!({"matchExpressions": [{"key": "app", "operator": operator, "values": values}]});
    assert_eq!(refused("/spec/selector", expression("In", json!(["web"]))), Vec::<String>::new());
    assert_eq!(refused("/spec/selector", expression("Exists", json!(null))), Vec::<String>::new());
    assert_eq!(refused("/spec/selector", expression("NotIn", json!(["web"]))).len(), 1);
}

#[test]
fn a_deployments_numbers_and_strategy_are_checked() {
    for (pointer, value, wanted) in [
        ("/spec/replicas", json!(-1), "spec.replicas: Invalid value: -1: must be greater than or equal to 0"),
        (
            "/spec/template/spec/restartPolicy",
            json!("Never"),
            "spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\"",
        ),
        (
            "/spec/strategy",
            json!({"type": "Recreate", "rollingUpdate": {"maxSurge": 1}}),
            "spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is 'Recreate'",
        ),
        (
            "/spec/strategy",
            json!({"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 0}}),
            "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: 0: may not be 0 when `maxSurge` is 0",
        ),
        (
            "/spec/template/spec/containers/0/image",
            json!(null),
            "spec.template.spec.containers[0].image: Required value",
        ),
    ] {
        assert_eq!(refusals("apps", "Deployment", with(deployment(), pointer, value)), [wanted]);
    }
}
