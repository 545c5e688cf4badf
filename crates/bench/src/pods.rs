//! A pod's way from its creation to Running, as a client of the API sees it, for a hundred pods created at once.

use std::{
    collections::HashMap,
    fmt,
    time::{Duration, Instant},
};

use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams, PostParams, WatchEvent, WatchParams},
};
use serde::Serialize;
use serde_json::json;

use crate::{Result, figures::Times};

const PODS: usize = 100;
/// As many as a node takes.
const FULL_NODE: usize = 250;
const LABEL: &str = "bench=pods";
const PATIENCE: Duration = Duration::from_secs(180);

#[derive(Serialize)]
pub(crate) struct Pods {
    /// Each pod from the moment before its create request to the watch event that says Running.
    to_running: Times,
    /// The same for pods created one after the other, each when the one before runs: no queueing.
    one_by_one: Times,
    /// From the first create to the last Running, in seconds.
    all_running_s: f64,
    /// From the delete to the last one gone, in seconds.
    all_gone_s: f64,
}

/// A node that is filled and emptied.
#[derive(Serialize)]
pub(crate) struct FullNode {
    pods: usize,
    /// From the first create to the last Running, in seconds.
    all_running_s: f64,
    /// From the delete to the last one gone, in seconds.
    all_gone_s: f64,
}

pub(crate) fn measure() -> Result<Pods> {
    with_pods(a_hundred)
}

pub(crate) fn fill_node() -> Result<FullNode> {
    with_pods(async |pods| {
        let names: Vec<String> = (0..FULL_NODE).map(|index| format!("full-{index}")).collect();
        let (_, all_running_s) = timed(create_and_watch(&pods, &names, Some("node3"))).await?;
        let ((), all_gone_s) = timed(remove(&pods)).await?;
        Ok(FullNode { pods: FULL_NODE, all_running_s, all_gone_s })
    })
}

fn with_pods<T>(measure: impl AsyncFnOnce(Api<Pod>) -> Result<T>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let client = podnet_client::connect::from_kubeconfig("/var/lib/podnet/kubeconfig".as_ref()).await?;
        tokio::time::timeout(PATIENCE, measure(Api::default_namespaced(client))).await?
    })
}

async fn a_hundred(pods: Api<Pod>) -> Result<Pods> {
    let mut single = Vec::new();
    for index in 0..10 {
        single.extend(create_and_watch(&pods, &[format!("single-{index}")], None).await?.into_values());
    }
    let names: Vec<String> = (0..PODS).map(|index| format!("bench-{index}")).collect();
    let (times, all_running_s) = timed(create_and_watch(&pods, &names, None)).await?;
    let ((), all_gone_s) = timed(remove(&pods)).await?;
    Ok(Pods {
        to_running: Times::of(times.into_values().collect()),
        one_by_one: Times::of(single),
        all_running_s,
        all_gone_s,
    })
}

/// With the seconds that it took.
async fn timed<T>(work: impl Future<Output = Result<T>>) -> Result<(T, f64)> {
    let started = Instant::now();
    Ok((work.await?, started.elapsed().as_secs_f64()))
}

async fn create_and_watch(pods: &Api<Pod>, names: &[String], node: Option<&str>) -> Result<HashMap<String, Duration>> {
    let version = pods.list(&ListParams::default()).await?.metadata.resource_version.unwrap_or_default();
    let events = pods.watch(&WatchParams::default().labels(LABEL), &version).await?;
    let creating = async {
        let creates = stream::iter(names).map(|name| async move {
            let at = Instant::now();
            pods.create(&PostParams::default(), &pod(name, node)).await.map(|_| (name.clone(), at))
        });
        creates.buffer_unordered(16).try_collect::<HashMap<_, _>>().await
    };
    let running = async {
        let mut events = std::pin::pin!(events);
        let mut seen = HashMap::new();
        while let Some(event) = events.try_next().await? {
            if let WatchEvent::Added(pod) | WatchEvent::Modified(pod) = event
                && pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Running")
                && names.contains(&pod.name_any())
            {
                seen.entry(pod.name_any()).or_insert_with(Instant::now);
            }
            if seen.len() == names.len() {
                break;
            }
        }
        Ok::<_, kube::Error>(seen)
    };
    let (created, seen) = futures::try_join!(creating, running)?;
    if seen.len() < names.len() {
        return Err(format!("the watch ended when {} of {} pods ran", seen.len(), names.len()).into());
    }
    let durations = created.into_iter().map(|(name, at)| {
        // A pod that ran before it was asked for is another one's: no figure is better than a wrong one.
        let running = seen.get(&name).and_then(|running| running.checked_duration_since(at));
        running.map(|took| (name.clone(), took)).ok_or_else(|| format!("pod {name} ran before it was created").into())
    });
    durations.collect()
}

async fn remove(pods: &Api<Pod>) -> Result<()> {
    let ours = ListParams::default().labels(LABEL);
    pods.delete_collection(&DeleteParams::default().grace_period(0), &ours).await?;
    while !pods.list(&ours).await?.items.is_empty() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

fn pod(name: &str, node: Option<&str>) -> Pod {
    let object = json!({
        "metadata": {"name": name, "labels": {"bench": "pods"}},
        "spec": {
            "nodeName": node,
            "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "tools", "image": "podnet.local/tools", "command": ["sleep", "infinity"]}],
        },
    });
    serde_json::from_value(object).unwrap_or_default()
}

impl fmt::Display for Pods {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "pod to Running, one by one              {}", self.one_by_one)?;
        writeln!(f, "pod to Running, 100 at once             {}", self.to_running)?;
        write!(
            f,
            "100 pods: all Running after {:.2} s, all gone {:.2} s after the delete",
            self.all_running_s, self.all_gone_s
        )
    }
}

impl fmt::Display for FullNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pods, all_running_s, all_gone_s } = self;
        write!(
            f,
            "{pods} pods on one node: all Running after {all_running_s:.2} s, all gone {all_gone_s:.2} s after the delete"
        )
    }
}
