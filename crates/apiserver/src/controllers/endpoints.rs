//! EndpointSlices of Services: which addresses and ports a Service leads to; and the older Endpoints objects with the same content.

mod collect;
mod family;
mod hints;
mod legacy;
mod lookup;
mod mirror;
mod pace;
mod slices;
mod topology;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use collect::Group;
use family::Family;
use k8s_openapi::{
    api::{
        core::v1::{Endpoints, Node, Pod, Service},
        discovery::v1::EndpointSlice,
    },
    jiff::Timestamp,
};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{DeleteParams, PostParams, Preconditions},
};
use lookup::Lookup;
use pace::Pace;
use slices::{Edit, Kin};
use topology::Unsafe;
use tracing::{debug, info};

use super::{
    cache::Change,
    caches::Caches,
    key::Key,
    queue::Queue,
    recorder::{Recorder, Tone},
    worker::{During, Failure, Outcome, absent_is_fine, work},
};

/// The label that leads from a slice to its Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// The label that says who writes a slice.
const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
/// The API server's own Service: its endpoints are written by the server itself.
const API_SERVICE: (&str, &str) = ("default", "kubernetes");

/// The controller of EndpointSlices and Endpoints.
pub(crate) struct ServiceEndpoints {
    client: Client,
    caches: Arc<Caches>,
    lookup: Arc<Lookup>,
    queue: Queue<Key>,
    pace: Pace,
    recorder: Recorder,
    /// What was last said of Services that ask for endpoints by the shares of zones: none where they have them.
    said: Mutex<BTreeMap<Key, Option<Unsafe>>>,
}

impl ServiceEndpoints {
    /// Listens to the caches from now on.
    pub(crate) fn new(client: Client, caches: &Arc<Caches>, recorder: &Recorder) -> Arc<Self> {
        let controller = Arc::new(Self {
            client,
            caches: Arc::clone(caches),
            lookup: Lookup::new(caches),
            queue: Queue::default(),
            pace: Pace::default(),
            recorder: recorder.of("endpoint-slice-controller"),
            said: Mutex::default(),
        });
        let listener = Arc::clone(&controller);
        caches.services.listen(move |change| {
            change.states().for_each(|service| listener.changed(Key::of(&service.metadata)));
        });
        let listener = Arc::clone(&controller);
        caches.endpoints.listen(move |change| {
            change.states().for_each(|endpoints| listener.queue.add(Key::of(&endpoints.metadata)));
        });
        let listener = Arc::clone(&controller);
        caches.slices.listen(move |change| {
            for slice in change.states().filter(|slice| is_ours(slice)) {
                if let Some(service) = slice.labels().get(SERVICE_NAME) {
                    listener.queue.add(Key::new(slice.namespace().unwrap_or_default(), service));
                }
            }
        });
        let listener = Arc::clone(&controller);
        caches.pods.listen(move |change| listener.pod_changed(change));
        let listener = Arc::clone(&controller);
        caches.nodes.listen(move |change| listener.node_changed(change));
        controller
    }

    /// Works for ever.
    pub(crate) async fn run(self: Arc<Self>) {
        work("endpoints", &self.queue, |key| Box::pin(self.reconcile(key))).await;
    }

    fn changed(&self, key: Key) {
        self.pace.changed(&key, Timestamp::now());
        self.queue.add(key);
    }

    fn pod_changed(&self, change: &Change<'_, Pod>) {
        if let Change::Set { old: Some(old), new } = change
            && collect::says_the_same(old, new)
        {
            return;
        }
        for pod in change.states() {
            self.lookup.services_of(pod).iter().for_each(|service| self.changed(Key::of(&service.metadata)));
        }
    }

    /// A node's zone is part of every endpoint on it. It changes so seldom that all Services are looked at.
    fn node_changed(&self, change: &Change<'_, Node>) {
        let zones: Vec<_> = change.states().map(|node| lookup::zone(node)).collect();
        let (first, last) = (zones.first().cloned().flatten(), zones.last().cloned().flatten());
        let same = match change {
            Change::Set { old: Some(_), .. } => first == last,
            _ => last.is_none(),
        };
        if !same {
            self.caches.services.all().iter().for_each(|service| self.changed(Key::of(&service.metadata)));
            return;
        }
        let parts: Vec<_> = change.states().map(|node| topology::part(node)).collect();
        if !matches!((change, &parts[..]), (Change::Set { old: Some(_), .. }, [old, new]) if old == new) {
            let services = self.caches.services.all();
            let auto = services.iter().filter(|service| topology::is_auto(service));
            auto.for_each(|service| self.changed(Key::of(&service.metadata)));
        }
    }

    async fn reconcile(&self, key: Key) -> Result<Outcome, Failure> {
        if (key.namespace.as_str(), key.name.as_str()) == API_SERVICE {
            return Ok(Outcome::Done);
        }
        if let Some(wait) = self.pace.wait(&key, Instant::now()) {
            return Ok(Outcome::After(wait));
        }
        let trigger = self.pace.take_trigger(&key);
        let written = self.write(&key, trigger).await;
        if let (Err(_), Some(trigger)) = (&written, trigger) {
            self.pace.changed(&key, trigger);
        }
        written.map(|()| Outcome::Done)
    }

    async fn write(&self, key: &Key, trigger: Option<Timestamp>) -> Result<(), Failure> {
        let endpoints = self.caches.endpoints.find(key);
        let Some(service) = self.caches.services.find(key).filter(|found| found.metadata.deletion_timestamp.is_none())
        else {
            return self.clean_up(key, endpoints.as_deref()).await;
        };
        if collect::is_external_name(&service) {
            return Ok(());
        }
        let slices = self.lookup.slices_of(key);
        if collect::has_selector(&service) {
            let families = self.families_of(&service);
            let count: usize = families.iter().flat_map(|(_, groups)| groups).map(|group| group.endpoints.len()).sum();
            self.apply(key, slices::edits(&Kin::of_service(&service), &families, &slices), trigger).await?;
            let first = families.first().map(|(_, groups)| &groups[..]).unwrap_or_default();
            self.write_legacy(key, legacy::endpoints(&service, first), endpoints.as_deref()).await?;
            self.pace.looked(key, count, Instant::now());
        } else if let Some(endpoints) = endpoints.filter(|endpoints| mirror::is_mirrored(endpoints)) {
            let families = Family::BOTH.map(|family| (family, mirror::groups(&endpoints, family)));
            self.apply(key, slices::edits(&Kin::of_endpoints(&endpoints), &families, &slices), trigger).await?;
        } else {
            self.apply(key, slices::removal(&slices), trigger).await?;
        }
        Ok(())
    }

    /// The endpoints of each of a Service's families.
    fn families_of(&self, service: &Service) -> Vec<(Family, Vec<Group>)> {
        let pods = self.lookup.pods_of(service);
        let zone_of = |node: &str| self.lookup.zone_of(node);
        let families = Family::of_service(service).into_iter();
        let mut families: Vec<_> =
            families.map(|family| (family, collect::collect(service, &pods, family, zone_of))).collect();
        if topology::is_auto(service) {
            self.give_shares(service, &mut families);
        } else {
            self.said().remove(&Key::of(&service.metadata));
        }
        families
    }

    /// Gives endpoints their hints by the shares of zones, and says where it cannot be done.
    fn give_shares(&self, service: &Service, families: &mut [(Family, Vec<Group>)]) {
        let nodes = self.caches.nodes.all();
        let shares = topology::shares(nodes.iter().map(|node| &**node));
        let mut problem = None;
        for (family, groups) in families {
            if let Err(why) = topology::assign(groups, &shares) {
                problem = problem.or(Some((*family, why)));
            }
        }
        let said = problem.map(|(_, why)| why);
        if self.said().insert(Key::of(&service.metadata), said) == Some(said) {
            return;
        }
        match problem {
            Some((family, why)) => {
                let message = format!("no endpoint of {} has a hint: {why}", family.name());
                self.recorder.tell(service, Tone::Warning, "TopologyAwareHintsDisabled", message);
            }
            None => {
                let message = "endpoints have hints by the zones' shares of CPUs";
                self.recorder.tell(service, Tone::Normal, "TopologyAwareHintsEnabled", message);
            }
        }
    }

    fn said(&self) -> std::sync::MutexGuard<'_, BTreeMap<Key, Option<Unsafe>>> {
        // One insertion at a time cannot be half done.
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn clean_up(&self, key: &Key, endpoints: Option<&Endpoints>) -> Result<(), Failure> {
        self.said().remove(key);
        self.apply(key, slices::removal(&self.lookup.slices_of(key)), None).await?;
        if let Some(endpoints) = endpoints.filter(|endpoints| legacy::is_ours(endpoints)) {
            let api = Api::<Endpoints>::namespaced(self.client.clone(), &key.namespace);
            let deleted = api.delete(&key.name, &only(endpoints)).await;
            absent_is_fine(deleted.during(|| format!("deleting endpoints {key}")))?;
        }
        Ok(())
    }

    /// Writes the edits; `trigger` says since when they are due, for those who measure how long it took until nodes followed.
    async fn apply(&self, key: &Key, edits: Vec<Edit>, trigger: Option<Timestamp>) -> Result<(), Failure> {
        let api = Api::<EndpointSlice>::namespaced(self.client.clone(), &key.namespace);
        for edit in edits {
            match edit {
                Edit::Create(mut slice) => {
                    slices::set_trigger(&mut slice, trigger);
                    let name = slice.name_any();
                    let created = api.create(&PostParams::default(), &slice).await;
                    created.during(|| format!("creating endpointslice {}/{name}", key.namespace))?;
                    info!(service = %key, slice = %name, "endpointslice created");
                }
                Edit::Update(mut slice) => {
                    slices::set_trigger(&mut slice, trigger);
                    let name = slice.name_any();
                    let written = api.replace(&name, &PostParams::default(), &slice).await;
                    written.during(|| format!("updating endpointslice {}/{name}", key.namespace))?;
                    debug!(service = %key, slice = %name, "endpointslice updated");
                }
                Edit::Delete(slice) => {
                    let name = slice.name_any();
                    let deleted = api.delete(&name, &only(&*slice)).await;
                    absent_is_fine(deleted.during(|| format!("deleting endpointslice {}/{name}", key.namespace)))?;
                    debug!(service = %key, slice = %name, "endpointslice deleted");
                }
            }
        }
        Ok(())
    }

    async fn write_legacy(&self, key: &Key, wanted: Endpoints, known: Option<&Endpoints>) -> Result<(), Failure> {
        let api = Api::<Endpoints>::namespaced(self.client.clone(), &key.namespace);
        match known {
            None => {
                let created = api.create(&PostParams::default(), &wanted).await;
                created.during(|| format!("creating endpoints {key}"))?;
            }
            Some(known) if legacy::says_the_same(known, &wanted) => {}
            Some(known) => {
                let changed = legacy::updated(known, wanted);
                let written = api.replace(&key.name, &PostParams::default(), &changed).await;
                written.during(|| format!("updating endpoints {key}"))?;
            }
        }
        Ok(())
    }
}

fn is_ours(slice: &EndpointSlice) -> bool {
    slice.labels().get(MANAGED_BY).is_some_and(|by| by == slices::FOR_PODS || by == slices::FOR_MIRRORS)
}

fn only(object: &impl Resource) -> DeleteParams {
    let uid = object.meta().uid.clone();
    DeleteParams::background().preconditions(Preconditions { uid, resource_version: None })
}
