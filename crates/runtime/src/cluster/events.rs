//! Events: told without waiting, repeats counted instead of told again.

use std::{
    collections::{HashMap, VecDeque},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use k8s_openapi::{
    api::core::v1::{Event, EventSource, ObjectReference},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
    jiff::Timestamp,
    serde_json::json,
};
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
};
use tokio::sync::mpsc;
use tracing::{debug, warn};

use super::{PodEvent, PodKey};

/// Waiting events; beyond it they are dropped, as events are best effort (Kubernetes API conventions, "Events").
const QUEUE: usize = 1024;
/// Remembered for counting repeats.
const REMEMBERED: usize = 4096;
/// A repeat within this of the one before it only counts in memory.
const QUIET: Duration = Duration::from_secs(5);

/// Where events are put.
#[derive(Clone, Debug)]
pub(crate) struct EventSink {
    queue: mpsc::Sender<(PodKey, PodEvent)>,
}

impl EventSink {
    /// Starts the task that writes events; it ends with the last sink.
    pub(crate) fn start(client: Client, node: String) -> Self {
        let (queue, events) = mpsc::channel(QUEUE);
        tokio::spawn(write(client, node, events));
        Self { queue }
    }

    pub(crate) fn send(&self, pod: &PodKey, event: PodEvent) {
        if self.queue.try_send((pod.clone(), event)).is_err() {
            warn!(%pod, "too many events wait: one is dropped");
        }
    }
}

type Key = (String, &'static str, String, Option<String>);

struct Told {
    name: String,
    count: i32,
    last: SystemTime,
}

async fn write(client: Client, node: String, mut events: mpsc::Receiver<(PodKey, PodEvent)>) {
    let mut told: HashMap<Key, Told> = HashMap::new();
    let mut order: VecDeque<Key> = VecDeque::new();
    while let Some((pod, event)) = events.recv().await {
        let api: Api<Event> = Api::namespaced(client.clone(), &pod.namespace);
        let key: Key = (pod.uid.clone(), event.reason, event.message.clone(), event.container.clone());
        let now = SystemTime::now();
        if let Some(known) = told.get_mut(&key) {
            known.count += 1;
            if now.duration_since(known.last).unwrap_or_default() < QUIET {
                continue;
            }
            known.last = now;
            let patch = json!({ "count": known.count, "lastTimestamp": Time(timestamp(now)) });
            match api.patch(&known.name, &PatchParams::default(), &Patch::Merge(&patch)).await {
                Ok(_) => continue,
                Err(error) => debug!(%pod, %error, "an event could not be counted: told anew"),
            }
        }
        let object = object(&pod, &event, &node, now);
        let name = object.metadata.name.clone().unwrap_or_default();
        if let Err(error) = api.create(&PostParams::default(), &object).await {
            debug!(%pod, %error, reason = event.reason, "an event could not be written");
            continue;
        }
        if told.insert(key.clone(), Told { name, count: 1, last: now }).is_none() {
            order.push_back(key);
        }
        if order.len() > REMEMBERED
            && let Some(oldest) = order.pop_front()
        {
            told.remove(&oldest);
        }
    }
}

fn object(pod: &PodKey, event: &PodEvent, node: &str, now: SystemTime) -> Event {
    let nanos = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    let time = Some(Time(timestamp(now)));
    Event {
        metadata: ObjectMeta {
            name: Some(format!("{}.{nanos:x}", pod.name)),
            namespace: Some(pod.namespace.clone()),
            ..ObjectMeta::default()
        },
        involved_object: ObjectReference {
            api_version: Some("v1".into()),
            kind: Some("Pod".into()),
            name: Some(pod.name.clone()),
            namespace: Some(pod.namespace.clone()),
            uid: Some(pod.uid.clone()),
            field_path: event.container.as_ref().map(|name| format!("spec.containers{{{name}}}")),
            ..ObjectReference::default()
        },
        type_: Some(if event.warning { "Warning" } else { "Normal" }.into()),
        reason: Some(event.reason.into()),
        message: Some(event.message.clone()),
        source: Some(EventSource { component: Some("kubelet".into()), host: Some(node.into()) }),
        reporting_component: Some("kubelet".into()),
        reporting_instance: Some(node.into()),
        first_timestamp: time.clone(),
        last_timestamp: time,
        count: Some(1),
        ..Event::default()
    }
}

/// In whole seconds, as the API's times are.
pub(crate) fn timestamp(time: SystemTime) -> Timestamp {
    let seconds = time.duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX));
    Timestamp::from_second(seconds).unwrap_or(Timestamp::UNIX_EPOCH)
}
