//! The process `podnet node`: wiring, and the dispatch of pods to workers.

use std::{
    collections::{HashMap, HashSet},
    fs, io,
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client, runtime::watcher};
use podnet_model::errors::chain;
use tokio::{
    net::TcpListener,
    sync::{Semaphore, watch},
    task::JoinSet,
};
use tracing::{info, warn};

use crate::{
    cluster::{PodKey, api::ApiCluster, events::EventSink},
    cni::Cni,
    config::NodeConfig,
    containers::Containers,
    images::{ImageError, ImageStore},
    pod::{Desired, NetworkState, PodContext, Worker, key_of, names::DnsSettings},
    sandbox::SandboxMaker,
};

mod network;
mod registration;
mod tls;

pub use tls::TlsError;

/// Pods set up at the same time. A set-up mostly waits for three processes (plugin, pause, container) on few cores.
const SETUPS: usize = 8;
/// Where sandboxes' network namespaces are bound, as iproute2 expects them.
const NETNS_DIR: &str = "/run/netns";

/// The node cannot work.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The kubeconfig does not lead to an API server.
    #[error("cannot use the kubeconfig {}", path.display())]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: kube::config::KubeconfigError,
    },
    /// No client could be made of it.
    #[error("cannot make a client for the API server")]
    Client(#[source] Box<kube::Error>),
    /// The image store cannot be opened.
    #[error("cannot open the image store")]
    Images(#[from] ImageError),
    /// A file or directory of the node cannot be used.
    #[error("cannot {action}")]
    System {
        /// What was tried, on what.
        action: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The streaming server's certificates are not usable.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The streaming server ended.
    #[error("the streaming server ended")]
    Streaming(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Runs a node until `shutdown` is done. It has to be called in the node's network namespace. Pods outlive it: the next one adopts them.
///
/// # Errors
/// Where the node cannot begin, or its streaming server fails. Trouble with the API server is waited out.
pub async fn run(config: NodeConfig, shutdown: impl Future<Output = ()>) -> Result<(), NodeError> {
    let system = |action: String| move |source: io::Error| NodeError::System { action, source };
    let client = client(&config.kubeconfig).await?;
    private_directory(&config.state_dir).map_err(system(format!("make {}", config.state_dir.display())))?;
    fs::create_dir_all(&config.cgroup_root)
        .map_err(system(format!("make the cgroup {}", config.cgroup_root.display())))?;
    let images = ImageStore::open(&config.image_dir)?;
    let tls = tls::server(&config)?;
    let address = SocketAddr::new(config.node_address, NodeConfig::PORT);
    let listener = TcpListener::bind(address).await.map_err(system(format!("listen on {address}")))?;

    let cni = Cni { bin_dirs: config.cni_bin_dirs.clone(), conf_dir: config.run_dir.join("net.d") };
    let mut tasks = JoinSet::new();
    let (network_sender, network) = watch::channel(NetworkState::NotReady("cni plugin not initialized".into()));
    tasks.spawn(network::watch(cni.clone(), network_sender));
    tasks.spawn(registration::keep(client.clone(), config.clone(), network.clone()));

    let containers = Containers::default();
    let events = EventSink::start(client.clone(), config.node_name.clone());
    let context = Arc::new(PodContext {
        cluster: Arc::new(ApiCluster::new(client.clone(), events)),
        images,
        sandboxes: SandboxMaker {
            cni,
            podnet_binary: config.podnet_binary.clone(),
            pause_arguments: vec!["pause".into()],
        },
        containers: containers.clone(),
        network,
        dns: DnsSettings {
            cluster_dns: config.cluster_dns,
            cluster_domain: config.cluster_domain.clone(),
            node_resolv_conf: fs::read_to_string(&config.resolv_conf).unwrap_or_default(),
        },
        node_addresses: std::iter::once(config.node_address).chain(config.other_address).collect(),
        state_dir: config.state_dir.clone(),
        cgroup_root: config.cgroup_root.clone(),
        netns_dir: NETNS_DIR.into(),
        podnet_binary: config.podnet_binary.clone(),
        setups: Semaphore::new(SETUPS),
    });
    let dispatcher = Dispatcher { context, workers: HashMap::new() };
    info!(node = %config.node_name, %address, "node runs");
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let streaming = crate::streaming::serve(listener, tls, Arc::new(containers), async move {
        let _ = stopped.await;
    });
    let result = tokio::select! {
        result = streaming => result.map_err(|error| NodeError::Streaming(Box::new(error))),
        () = dispatcher.follow(client, &config.node_name) => Ok(()),
        () = shutdown => Ok(()),
    };
    drop(stop);
    result
}

/// Only root may look into it: secrets of pods are below.
fn private_directory(path: &Path) -> io::Result<()> {
    fs::create_dir_all(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o700))
}

async fn client(path: &Path) -> Result<Client, NodeError> {
    let failed = |source| NodeError::Kubeconfig { path: path.to_owned(), source };
    let kubeconfig = kube::config::Kubeconfig::read_from(path).map_err(failed)?;
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &kube::config::KubeConfigOptions::default())
        .await
        .map_err(failed)?;
    Client::try_from(config).map_err(|error| NodeError::Client(Box::new(error)))
}

/// Gives each pod of this node its worker.
struct Dispatcher {
    context: Arc<PodContext>,
    /// By uid. A worker that ended stays until the API has forgotten the pod, so that a late message about it starts nothing.
    workers: HashMap<String, (PodKey, watch::Sender<Desired>)>,
}

impl Dispatcher {
    /// Follows the pods that are bound to this node. Never ends: a watch that fails is begun anew.
    async fn follow(mut self, client: Client, node: &str) {
        let pods: Api<Pod> = Api::all(client);
        let own = watcher::Config::default().fields(&format!("spec.nodeName={node}"));
        let watched = podnet_client::watch::steadily(watcher(pods, own));
        let mut watched = std::pin::pin!(watched);
        let mut seen: HashSet<String> = HashSet::new();
        let mut first = true;
        while let Some(event) = watched.next().await {
            match event {
                Ok(watcher::Event::Init) => seen.clear(),
                Ok(watcher::Event::InitApply(pod)) => {
                    seen.extend(pod.metadata.uid.clone());
                    self.apply(pod);
                }
                Ok(watcher::Event::InitDone) => {
                    self.forget_others(&seen);
                    if std::mem::take(&mut first) {
                        self.sweep(&seen);
                    }
                }
                Ok(watcher::Event::Apply(pod)) => self.apply(pod),
                Ok(watcher::Event::Delete(pod)) => self.delete(&pod),
                Err(error) => warn!(error = %chain(&error), "the watch of pods is interrupted"),
            }
        }
    }

    fn apply(&mut self, pod: Pod) {
        let Some(key) = key_of(&pod) else { return };
        let desired = Desired { pod: Arc::new(pod), gone: false };
        match self.workers.get(&key.uid) {
            Some((_, worker)) => {
                worker.send_replace(desired);
            }
            None => self.start(key, desired),
        }
    }

    fn start(&mut self, key: PodKey, desired: Desired) {
        let (sender, receiver) = watch::channel(desired);
        self.workers.insert(key.uid.clone(), (key.clone(), sender));
        tokio::spawn(Box::pin(Worker::new(self.context.clone(), key, receiver).run()));
    }

    fn delete(&mut self, pod: &Pod) {
        let Some(key) = key_of(pod) else { return };
        if let Some((_, worker)) = self.workers.remove(&key.uid) {
            end(worker);
        }
    }

    fn forget_others(&mut self, seen: &HashSet<String>) {
        let gone: Vec<String> = self.workers.keys().filter(|uid| !seen.contains(*uid)).cloned().collect();
        for uid in gone {
            if let Some((_, worker)) = self.workers.remove(&uid) {
                end(worker);
            }
        }
    }

    /// Ends what is on disk and not in the API any more.
    fn sweep(&mut self, seen: &HashSet<String>) {
        let Ok(entries) = fs::read_dir(&self.context.state_dir) else { return };
        for entry in entries.filter_map(Result::ok) {
            let uid = entry.file_name().to_string_lossy().into_owned();
            if seen.contains(&uid) || !entry.path().is_dir() {
                continue;
            }
            let pod =
                fs::read(entry.path().join("pod.json")).ok().and_then(|text| serde_json::from_slice::<Pod>(&text).ok());
            match pod.as_ref().and_then(key_of).filter(|key| key.uid == uid) {
                Some(key) => {
                    info!(pod = %key, "pod left the API while the runtime was away");
                    let desired = Desired { pod: Arc::new(pod.unwrap_or_default()), gone: true };
                    let (sender, receiver) = watch::channel(desired);
                    tokio::spawn(Box::pin(Worker::new(self.context.clone(), key, receiver).run()));
                    // It needs no more word; without a sender it is not told again.
                    drop(sender);
                }
                None => {
                    warn!(dir = %entry.path().display(), "a directory without a pod is removed");
                    let context = self.context.clone();
                    tokio::spawn(async move {
                        match context.sandboxes.tear_down(&entry.path()).await {
                            Ok(()) => drop(tokio::fs::remove_dir_all(entry.path()).await),
                            Err(error) => warn!(%error, "it cannot be ended yet"),
                        }
                    });
                }
            }
        }
    }
}

/// Tells a worker that its pod is gone; it ends it by itself.
fn end(worker: watch::Sender<Desired>) {
    worker.send_modify(|desired| desired.gone = true);
    // The worker must see the message before the channel ends, which it does: a closed channel still shows its last value.
    drop(worker);
}
