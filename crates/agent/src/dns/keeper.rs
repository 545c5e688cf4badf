//! The task that owns the cluster's state: it feeds the server, and replaces it when the Corefile changes.

mod watches;

use std::{
    hash::{BuildHasher, RandomState},
    pin::pin,
    sync::{Arc, atomic::Ordering},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use podnet_dns::{
    Config, Server,
    chain::Level,
    metrics::Metrics,
    server::{Event, Observer},
    zone::Cluster,
};
use tracing::{debug, error, info, warn};
use watches::{Watches, next, watches};

use super::{
    DnsError, DnsOptions, Shared, corefile,
    corefile::{Sources, Stamp},
    listeners::Listeners,
    outside::Network,
};

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
            let settled = |watches: &Option<Watches>| watches.as_ref().is_none_or(Watches::is_settled);
            while !self.shared.server().synced() || !settled(&self.watches) {
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

    /// Loads the Corefile. The cluster's changes are not held up by name servers that are silent about its upstreams.
    async fn load(&mut self) -> Result<(Config, Sources), DnsError> {
        let mut load = pin!(corefile::load(&self.options));
        loop {
            tokio::select! {
                biased;
                loaded = &mut load => return loaded,
                () = next(self.watches.as_mut(), &self.shared, &mut self.cluster) => {}
            }
        }
    }

    async fn take_over(&mut self, listeners: &mut Listeners) -> Result<(), DnsError> {
        let (config, sources) = self.load().await?;
        let wanted = config.kubernetes().next().is_some();
        let enough = self.watches.as_ref().is_some_and(|watches| watches.suffice(&config));
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
