//! The task that owns the cluster's state: it feeds the server, and replaces it when the Corefile changes.

use std::{
    collections::BTreeSet,
    hash::{BuildHasher, RandomState},
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use futures::{Stream, StreamExt};
use k8s_openapi::{api::core::v1 as core, jiff::Timestamp};
use kube::{
    Api, ResourceExt,
    runtime::{WatchStreamExt, watcher},
};
use podnet_client::{
    connect::Access,
    requests::{Asked, Limits, Listener},
    watch::{Interest, PodInterest, Update, watch},
};
use podnet_dns::{
    Config, Server,
    chain::{ApiAccess, Level},
    metrics::{ApiRequest, Metrics},
    server::{Event, Observer},
    zone::Cluster,
};
use podnet_model::{Change, Namespace};
use tokio::sync::mpsc;
use tracing::{debug, error, info, warn};

use super::{
    DnsError, DnsOptions, Shared, corefile,
    corefile::{Sources, Stamp},
    listeners::Listeners,
    outside::Network,
};

type Namespaces = Pin<Box<dyn Stream<Item = Result<watcher::Event<core::Namespace>, watcher::Error>> + Send>>;

/// How often it is looked whether the Corefile is another file. One that changes is read when it stayed the same for this long, so
/// that none is read that is half written.
const GLANCE: Duration = if cfg!(test) { Duration::from_millis(50) } else { Duration::from_secs(1) };

/// How often it is looked whether signatures of zone files are old. They hold for weeks.
const SIGN: Duration = Duration::from_secs(3600);

/// The owner of the cluster's state.
pub(super) struct Keeper {
    options: DnsOptions,
    config: Config,
    sources: Sources,
    /// A Corefile that could not be loaded, so that it is complained about once.
    refused: Option<Sources>,
    /// The file that was read last, and another one that was seen once since.
    read: Option<Stamp>,
    seen: Option<Stamp>,
    cluster: Cluster,
    shared: Arc<Shared>,
    metrics: Arc<Metrics>,
    watches: Option<Watches>,
}

/// What tells of the cluster.
struct Watches {
    /// The API server that tells.
    api: ApiAccess,
    updates: mpsc::Receiver<Update>,
    namespaces: Namespaces,
    with_pods: bool,
    synced: bool,
    /// The namespaces were listed, or cannot be: then those with Services in them are known.
    namespaces_listed: bool,
    /// Names of the list that is coming in.
    listing: BTreeSet<Namespace>,
    known: BTreeSet<Namespace>,
}

impl Keeper {
    /// A keeper, and the server that it keeps.
    pub(super) async fn new(
        options: DnsOptions,
        config: Config,
        sources: Sources,
    ) -> Result<(Self, Arc<Shared>), DnsError> {
        let metrics = Arc::new(Metrics::default());
        let cluster = Cluster::default();
        let server = Arc::new(server(config.clone(), &cluster, &metrics));
        let shared = Arc::new(Shared::new(server));
        let watches = watches(&options, &config, &metrics).await?;
        if watches.is_none() {
            shared.server().set_synced();
        }
        let keeper = Self {
            options,
            config,
            sources,
            refused: None,
            read: None,
            seen: None,
            cluster,
            shared: Arc::clone(&shared),
            metrics,
            watches,
        };
        Ok((keeper, shared))
    }

    /// Takes in what the cluster has until its state is known, as another process knows it that is to be followed.
    ///
    /// # Errors
    /// When that takes longer than `within`.
    pub(super) async fn catch_up(&mut self, within: Duration) -> Result<(), DnsError> {
        let known = async {
            while !self.shared.server().synced() {
                next(self.watches.as_mut(), &self.shared, &mut self.cluster).await;
            }
        };
        tokio::time::timeout(within, known).await.map_err(|_| DnsError::NotSynced { seconds: within.as_secs() })
    }

    /// Keeps the server for good.
    pub(super) async fn keep(mut self, mut listeners: Listeners) {
        let mut look = Box::pin(tokio::time::sleep(self.interval()));
        let mut glance = tokio::time::interval(GLANCE);
        glance.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        // At the beginning it was done.
        let mut sign = tokio::time::interval_at(tokio::time::Instant::now() + SIGN, SIGN);
        loop {
            tokio::select! {
                // The cluster's changes come first: a look at files can wait.
                biased;
                () = next(self.watches.as_mut(), &self.shared, &mut self.cluster) => {}
                () = &mut look => {
                    self.reload(&mut listeners).await;
                    look = Box::pin(tokio::time::sleep(self.interval()));
                }
                // The next look finds what was written.
                _ = sign.tick() => corefile::sign(&self.config).await,
                _ = glance.tick(), if self.config.process.reload.is_some() => {
                    let now = corefile::stamp(&self.options).await;
                    if self.changed(now) {
                        self.reload(&mut listeners).await;
                    }
                }
            }
        }
    }

    /// Whether the Corefile is another file than the one that was read last, and has been for some time.
    fn changed(&mut self, now: Option<Stamp>) -> bool {
        let settled = now.is_some() && now != self.read && now == self.seen;
        self.seen = now;
        if settled {
            self.read = now;
        }
        settled
    }

    /// The time to the next look at all files: replicas do not look all at once.
    fn interval(&self) -> Duration {
        let process = &self.config.process;
        let reload = process.reload.map(|(interval, jitter)| {
            let share = RandomState::new().hash_one(0) % 1000;
            interval.saturating_sub(jitter / 2) + jitter.mul_f64(share as f64 / 1000.0)
        });
        match (reload, process.hosts_reload) {
            (Some(reload), Some(hosts)) => reload.min(hosts),
            (one, other) => one.or(other).unwrap_or(Duration::MAX / 4),
        }
    }

    async fn reload(&mut self, listeners: &mut Listeners) {
        let last = self.refused.as_ref().unwrap_or(&self.sources);
        let Ok(now) = corefile::look(&self.options, last).await else { return };
        if now == *last || now == self.sources {
            return;
        }
        match self.take_over(listeners).await {
            Ok(()) => {
                self.refused = None;
                self.metrics.reloads.fetch_add(1, Ordering::Relaxed);
                info!(corefile = %self.options.corefile.display(), "the changed Corefile is in force");
            }
            Err(error) => {
                // With the files that it names: what is wrong may be in one of them.
                self.refused = Some(corefile::refused(&self.options).await.unwrap_or(now));
                self.metrics.reload_failures.fetch_add(1, Ordering::Relaxed);
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                error!(%error, cause, "the changed Corefile is not taken over, the one before stays in force");
            }
        }
    }

    async fn take_over(&mut self, listeners: &mut Listeners) -> Result<(), DnsError> {
        let (config, sources) = corefile::load(&self.options).await?;
        let wanted = config.kubernetes().next().is_some();
        let enough = |watches: &Watches| {
            (watches.with_pods || !config.verifies_pods()) && api(&config).is_ok_and(|api| api == watches.api)
        };
        let enough = self.watches.as_ref().is_some_and(enough);
        let watches = if wanted && !enough { watches(&self.options, &config, &self.metrics).await? } else { None };
        listeners.adopt(&config).await?;
        for warning in &config.warnings {
            warn!("{warning}");
        }
        let server = Arc::new(server(config.clone(), &self.cluster, &self.metrics));
        if watches.is_some() {
            self.watches = watches;
        }
        // What was known stays known: new watches only add to it.
        if self.shared.server().synced() {
            server.set_synced();
        }
        let before = self.shared.server();
        let lameduck = config.process.health.map_or(Duration::ZERO, |(_, lameduck)| lameduck);
        // Large zones are compared with what they were.
        tokio::task::block_in_place(|| {
            server.start(Some(&before), || self.shared.replace(Arc::clone(&server), lameduck));
        });
        self.shared.server().probe_loops();
        (self.config, self.sources) = (config, sources);
        Ok(())
    }
}

/// Takes the next of the cluster's changes in; waits for ever where nothing is watched.
async fn next(watches: Option<&mut Watches>, shared: &Shared, cluster: &mut Cluster) {
    let Some(watches) = watches else { return std::future::pending().await };
    let server = shared.server();
    tokio::select! {
        update = watches.updates.recv() => match update {
            Some(Update::Change(change)) => {
                if cluster.apply(&change) && server.synced() {
                    programmed(&change, cluster, server.metrics());
                }
            }
            Some(Update::Synced) => watches.synced = true,
            None => std::future::pending().await,
        },
        event = watches.namespaces.next() => match event {
            Some(event) => watches.namespace(event, cluster),
            None => std::future::pending().await,
        },
    }
    if watches.synced && watches.namespaces_listed && !server.synced() {
        server.set_synced();
        info!("the cluster's state is known");
    }
}

impl Watches {
    fn namespace(&mut self, event: Result<watcher::Event<core::Namespace>, watcher::Error>, cluster: &mut Cluster) {
        let name = |namespace: &core::Namespace| Namespace::from(namespace.name_any());
        let labels = |namespace: core::Namespace| Arc::new(namespace.metadata.labels.unwrap_or_default());
        match event {
            Ok(watcher::Event::Apply(namespace)) => {
                self.known.insert(name(&namespace));
                cluster.namespace(&name(&namespace), Some(&labels(namespace)));
            }
            Ok(watcher::Event::Delete(namespace)) => {
                self.known.remove(&name(&namespace));
                cluster.namespace(&name(&namespace), None);
            }
            Ok(watcher::Event::Init) => self.listing.clear(),
            Ok(watcher::Event::InitApply(namespace)) => {
                self.listing.insert(name(&namespace));
                cluster.namespace(&name(&namespace), Some(&labels(namespace)));
            }
            Ok(watcher::Event::InitDone) => {
                for gone in self.known.difference(&self.listing) {
                    cluster.namespace(gone, None);
                }
                self.known = std::mem::take(&mut self.listing);
                self.namespaces_listed = true;
            }
            Err(error) => {
                // What forbids the list does not pass by waiting; names of Services do not depend on it.
                self.namespaces_listed = true;
                warn!(%error, "cannot watch namespaces; those without Services are not known meanwhile");
            }
        }
    }
}

/// Counts how long ago a change was made that is answered now. As in CoreDNS, of headless Services whose endpoints a controller writes.
fn programmed(change: &Change, cluster: &Cluster, metrics: &Metrics) {
    let Change::Slice(_, Some(slice)) = change else { return };
    let Some(triggered) = slice.triggered.filter(|_| cluster.is_headless(&slice.service)) else { return };
    metrics.api.programmed(Timestamp::now().duration_since(triggered).try_into().unwrap_or_default());
}

/// How a Corefile wants the API server to be reached; it can be only one.
fn api(config: &Config) -> Result<ApiAccess, DnsError> {
    let mut said = config.kubernetes().map(|options| &options.api).filter(|api| **api != ApiAccess::default());
    let first = said.next().cloned().unwrap_or_default();
    if said.any(|other| *other != first) { Err(DnsError::SeveralApis) } else { Ok(first) }
}

fn access(options: &DnsOptions, api: &ApiAccess) -> Access {
    if let Some((path, context)) = &api.kubeconfig {
        return Access::Kubeconfig(path.into(), context.clone());
    }
    if let Some(url) = &api.endpoint {
        let files = api.tls.clone().unwrap_or_default();
        let identity = files.certificate.zip(files.key).map(|(certificate, key)| (certificate.into(), key.into()));
        return Access::Endpoint { url: url.clone(), identity, authority: files.authorities.map(Into::into) };
    }
    options.kubeconfig.clone().map_or(Access::InCluster, |path| Access::Kubeconfig(path, None))
}

fn listener(metrics: &Arc<Metrics>) -> Listener {
    let metrics = Arc::clone(metrics);
    Arc::new(move |&Asked { host, method, code, held, took }| {
        metrics.api.asked(&ApiRequest { host, method, code, held, took });
    })
}

/// What has to be watched for a Corefile; none when it has no `kubernetes`.
async fn watches(options: &DnsOptions, config: &Config, metrics: &Arc<Metrics>) -> Result<Option<Watches>, DnsError> {
    if config.kubernetes().next().is_none() {
        return Ok(None);
    }
    let api = api(config)?;
    let limits = Limits { qps: api.qps, burst: api.burst, max_inflight: api.max_inflight };
    let client = access(options, &api).client(limits, listener(metrics)).await?;
    let with_pods = config.verifies_pods();
    let interest = Interest {
        services: true,
        slices: true,
        pods: if with_pods { PodInterest::All } else { PodInterest::None },
        ..Interest::default()
    };
    let namespaces = watcher(Api::<core::Namespace>::all(client.clone()), watcher::Config::default());
    Ok(Some(Watches {
        api,
        updates: watch(client, interest),
        namespaces: namespaces.default_backoff().boxed(),
        with_pods,
        synced: false,
        namespaces_listed: false,
        listing: BTreeSet::new(),
        known: BTreeSet::new(),
    }))
}

fn server(config: Config, cluster: &Cluster, metrics: &Arc<Metrics>) -> Server {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as u32);
    Server::new(config, cluster, seconds, Arc::clone(metrics), Arc::new(Network::new(Arc::clone(metrics))), observer())
}

pub(super) fn observer() -> Observer {
    Box::new(|event| match event {
        Event::Answered { line } => info!("{line}"),
        Event::Failed { level: Level::Debug, message } => debug!("{message}"),
        Event::Failed { level: Level::Info, message } => info!("{message}"),
        Event::Failed { level: Level::Warning, message } => warn!("{message}"),
        Event::Failed { level: Level::Error, message } => error!("{message}"),
        Event::Zone { zone, told, failed: false } => info!(%zone, "{told}"),
        Event::Zone { zone, told, failed: true } => warn!(%zone, "{told}"),
        Event::Loop { upstream } => {
            error!(%upstream, "this upstream forwards back to this server; it is not asked any more");
        }
    })
}
