//! The task that owns the cluster's state: it feeds the server, and replaces it when the Corefile changes.

mod glances;
mod halves;
mod rounds;
mod spread;
mod watches;

use std::{
    collections::BTreeSet,
    net::IpAddr,
    path::PathBuf,
    pin::pin,
    sync::{Arc, atomic::Ordering},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use glances::Glances;
use halves::Halves;
use podnet_dns::{
    Config, Server,
    chain::{Level, PodLabels},
    metrics::Metrics,
    server::{Event, Observer},
    zone::Cluster,
};
use podnet_kernel::{addr, netlink::RtSocket};
use rounds::Rounds;
use spread::Spread;
pub(super) use spread::share;
use tokio::{sync::Notify, time::Instant};
use tracing::{debug, error, info, warn};
pub(super) use watches::api;
use watches::{Watches, next, watches};

use super::{
    DnsError, DnsOptions, Shared,
    acme::Issuing,
    corefile,
    corefile::{Anew, Sources, Stamp},
    listeners::Listeners,
    outside::Network,
    retry,
    retry::Retry,
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
    /// Whether that one is tried again as it is.
    retry: Retry,
    /// Files that plugins look at by themselves and that could not be taken over, and how they were then.
    refused_files: Option<(Sources, BTreeSet<PathBuf>)>,
    /// When plugins look at their files.
    rounds: Rounds,
    /// Whether the Corefile is another file.
    glances: Glances<Stamp>,
    /// When that is put in force.
    spread: Spread,
    cluster: Cluster,
    shared: Arc<Shared>,
    metrics: Arc<Metrics>,
    watches: Option<Watches>,
    /// Certificates that this server has issued.
    issuing: Issuing,
}

impl Keeper {
    /// A keeper, and the server that it keeps.
    pub(super) async fn new(
        options: DnsOptions,
        config: Config,
        sources: Sources,
    ) -> Result<(Self, Arc<Shared>), DnsError> {
        let metrics = Arc::new(Metrics::default());
        let mut cluster = Cluster::default();
        cluster.stands_at(&here());
        cluster.keep_pod_labels(config.pod_labels());
        let issuing = Issuing::default();
        let server = Arc::new(server(config.clone(), &cluster, &metrics, &issuing));
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
            refused_files: None,
            rounds: Rounds::default(),
            retry: Retry::default(),
            glances: Glances::default(),
            spread: Spread::default(),
            cluster,
            shared: Arc::clone(&shared),
            metrics,
            watches,
            issuing,
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

    /// Keeps the server for good; `asked` tells when somebody wants the Corefile to be read now.
    pub(super) async fn keep(mut self, mut listeners: Listeners, asked: Arc<Notify>) {
        self.rounds.follow(&self.config.watched, Instant::now());
        self.issuing.follow(&self.config);
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
                    self.spread.stop();
                    self.reload(&mut listeners).await;
                    look = Box::pin(tokio::time::sleep(self.interval()));
                }
                () = asked.notified() => {
                    info!(corefile = %self.options.corefile.display(), "asked to read the Corefile again");
                    self.spread.stop();
                    // What is wrong is told, also where it was told before.
                    self.retry.stop();
                    self.attempt(&mut listeners).await;
                    look = Box::pin(tokio::time::sleep(self.interval()));
                }
                () = self.rounds.due() => self.look_at_files(&mut listeners).await,
                () = self.retry.due() => self.attempt(&mut listeners).await,
                // One that is being written again is seen again when that is over.
                () = self.spread.due() => {
                    if self.glances.settled() {
                        self.reload(&mut listeners).await;
                    }
                }
                // The next look finds what was written.
                _ = sign.tick() => corefile::sign(&self.config).await,
                _ = glance.tick(), if self.config.process.reload.is_some() => {
                    let now = corefile::stamp(&self.options).await;
                    if let Some((_, jitter)) = self.config.process.reload.filter(|_| self.glances.changed(now)) {
                        self.spread.begin(jitter, share(), Instant::now());
                    }
                }
            }
        }
    }

    /// The time to the next look at the Corefile, where it has `reload`: replicas do not look all at once.
    fn interval(&self) -> Duration {
        let reload = self.config.process.reload;
        let reload = reload.map(|(interval, jitter)| interval.saturating_sub(jitter / 2) + jitter.mul_f64(share()));
        reload.unwrap_or(Duration::MAX / 4)
    }

    /// Looks at the files whose plugins want that now, and takes those over that changed: the Corefile stays the one in force.
    async fn look_at_files(&mut self, listeners: &mut Listeners) {
        let due = self.rounds.take(Instant::now());
        let (last, mut refused) = match &self.refused_files {
            Some((seen, paths)) => (self.sources.with(seen, paths), paths.clone()),
            None => (self.sources.clone(), BTreeSet::new()),
        };
        let Ok(now) = corefile::look(&self.options, &last, Anew::These(due)).await else { return };
        let changed = now.changed(&last);
        if changed.is_empty() {
            return;
        }
        refused.retain(|path| !changed.contains(path));
        // What is again as it was read needs nothing.
        let differs = now.changed(&self.sources);
        let newer: BTreeSet<PathBuf> = differs.intersection(&changed).cloned().collect();
        // What was wrong by itself may be right with what is another now: a zone and its keys change together.
        let together: BTreeSet<PathBuf> = refused.intersection(&differs).chain(&newer).cloned().collect();
        let is_right = together.len() > newer.len()
            && !newer.is_empty()
            && self.take_over(listeners, Some(&together)).await.is_ok();
        if is_right {
            refused = BTreeSet::new();
        } else {
            refused.append(&mut self.take_over_files(newer, listeners).await);
        }
        self.refused_files = (!refused.is_empty()).then_some((now, refused));
    }

    /// Takes over what plugins read: all of it, or else, where some of the files are wrong, all but those. Which these are.
    async fn take_over_files(&mut self, paths: BTreeSet<PathBuf>, listeners: &mut Listeners) -> BTreeSet<PathBuf> {
        let (mut halves, mut wrong) = (Halves::of(paths), BTreeSet::new());
        while let Some(group) = halves.take() {
            let Err(error) = self.take_over(listeners, Some(&group)).await else { continue };
            let Some(file) = halves.divide(group) else { continue };
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            let path = file.display();
            error!(%error, cause, file = %path, "a changed file is not taken over, what was read before stays in force");
            // That a host has no address may change by itself: the next look tries again.
            if !retry::lacks_address(&error) {
                wrong.insert(file);
            }
        }
        wrong
    }

    async fn reload(&mut self, listeners: &mut Listeners) {
        // What was refused may be right once any of its files is another one.
        let others = if self.refused.is_some() { BTreeSet::new() } else { self.rounds.all().clone() };
        let last = self.refused.as_ref().unwrap_or(&self.sources);
        let Ok(now) = corefile::look(&self.options, last, Anew::Corefile(others)).await else { return };
        let is_last = now == *last;
        if now == self.sources {
            // What was refused is not there any more.
            self.refused = None;
            self.retry.stop();
        }
        if is_last || now == self.sources {
            return;
        }
        self.refused = Some(now);
        self.retry.stop();
        self.attempt(listeners).await;
    }

    /// Takes the Corefile over as it is now. One that is tried again is complained about only where something else is wrong with it.
    async fn attempt(&mut self, listeners: &mut Listeners) {
        let Err(error) = self.take_over(listeners, None).await else {
            (self.refused, self.refused_files) = (None, None);
            self.retry.stop();
            self.metrics.reloads.fetch_add(1, Ordering::Relaxed);
            info!(corefile = %self.options.corefile.display(), "the Corefile is in force as it is now");
            return;
        };
        if !self.retry.refused(&error) {
            debug!(%error, "the changed Corefile still cannot be taken over");
            return;
        }
        // With the files that it names: what is wrong may be in one of them.
        if let Ok(now) = corefile::refused(&self.options).await {
            self.refused = Some(now);
        }
        self.metrics.reload_failures.fetch_add(1, Ordering::Relaxed);
        let cause = std::error::Error::source(&error).map(ToString::to_string);
        let tried_again = self.retry.waits();
        error!(%error, cause, tried_again, "the changed Corefile is not taken over, the one before stays in force");
    }

    /// Loads the Corefile; or, with `due`, the one in force with these files as they are now. The cluster's changes are not held up by
    /// name servers that are silent about its upstreams.
    async fn load(&mut self, due: Option<&BTreeSet<PathBuf>>) -> Result<(Config, Sources), DnsError> {
        let (options, sources) = (&self.options, &self.sources);
        let mut load = pin!(async move {
            match due {
                Some(due) => corefile::load_again(options, sources, due).await,
                None => corefile::load(options).await,
            }
        });
        loop {
            tokio::select! {
                biased;
                loaded = &mut load => return loaded,
                () = next(self.watches.as_mut(), &self.shared, &mut self.cluster) => {}
            }
        }
    }

    async fn take_over(&mut self, listeners: &mut Listeners, due: Option<&BTreeSet<PathBuf>>) -> Result<(), DnsError> {
        let (config, sources) = self.load(due).await?;
        let wanted = config.kubernetes().next().is_some();
        let enough = self.watches.as_ref().is_some_and(|watches| watches.suffice(&config))
            && self.config.pod_labels().suffice(&config.pod_labels());
        let mut watches = if wanted && !enough { watches(&self.options, &config, &self.metrics).await? } else { None };
        listeners.adopt(&config).await?;
        self.cluster.stands_at(&here());
        for warning in &config.warnings {
            warn!("{warning}");
        }
        // What was known stays known, and what is not there is known not to be, unless nobody told of it yet.
        let goes_on = watches.as_ref().is_none_or(|watches| watches.announce(self.watches.as_ref(), &mut self.cluster));
        // From here on nothing fails.
        if let Some(watches) = &mut watches {
            self.list_pod_labels(watches, &config).await;
        }
        let server = Arc::new(server(config.clone(), &self.cluster, &self.metrics, &self.issuing));
        if goes_on && self.shared.server().synced() {
            server.set_synced();
        }
        let before = self.shared.server();
        let lameduck = config.process.lameduck();
        // Large zones are compared with what they were.
        tokio::task::block_in_place(|| {
            server.start(Some(&before), || self.shared.replace(Arc::clone(&server), lameduck));
        });
        self.shared.server().probe_loops();
        // Until then what they told was asked for.
        if let Some(mut watches) = watches {
            if let Some(before) = self.watches.take() {
                watches.succeed(before, &mut self.cluster);
            }
            self.watches = Some(watches);
        }
        if let Some(watches) = &mut self.watches {
            watches.drop_imports(&config, &mut self.cluster);
        }
        self.cluster.keep_pod_labels(config.pod_labels());
        self.rounds.follow(&config.watched, Instant::now());
        self.issuing.follow(&config);
        (self.config, self.sources) = (config, sources);
        Ok(())
    }

    /// Where a Corefile asks for labels of pods that were not kept: waits until its watches have listed all pods, at most as long as
    /// CoreDNS waits for its lists before it serves (`startup_timeout`); until then no label would be told. The Corefile before
    /// answers meanwhile, and the labels that it asks for are kept, too.
    async fn list_pod_labels(&mut self, watches: &mut Watches, config: &Config) {
        // Without watches nobody told of any.
        let mut labels = if self.watches.is_some() { self.config.pod_labels() } else { PodLabels::default() };
        let asked = config.pod_labels();
        if labels.suffice(&asked) {
            return;
        }
        labels.join(&asked);
        self.cluster.keep_pod_labels(labels);
        let within = config.kubernetes().map(|options| options.startup_timeout).max().unwrap_or_default();
        if tokio::time::timeout(within, watches.list(&self.shared, &mut self.cluster)).await.is_err() {
            let seconds = within.as_secs_f32();
            warn!(seconds, "pods' labels that the Corefile asks for are not known yet, it is in force without them");
        }
    }
}

/// The addresses of this machine that others reach; none where the kernel does not tell them.
fn here() -> Vec<IpAddr> {
    let addrs = RtSocket::open().and_then(|mut socket| addr::list_reachable(&mut socket));
    addrs.unwrap_or_else(|error| {
        warn!(%error, "the kernel does not tell this machine's addresses: which Service leads here is not known");
        Vec::new()
    })
}

fn server(config: Config, cluster: &Cluster, metrics: &Arc<Metrics>, issuing: &Issuing) -> Server {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as u32);
    let network = Network::new(Arc::clone(metrics)).proving(Arc::clone(issuing.challenges()));
    Server::new(config, cluster, seconds, Arc::clone(metrics), Arc::new(network), observer())
}

pub(super) fn observer() -> Observer {
    Box::new(|event| match event {
        Event::Answered { line } => info!("{line}"),
        Event::Failed { level: Level::Debug, message } => debug!("{message}"),
        Event::Failed { level: Level::Info, message } => info!("{message}"),
        Event::Failed { level: Level::Warning, message } => warn!("{message}"),
        Event::Failed { level: Level::Error, message } => error!("{message}"),
        // Who wrote `debug` into the Corefile wants it, whatever else is logged.
        Event::Debug { message } => info!("{message}"),
        Event::Zone { zone, told, failed: false } => info!(%zone, "{told}"),
        Event::Zone { zone, told, failed: true } => warn!(%zone, "{told}"),
        Event::Loop { upstream } => {
            error!(%upstream, "this upstream forwards back to this server; it is not asked any more");
        }
    })
}
