//! Events: what people see in `kubectl describe`.

use std::{fmt, sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::Event;
use kube::{Api, Client, Resource, ResourceExt, api::PostParams, core::NamespaceResourceScope};
use podnet_model::{Namespace, NodeName, PodKey};
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::{runtime::Handle, sync::Semaphore, time::timeout};
use tracing::debug;

/// Who tells.
const COMPONENT: &str = "podnet-agent";

/// An API server that does not answer by then has no time for events.
const PATIENCE: Duration = Duration::from_secs(10);

/// So many events are written at once. One change of somebody's may be a reason to complain of thousands of objects.
const AT_ONCE: usize = 4;

/// So many wait, or are written. What is more is in the log alone.
const WAITING: usize = 256;

/// Objects in a namespace, which can be asked for by their names.
pub trait Known:
    Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + fmt::Debug + DeserializeOwned + Send + 'static
{
}

impl<K> Known for K where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + fmt::Debug
        + DeserializeOwned
        + Send
        + 'static
{
}

/// Where a part of the agent tells what is wrong with an object of the API, without waiting for it.
#[derive(Clone)]
pub struct Complaints {
    client: Client,
    node: NodeName,
    runtime: Handle,
    waiting: Arc<Semaphore>,
    at_once: Arc<Semaphore>,
}

impl fmt::Debug for Complaints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Complaints").field("node", &self.node).finish_non_exhaustive()
    }
}

/// The object that is complained of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct About {
    api_version: String,
    kind: String,
    namespace: Option<String>,
    name: String,
    uid: String,
    /// Its version, where it is the object that is wrong and not what it stands for.
    version: Option<String>,
}

impl About {
    /// This object, as it is now.
    #[must_use]
    pub fn object<K: Resource<DynamicType = ()>>(object: &K) -> Self {
        Self {
            api_version: K::api_version(&()).into_owned(),
            kind: K::kind(&()).into_owned(),
            namespace: object.namespace(),
            name: object.name_any(),
            uid: object.uid().unwrap_or_default(),
            version: object.resource_version(),
        }
    }

    fn pod(key: &PodKey, uid: &str) -> Self {
        Self {
            api_version: "v1".to_owned(),
            kind: "Pod".to_owned(),
            namespace: Some(key.namespace.to_string()),
            name: key.name.to_string(),
            uid: uid.to_owned(),
            version: None,
        }
    }

    /// A node. Its uid in events is its name, as the kubelet's are.
    #[must_use]
    pub fn node(name: &NodeName) -> Self {
        Self {
            api_version: "v1".to_owned(),
            kind: "Node".to_owned(),
            namespace: None,
            name: name.to_string(),
            uid: name.to_string(),
            version: None,
        }
    }
}

impl Complaints {
    /// Of this node's agent. To be made where tokio runs.
    #[must_use]
    pub fn new(client: Client, node: NodeName) -> Self {
        let (waiting, at_once) = (Arc::new(Semaphore::new(WAITING)), Arc::new(Semaphore::new(AT_ONCE)));
        Self { client, node, runtime: Handle::current(), waiting, at_once }
    }

    /// Tells it once for each version of an object, whichever node is the first: all nodes see the same. `reason` is one word in
    /// camel case.
    pub fn tell(&self, about: About, reason: &'static str, message: String) {
        let this = self.clone();
        self.in_turn(async move { this.tell_now(&about, reason, &message, None).await });
    }

    async fn tell_now(&self, about: &About, reason: &'static str, message: &str, fact: Option<&str>) {
        match timeout(PATIENCE, self.write(about, reason, message, fact)).await {
            Ok(Ok(())) => {}
            Ok(Err(kube::Error::Api(status))) if status.is_already_exists() => {}
            other => debug!(object = %about.name, ?other, "event not written"),
        }
    }

    /// Does it once there is room among those that are under way; where too many wait already it is left out.
    fn in_turn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let Ok(place) = self.waiting.clone().try_acquire_owned() else {
            debug!("event not written: too many wait");
            return;
        };
        let at_once = self.at_once.clone();
        self.runtime.spawn(async move {
            let _turn = at_once.acquire_owned().await;
            work.await;
            drop(place);
        });
    }

    /// As [`Complaints::tell`], of an object that is known by its name.
    pub fn tell_of<K: Known>(&self, namespace: &Namespace, name: &str, reason: &'static str, message: String) {
        self.look_and_tell::<K>(namespace, name, reason, message, None);
    }

    /// As [`Complaints::tell_of`], of a fact that all nodes see: it is one event of the object, whoever tells it, whatever version the object
    /// has and whatever else the message says, while the API server keeps that event.
    pub fn tell_fact<K: Known>(
        &self,
        (namespace, name): (&Namespace, &str),
        reason: &'static str,
        message: String,
        fact: String,
    ) {
        self.look_and_tell::<K>(namespace, name, reason, message, Some(fact));
    }

    fn look_and_tell<K: Known>(
        &self,
        namespace: &Namespace,
        name: &str,
        reason: &'static str,
        message: String,
        fact: Option<String>,
    ) {
        let (this, name) = (self.clone(), name.to_owned());
        let objects = Api::<K>::namespaced(self.client.clone(), namespace.as_str());
        self.in_turn(async move {
            match timeout(PATIENCE, objects.get_opt(&name)).await {
                Ok(Ok(Some(object))) => {
                    this.tell_now(&About::object(&object), reason, &message, fact.as_deref()).await;
                }
                other => debug!(%name, ?other, "event not written"),
            }
        });
    }

    async fn write(&self, about: &About, reason: &str, message: &str, fact: Option<&str>) -> Result<(), kube::Error> {
        // The same for all who tell the same.
        let said = match (fact, &about.version) {
            (Some(fact), _) => hash(&[&about.uid, reason, fact]),
            (None, Some(version)) => hash(&[&about.uid, version, message]),
            (None, None) => only_now(),
        };
        create(&self.client, &self.node, about, said, (reason, message)).await
    }
}

/// Makes an event whose name ends in `said`. One of that name that is there already is an error.
async fn create(
    client: &Client,
    node: &NodeName,
    about: &About,
    said: u64,
    (reason, message): (&str, &str),
) -> Result<(), kube::Error> {
    // Events of objects that are in no namespace are where the kubelet puts those of its node.
    let namespace = about.namespace.as_deref().unwrap_or("default");
    let time = chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Secs, true);
    let event: Event = serde_json::from_value(json!({
        "metadata": {"name": format!("{}.{said:x}", about.name), "namespace": namespace},
        "involvedObject": {
            "apiVersion": about.api_version, "kind": about.kind, "name": about.name, "namespace": about.namespace,
            "uid": about.uid, "resourceVersion": about.version,
        },
        "type": "Warning", "reason": reason, "message": message, "count": 1,
        "source": {"component": COMPONENT, "host": node.as_str()},
        "reportingComponent": COMPONENT, "reportingInstance": node.as_str(),
        "firstTimestamp": time, "lastTimestamp": time,
    }))
    .map_err(kube::Error::SerdeError)?;
    Api::<Event>::namespaced(client.clone(), namespace).create(&PostParams::default(), &event).await?;
    Ok(())
}

/// The name of an event that is like no other.
fn only_now() -> u64 {
    chrono::Utc::now().timestamp_micros().unsigned_abs()
}

/// FNV-1a: fixed for all time, unlike the standard library's hasher, as nodes of different versions are to agree.
fn hash(texts: &[&str]) -> u64 {
    let bytes = texts.iter().flat_map(|text| text.bytes().chain([0]));
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

/// Tells what is wrong with a pod, which is given by its name and its uid. `reason` is one word in camel case.
///
/// # Errors
///
/// When the API server cannot be reached or refuses.
pub async fn warn_of_pod(
    client: &Client,
    node: &NodeName,
    (pod, uid): (&PodKey, &str),
    reason: &str,
    message: &str,
) -> Result<(), kube::Error> {
    create(client, node, &About::pod(pod, uid), only_now(), (reason, message)).await
}

#[cfg(test)]
mod tests;
