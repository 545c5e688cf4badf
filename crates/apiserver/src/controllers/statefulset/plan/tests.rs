use serde_json::{Value, json};

use super::{super::pod, *};

/// Three replicas, with these keys of the spec besides.
fn set(more: &Value) -> StatefulSet {
    let mut spec = json!({"replicas": 3, "serviceName": "db", "selector": {"matchLabels": {"app": "db"}},
        "template": {"metadata": {"labels": {"app": "db"}}, "spec": {"containers": []}}});
    for (key, value) in more.as_object().unwrap() {
        spec[key] = value.clone();
    }
    serde_json::from_value(json!({"metadata": {"name": "db", "namespace": "shop", "uid": "s"}, "spec": spec})).unwrap()
}

/// `db-N`: ready (`r`), not ready (`n`), failed (`f`) or on its way out (`t`), of a revision.
fn pod(ordinal: i32, state: char, revision: &str) -> Arc<Pod> {
    let ready = if state == 'n' { "False" } else { "True" };
    let mut pod = json!({
        "metadata": {"name": format!("db-{ordinal}"), "labels": {REVISION: revision}},
        "status": {"phase": if state == 'f' { "Failed" } else { "Running" }, "conditions": [{"type": "Ready", "status": ready}]},
    });
    if state == 't' {
        pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    }
    Arc::new(serde_json::from_value(pod).unwrap())
}

/// What is planned, in words: `+2 new`, `+0 old`, `-1`.
fn planned(set: &StatefulSet, pods: &[(i32, char, &str)]) -> String {
    let pods: Vec<_> = pods.iter().map(|(ordinal, state, revision)| pod(*ordinal, *state, revision)).collect();
    let actions = plan(set, &pods, ("old", "new"), Timestamp::now()).actions;
    let words = actions.iter().map(|action| match action {
        Action::Create { ordinal, updated } => format!("+{ordinal} {}", if *updated { "new" } else { "old" }),
        Action::Delete(pod) => format!("-{}", parts(pod).unwrap().1),
    });
    words.collect::<Vec<_>>().join(", ")
}

#[test]
fn pods_come_and_go_in_their_order_each_when_the_one_before_is_well() {
    let ordered = set(&json!({}));
    for (there, then) in [
        (&[][..], "+0 new"),
        (&[(0, 'n', "new")], ""),
        (&[(0, 'r', "new")], "+1 new"),
        (&[(0, 'r', "new"), (2, 'r', "new")], "+1 new"),
        (&[(0, 'r', "new"), (1, 't', "new"), (2, 'r', "new")], ""),
        (&[(0, 'r', "new"), (1, 'f', "new")], "-1"),
        (&[(0, 'r', "new"), (1, 'r', "new"), (2, 'r', "new")], ""),
        (&[(0, 'r', "new"), (1, 'r', "new"), (2, 'r', "new"), (3, 'r', "new"), (4, 'r', "new")], "-4"),
        (&[(0, 'r', "new"), (1, 'r', "new"), (2, 'r', "new"), (3, 'r', "new"), (4, 't', "new")], ""),
    ] {
        assert_eq!(planned(&ordered, there), then, "{there:?}");
    }
    let parallel = set(&json!({"podManagementPolicy": "Parallel"}));
    assert_eq!(planned(&parallel, &[(1, 'n', "new")]), "+0 new, +2 new");
    let all = [(0, 'n', "new"), (1, 'r', "new"), (2, 'r', "new"), (3, 'r', "new"), (4, 'r', "new")];
    assert_eq!(planned(&parallel, &all), "-4, -3");
    let from_five = set(&json!({"ordinals": {"start": 5}, "replicas": 1}));
    assert_eq!(planned(&from_five, &[(0, 'r', "new")]), "+5 new");
    assert_eq!(planned(&from_five, &[(0, 'r', "new"), (5, 'r', "new")]), "-0");
}

#[test]
fn a_new_template_replaces_pods_from_the_highest_to_the_partition() {
    let all = |partition: i32| {
        set(&json!({"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": partition}}}))
    };
    let old = [(0, 'r', "old"), (1, 'r', "old"), (2, 'r', "old")];
    assert_eq!(planned(&all(0), &old), "-2");
    assert_eq!(planned(&all(0), &[(0, 'r', "old"), (1, 'r', "old")]), "+2 new");
    assert_eq!(planned(&all(0), &[(0, 'r', "old"), (1, 'r', "old"), (2, 'n', "new")]), "");
    assert_eq!(planned(&all(0), &[(0, 'r', "old"), (1, 'r', "old"), (2, 'r', "new")]), "-1");
    assert_eq!(planned(&all(2), &[(0, 'r', "old"), (1, 'r', "old"), (2, 'r', "new")]), "");
    assert_eq!(planned(&all(2), &[(0, 'r', "old"), (2, 'r', "new")]), "+1 old", "below the partition stays what was");
    // One that its old template keeps from getting well does not hold up the one that mends it.
    assert_eq!(planned(&all(0), &[(0, 'n', "old")]), "-0");
    assert_eq!(planned(&all(1), &[(0, 'n', "old")]), "");
    let on_delete = set(&json!({"updateStrategy": {"type": "OnDelete"}}));
    assert_eq!(planned(&on_delete, &old), "");
    assert_eq!(planned(&on_delete, &[(0, 'r', "old"), (2, 'r', "old")]), "+1 new");
}

#[test]
fn the_status_counts_and_what_was_new_is_what_there_is_when_all_have_it() {
    let told = |pods: &[(i32, char, &str)]| {
        let pods: Vec<_> = pods.iter().map(|(ordinal, state, revision)| pod(*ordinal, *state, revision)).collect();
        let status = status(&set(&json!({})), &pods, ("old", "new"), Timestamp::now());
        (status.replicas, status.ready_replicas, status.updated_replicas, status.current_revision.unwrap())
    };
    let half = [(0, 'r', "old"), (1, 'n', "new"), (2, 'r', "new")];
    assert_eq!(told(&half), (3, Some(2), Some(2), "old".to_owned()));
    let all = [(0, 'r', "new"), (1, 'r', "new"), (2, 'r', "new")];
    assert_eq!(told(&all), (3, Some(3), Some(3), "new".to_owned()));
    let one_too_many = [(0, 'r', "new"), (1, 'r', "new"), (2, 'r', "new"), (3, 't', "old")];
    assert_eq!(told(&one_too_many).3, "old");
}

#[test]
fn a_pod_is_itself_by_name_host_name_and_directories() {
    let claims = json!([{"metadata": {"name": "data"}, "spec": {}}]);
    let set = set(&json!({"volumeClaimTemplates": claims}));
    let template = set.spec.as_ref().unwrap().template.clone();
    let made = pod::make(&set, template, 2, "new");
    let spec = made.spec.as_ref().unwrap();
    assert_eq!(made.metadata.name.as_deref(), Some("db-2"));
    assert_eq!((spec.hostname.as_deref(), spec.subdomain.as_deref()), (Some("db-2"), Some("db")));
    let volume = &spec.volumes.as_ref().unwrap()[0];
    assert_eq!(volume.host_path.as_ref().unwrap().path, "/var/lib/podnet/volumes/shop/data-db-2");
    assert_eq!(revision(&made), Some("new"));
    assert_eq!(pod::parts(&made), Some(("db", 2)));
    let others = |name: &str| Pod {
        metadata: kube::api::ObjectMeta { name: Some(name.into()), ..<_>::default() },
        ..<_>::default()
    };
    for name in ["db-02", "db-+1", "db-", "db", "db-x"] {
        assert_eq!(pod::parts(&others(name)), None, "{name}");
    }
}
