use serde_json::{Value, json};

use super::objects::refusals;
use crate::admission::{FieldError, FieldErrorKind};

#[test]
fn data_is_checked() {
    let map = |data: Value| refusals("", "ConfigMap", json!({"metadata": {"name": "m"}, "data": data}));
    assert!(
        map(json!({"a b": ""}))[0].starts_with("data[a b]: Invalid value: \"a b\": a valid config key must consist of")
    );
    assert_eq!(map(json!({"..": ""})), ["data[..]: Invalid value: \"..\": must not start with '..'"]);
    assert_eq!(map(json!({"a": "x".repeat(1024 * 1024 + 1)})), ["[]: Too long: may not be more than 1048576 bytes"]);
    let tls = json!({"metadata": {"name": "s"}, "type": "kubernetes.io/tls", "data": {"tls.crt": ""}});
    assert_eq!(refusals("", "Secret", tls), ["data[tls.key]: Required value"]);
    let lease = json!({"metadata": {"name": "l"}, "spec": {"leaseDurationSeconds": 0}});
    assert_eq!(
        refusals("coordination.k8s.io", "Lease", lease),
        ["spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0"]
    );
    let event = json!({"metadata": {"name": "e", "namespace": "a"}, "involvedObject": {"namespace": "b"}});
    assert_eq!(
        refusals("", "Event", event),
        ["involvedObject.namespace: Invalid value: \"b\": does not match event.namespace"]
    );
}

#[test]
fn endpoints_are_checked() {
    let slice = |kind: &str, address: &str| {
        let slice = json!({"metadata": {"name": "s"}, "addressType": kind, "endpoints": [{"addresses": [address]}]});
        refusals("discovery.k8s.io", "EndpointSlice", slice)
    };
    assert_eq!(slice("IPv4", "10.0.0.1"), Vec::<String>::new());
    assert_eq!(slice("IPv4", "::1"), ["endpoints[0].addresses[0]: Invalid value: \"::1\": must be an IPv4 address"]);
    assert_eq!(
        slice("IPv4", "127.0.0.1"),
        [
            "endpoints[0].addresses[0]: Invalid value: \"127.0.0.1\": may not be in the loopback range (127.0.0.0/8, ::1/128)"
        ]
    );
    assert_eq!(
        slice("Ether", "x"),
        ["addressType: Unsupported value: \"Ether\": supported values: \"FQDN\", \"IPv4\", \"IPv6\""]
    );
}

#[test]
fn each_kind_of_error_is_worded_and_has_a_reason() {
    let too_many = FieldErrorKind::TooMany { count: 3, max: 2 };
    let too_many = FieldError { field: "a".to_owned(), kind: too_many, message: String::new() };
    let internal = FieldError { field: "a".to_owned(), kind: FieldErrorKind::Internal, message: "full".to_owned() };
    for (error, text, reason) in [
        (FieldError::required("a", ""), "a: Required value", "FieldValueRequired"),
        (FieldError::invalid("a", "x", "m"), "a: Invalid value: \"x\": m", "FieldValueInvalid"),
        (FieldError::invalid("a", true, "m"), "a: Invalid value: true: m", "FieldValueInvalid"),
        (
            FieldError::not_supported("a", "x", &["y", "z"]),
            "a: Unsupported value: \"x\": supported values: \"y\", \"z\"",
            "FieldValueNotSupported",
        ),
        (FieldError::duplicate("a", 1), "a: Duplicate value: 1", "FieldValueDuplicate"),
        (FieldError::not_found("a", "x"), "a: Not found: \"x\"", "FieldValueNotFound"),
        (FieldError::forbidden("a", "m"), "a: Forbidden: m", "FieldValueForbidden"),
        (FieldError::too_long("", 5), "[]: Too long: may not be more than 5 bytes", "FieldValueTooLong"),
        (too_many, "a: Too many: 3: must have at most 2 items", "FieldValueTooMany"),
        (internal, "a: Internal error: full", "InternalError"),
    ] {
        assert_eq!((error.to_string().as_str(), error.reason()), (text, reason));
    }
}
