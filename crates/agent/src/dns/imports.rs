//! The Services that the cluster imports of its cluster set (`multicluster`): ServiceImports and their EndpointSlices.
//!
//! They are watched apart from what is the cluster's own, which neither waits for them nor suffers when they cannot be had. Where the API
//! server does not have ServiceImports there are none, which is said once; they are taken up when it does.

use std::{
    collections::{BTreeMap, BTreeSet},
    pin::Pin,
};

use futures::{Stream, StreamExt};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::{
    Api, Client, Resource, ResourceExt,
    runtime::watcher::{self, Event, watcher},
};
use podnet_client::watch::{is_unknown, steadily};
use podnet_dns::zone::Cluster;
use podnet_model::{
    Service, ServiceKey, SliceKey,
    convert::{IMPORTED_SLICES, Invalid, Partly},
    crd::ServiceImport,
    endpoints::ImportedSlice,
    errors::chain,
};
use tracing::{debug, info, warn};

type Told<K> = Result<Event<K>, watcher::Error>;
type Events<K> = Pin<Box<dyn Stream<Item = Told<K>> + Send>>;

/// A namespace and a name.
type Key = (String, String);

/// The watches.
pub(super) struct Imports {
    services: Events<ServiceImport>,
    slices: Events<EndpointSlice>,
    of_services: Kind,
    of_slices: Kind,
    /// The cluster was told that all is listed.
    is_complete: bool,
}

/// What one of the watches told.
pub(super) enum Heard {
    Service(Told<ServiceImport>),
    Slice(Told<EndpointSlice>),
}

/// What was told of one kind.
#[derive(Default)]
struct Kind {
    name: &'static str,
    /// Those of the list that is coming in.
    listing: BTreeSet<Key>,
    there: BTreeSet<Key>,
    /// What is wrong with an object, or with parts of it, so that it is said once.
    wrong: BTreeMap<Key, String>,
    /// It was listed, or the API server does not have it.
    is_listed: bool,
    /// It was tried to list it.
    is_tried: bool,
    /// Why it cannot be had, which is said once.
    missed: Option<Missed>,
}

/// Why nothing new is heard of a kind.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Missed {
    Unknown,
    NotListed,
    NotWatched,
}

impl Imports {
    pub(super) fn new(client: &Client) -> Self {
        let services = watcher(Api::<ServiceImport>::all(client.clone()), watcher::Config::default());
        let of_imports = watcher::Config::default().labels(IMPORTED_SLICES);
        let slices = watcher(Api::<EndpointSlice>::all(client.clone()), of_imports);
        Self {
            services: steadily(services).boxed(),
            slices: steadily(slices).boxed(),
            of_services: Kind { name: "ServiceImport", ..Kind::default() },
            of_slices: Kind { name: "EndpointSlice", ..Kind::default() },
            is_complete: false,
        }
    }

    /// Goes on from those `before`, as the same API server told them: what they know and is not listed any more is gone then.
    pub(super) fn succeed(&mut self, before: Self) {
        for (own, old) in [(&mut self.of_services, before.of_services), (&mut self.of_slices, before.of_slices)] {
            (own.there, own.wrong) = (old.there, old.wrong);
        }
        self.is_complete = before.is_complete;
    }

    /// What is heard next.
    pub(super) async fn next(&mut self) -> Heard {
        tokio::select! {
            Some(event) = self.services.next() => Heard::Service(event),
            Some(event) = self.slices.next() => Heard::Slice(event),
            else => std::future::pending().await,
        }
    }

    /// Takes in what was heard.
    pub(super) fn take(&mut self, heard: Heard, cluster: &mut Cluster) {
        match heard {
            Heard::Service(event) => self.of_services.take(event, |(namespace, name), import| {
                let (service, faults) = read(import.map(Partly::<Service>::try_from));
                cluster.import(&ServiceKey::new(namespace, name), service.as_ref());
                faults
            }),
            Heard::Slice(event) => self.of_slices.take(event, |(namespace, name), slice| {
                let (slice, faults) = read(slice.map(Partly::<ImportedSlice>::try_from));
                cluster.imported_slice(&SliceKey::new(namespace, name), slice.as_ref());
                faults
            }),
        }
        if !self.is_complete && self.of_services.is_listed && self.of_slices.is_listed {
            self.is_complete = true;
            cluster.imports_listed();
            info!("what the cluster imports of its cluster set is known");
        }
    }

    /// Whether as much is known as can be had without waiting for what cannot.
    pub(super) fn is_settled(&self) -> bool {
        self.of_services.is_tried && self.of_slices.is_tried
    }
}

impl Kind {
    /// Takes an event in. `put` puts an object in its place, or takes it out, and says what is wrong with it.
    fn take<K: Resource>(&mut self, event: Told<K>, mut put: impl FnMut(&Key, Option<&K>) -> Vec<Invalid>) {
        let key = |object: &K| (object.namespace().unwrap_or_default(), object.name_any());
        match event {
            // It is told before anything was asked.
            Ok(Event::Init) => self.listing.clear(),
            Ok(Event::InitApply(object)) => {
                let key = key(&object);
                self.complain(&key, &put(&key, Some(&object)));
                self.listing.insert(key.clone());
                self.there.insert(key);
            }
            Ok(Event::Apply(object)) => {
                let key = key(&object);
                self.complain(&key, &put(&key, Some(&object)));
                self.there.insert(key);
            }
            Ok(Event::Delete(object)) => {
                let key = key(&object);
                self.complain(&key, &put(&key, None));
                self.there.remove(&key);
            }
            Ok(Event::InitDone) => {
                self.missed = None;
                self.listed::<K>(put);
            }
            Err(error) if is_unknown(&error) => {
                if self.misses(Missed::Unknown) {
                    info!(
                        kind = self.name,
                        "the API server does not have this kind: nothing is imported; it is asked again until it does"
                    );
                }
                self.listing.clear();
                self.listed::<K>(put);
            }
            Err(error @ watcher::Error::InitialListFailed(_)) => {
                self.is_tried = true;
                if self.misses(Missed::NotListed) {
                    let error = chain(&error);
                    warn!(kind = self.name, %error, "cannot list what is imported; what was known of it is served on");
                }
            }
            Err(error @ watcher::Error::WatchStartFailed(_)) if self.misses(Missed::NotWatched) => {
                let error = chain(&error);
                warn!(kind = self.name, %error, "cannot watch what is imported; what was listed of it is served on");
            }
            Err(error) => debug!(kind = self.name, error = %chain(&error), "watch interrupted"),
        }
    }

    /// Whether this is another reason than the last one.
    fn misses(&mut self, why: Missed) -> bool {
        self.missed.replace(why) != Some(why)
    }

    /// What is in no list is gone.
    fn listed<K>(&mut self, mut put: impl FnMut(&Key, Option<&K>) -> Vec<Invalid>) {
        let now = std::mem::take(&mut self.listing);
        let before = std::mem::replace(&mut self.there, now);
        for gone in before.difference(&self.there) {
            put(gone, None);
            self.wrong.remove(gone);
        }
        (self.is_listed, self.is_tried) = (true, true);
    }

    /// Says what is wrong with an object, once for as long as the same is wrong.
    fn complain(&mut self, key: &Key, faults: &[Invalid]) {
        let told = faults.iter().map(|fault| chain(fault)).collect::<Vec<_>>().join("; ");
        if told.is_empty() {
            self.wrong.remove(key);
        } else if self.wrong.get(key) != Some(&told) {
            warn!(error = %told, "what is wrong is ignored until it is mended, the rest counts");
            self.wrong.insert(key.clone(), told);
        }
    }
}

/// What can be taken of an object, and what is wrong with it.
fn read<T>(object: Option<Result<Partly<T>, Invalid>>) -> (Option<T>, Vec<Invalid>) {
    match object {
        Some(Ok(Partly { right, faults })) => (Some(right), faults),
        Some(Err(fault)) => (None, vec![fault]),
        None => (None, Vec::new()),
    }
}
