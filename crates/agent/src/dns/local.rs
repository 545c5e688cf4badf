//! The node's own resolver: pods ask it at an address of their node, and it asks cluster DNS, over connections that it keeps.
//!
//! It keeps answers, completes the search paths of the node's pods ([`Clients`]), and knows nothing by itself: what the cluster's
//! Corefile says holds for every name. The network's thread holds its address and leads questions to it, or past it to cluster DNS
//! while it is away (`network::resolver`); what the two tell each other is a [`Seat`].

use std::{
    collections::BTreeSet,
    fmt::Write,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::{Arc, OnceLock},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use podnet_dns::{Config, Environment, Server, zone::Cluster};
use podnet_planner::resolver::PORT;
use tokio::sync::watch;
use tracing::{info, warn};

use super::{Clients, DRAIN, DnsError, Shared, keeper::observer, listeners::Listeners, outside, outside::Network};

/// How long it takes at most until nobody is led here any more.
const GIVE_WAY: Duration = Duration::from_secs(1);
/// What came before that is answered meanwhile.
const EMPTY: Duration = Duration::from_millis(200);
/// The pause after a port could not be opened, doubling up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// What the node's resolver is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalOptions {
    /// Where it answers.
    pub addrs: Vec<IpAddr>,
    /// The domain of the cluster's names.
    pub domain: String,
    /// The node's `resolv.conf(5)`: what it searches stands in pods' search paths.
    pub resolv_conf: PathBuf,
}

/// What the network's thread and the resolver tell each other.
#[derive(Clone, Debug)]
pub struct Seat {
    /// The resolver ends: nobody is to be led to it.
    pub(crate) gives_way: watch::Sender<bool>,
    /// What the thread did.
    pub(crate) told: watch::Sender<Told>,
}

/// What the network's thread says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Told {
    /// Where cluster DNS answers over TCP: what was known last, when it is nowhere any more.
    pub(crate) upstreams: BTreeSet<SocketAddr>,
    /// The node has the resolver's addresses.
    pub(crate) held: bool,
    /// Nobody is led to it any more.
    pub(crate) gave_way: bool,
}

impl Default for Seat {
    fn default() -> Self {
        Self { gives_way: watch::Sender::new(false), told: watch::Sender::new(Told::default()) }
    }
}

/// The running resolver.
pub struct Local {
    stop: watch::Sender<bool>,
    task: tokio::task::JoinHandle<()>,
    name: String,
    serving: Serving,
}

/// What answers, from the moment on that it does.
type Serving = Arc<OnceLock<Arc<Shared>>>;

impl Local {
    /// Starts it.
    #[must_use]
    pub fn start(options: LocalOptions, seat: Seat, clients: Arc<Clients>) -> Self {
        let (stop, stopped) = watch::channel(false);
        let serving = Serving::default();
        let name = options.addrs.first().map(|addr| format!("dns://{}", SocketAddr::new(*addr, PORT)));
        let into = Arc::clone(&serving);
        let task = tokio::spawn(async move {
            match tokio::fs::read_to_string(&options.resolv_conf).await {
                Ok(text) => clients.set_node(&text),
                Err(error) => {
                    warn!(path = %options.resolv_conf.display(), %error, "the node's search path is not known");
                }
            }
            serve(&options, &seat, Arc::new(Network::of_node(Arc::default(), clients)), &into, stopped).await;
        });
        Self { stop, task, name: name.unwrap_or_default(), serving }
    }

    /// Tells its metrics, under CoreDNS's names.
    pub fn metrics(&self) -> impl Fn() -> String + Send + use<> {
        let (name, serving) = (self.name.clone(), Arc::clone(&self.serving));
        move || {
            let server = serving.get().map(|shared| shared.server());
            server.map(|server| server.metrics().render(&name, &server.gauges())).unwrap_or_default()
        }
    }

    /// Has it end: questions are led on first, and what came is answered.
    pub async fn end(self) {
        self.stop.send_replace(true);
        let _ = tokio::time::timeout(GIVE_WAY + EMPTY + DRAIN + DRAIN, self.task).await;
    }
}

async fn serve(
    options: &LocalOptions,
    seat: &Seat,
    network: Arc<Network>,
    serving: &Serving,
    mut stopped: watch::Receiver<bool>,
) {
    let mut told = seat.told.subscribe();
    let mut stopping = stopped.clone();
    let stop = async move { drop(stopping.wait_for(|stop| *stop).await) };
    tokio::pin!(stop);
    let upstreams = tokio::select! {
        known = told.wait_for(|told| told.held && !told.upstreams.is_empty()) => match known {
            Ok(known) => known.upstreams.clone(),
            Err(_) => return,
        },
        () = &mut stop => return,
    };
    let shared = match server(options, &upstreams, &network) {
        Ok(server) => serving.get_or_init(|| Arc::new(Shared::new(server))).clone(),
        Err(error) => return warn!(%error, "the node's resolver cannot be made"),
    };
    let checks = tokio::spawn(outside::check(Arc::clone(&shared)));
    let open = open(options, &shared, &upstreams);
    let listeners = tokio::select! {
        listeners = open => listeners,
        () = &mut stop => return,
    };
    info!(addresses = ?options.addrs, ?upstreams, "the node's resolver answers");
    tokio::select! {
        () = follow(options, &shared, &network, told.clone(), upstreams) => {}
        _ = stopped.wait_for(|stop| *stop) => {}
    }
    checks.abort();
    seat.gives_way.send_replace(true);
    let _ = tokio::time::timeout(GIVE_WAY, told.wait_for(|told| told.gave_way)).await;
    tokio::time::sleep(EMPTY).await;
    drop(listeners);
    shared.ports.close();
    shared.finishing.close();
    let ended = async { tokio::join!(shared.ports.wait(), shared.finishing.wait()) };
    let _ = tokio::time::timeout(DRAIN, ended).await;
    info!("the node's resolver ended; questions are led on to cluster DNS");
}

/// Opens the ports at every address, however long that takes.
async fn open(options: &LocalOptions, shared: &Arc<Shared>, upstreams: &BTreeSet<SocketAddr>) -> Vec<Listeners> {
    let mut open = Vec::new();
    let Ok(config) = config(options, upstreams) else { return open };
    for addr in &options.addrs {
        let mut pause = FIRST_PAUSE;
        let mut listeners = Listeners::new(Arc::clone(shared), Some(*addr));
        while let Err(error) = listeners.adopt(&config).await {
            warn!(
                error = &error as &dyn std::error::Error,
                "the node's resolver does not answer there; it is tried again"
            );
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        open.push(listeners);
    }
    open
}

/// Follows cluster DNS from one place to others, for good.
async fn follow(
    options: &LocalOptions,
    shared: &Shared,
    network: &Arc<Network>,
    mut told: watch::Receiver<Told>,
    mut upstreams: BTreeSet<SocketAddr>,
) {
    while let Ok(now) = told.wait_for(|told| told.upstreams != upstreams).await.map(|told| told.upstreams.clone()) {
        match server(options, &now, network) {
            Ok(server) => {
                server.inherit(&shared.server());
                shared.replace(server, Duration::ZERO);
                info!(upstreams = ?now, "cluster DNS answers elsewhere");
            }
            Err(error) => warn!(%error, "the node's resolver goes on as it was"),
        }
        upstreams = now;
    }
}

fn server(
    options: &LocalOptions,
    upstreams: &BTreeSet<SocketAddr>,
    network: &Arc<Network>,
) -> Result<Arc<Server>, DnsError> {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as u32);
    let (metrics, network) = (Arc::clone(network.metrics()), Arc::clone(network));
    let config = config(options, upstreams)?;
    let server = Server::new(config, &Cluster::default(), seconds, metrics, network, observer());
    server.set_synced();
    Ok(Arc::new(server))
}

fn config(options: &LocalOptions, upstreams: &BTreeSet<SocketAddr>) -> Result<Config, DnsError> {
    let text = corefile(&options.domain, upstreams);
    Config::load("the node's resolver", &text, &Environment::EMPTY).map_err(DnsError::Corefile)
}

/// What it is as a Corefile. Names of the cluster are kept for no more than the time that cluster DNS gives them by default
/// (`kubernetes`, 5 s): what changes in the cluster is to be seen soon. What has ended is given out while cluster DNS is away.
fn corefile(domain: &str, upstreams: &BTreeSet<SocketAddr>) -> String {
    let upstreams: Vec<String> = upstreams.iter().map(ToString::to_string).collect();
    let forward = format!("forward . {} {{\n force_tcp\n }}", upstreams.join(" "));
    let errors = "errors {\n consolidate 30s \".*\" warning\n }";
    let mut text = String::new();
    for (zone, first, longest) in [(domain, "searchpath", 5), (".", "", 30)] {
        let first = if first.is_empty() { String::new() } else { format!("{first} {domain}") };
        let cache = format!("cache {{\n success 9984 {longest}\n denial 9984 5\n serve_stale 1h verify 500ms\n }}");
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{zone} {{\n {errors}\n {first}\n {cache}\n {forward}\n}}");
    }
    text
}

#[cfg(test)]
mod tests;
