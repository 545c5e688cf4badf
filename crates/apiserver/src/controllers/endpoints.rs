//! EndpointSlices of Services: which addresses and ports a Service leads to; and the older Endpoints objects with the same content.

mod collect;
mod legacy;
mod mirror;
mod slices;

use std::sync::Arc;

use k8s_openapi::api::{
    core::v1::{Endpoints, Pod},
    discovery::v1::EndpointSlice,
};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{DeleteParams, PostParams, Preconditions},
};
use slices::{Edit, Family};
use tracing::{debug, info};

use super::{
    cache::Change,
    caches::Caches,
    key::Key,
    queue::Queue,
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
    queue: Queue<Key>,
}

impl ServiceEndpoints {
    /// Listens to the caches from now on.
    pub(crate) fn new(client: Client, caches: &Arc<Caches>) -> Arc<Self> {
        let controller = Arc::new(Self { client, caches: Arc::clone(caches), queue: Queue::default() });
        let listener = Arc::clone(&controller);
        caches.services.listen(move |change| {
            change.states().for_each(|service| listener.queue.add(Key::of(&service.metadata)));
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
        controller
    }

    /// Works for ever.
    pub(crate) async fn run(self: Arc<Self>) {
        work("endpoints", &self.queue, |key| Box::pin(self.reconcile(key))).await;
    }

    fn pod_changed(&self, change: &Change<'_, Pod>) {
        if let Change::Set { old: Some(old), new } = change
            && collect::says_the_same(old, new)
        {
            return;
        }
        for pod in change.states() {
            for service in self.caches.services.namespace(&pod.namespace().unwrap_or_default()) {
                if collect::selects(&service, pod) {
                    self.queue.add(Key::of(&service.metadata));
                }
            }
        }
    }

    async fn reconcile(&self, key: Key) -> Result<Outcome, Failure> {
        if (key.namespace.as_str(), key.name.as_str()) == API_SERVICE {
            return Ok(Outcome::Done);
        }
        let endpoints = self.caches.endpoints.find(&key);
        let Some(service) = self.caches.services.find(&key).filter(|found| found.metadata.deletion_timestamp.is_none())
        else {
            self.clean_up(&key, endpoints.as_deref()).await?;
            return Ok(Outcome::Done);
        };
        if collect::is_external_name(&service) {
            return Ok(Outcome::Done);
        }
        if collect::has_selector(&service) {
            let pods = self.caches.pods.namespace(&key.namespace);
            let groups = collect::collect(&service, &pods);
            let family = Family::of_service(&service);
            self.apply(&key, slices::edits(&family, &groups, &self.slices_of(&key))).await?;
            self.write_legacy(&key, legacy::endpoints(&service, &groups), endpoints.as_deref()).await?;
        } else if let Some(endpoints) = endpoints.filter(|endpoints| mirror::is_mirrored(endpoints)) {
            let family = Family::of_endpoints(&endpoints);
            self.apply(&key, slices::edits(&family, &mirror::groups(&endpoints), &self.slices_of(&key))).await?;
        } else {
            self.apply(&key, slices::removal(&self.slices_of(&key))).await?;
        }
        Ok(Outcome::Done)
    }

    /// The slices that this controller wrote for the Service.
    fn slices_of(&self, key: &Key) -> Vec<Arc<EndpointSlice>> {
        let mut slices = self.caches.slices.namespace(&key.namespace);
        slices.retain(|slice| {
            is_ours(slice)
                && slice.metadata.deletion_timestamp.is_none()
                && slice.labels().get(SERVICE_NAME).is_some_and(|service| *service == key.name)
        });
        slices
    }

    async fn clean_up(&self, key: &Key, endpoints: Option<&Endpoints>) -> Result<(), Failure> {
        self.apply(key, slices::removal(&self.slices_of(key))).await?;
        if let Some(endpoints) = endpoints.filter(|endpoints| legacy::is_ours(endpoints)) {
            let api = Api::<Endpoints>::namespaced(self.client.clone(), &key.namespace);
            let deleted = api.delete(&key.name, &only(endpoints)).await;
            absent_is_fine(deleted.during(|| format!("deleting endpoints {key}")))?;
        }
        Ok(())
    }

    async fn apply(&self, key: &Key, edits: Vec<Edit>) -> Result<(), Failure> {
        let api = Api::<EndpointSlice>::namespaced(self.client.clone(), &key.namespace);
        for edit in edits {
            match edit {
                Edit::Create(slice) => {
                    let name = slice.name_any();
                    let created = api.create(&PostParams::default(), &slice).await;
                    created.during(|| format!("creating endpointslice {}/{name}", key.namespace))?;
                    info!(service = %key, slice = %name, "endpointslice created");
                }
                Edit::Update(slice) => {
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
