//! The node daemon: wiring and loops only. What is decided is decided in `planner`, what is done is done in `kernel`.
//!
//! - [`network`]: the cluster's changes become this node's links, routes and rules
//! - [`proxy`]: how Services are served, and what kube-proxy would tell of it
//! - [`repair`]: what others damage is heard of and mended
//! - [`attach`]: CNI requests become pod interfaces; [`socket`] takes them in
//! - [`fastpath`]: what may pass by the stack
//! - [`flows`]: what talks to what, counted and written down where that is asked for
//! - [`addresses`]: which address a sandbox gets, kept in the [`journal`], published to the API
//! - [`housekeeping`]: tombstones, publications, empty blocks
//! - [`ways`]: what this node tells the others about the way to it
//! - [`balancers`]: addresses for load balancers, given by one agent of all; by a Lease
//! - [`announce`]: who answers for them
//! - [`health`]: health, metrics and the resolved configuration over HTTP
//! - [`dns`]: cluster DNS

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod addresses;
pub mod announce;
pub mod attach;
pub mod balancers;
mod config;
pub mod conflist;
pub mod dns;
pub mod fastpath;
mod fault;
pub mod flows;
pub mod health;
pub mod housekeeping;
pub mod journal;
mod leader;
pub mod network;
pub mod proxy;
pub mod repair;
pub mod socket;
pub mod turns;
pub mod underlay;
pub mod view;
pub mod ways;

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use kube::Client;
use podnet_client::{
    connect::{self, ConnectError},
    events::Complaints,
    node,
    watch::{Interest, PodInterest, ProxySource, Quarantine, watch},
};
use podnet_model::Dual;
use tokio::sync::mpsc;
use tracing::{info, warn};

pub use config::AgentConfig;

use crate::{
    addresses::Addresses,
    attach::Attachments,
    health::Health,
    housekeeping::{Housekeeping, mend_limits},
    network::Network,
    proxy::Told,
    repair::Counts,
    underlay::Finder,
    view::View,
    ways::Ways,
};

/// Pods whose address waits to be published.
const ATTACHED_BACKLOG: usize = 1024;

/// Why an agent cannot run.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// There is no client for the API server.
    #[error("cannot set up access to the API server")]
    Connect(#[from] ConnectError),
    /// The underlay is not as it has to be.
    #[error(transparent)]
    Underlay(#[from] underlay::UnderlayError),
    /// The addresses that were given cannot be read.
    #[error("cannot restore the addresses that were given")]
    Addresses(#[from] addresses::OpenError),
    /// The address journal takes nothing more.
    #[error("the address journal cannot be written; the next start reads what is really there")]
    Journal,
    /// The node's interfaces cannot be listed, or their rules not be put in force.
    #[error("cannot look at the node's interfaces and put their rules in force")]
    Interfaces(#[from] podnet_kernel::nft::NftError),
    /// There are no WireGuard keys.
    #[error(transparent)]
    Keys(#[from] ways::KeyringError),
    /// The node's network cannot be set up.
    #[error("cannot set the node's network up")]
    Network(#[from] network::NetworkError),
    /// A file or socket cannot be made.
    #[error("cannot {action} {path}")]
    File {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The health port cannot be opened.
    #[error("cannot listen on {address} for health and metrics")]
    Health {
        /// The address.
        address: SocketAddr,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

fn file(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> AgentError {
    move |source| AgentError::File { action, path: path.to_path_buf(), source }
}

/// Runs the agent until `shutdown` is done. Routes, rules and pod interfaces stay: the data path outlives the agent.
///
/// # Errors
///
/// When something that it cannot do without is missing; what may pass (an API server that is away) is waited for.
pub async fn run(config: AgentConfig, shutdown: impl Future<Output = ()>) -> Result<(), AgentError> {
    fault::heed(&config.state_dir);
    if let Some(launch) = config.proxy_program.clone() {
        proxy::userspace::serve_apart(launch);
    }
    if let Err(error) = podnet_kernel::descriptors::raise_limit() {
        warn!(%error, "the agent may have no more open files than it began with");
    }
    let client = match &config.kubeconfig {
        Some(path) => connect::from_kubeconfig(path).await?,
        None => connect::in_cluster()?,
    };
    let health =
        Health::serve(&config).await.map_err(|source| AgentError::Health { address: config.health_address, source })?;
    let complaints = Complaints::new(client.clone(), config.node.clone());
    let quarantine = Quarantine::default();
    // The cluster tells what it has while the node is looked at.
    let updates = watch(client.clone(), interest(&config, complaints.clone(), quarantine.clone()));
    let finder = tokio::task::block_in_place(|| Finder::new(config.underlay.clone()));
    let internal =
        if finder.needs_internal() { node::internal_ips(&client, &config.node).await } else { Dual::default() };
    let underlay = finder.find(internal)?;
    underlay.prepare()?;
    let address6 = underlay.address6.map(tracing::field::display);
    info!(device = %underlay.device, address = %underlay.address, address6, mtu = underlay.mtu, "underlay found");
    let node_address = underlay.address.addr();
    let addresses = Arc::new(Addresses::open(config.node.clone(), &config.journal(), client.clone())?);
    let view = Arc::new(View::new(config.node.clone()));
    health.add_metrics(move || quarantine.metrics());
    let counts = Arc::new(Counts::default());
    health.add_metrics({
        let counts = counts.clone();
        move || counts.metrics()
    });
    let ways = Arc::new(Ways::open(&config.keys(), &config.subnet_file)?);
    let told = Told::new();
    told.serve(&health, complaints.clone());
    view.announcements().set_underlay(&underlay.device);
    let network = Network::start(
        &config,
        (finder, underlay),
        addresses.clone(),
        view.clone(),
        ways.clone(),
        (counts, complaints.clone(), told.clone()),
        updates,
    )?;
    let resolver = resolver(&config, &network, &view, &health);
    let (ends, own) = (network.pods(), flows::OwnNode::new(&config, &network, &told));
    let (flows, flows_ending) =
        flows::offer(&config, node_address, &client, (&addresses, ends, own), (&health, complaints)).unzip();
    tokio::pin!(shutdown);
    let standing = config.gives_addresses.then(|| {
        let announcements = view.announcements().clone();
        balancers::stand(client.clone(), &config.node, move || announcements.nodes())
    });
    let ended = tokio::select! {
        result = serve(&config, client.clone(), (addresses, view), &network, &health, flows) => result,
        never = ways.publish(&client, &config.node) => match never {},
        () = &mut shutdown => Ok(()),
    };
    let resolver_ends = async {
        if let Some(resolver) = resolver {
            resolver.end().await;
        }
    };
    let flows_end = async {
        if let Some(ending) = flows_ending {
            ending.end().await;
        }
    };
    tokio::join!(resolver_ends, flows_end);
    ended?;
    if let Some(standing) = standing {
        standing.end().await;
    }
    info!("stopped; pods and routes stay as they are");
    Ok(())
}

/// Starts the node's resolver, where there is to be one.
fn resolver(config: &AgentConfig, network: &Network, view: &View, health: &Health) -> Option<dns::Local> {
    if config.node_local_dns.is_empty() {
        return None;
    }
    let options = dns::LocalOptions {
        node: config.node.to_string(),
        addrs: config.node_local_dns.clone(),
        domain: config.cluster_domain.clone(),
        resolv_conf: PathBuf::from("/etc/resolv.conf"),
        corefile: config.node_local_dns_corefile.clone(),
    };
    let resolver = dns::Local::start(options, network.resolver(), view.clients().clone());
    health.add_metrics(resolver.metrics());
    Some(resolver)
}

/// Becomes ready once the network takes pods, then keeps house for good.
async fn serve(
    config: &AgentConfig,
    client: Client,
    (addresses, view): (Arc<Addresses>, Arc<View>),
    network: &Network,
    health: &Health,
    flows: Option<flows::Keeper>,
) -> Result<(), AgentError> {
    network.takes_pods(conflist::is_of_this_boot(&config.cni_conf_dir)).await?;
    announce::start(view.announcements(), &client);
    health.add_metrics({
        let pods = network.pods();
        move || pods.fast_path().metrics()
    });
    let (attached, to_publish) = mpsc::channel(ATTACHED_BACKLOG);
    let attachments = Arc::new(Attachments::new(
        addresses.clone(),
        network,
        view.clone(),
        attached,
        config.tombstones(),
        config.attachments(),
    ));
    let housekeeping = Housekeeping::new(config, client, network.published(), addresses, attachments.clone(), view);
    let mending = attachments.clone();
    housekeeping.adopt_blocks().await;
    tokio::task::block_in_place(|| {
        housekeeping.bury_tombstones();
        attachments.sweep()?;
        housekeeping.mend_limits();
        Ok::<_, AgentError>(())
    })?;
    socket::listen(&config.socket, attachments).map_err(file("serve the CNI socket", &config.socket))?;
    conflist::write(&config.cni_conf_dir, &config.socket, &config.tombstones(), config.pod_link)
        .map_err(file("write the CNI configuration into", &config.cni_conf_dir))?;
    health.ready();
    // What the first lists needed is not needed again.
    podnet_kernel::heap::give_back();
    info!(socket = %config.socket.display(), "ready");
    let pods = network.pods();
    let recording = async {
        match flows {
            Some(flows) => flows.keep(pods.fast_path(), || mend_limits(&mending)).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        ended = Box::pin(housekeeping.keep(network.clone(), to_publish)) => ended,
        never = Box::pin(recording) => match never {},
    }
}

fn interest(config: &AgentConfig, complaints: Complaints, quarantine: Quarantine) -> Interest {
    Interest {
        address_pools: true,
        proxy: match &config.proxy_config {
            Some(path) => ProxySource::File(config.node.clone(), path.clone()),
            None => ProxySource::ConfigMap,
        },
        quarantine,
        complaints: Some(complaints),
        last_good: Some(config.state_dir.join("last-good")),
        nodes: true,
        pods: PodInterest::OnNode(config.node.clone()),
        services: true,
        slices: true,
        pools: true,
        blocks: true,
        ipam: true,
        ways: true,
    }
}
