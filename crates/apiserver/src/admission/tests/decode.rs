use serde_json::json;

use super::objects::{deployment, pod, with};
use crate::admission::{decode_check, unknown_fields};

#[test]
fn a_value_of_a_wrong_type_is_named_with_its_field() {
    for (group, kind, object, wanted) in [
        (
            "apps",
            "Deployment",
            with(deployment(), "/spec/replicas", json!("three")),
            "Deployment in version \"v1\" cannot be handled as a Deployment: spec.replicas: invalid type: string \"three\", \
             expected i32",
        ),
        (
            "",
            "Pod",
            with(pod(), "/spec/containers/0/image", json!(7)),
            "Pod in version \"v1\" cannot be handled as a Pod: spec.containers[0].image: invalid type: integer `7`, expected a \
             string",
        ),
        (
            "",
            "ConfigMap",
            json!({"apiVersion": "v1", "data": {"port": 80}}),
            "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: data.port: invalid type: integer `80`, expected a \
             string",
        ),
        (
            "example.org",
            "Thing",
            json!({"apiVersion": "example.org/v1", "metadata": {"labels": {"a": true}}}),
            "Thing in version \"v1\" cannot be handled as a Thing: metadata.labels.a: invalid type: boolean `true`, expected a \
             string",
        ),
    ] {
        assert_eq!(decode_check(group, kind, &object).unwrap_err(), wanted);
    }
    assert!(decode_check("", "Pod", &json!([])).is_err());
}

#[test]
fn well_typed_objects_are_accepted() {
    let port = with(pod(), "/spec/containers/0/livenessProbe", json!({"tcpSocket": {"port": "http"}}));
    let amounts = with(pod(), "/spec/containers/0/resources", json!({"limits": {"cpu": 1, "memory": "1Gi"}}));
    let nothing = with(pod(), "/metadata/creationTimestamp", json!(null));
    for object in [pod(), port, amounts, nothing, json!({}), json!({"spec": null})] {
        assert_eq!(decode_check("", "Pod", &object), Ok(()));
    }
    let secret = json!({"data": {"a": "not base64!"}});
    assert!(decode_check("", "Secret", &secret).unwrap_err().contains("data.a"));
    assert_eq!(decode_check("example.org", "Thing", &json!({"spec": 3})), Ok(()));
}

#[test]
fn fields_that_the_kind_does_not_have_are_named_by_path() {
    let object = with(pod(), "/spec/containers/0/imagee", json!("x"));
    let object = with(with(object, "/specc", json!({})), "/metadata/lables", json!({"a": "b"}));
    let mut unknown = unknown_fields("", "Pod", &object);
    unknown.sort();
    assert_eq!(unknown, ["metadata.lables", "spec.containers[0].imagee", "specc"]);
    let nested = with(
        deployment(),
        "/spec/template/spec/containers/0/ports",
        json!([{"containerPort": 1}, {"contanerPort": 2}]),
    );
    assert_eq!(
        unknown_fields("apps", "Deployment", &nested),
        ["spec.template.spec.containers[0].ports[1].contanerPort"]
    );
}

#[test]
fn known_fields_are_not_named_be_they_empty_or_null() {
    let object = with(pod(), "/spec/volumes", json!([{"name": "v", "emptyDir": {}}]));
    let object = with(with(object, "/status", json!({})), "/spec/nodeSelector", json!(null));
    assert_eq!(unknown_fields("", "Pod", &object), Vec::<String>::new());
    let custom = json!({"metadata": {"name": "x", "nam": "y"}, "spec": {"anything": 1}});
    assert_eq!(unknown_fields("example.org", "Thing", &custom), ["metadata.nam"]);
}
