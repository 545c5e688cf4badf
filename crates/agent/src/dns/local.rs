//! The node's own resolver: pods ask it at an address of their node, and it asks cluster DNS, over connections that it keeps.
//!
//! It keeps answers, completes the search paths of the node's pods ([`Clients`]), and knows nothing by itself: what the cluster's
//! Corefile says holds for every name. The network's thread holds its address and leads questions to it, or past it to cluster DNS
//! while it is away (`network::resolver`); what the two tell each other is a [`Seat`].

mod own;
mod searches;

use std::{
    collections::BTreeSet,
    fmt::Write,
    hash::{DefaultHasher, Hash, Hasher},
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use podnet_dns::{Config, Environment, Server, zone::Cluster};
use podnet_model::{Family, LinkName};
use tokio::{sync::watch, task::JoinSet};
use tracing::{info, warn};

use super::{
    Clients, DRAIN, DnsError, Shared, corefile::Stamp, keeper::observer, listeners::Listeners, outside,
    outside::Network, retry::Retry,
};

/// How long it takes at most until nobody is led here any more; the network's thread may be busy with other things first.
const GIVE_WAY: Duration = Duration::from_secs(5);
/// What came before that is answered meanwhile.
const EMPTY: Duration = Duration::from_millis(200);
/// The pause after a port could not be opened, doubling up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// So many of cluster DNS's endpoints are asked at most: as many as `forward` takes.
const MAX_ASKED: usize = 15;

/// What the node's resolver is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalOptions {
    /// The node's name: which of many endpoints of cluster DNS are asked is different for each.
    pub node: String,
    /// Where it answers.
    pub addrs: Vec<IpAddr>,
    /// The domain of the cluster's names.
    pub domain: String,
    /// The node's `resolv.conf(5)`: what it searches stands in pods' search paths.
    pub resolv_conf: PathBuf,
    /// What it does, in place of what it does by itself; see [`own`].
    pub corefile: Option<PathBuf>,
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
    /// The resolver's addresses that the node has.
    pub(crate) held: BTreeSet<IpAddr>,
    /// Nobody is led to it any more.
    pub(crate) gave_way: bool,
    /// No rules keep strangers from it: the bridges that pods are on beside the agent's own.
    pub(crate) unguarded: Option<BTreeSet<LinkName>>,
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
        let into = Arc::clone(&serving);
        let task = tokio::spawn(async move {
            let network = Arc::new(Network::of_node(Arc::default(), Arc::clone(&clients)));
            tokio::select! {
                () = serve(&options, &seat, network, &into, stopped) => {}
                () = searches::follow(&options.resolv_conf, &clients) => {}
            }
        });
        Self { stop, task, serving }
    }

    /// Tells its metrics, under CoreDNS's names.
    pub fn metrics(&self) -> impl Fn() -> String + Send + use<> {
        let serving = Arc::clone(&self.serving);
        move || {
            let server = serving.get().map(|shared| shared.server());
            server.map(|server| server.metrics().render(&server.gauges())).unwrap_or_default()
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
    mut stopping: watch::Receiver<bool>,
) {
    let mut told = seat.told.subscribe();
    let stop = async move { drop(stopping.wait_for(|stop| *stop).await) };
    tokio::pin!(stop);
    let (asked, first, read) = tokio::select! {
        first = begin(options, &mut told, &network) => match first {
            Some(first) => first,
            None => return,
        },
        () = &mut stop => return,
    };
    let shared = serving.get_or_init(|| Arc::new(Shared::new(first))).clone();
    let checks = tokio::spawn(outside::check(Arc::clone(&shared)));
    // Whether a question that leads back would come in.
    let answers = AtomicBool::new(false);
    let mut listeners = Vec::new();
    shared.neighbours.heed(&told.borrow());
    tokio::select! {
        () = shared.neighbours.follow(told.clone()) => {}
        () = open(options, &shared, &asked, &told, &mut listeners, &answers) => {}
        () = follow(options, &shared, &network, seat, told.clone(), (asked.clone(), read), &answers) => {}
        () = &mut stop => {}
    }
    checks.abort();
    seat.gives_way.send_replace(true);
    let _ = tokio::time::timeout(GIVE_WAY, told.wait_for(|told| told.gave_way)).await;
    tokio::time::sleep(EMPTY).await;
    drop(listeners);
    shared.end(DRAIN).await;
    info!("the node's resolver ended; questions are led on to cluster DNS");
}

/// What answers at first, whom it asks, and from which Corefile of its own it is: as soon as the node has an address for it and cluster DNS is somewhere.
async fn begin(
    options: &LocalOptions,
    told: &mut watch::Receiver<Told>,
    network: &Arc<Network>,
) -> Option<(BTreeSet<SocketAddr>, Arc<Server>, Option<Stamp>)> {
    let (mut refused, mut retry) = (BTreeSet::new(), Retry::default());
    let mut read = own::stamp(options).await;
    loop {
        let is_new =
            |told: &Told| !told.held.is_empty() && !told.upstreams.is_empty() && chosen(options, told) != refused;
        let now = tokio::select! {
            known = told.wait_for(is_new) => chosen(options, &*known.ok()?),
            () = own::written(options, &mut read) => {
                refused.clear();
                retry.stop();
                continue;
            }
            () = retry.due() => {
                refused.clear();
                continue;
            }
        };
        read = own::stamp(options).await;
        match server(options, &now, network) {
            Ok(server) => return Some((now, server, read)),
            Err(error) => {
                if retry.refused(&error) {
                    let tried_again = retry.waits();
                    warn!(%error, upstreams = ?now, tried_again, "the node's resolver cannot be made; it waits for other endpoints of cluster DNS, or another Corefile");
                }
                refused = now;
            }
        }
    }
}

/// Opens the ports at each address that the node has or comes to have, however long that takes. Does not end.
async fn open(
    options: &LocalOptions,
    shared: &Arc<Shared>,
    asked: &BTreeSet<SocketAddr>,
    told: &watch::Receiver<Told>,
    listeners: &mut Vec<Listeners>,
    answers: &AtomicBool,
) {
    let mut opening: JoinSet<_> = match config(options, asked) {
        Ok(config) => {
            let config = Arc::new(config);
            let one = |addr: &IpAddr| open_at(*addr, Arc::clone(&config), Arc::clone(shared), told.clone());
            options.addrs.iter().map(one).collect()
        }
        Err(error) => return warn!(%error, "the node's resolver has no ports"),
    };
    while let Some(opened) = opening.join_next().await {
        let Some(opened) = opened.ok().flatten() else { continue };
        listeners.push(opened);
        if !answers.swap(true, Ordering::Relaxed) {
            shared.server().probe_loops();
        }
    }
    std::future::pending::<()>().await;
}

async fn open_at(
    addr: IpAddr,
    config: Arc<Config>,
    shared: Arc<Shared>,
    mut told: watch::Receiver<Told>,
) -> Option<Listeners> {
    // No other address waits for this one: a node may be without a family.
    told.wait_for(|told| told.held.contains(&addr)).await.ok()?;
    let mut pause = FIRST_PAUSE;
    let mut listeners = Listeners::new(shared, Some(addr));
    while let Err(error) = listeners.adopt(&config).await {
        warn!(error = &error as &dyn std::error::Error, "the node's resolver does not answer there; it is tried again");
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
    info!(address = %addr, "the node's resolver answers");
    Some(listeners)
}

/// Follows cluster DNS from one place to others, for good. While it cannot, questions are led on to where cluster DNS is now.
async fn follow(
    options: &LocalOptions,
    shared: &Shared,
    network: &Arc<Network>,
    seat: &Seat,
    mut told: watch::Receiver<Told>,
    (mut asked, mut read): (BTreeSet<SocketAddr>, Option<Stamp>),
    answers: &AtomicBool,
) {
    let (mut refused, mut retry, mut anew) = (None, Retry::default(), false);
    loop {
        tokio::select! {
            changed = told.changed() => if changed.is_err() {
                return;
            },
            () = own::written(options, &mut read) => {
                retry.stop();
                anew = true;
            }
            () = retry.due() => anew = true,
        }
        let now = chosen(options, &told.borrow_and_update());
        if now.is_empty() || (refused.as_ref() == Some(&now) && !anew) {
            continue;
        }
        let rewritten = std::mem::take(&mut anew);
        let next = (now != asked || rewritten).then(|| server(options, &now, network)).transpose();
        match next {
            Ok(None) => refused = None,
            Ok(Some(server)) => {
                server.inherit(&shared.server());
                shared.replace(server, Duration::ZERO);
                // Before it answers anywhere it is for `open` to do.
                if answers.load(Ordering::Relaxed) {
                    shared.server().probe_loops();
                }
                let what = if rewritten { "the changed Corefile is in force" } else { "cluster DNS answers elsewhere" };
                info!(upstreams = ?now, "{what}");
                (asked, refused) = (now, None);
                retry.stop();
            }
            Err(error) => {
                let lost = now != asked || refused.is_some();
                let what = if lost {
                    "the node's resolver cannot ask cluster DNS there; questions are led on to it"
                } else {
                    "the changed Corefile is not taken over, the one before stays in force"
                };
                if retry.refused(&error) {
                    warn!(%error, upstreams = ?now, tried_again = retry.waits(), "{what}");
                }
                refused = lost.then_some(now);
            }
        }
        seat.gives_way
            .send_if_modified(|gives_way| std::mem::replace(gives_way, refused.is_some()) != refused.is_some());
    }
}

/// Whom this node asks: all endpoints of cluster DNS, or the most that can be asked, of the family that it answers in first. Each node has an
/// order of its own, in which an endpoint's place does not depend on who else is there: nodes share the load, and hardly any of those
/// asked change when one comes or goes.
fn chosen(options: &LocalOptions, told: &Told) -> BTreeSet<SocketAddr> {
    let own = options.addrs.iter().find(|addr| told.held.contains(addr)).map(Family::of);
    let place = |upstream: &SocketAddr| {
        let mut hasher = DefaultHasher::new();
        (&options.node, upstream).hash(&mut hasher);
        (own != Some(Family::of(&upstream.ip())), hasher.finish())
    };
    let mut upstreams: Vec<SocketAddr> = told.upstreams.iter().copied().collect();
    upstreams.sort_by_cached_key(place);
    upstreams.into_iter().take(MAX_ASKED).collect()
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
    if let Some(path) = &options.corefile {
        return own::config(path, options, upstreams);
    }
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
