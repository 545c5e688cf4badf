//! An API with its controllers, and nodes that say of every pod what a test wants to hear.

use std::{fmt::Debug, future::Future, time::Duration};

use futures::StreamExt;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
    core::NamespaceResourceScope,
    runtime::{
        WatchStreamExt,
        watcher::{self, watcher},
    },
};
use podnet_apiserver::{Config, Pki, controllers};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;

/// How long anything may take.
const DEADLINE: Duration = Duration::from_secs(30);

/// A cluster without machines.
pub(crate) struct Fixture {
    pub(crate) client: Client,
    pub(crate) ca_pem: String,
    tasks: JoinSet<()>,
    stop: CancellationToken,
    _directory: TempDir,
}

impl Fixture {
    /// An API with controllers and that many ready nodes.
    pub(crate) async fn with_nodes(count: usize) -> Self {
        let mut fixture = Self::without_controllers().await;
        fixture.start_controllers(controllers::ControllersConfig::new(&*fixture.ca_pem));
        for number in 1..=count {
            fixture.add_node(&format!("node{number}")).await;
        }
        fixture
    }

    /// An API and pretended nodes, where nothing else happens.
    pub(crate) async fn without_controllers() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let config = Config {
            service_cidr_v6: Some("fd00:10:96::/108".parse().unwrap()),
            ..Config::in_directory(
                directory.path(),
                "172.29.0.254:6443".parse().unwrap(),
                "10.233.0.0/18".parse().unwrap(),
            )
        };
        let pki = Pki::load_or_create(&config.pki_dir).unwrap();
        let stop = CancellationToken::new();
        let api = podnet_apiserver::Api::start(&config, &pki, stop.clone()).await.unwrap();
        let client = api.in_process_client();
        let mut tasks = JoinSet::new();
        tasks.spawn(pretend_to_run(client.clone()));
        Self { client, ca_pem: pki.ca_pem().to_owned(), tasks, stop, _directory: directory }
    }

    /// Starts the controllers; they run until the fixture is dropped.
    pub(crate) fn start_controllers(&mut self, config: controllers::ControllersConfig) {
        let (client, stop) = (self.client.clone(), self.stop.clone());
        self.tasks.spawn(async move { controllers::run(client, config, stop.cancelled_owned()).await });
    }

    /// Registers a ready node.
    pub(crate) async fn add_node(&self, name: &str) {
        let node = json!({
            "metadata": { "name": name, "labels": { "kubernetes.io/hostname": name } },
            "status": {
                "allocatable": { "cpu": "64", "memory": "64Gi", "pods": "250" },
                "conditions": [{ "type": "Ready", "status": "True", "reason": "KubeletReady" }],
            },
        });
        let node: Node = serde_json::from_value(node).unwrap();
        Api::all(self.client.clone()).create(&PostParams::default(), &node).await.unwrap();
    }

    /// The API of a kind in a namespace.
    pub(crate) fn api<K>(&self, namespace: &str) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// Creates an object in the namespace `default`.
    pub(crate) async fn create<K>(&self, object: Value) -> K
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + Serialize + DeserializeOwned,
    {
        let object: K = serde_json::from_value(object).unwrap();
        self.api::<K>("default").create(&PostParams::default(), &object).await.unwrap()
    }

    /// The pods of the namespace `default` with that label.
    pub(crate) async fn pods(&self, label: &str) -> Vec<Pod> {
        self.api::<Pod>("default").list(&ListParams::default().labels(label)).await.unwrap().items
    }

    /// Waits until the answer is there.
    pub(crate) async fn wait<T, F: Future<Output = Option<T>>>(&self, what: &str, probe: impl Fn() -> F) -> T {
        let deadline = Instant::now() + DEADLINE;
        loop {
            if let Some(answer) = probe().await {
                return answer;
            }
            assert!(Instant::now() < deadline, "not in time: {what}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits until an object is as wanted.
    pub(crate) async fn until<K>(&self, name: &str, what: &str, wanted: impl Fn(&K) -> bool) -> K
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
    {
        let api = self.api::<K>("default");
        self.wait(what, || async { api.get_opt(name).await.unwrap().filter(&wanted) }).await
    }

    /// Waits until an object is gone.
    pub(crate) async fn until_gone<K>(&self, namespace: &str, name: &str)
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
    {
        let api = self.api::<K>(namespace);
        self.wait("end of an object", || async { api.get_opt(name).await.unwrap().is_none().then_some(()) }).await;
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// A Deployment of pods labelled `app: <name>`.
pub(crate) fn deployment(name: &str, replicas: u32, image: &str) -> Value {
    json!({
        "metadata": { "name": name },
        "spec": {
            "replicas": replicas,
            "selector": { "matchLabels": { "app": name } },
            "template": {
                "metadata": { "labels": { "app": name } },
                "spec": { "containers": [{ "name": "c", "image": image, "ports": [{ "name": "web", "containerPort": 80 }] }] },
            },
        },
    })
}

/// What the nodes do: every pod that is given to one runs and is ready at once, unless its image is `broken`; every pod that is to
/// end has ended.
async fn pretend_to_run(client: Client) {
    let api = Api::<Pod>::all(client.clone());
    let mut pods = watcher(api, watcher::Config::default()).default_backoff().touched_objects().boxed();
    let mut last = 0u32;
    while let Some(pod) = pods.next().await {
        let Ok(pod) = pod else { continue };
        let (Some(namespace), Some(spec)) = (pod.namespace(), &pod.spec) else { continue };
        if spec.node_name.is_none() || spec.containers[0].image.as_deref() == Some("broken") {
            continue;
        }
        let api = Api::<Pod>::namespaced(client.clone(), &namespace);
        if pod.metadata.deletion_timestamp.is_some() {
            let _ = api.delete(&pod.name_any(), &DeleteParams::default().grace_period(0)).await;
        } else if pod.status.as_ref().is_none_or(|status| status.pod_ip.is_none()) {
            last += 1;
            let status = json!({ "status": {
                "phase": "Running", "podIP": format!("10.233.{}.{}", 64 + last / 250, last % 250 + 1),
                "conditions": [{ "type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z" }],
            }});
            let _ = api.patch_status(&pod.name_any(), &PatchParams::default(), &Patch::Strategic(status)).await;
        }
    }
}
