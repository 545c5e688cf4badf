//! What is watched of the cluster for a Corefile, and how it is taken in.

use std::{collections::BTreeSet, pin::Pin, sync::Arc};

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
    chain::ApiAccess,
    metrics::{ApiRequest, Metrics},
    zone::Cluster,
};
use podnet_model::{Change, Namespace};
use tokio::sync::mpsc;
use tracing::{info, warn};

use crate::dns::{
    DnsError, DnsOptions, Shared,
    imports::{Heard, Imports},
};

type Namespaces = Pin<Box<dyn Stream<Item = Result<watcher::Event<core::Namespace>, watcher::Error>> + Send>>;

/// How many changes that wait are taken in before it is looked whether there is anything else: at the start of a large cluster a hundred
/// thousand come one behind the other.
const AT_ONCE: usize = 32;

/// What tells of the cluster.
pub(super) struct Watches {
    /// The API server that tells.
    api: ApiAccess,
    updates: mpsc::Receiver<Update>,
    namespaces: Namespaces,
    /// What is imported, where some zone shows it.
    imports: Option<Imports>,
    with_pods: bool,
    with_slices: bool,
    synced: bool,
    /// The namespaces were listed, or cannot be: then those with Services in them are known.
    namespaces_listed: bool,
    /// Names of the list that is coming in.
    listing: BTreeSet<Namespace>,
    known: BTreeSet<Namespace>,
}

/// What has to be watched for a Corefile; none when it has no `kubernetes`.
pub(super) async fn watches(
    options: &DnsOptions,
    config: &Config,
    metrics: &Arc<Metrics>,
) -> Result<Option<Watches>, DnsError> {
    if config.kubernetes().next().is_none() {
        return Ok(None);
    }
    let api = api(config)?;
    let limits = Limits { qps: api.qps, burst: api.burst, max_inflight: api.max_inflight };
    let client = access(options, &api).client(limits, listener(metrics)).await?;
    let (with_pods, with_slices) = (config.verifies_pods(), shows_endpoints(config));
    let interest = Interest {
        services: true,
        slices: with_slices,
        pods: if with_pods { PodInterest::All } else { PodInterest::None },
        ..Interest::default()
    };
    let namespaces = watcher(Api::<core::Namespace>::all(client.clone()), watcher::Config::default());
    Ok(Some(Watches {
        api,
        imports: config.imports().then(|| Imports::new(&client)),
        updates: watch(client, interest),
        namespaces: namespaces.default_backoff().boxed(),
        with_pods,
        with_slices,
        synced: false,
        namespaces_listed: false,
        listing: BTreeSet::new(),
        known: BTreeSet::new(),
    }))
}

/// Takes the next of the cluster's changes in; waits for ever where nothing is watched.
pub(super) async fn next(watches: Option<&mut Watches>, shared: &Shared, cluster: &mut Cluster) {
    let Some(watches) = watches else { return std::future::pending().await };
    let server = shared.server();
    tokio::select! {
        update = watches.updates.recv() => match update {
            Some(update) => watches.take_in(&update, &server, cluster),
            None => std::future::pending().await,
        },
        event = watches.namespaces.next() => match event {
            Some(event) => watches.namespace(event, cluster),
            None => std::future::pending().await,
        },
        heard = imported(&mut watches.imports) => watches.imported(heard, cluster),
    }
    if watches.synced && watches.namespaces_listed && !server.synced() {
        server.set_synced();
        info!("the cluster's state is known");
    }
}

/// What is heard of imports; waits for ever where none are watched.
async fn imported(imports: &mut Option<Imports>) -> Heard {
    match imports {
        Some(imports) => imports.next().await,
        None => std::future::pending().await,
    }
}

impl Watches {
    /// Whether they tell of all that a Corefile needs. Which labels of pods were kept is not theirs to know.
    pub(super) fn suffice(&self, config: &Config) -> bool {
        (self.with_pods || !config.verifies_pods())
            && (self.with_slices || !shows_endpoints(config))
            && (self.imports.is_some() || !config.imports())
            && api(config).is_ok_and(|api| api == self.api)
    }

    /// Lets the cluster know that these take the place of those `before`: what is known is served until these listed what there is, and what
    /// they did not list is gone then. Says whether what is not known meanwhile is known not to be: what another API server has is not,
    /// nor are endpoints that nobody told of.
    pub(super) fn announce(&self, before: Option<&Self>, cluster: &mut Cluster) -> bool {
        let Some(before) = before else { return false };
        cluster.succeed(self.with_pods && !(before.with_pods && before.synced));
        self.is_told_by(&before.api) && (before.with_slices || !self.with_slices)
    }

    /// Goes on from those `before`: namespaces and imports that they told of and these do not list are gone. What is imported is forgotten
    /// where it was another API server that told it, or where it is not followed any more.
    pub(super) fn succeed(&mut self, before: Self, cluster: &mut Cluster) {
        let is_same = self.is_told_by(&before.api);
        self.known = before.known;
        match (&mut self.imports, before.imports) {
            (Some(imports), Some(old)) if is_same => imports.succeed(old),
            (_, Some(_)) => cluster.forget_imports(),
            (_, None) => {}
        }
    }

    /// Whether it is this API server that tells, however often it may be asked, and as whom.
    fn is_told_by(&self, other: &ApiAccess) -> bool {
        (&self.api.endpoint, &self.api.kubeconfig) == (&other.endpoint, &other.kubeconfig)
    }

    /// Follows what is imported no more, once nothing shows it, and forgets it.
    pub(super) fn drop_imports(&mut self, config: &Config, cluster: &mut Cluster) {
        if !config.imports() && self.imports.take().is_some() {
            cluster.forget_imports();
            info!("nothing shows any more what the cluster imports of its cluster set: it is not followed");
        }
    }

    /// Takes in Services, endpoints and pods until all that there are were listed. What else they tell waits.
    pub(super) async fn list(&mut self, shared: &Shared, cluster: &mut Cluster) {
        while !self.synced {
            match self.updates.recv().await {
                Some(update) => self.update(&update, &shared.server(), cluster),
                None => std::future::pending().await,
            }
        }
    }

    /// Whether nothing is left that would be known in a moment, whatever cannot be had.
    pub(super) fn is_settled(&self) -> bool {
        self.imports.as_ref().is_none_or(Imports::is_settled)
    }

    /// Takes in a change, and those that wait behind it.
    fn take_in(&mut self, first: &Update, server: &Server, cluster: &mut Cluster) {
        self.update(first, server, cluster);
        for _ in 1..AT_ONCE {
            let Ok(update) = self.updates.try_recv() else { return };
            self.update(&update, server, cluster);
        }
    }

    fn update(&mut self, update: &Update, server: &Server, cluster: &mut Cluster) {
        match update {
            Update::Change(change) => {
                if cluster.apply(change) && server.synced() {
                    programmed(change, cluster, server.metrics());
                }
            }
            Update::Synced => {
                cluster.listed();
                self.synced = true;
            }
        }
    }

    fn imported(&mut self, heard: Heard, cluster: &mut Cluster) {
        if let Some(imports) = &mut self.imports {
            imports.take(heard, cluster);
        }
    }

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
                // At once: the list may be broken off, and it may be gone when it is made anew.
                self.known.insert(name(&namespace));
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

/// Whether some zone shows endpoints, or Services by their endpoints: where none does (`noendpoints`), nobody has to be allowed to
/// watch them.
fn shows_endpoints(config: &Config) -> bool {
    config.kubernetes().any(|options| !options.no_endpoints || options.ignore_empty)
}

/// How a Corefile wants the API server to be reached; it can be only one.
pub(in crate::dns) fn api(config: &Config) -> Result<ApiAccess, DnsError> {
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
