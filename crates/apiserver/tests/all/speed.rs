//! How fast the API is. Not a check: `cargo nextest run -p podnet-apiserver --run-ignored only speed --no-capture` prints it.

use std::time::{Duration, Instant};

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, ListParams, PostParams, WatchEvent, WatchParams};
use serde_json::json;
use tokio::task::JoinSet;

use super::cluster::Cluster;

const WRITERS: usize = 16;
const WATCHERS: usize = 100;

fn configmap(name: &str) -> ConfigMap {
    serde_json::from_value(json!({"metadata": {"name": name}, "data": {"text": "x".repeat(500)}})).unwrap()
}

/// Creates `count` objects with [`WRITERS`] at once.
async fn create(api: &Api<ConfigMap>, prefix: &str, count: usize) -> Duration {
    let begun = Instant::now();
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let (api, prefix) = (api.clone(), prefix.to_owned());
        writers.spawn(async move {
            for n in (writer..count).step_by(WRITERS) {
                api.create(&PostParams::default(), &configmap(&format!("{prefix}-{n}"))).await.unwrap();
            }
        });
    }
    while let Some(done) = writers.join_next().await {
        done.unwrap();
    }
    begun.elapsed()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "prints times"]
async fn creating_listing_and_watching() {
    let cluster = Cluster::start().await;
    for (how, client) in [("in process", cluster.api.in_process_client()), ("over TLS", cluster.admin().await)] {
        let api: Api<ConfigMap> = Api::default_namespaced(client);
        let prefix = how.replace(' ', "-").to_lowercase();
        let took = create(&api, &prefix, 1000).await;
        println!(
            "{how}: 1000 ConfigMaps created by {WRITERS} writers in {took:?}: {:.0}/s",
            1000.0 / took.as_secs_f64()
        );
    }
    let inside: Api<ConfigMap> = Api::default_namespaced(cluster.api.in_process_client());
    let took = create(&inside, "more", 8000).await;
    println!("in process: 8000 more in {took:?}: {:.0}/s", 8000.0 / took.as_secs_f64());
    let remote: Api<ConfigMap> = Api::default_namespaced(cluster.admin().await);
    let begun = Instant::now();
    let count = remote.list(&ListParams::default()).await.unwrap().items.len();
    println!("over TLS: {count} ConfigMaps listed and parsed in {:?}", begun.elapsed());
    let begun = Instant::now();
    let (status, list) = cluster.get("/api/v1/configmaps?labelSelector=none%3Dsuch").await;
    println!("in process: {count} searched by label in {:?}: {status}, {} found", begun.elapsed(), list["items"]);
    watch(&remote, &inside).await;
}

/// One writer, many watches: when has the last watch seen the last event?
async fn watch(remote: &Api<ConfigMap>, inside: &Api<ConfigMap>) {
    const EVENTS: usize = 200;
    let from = inside.list(&ListParams::default().limit(1)).await.unwrap().metadata.resource_version.unwrap();
    let mut watchers = JoinSet::new();
    for _ in 0..WATCHERS {
        let mut events = remote.watch(&WatchParams::default(), &from).await.unwrap().boxed();
        watchers.spawn(async move {
            let mut seen = 0;
            while seen < EVENTS {
                let event = events.try_next().await.unwrap().expect("the watch goes on");
                seen += usize::from(matches!(event, WatchEvent::Added(_)));
            }
        });
    }
    let begun = Instant::now();
    let written = create(inside, "seen", EVENTS).await;
    while let Some(done) = watchers.join_next().await {
        done.unwrap();
    }
    let all = begun.elapsed();
    let rate = (EVENTS * WATCHERS) as f64 / all.as_secs_f64();
    println!("over TLS: {EVENTS} events to {WATCHERS} watches in {all:?} (written in {written:?}): {rate:.0} events/s");
}
