//! The cluster's state as a stream of changes.
//!
//! One task for each kind lists and watches; it remembers the keys that it told of, so that what vanished while the API server was
//! away is told as a removal after the next list. The receiver sees each object converted to its model type. An object that
//! cannot be converted is quarantined: it is told as absent (of a configuration of the whole network, what it said before counts, also
//! after a restart), logged and told by an event once for each version, and everything else goes on. Of a Service or
//! an EndpointSlice only the wrong parts are left out.

mod absence;
mod ahead;
mod file;
mod good;
mod kinds;
mod pauses;
mod quarantine;
mod removal;

use std::{
    collections::{BTreeMap, HashSet},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use absence::{Absence, Finding};
pub use ahead::paging_ahead;
use file::FileWatch;
use futures::{StreamExt, TryStreamExt};
use good::LastGood;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Node};
use kinds::Watched;
use kube::{
    Api, Client, Resource,
    core::NamespaceResourceScope,
    runtime::watcher::{self, Event, watcher},
};
pub use pauses::{is_unknown, steadily};
use podnet_model::{
    Change, NodeName,
    convert::{Invalid, Partly},
    crd::{FelixConfiguration, IPAMBlock, IPAMConfig, IPAddressPool, IPPool, IPReservation, StickyAddress},
    errors::chain,
    excerpt::{EndpointSlice, Pod, Service},
};
use quarantine::Cell;
pub use quarantine::Quarantine;
use removal::Removal;
use tokio::sync::mpsc;
use tracing::{debug, info, warn};

use crate::events::{About, Complaints};

/// How many changes may wait for the receiver before the watches pause.
const BACKLOG: usize = 4096;

/// Where flannel's manifests put its configuration, of now and of before 2022.
const NET_CONF_NAMESPACES: [&str; 2] = ["kube-flannel", "kube-system"];

/// The ConfigMap of kube-proxy's configuration: its namespace and name.
pub const PROXY_CONFIG_MAP: (&str, &str) = ("kube-system", "kube-proxy");

/// What the receiver learns.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::large_enum_variant, reason = "nearly all are changes")]
pub enum Update {
    /// An object appeared, changed or vanished.
    Change(Change),
    /// Every kind of the interest was listed once: the state is complete from here on.
    Synced,
}

/// What to watch.
#[derive(Clone, Debug, Default)]
pub struct Interest {
    /// Nodes.
    pub nodes: bool,
    /// Which pods.
    pub pods: PodInterest,
    /// Services.
    pub services: bool,
    /// EndpointSlices.
    pub slices: bool,
    /// IPPools.
    pub pools: bool,
    /// IPAddressPools: which addresses load balancers may have.
    pub address_pools: bool,
    /// IPAMBlocks.
    pub blocks: bool,
    /// Namespaces, IPReservations, StickyAddresses and the IPAMConfig: who may draw from which pool.
    pub ipam: bool,
    /// flannel's configuration and the FelixConfiguration: the way between nodes.
    pub ways: bool,
    /// How Services are served.
    pub proxy: ProxySource,
    /// Where it is counted how many objects are wrong.
    pub quarantine: Quarantine,
    /// Where it is told what is wrong with an object; none keeps it to the log.
    pub complaints: Option<Complaints>,
    /// Where configurations of the whole network are kept as they were when they were last right.
    pub last_good: Option<PathBuf>,
}

/// Where the KubeProxyConfiguration comes from.
#[derive(Clone, Debug, Default)]
pub enum ProxySource {
    /// It does not matter.
    #[default]
    None,
    /// The ConfigMap `kube-proxy` in `kube-system`, where it is there.
    ConfigMap,
    /// A file of this node's.
    File(NodeName, PathBuf),
}

/// Which pods to watch.
#[derive(Clone, Debug, Default)]
pub enum PodInterest {
    /// No pod.
    #[default]
    None,
    /// The pods that were scheduled to this node.
    OnNode(NodeName),
    /// Every pod of the cluster.
    All,
}

/// Starts the watches; they end when the receiver is dropped.
#[must_use]
pub fn watch(client: Client, interest: Interest) -> mpsc::Receiver<Update> {
    let (sender, receiver) = mpsc::channel(BACKLOG);
    let kept = interest.last_good.as_ref().map(|directory| directory.join("proxy-config"));
    let good = interest.last_good.map(|directory| Arc::new(LastGood::new(directory)));
    let quarantine = interest.quarantine;
    let mut watches =
        Watches { client, sender, complaints: interest.complaints, good, quarantine, started: Vec::new() };
    let all = watcher::Config::default;
    if interest.nodes {
        watches.add::<Node>(all());
    }
    match interest.pods {
        PodInterest::None => {}
        PodInterest::OnNode(node) => watches.add::<Pod>(all().fields(&format!("spec.nodeName={node}"))),
        PodInterest::All => watches.add_many::<Pod>(all()),
    }
    if interest.services {
        watches.add_many::<Service>(all());
    }
    if interest.slices {
        watches.add_many::<EndpointSlice>(all());
    }
    if interest.pools {
        watches.add::<IPPool>(all());
    }
    if interest.address_pools {
        watches.add::<IPAddressPool>(all());
    }
    if interest.blocks {
        watches.add::<IPAMBlock>(all());
    }
    if interest.ipam {
        watches.add::<Namespace>(all());
        watches.add::<IPReservation>(all());
        watches.add::<IPAMConfig>(all());
        watches.add::<StickyAddress>(all());
    }
    if interest.ways {
        watches.add::<FelixConfiguration>(all().fields("metadata.name=default"));
        for namespace in NET_CONF_NAMESPACES {
            watches.add_in::<ConfigMap>(namespace, all().fields("metadata.name=kube-flannel-cfg"));
        }
    }
    match interest.proxy {
        ProxySource::None => {}
        ProxySource::ConfigMap => {
            watches.add_in::<ConfigMap>(PROXY_CONFIG_MAP.0, all().fields("metadata.name=kube-proxy"));
        }
        ProxySource::File(node, path) => watches.add_file(FileWatch { path, kept, node }),
    }
    watches.start();
    receiver
}

type Start = Box<dyn FnOnce(Arc<AtomicUsize>) + Send>;

struct Watches {
    client: Client,
    sender: mpsc::Sender<Update>,
    complaints: Option<Complaints>,
    good: Option<Arc<LastGood>>,
    quarantine: Quarantine,
    started: Vec<Start>,
}

impl Watches {
    fn add<K: Watched>(&mut self, config: watcher::Config) {
        self.follow(Api::<K>::all(self.client.clone()), config);
    }

    /// As [`Watches::add`], of a kind of which a cluster has many pages.
    fn add_many<K: Watched>(&mut self, config: watcher::Config) {
        self.follow(Api::<K>::all(paging_ahead(self.client.clone())), config);
    }

    fn add_in<K: Watched + Resource<Scope = NamespaceResourceScope>>(
        &mut self,
        namespace: &str,
        config: watcher::Config,
    ) {
        self.follow(Api::<K>::namespaced(self.client.clone(), namespace), config);
    }

    fn follow<K: Watched>(&mut self, api: Api<K>, config: watcher::Config) {
        let follower = self.follower(K::kind(&()).into_owned());
        self.started.push(Box::new(move |unsynced| {
            tokio::spawn(follower(unsynced).follow(api, config));
        }));
    }

    fn add_file(&mut self, watch: FileWatch) {
        let follower = self.follower("File".to_owned());
        self.started.push(Box::new(move |unsynced| {
            tokio::spawn(watch.follow(follower(unsynced)));
        }));
    }

    fn follower(&self, kind: String) -> impl FnOnce(Arc<AtomicUsize>) -> Follower + Send + 'static {
        let (sender, complaints, good) = (self.sender.clone(), self.complaints.clone(), self.good.clone());
        let cell = Cell::new(kind, self.quarantine.clone());
        move |unsynced| Follower {
            sender,
            complaints,
            good,
            told: HashSet::new(),
            partly: BTreeMap::new(),
            unsynced: Some(unsynced),
            cell,
        }
    }

    fn start(self) {
        let unsynced = Arc::new(AtomicUsize::new(self.started.len()));
        for start in self.started {
            start(unsynced.clone());
        }
    }
}

/// The faults of an object in one line; of many the first ones.
fn told(faults: &[Invalid]) -> String {
    /// An event's message has at most 1,024 bytes.
    const MOST: usize = 3;
    let first = faults.iter().take(MOST).map(|fault| chain(fault)).collect::<Vec<_>>().join("; ");
    match faults.len().saturating_sub(MOST) {
        0 => first,
        more => format!("{first}; and {more} more like these"),
    }
}

/// The receiver is gone: nobody wants the watch any more.
struct Unwanted;

struct Follower {
    sender: mpsc::Sender<Update>,
    complaints: Option<Complaints>,
    good: Option<Arc<LastGood>>,
    /// What the receiver believes to be there, by its key.
    told: HashSet<Removal>,
    /// What was told of objects of which only a part can be taken.
    partly: BTreeMap<Removal, String>,
    /// How many kinds still wait for their first list; none once this one had its own.
    unsynced: Option<Arc<AtomicUsize>>,
    cell: Cell,
}

impl Follower {
    async fn follow<K: Watched>(mut self, api: Api<K>, config: watcher::Config) {
        let kind = K::kind(&());
        let mut events = steadily(watcher(api, config)).boxed();
        let mut listed = HashSet::new();
        let (mut is_missed, mut absence, mut is_warned) = (false, Absence::default(), false);
        loop {
            let event = tokio::select! {
                event = events.try_next() => event,
                () = self.sender.closed() => return,
            };
            let done = match event {
                Ok(Some(event)) => {
                    // It is told before anything was asked.
                    if !matches!(event, Event::Init) {
                        absence.over();
                        (is_missed, is_warned) = (false, false);
                    }
                    self.take(event, &mut listed).await
                }
                Ok(None) => return,
                Err(error) if is_unknown(&error) => {
                    if !std::mem::replace(&mut is_missed, true) {
                        info!(%kind, "the API server does not have this kind; it is asked again until it does");
                    }
                    absence.over();
                    if K::MAY_BE_UNDEFINED {
                        self.take::<K>(Event::InitDone, &mut HashSet::new()).await
                    } else {
                        Ok(())
                    }
                }
                Err(error) => {
                    let finding =
                        if K::MAY_BE_UNDEFINED { absence.judge(&error, Instant::now()) } else { Finding::Wait };
                    let error = chain(&error);
                    if finding == Finding::Wait {
                        // Kept quiet at the usual level: the state that we have goes on to be used, and the watcher comes back.
                        info!(%kind, %error, "watch interrupted");
                        Ok(())
                    } else {
                        if !std::mem::replace(&mut is_warned, true) {
                            warn!(%kind, %error, "not listed; clusters do without this kind, so nothing waits for it");
                        }
                        self.go_without::<K>(finding == Finding::Forbidden).await
                    }
                }
            };
            if done.is_err() {
                return;
            }
        }
    }

    async fn take<K: Watched>(&mut self, event: Event<K>, listed: &mut HashSet<Removal>) -> Result<(), Unwanted> {
        match event {
            Event::Init => listed.clear(),
            Event::InitApply(object) => {
                if let Some(removal) = self.apply(object).await? {
                    listed.insert(removal);
                }
            }
            Event::InitDone => {
                let listed = std::mem::take(listed);
                self.cell.listed(&listed);
                if let Some(good) = self.good.as_ref().filter(|_| K::MAY_BE_UNDEFINED) {
                    let is_gone = |kept: &K| !kept.gone().is_some_and(|gone| listed.contains(&gone.into()));
                    good.all::<K>().iter().filter(|kept| is_gone(kept)).for_each(|kept| good.forget(kept));
                }
                let mut vanished: Vec<_> = self.told.difference(&listed).cloned().collect();
                vanished.sort_unstable();
                for removal in vanished {
                    self.remove(removal).await?;
                }
                self.synced().await?;
            }
            Event::Apply(object) => {
                self.apply(object).await?;
            }
            Event::Delete(object) => {
                if let Some(good) = self.good.as_ref().filter(|_| K::MAY_BE_UNDEFINED) {
                    good.forget(&object);
                }
                if let Some(change) = object.gone() {
                    let gone = change.into();
                    self.cell.seen(&gone, true);
                    self.remove(gone).await?;
                }
            }
        }
        Ok(())
    }

    /// Nobody waits for this kind any more. Where it is not known whether there is any, what there was when it was last listed counts, if
    /// that is all that is known.
    async fn go_without<K: Watched>(&mut self, is_forbidden: bool) -> Result<(), Unwanted> {
        let good = self.good.as_ref().filter(|_| !is_forbidden && self.unsynced.is_some());
        for kept in good.map(|good| good.all::<K>()).unwrap_or_default() {
            if let (Some(gone), Ok(change)) = (kept.gone(), kept.present())
                && self.told.insert(gone.into())
            {
                self.send(Update::Change(change)).await?;
            }
        }
        self.synced().await
    }

    async fn apply<K: Watched>(&mut self, object: K) -> Result<Option<Removal>, Unwanted> {
        let Some(gone) = object.gone().map(Removal::from) else {
            debug!(?object, "object without a usable name ignored");
            return Ok(None);
        };
        if object.is_anothers() {
            self.cell.seen(&gone, true);
            self.remove(gone).await?;
            return Ok(None);
        }
        let present = object.partly_present();
        let is_right = present.as_ref().is_ok_and(|partly| partly.faults.is_empty());
        self.cell.seen(&gone, is_right || K::MAY_BE_UNFINISHED);
        match present {
            Ok(Partly { right: change, faults }) => {
                self.tell_parts(&object, &gone, &faults);
                if let Some(good) = self.good.as_ref().filter(|_| K::LAST_GOOD_COUNTS) {
                    object.keep(good);
                }
                let gone = gone.sharing(&change);
                self.told.insert(gone.clone());
                self.send(Update::Change(change)).await?;
                return Ok(Some(gone));
            }
            Err(error) if K::LAST_GOOD_COUNTS => {
                self.complain(&object, &chain(&error), "object ignored until it is mended; what it said before counts");
                let before = self.good.as_ref().filter(|_| !self.told.contains(&gone));
                if let Some(change) = before.and_then(|good| good.of(&object)?.present().ok()) {
                    self.told.insert(gone.clone());
                    self.send(Update::Change(change)).await?;
                }
            }
            Err(error) => {
                self.complain(&object, &chain(&error), "object ignored until it is mended");
                self.remove(gone.clone()).await?;
            }
        }
        Ok(Some(gone))
    }

    /// Tells what is wrong with parts of an object, once for as long as the same is wrong: a slice may change many times a second.
    fn tell_parts<K: Watched>(&mut self, object: &K, gone: &Removal, faults: &[Invalid]) {
        if faults.is_empty() {
            self.partly.remove(gone);
            return;
        }
        let faults = told(faults);
        if self.partly.get(gone) != Some(&faults) {
            self.complain(object, &faults, "this part is ignored until it is mended, the rest counts");
            self.partly.insert(gone.clone(), faults);
        }
    }

    fn complain<K: Watched>(&self, object: &K, error: &str, so: &'static str) {
        warn!(%error, "{so}");
        if let Some(complaints) = self.complaints.as_ref().filter(|_| !K::MAY_BE_UNFINISHED) {
            complaints.tell(About::object(object), "Invalid", format!("{error}; {so}"));
        }
    }

    async fn remove(&mut self, removal: Removal) -> Result<(), Unwanted> {
        self.partly.remove(&removal);
        if self.told.remove(&removal) {
            self.send(Update::Change(removal.into())).await?;
        }
        Ok(())
    }

    async fn synced(&mut self) -> Result<(), Unwanted> {
        match self.unsynced.take() {
            Some(unsynced) if unsynced.fetch_sub(1, Ordering::AcqRel) == 1 => self.send(Update::Synced).await,
            _ => Ok(()),
        }
    }

    async fn send(&self, update: Update) -> Result<(), Unwanted> {
        self.sender.send(update).await.map_err(|_| Unwanted)
    }
}

#[cfg(test)]
mod tests;
