use std::time::Duration;

use futures::{Stream, StreamExt, TryStreamExt};
use http::Method;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, ListParams, PostParams, WatchEvent, WatchParams};
use serde_json::{Value, json};

use super::cluster::Cluster;

const CONFIGMAPS: &str = "/api/v1/namespaces/default/configmaps";

fn configmap(name: &str, color: &str) -> ConfigMap {
    serde_json::from_value(json!({"metadata": {"name": name, "labels": {"color": color}}})).unwrap()
}

/// The next event as its type and the object's name.
async fn next<S>(events: &mut S) -> (&'static str, String)
where
    S: Stream<Item = kube::Result<WatchEvent<ConfigMap>>> + Unpin,
{
    let event = tokio::time::timeout(Duration::from_secs(10), events.try_next()).await.expect("an event in time");
    let name = |object: ConfigMap| object.metadata.name.unwrap_or_default();
    match event.unwrap().expect("the watch goes on") {
        WatchEvent::Added(object) => ("ADDED", name(object)),
        WatchEvent::Modified(object) => ("MODIFIED", name(object)),
        WatchEvent::Deleted(object) => ("DELETED", name(object)),
        WatchEvent::Bookmark(_) => ("BOOKMARK", String::new()),
        WatchEvent::Error(status) => ("ERROR", status.code.to_string()),
    }
}

#[tokio::test]
async fn a_watch_tells_what_happens_after_a_list() {
    let cluster = Cluster::start().await;
    let api: Api<ConfigMap> = Api::default_namespaced(cluster.admin().await);
    api.create(&PostParams::default(), &configmap("old", "red")).await.unwrap();
    let list = api.list(&ListParams::default()).await.unwrap();
    let mut events =
        api.watch(&WatchParams::default(), &list.metadata.resource_version.unwrap()).await.unwrap().boxed();
    api.create(&PostParams::default(), &configmap("new", "red")).await.unwrap();
    api.delete("old", &Default::default()).await.unwrap();
    assert_eq!(next(&mut events).await, ("ADDED", "new".to_owned()));
    assert_eq!(next(&mut events).await, ("DELETED", "old".to_owned()));
}

#[tokio::test]
async fn a_watch_from_nowhere_begins_with_what_exists() {
    let cluster = Cluster::start().await;
    let api: Api<ConfigMap> = Api::default_namespaced(cluster.admin().await);
    api.create(&PostParams::default(), &configmap("a", "red")).await.unwrap();
    let mut events = api.watch(&WatchParams::default(), "0").await.unwrap().boxed();
    assert_eq!(next(&mut events).await, ("ADDED", "a".to_owned()));
}

#[tokio::test]
async fn an_object_that_ceases_to_match_is_deleted_for_the_watch_and_one_that_begins_is_added() {
    let cluster = Cluster::start().await;
    let api: Api<ConfigMap> = Api::default_namespaced(cluster.admin().await);
    let mut events = api.watch(&WatchParams::default().labels("color=red"), "0").await.unwrap().boxed();
    api.create(&PostParams::default(), &configmap("a", "blue")).await.unwrap();
    for color in ["red", "blue"] {
        let patch = json!({"metadata": {"labels": {"color": color}}});
        cluster.call(Method::PATCH, &format!("{CONFIGMAPS}/a"), Some(patch)).await;
    }
    assert_eq!(next(&mut events).await, ("ADDED", "a".to_owned()));
    assert_eq!(next(&mut events).await, ("DELETED", "a".to_owned()));
}

#[tokio::test]
async fn a_streamed_list_ends_with_a_bookmark() {
    let cluster = Cluster::start().await;
    let api: Api<ConfigMap> = Api::default_namespaced(cluster.admin().await);
    api.create(&PostParams::default(), &configmap("a", "red")).await.unwrap();
    let params = WatchParams::default().initial_events();
    let mut events = api.watch(&params, "0").await.unwrap().boxed();
    assert_eq!(next(&mut events).await, ("ADDED", "a".to_owned()));
    assert_eq!(next(&mut events).await, ("BOOKMARK", String::new()));
}

#[tokio::test]
async fn a_watch_from_before_a_restart_has_to_list_again() {
    let cluster = Cluster::start().await;
    let old = cluster.create(CONFIGMAPS, json!({"metadata": {"name": "a"}})).await;
    cluster.create(CONFIGMAPS, json!({"metadata": {"name": "b"}})).await;
    let cluster = Cluster::start_in(cluster.stop().await).await;
    let revision = old["metadata"]["resourceVersion"].as_str().unwrap();
    let (_, line) = cluster.get(&format!("{CONFIGMAPS}?watch=true&resourceVersion={revision}")).await;
    assert_eq!((&line["type"], &line["object"]["code"]), (&json!("ERROR"), &json!(410)));
}

#[tokio::test]
async fn a_watch_ends_when_its_time_is_over() {
    let cluster = Cluster::start().await;
    let (_, lines) = cluster.get(&format!("{CONFIGMAPS}?watch=true&timeoutSeconds=1")).await;
    assert_eq!(lines, Value::from(""));
}

#[tokio::test]
async fn many_watches_see_the_same_events_in_the_same_order() {
    let cluster = Cluster::start().await;
    let client = cluster.api.in_process_client();
    let api: Api<ConfigMap> = Api::default_namespaced(client);
    let mut watches = Vec::new();
    for _ in 0..20 {
        watches.push(api.watch(&WatchParams::default(), "0").await.unwrap().boxed());
    }
    for n in 0..50 {
        api.create(&PostParams::default(), &configmap(&format!("c{n}"), "red")).await.unwrap();
    }
    for events in &mut watches {
        for n in 0..50 {
            assert_eq!(next(events).await, ("ADDED", format!("c{n}")));
        }
    }
}
