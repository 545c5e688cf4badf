//! Events: what controllers tell people who run `kubectl describe`.
//!
//! They are written in the background and never hold a controller up: when more happens than can be written, the surplus is
//! dropped. The same thing said of the same object again counts up its Event instead of making another.

use std::collections::HashMap;

use futures::{StreamExt, stream};
use k8s_openapi::{
    api::core::v1::{Event, EventSource, ObjectReference},
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::Timestamp,
};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{ObjectMeta, Patch, PatchParams, PostParams},
};
use serde_json::json;
use tokio::sync::mpsc;
use tracing::debug;
use uuid::Uuid;

/// How many occurrences may wait to be written.
const BACKLOG: usize = 1024;
/// How many are looked at together; repetitions among them are one write.
const BATCH: usize = 64;
/// How many writes are under way at a time: few, since pods are more urgent than words about them.
const PARALLEL: usize = 4;
/// How many Events are remembered for counting up.
const REMEMBERED: usize = 4096;

/// Whether an event tells of trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Tone {
    /// All is well.
    Normal,
    /// Somebody may want to know.
    Warning,
}

/// Where a controller says what happened.
#[derive(Clone)]
pub struct Recorder {
    component: &'static str,
    sender: mpsc::Sender<(Subject, Timestamp)>,
}

/// What happened to what, said by whom: equal ones are counted.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Subject {
    component: &'static str,
    tone: Tone,
    reason: &'static str,
    message: String,
    api_version: String,
    kind: String,
    namespace: Option<String>,
    name: String,
    uid: Option<String>,
}

impl Recorder {
    /// A recorder and the task that writes what it is told.
    pub fn new(client: Client) -> (Self, impl Future<Output = ()> + Send) {
        let (sender, receiver) = mpsc::channel(BACKLOG);
        (Self { component: "podnet", sender }, write(client, receiver))
    }

    /// The recorder of one controller.
    pub fn of(&self, component: &'static str) -> Self {
        Self { component, sender: self.sender.clone() }
    }

    /// Tells of an object.
    pub fn tell<K: Resource<DynamicType = ()>>(
        &self,
        object: &K,
        tone: Tone,
        reason: &'static str,
        message: impl Into<String>,
    ) {
        let subject = Subject {
            component: self.component,
            tone,
            reason,
            message: message.into(),
            api_version: K::api_version(&()).into_owned(),
            kind: K::kind(&()).into_owned(),
            namespace: object.namespace(),
            name: object.name_any(),
            uid: object.uid(),
        };
        if let Err(error) = self.sender.try_send((subject, Timestamp::now())) {
            debug!(%error, reason, "event dropped");
        }
    }
}

struct Written {
    name: String,
    count: i32,
}

async fn write(client: Client, mut receiver: mpsc::Receiver<(Subject, Timestamp)>) {
    let mut known: HashMap<Subject, Written> = HashMap::new();
    let mut batch = Vec::with_capacity(BATCH);
    while receiver.recv_many(&mut batch, BATCH).await > 0 {
        let mut counted: HashMap<Subject, (i32, Timestamp)> = HashMap::new();
        for (subject, at) in batch.drain(..) {
            let seen = counted.entry(subject).or_insert((0, at));
            *seen = (seen.0 + 1, at);
        }
        let writes = counted.into_iter().map(|(subject, (count, at))| {
            let (client, before) = (client.clone(), known.remove(&subject));
            async move {
                let written = write_one(&client, &subject, before, count, at).await;
                (subject, written)
            }
        });
        let written: Vec<_> = stream::iter(writes).buffer_unordered(PARALLEL).collect().await;
        if known.len() > REMEMBERED {
            known.clear();
        }
        for (subject, result) in written {
            match result {
                Ok(written) => drop(known.insert(subject, written)),
                Err(error) => debug!(%error, reason = subject.reason, "event not written"),
            }
        }
    }
}

async fn write_one(
    client: &Client,
    subject: &Subject,
    before: Option<Written>,
    count: i32,
    at: Timestamp,
) -> kube::Result<Written> {
    let api = Api::<Event>::namespaced(client.clone(), subject.namespace.as_deref().unwrap_or("default"));
    if let Some(Written { name, count: counted }) = before {
        let count = counted.saturating_add(count);
        let patch = Patch::Merge(json!({ "count": count, "lastTimestamp": Time(at) }));
        match api.patch(&name, &PatchParams::default(), &patch).await {
            Ok(_) => return Ok(Written { name, count }),
            // Somebody removed it: it starts anew.
            Err(kube::Error::Api(status)) if status.is_not_found() => {}
            Err(error) => return Err(error),
        }
    }
    let event = subject.event(count, at);
    let name = event.name_any();
    api.create(&PostParams::default(), &event).await?;
    Ok(Written { name, count })
}

impl Subject {
    fn event(&self, count: i32, at: Timestamp) -> Event {
        let tone = match self.tone {
            Tone::Normal => "Normal",
            Tone::Warning => "Warning",
        };
        let (unique, _) = Uuid::new_v4().as_u64_pair();
        Event {
            metadata: ObjectMeta {
                name: Some(format!("{}.{unique:016x}", self.name)),
                namespace: Some(self.namespace.clone().unwrap_or_else(|| "default".to_owned())),
                ..ObjectMeta::default()
            },
            involved_object: ObjectReference {
                api_version: Some(self.api_version.clone()),
                kind: Some(self.kind.clone()),
                namespace: self.namespace.clone(),
                name: Some(self.name.clone()),
                uid: self.uid.clone(),
                ..ObjectReference::default()
            },
            reason: Some(self.reason.to_owned()),
            message: Some(self.message.clone()),
            type_: Some(tone.to_owned()),
            count: Some(count),
            first_timestamp: Some(Time(at)),
            last_timestamp: Some(Time(at)),
            source: Some(EventSource { component: Some(self.component.to_owned()), host: None }),
            reporting_component: Some(self.component.to_owned()),
            reporting_instance: Some(String::new()),
            ..Event::default()
        }
    }
}
