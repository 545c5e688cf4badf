use k8s_openapi::serde_json::{from_value, json};

use super::*;
use crate::images::ImageConfig;

fn image() -> Image {
    Image {
        reference: "test".into(),
        id: "sha256:1".into(),
        rootfs: Rootfs::Host,
        config: ImageConfig {
            entrypoint: vec!["/serve".into()],
            cmd: vec!["--port".into(), "80".into()],
            env: vec![],
            working_dir: Some("/srv".into()),
            user: Some("web".into()),
        },
        stand_in_for: None,
    }
}

#[expect(clippy::needless_pass_by_value, reason = "it reads like the manifest")]
fn container(fields: k8s_openapi::serde_json::Value) -> Container {
    let mut container = json!({ "name": "c" });
    for (name, value) in fields.as_object().unwrap() {
        container[name] = value.clone();
    }
    from_value(container).unwrap()
}

#[test]
fn a_command_replaces_the_entrypoint_with_its_arguments_and_arguments_replace_arguments() {
    let env = [("WHO".to_owned(), "me".to_owned())];
    for (fields, expected) in [
        (json!({}), vec!["/serve", "--port", "80"]),
        (json!({ "args": ["--help"] }), vec!["/serve", "--help"]),
        (json!({ "command": ["sh"] }), vec!["sh"]),
        (json!({ "command": ["echo"], "args": ["$(WHO)", "$$(WHO)"] }), vec!["echo", "me", "$(WHO)"]),
    ] {
        assert_eq!(command_line(&container(fields), &image(), &env), expected);
    }
}

#[test]
fn the_containers_security_wins_over_the_pods_and_the_images() {
    let own: SecurityContext = from_value(json!({ "runAsUser": 7 })).unwrap();
    let of_pod: PodSecurityContext = from_value(
        json!({ "runAsUser": 1, "runAsGroup": 2, "fsGroup": 3, "supplementalGroups": [4], "runAsNonRoot": true }),
    )
    .unwrap();
    let user = user(&own, &of_pod, &image());
    assert_eq!((user.uid, user.gid, user.must_not_be_root), (Some(7), Some(2), true));
    assert_eq!(user.groups, [4, 3]);
    assert_eq!(user.image.as_deref(), Some("web"));
}

#[test]
fn capabilities_are_added_and_dropped_by_name() {
    let of = |value| capabilities(&from_value(json!({ "capabilities": value })).unwrap());
    assert!(of(json!({})).unwrap().contains(CapabilitySet::NET_RAW));
    assert_eq!(of(json!({ "drop": ["ALL"], "add": ["NET_ADMIN"] })).unwrap(), CapabilitySet::NET_ADMIN);
    assert!(!of(json!({ "add": ["ALL"], "drop": ["SYS_ADMIN"] })).unwrap().contains(CapabilitySet::SYS_ADMIN));
    assert!(matches!(of(json!({ "add": ["FLY"] })), Err(ConfigError::NoCapability { .. })));
}

#[test]
fn limits_become_settings_of_the_cgroup() {
    let container = container(json!({ "resources": { "limits": { "memory": "64Mi", "cpu": "250m" } } }));
    let expected =
        [("memory.max".to_owned(), "67108864".to_owned()), ("cpu.max".to_owned(), "25000 100000".to_owned())];
    assert_eq!(limits(&container), expected);
}
