use std::time::Duration;

use serde_json::json;

use super::*;

mod failures;

fn key(name: &str) -> Key {
    Key { resource: Arc::from("configmaps"), namespace: "default".to_owned(), name: name.to_owned() }
}

fn object(name: &str, data: u64) -> Value {
    json!({"metadata": {"name": name, "namespace": "default"}, "data": {"n": data.to_string()}})
}

fn create(name: &str) -> Write {
    Write::Create { key: key(name), value: object(name, 0) }
}

fn open() -> (tempfile::TempDir, Store) {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(&directory.path().join("store.redb")).unwrap();
    (directory, store)
}

#[tokio::test]
async fn each_write_gets_a_larger_revision_and_the_object_carries_it() {
    let (_directory, store) = open();
    let first = store.write(create("a")).await.unwrap();
    let second = store.write(create("b")).await.unwrap();
    assert!(second.revision > first.revision);
    assert_eq!(second.value["metadata"]["resourceVersion"], second.revision.to_string());
    assert_eq!(store.revision(), second.revision);
}

#[tokio::test]
async fn a_write_that_presumes_an_old_revision_is_refused() {
    let (_directory, store) = open();
    let first = store.write(create("a")).await.unwrap();
    let update = |expected| Write::Update { key: key("a"), value: object("a", 1), expected };
    store.write(update(Some(first.revision))).await.unwrap();
    assert_eq!(store.write(update(Some(first.revision))).await.unwrap_err(), WriteError::Changed);
    assert_eq!(store.write(create("a")).await.unwrap_err(), WriteError::Exists);
    let missing = Write::Delete { key: key("b"), expected: None };
    assert_eq!(store.write(missing).await.unwrap_err(), WriteError::Missing);
}

#[tokio::test]
async fn everything_is_there_after_reopening_but_history_is_not() {
    let (directory, store) = open();
    let first = store.write(create("a")).await.unwrap();
    let second = store.write(create("b")).await.unwrap();
    drop(store);
    let store = Store::open(&directory.path().join("store.redb")).unwrap();
    assert_eq!(store.list("configmaps", None).objects.len(), 2);
    assert_eq!(store.revision(), second.revision);
    assert!(store.events_after("configmaps", first.revision).is_err());
    assert!(store.events_after("configmaps", second.revision).unwrap().0.is_empty());
}

#[tokio::test]
async fn events_after_a_revision_are_those_and_no_others() {
    let (_directory, store) = open();
    let first = store.write(create("a")).await.unwrap();
    store.write(create("b")).await.unwrap();
    store.write(Write::Delete { key: key("a"), expected: None }).await.unwrap();
    let (events, revision) = store.events_after("configmaps", first.revision).unwrap();
    let seen: Vec<_> = events.iter().map(|event| (event.change, event.object.key.name.clone())).collect();
    assert_eq!(seen, [(Change::Added, "b".to_owned()), (Change::Deleted, "a".to_owned())]);
    assert_eq!(revision, store.revision());
}

#[tokio::test]
async fn a_revision_that_has_not_happened_yet_is_of_another_history() {
    let (_directory, store) = open();
    assert!(store.events_after("configmaps", 1000).is_err());
}

#[tokio::test]
async fn a_reader_that_falls_behind_the_ring_is_told() {
    let (_directory, store) = open();
    let store = Arc::new(store);
    let first = store.write(create("a")).await.unwrap();
    let mut writes = tokio::task::JoinSet::new();
    for n in 0..5000 {
        let store = Arc::clone(&store);
        writes.spawn(async move {
            store.write(Write::Update { key: key("a"), value: object("a", n), expected: None }).await
        });
    }
    while let Some(result) = writes.join_next().await {
        result.unwrap().unwrap();
    }
    assert!(store.events_after("configmaps", first.revision).is_err());
    assert!(store.events_after("configmaps", store.revision() - 10).is_ok());
}

#[tokio::test]
async fn pages_follow_each_other_without_gap_or_overlap() {
    let (_directory, store) = open();
    for namespace in ["x", "y"] {
        for n in 0..5 {
            let name = format!("n{n}");
            let key = Key { resource: Arc::from("pods"), namespace: namespace.to_owned(), name: name.clone() };
            store.write(Write::Create { key, value: json!({"metadata": {"name": name}}) }).await.unwrap();
        }
    }
    let mut names = Vec::new();
    let mut after: Option<Position> = None;
    loop {
        let page = store.page("pods", None, after.as_ref(), 3);
        names.extend(page.objects.iter().map(|o| format!("{}/{}", o.key.namespace, o.key.name)));
        if page.remaining == 0 {
            break;
        }
        let last = &page.objects.last().unwrap().key;
        after = Some(Position { namespace: last.namespace.clone(), name: last.name.clone() });
    }
    let whole: Vec<_> =
        store.list("pods", None).objects.iter().map(|o| format!("{}/{}", o.key.namespace, o.key.name)).collect();
    assert_eq!(names, whole);
    assert_eq!(store.list("pods", Some("y")).objects.len(), 5);
}

#[tokio::test]
async fn subscribers_are_woken_by_a_commit_on_their_resource() {
    let (_directory, store) = open();
    let mut tip = store.subscribe("configmaps");
    tip.mark_unchanged();
    let written = store.write(create("a")).await.unwrap();
    tokio::time::timeout(Duration::from_secs(5), tip.changed()).await.unwrap().unwrap();
    assert_eq!(*tip.borrow(), written.revision);
}
