//! Which Services, pods and slices belong together, found by their labels and not by looking at all there are.

use std::{
    collections::BTreeMap,
    sync::{Arc, Weak},
};

use k8s_openapi::api::{
    core::v1::{Node, Pod, Service},
    discovery::v1::EndpointSlice,
};
use kube::ResourceExt;

use super::{SERVICE_NAME, collect, hints::ZONE, is_ours};
use crate::controllers::{cache::Change, caches::Caches, key::Key, label_index::LabelIndex};

/// What is known of each kind, by label.
pub(super) struct Lookup {
    caches: Arc<Caches>,
    /// Services by one label of their selector.
    services: LabelIndex,
    /// Pods by all of theirs.
    pods: LabelIndex,
    /// Our slices by their Service.
    slices: LabelIndex,
}

impl Lookup {
    /// Follows the caches from now on. Listeners that are added later find it up to date.
    pub(super) fn new(caches: &Arc<Caches>) -> Arc<Self> {
        let lookup = Arc::new(Self {
            caches: Arc::clone(caches),
            services: LabelIndex::default(),
            pods: LabelIndex::default(),
            slices: LabelIndex::default(),
        });
        // The caches own their listeners, and this owns the caches.
        let this: Weak<Self> = Arc::downgrade(&lookup);
        let weak = Weak::clone(&this);
        caches.services.listen(move |change| {
            if let Some(lookup) = weak.upgrade() {
                keep(&lookup.services, change, |service| first_of(service).into_iter().collect());
            }
        });
        let weak = Weak::clone(&this);
        caches.pods.listen(move |change| {
            if let Some(lookup) = weak.upgrade() {
                keep(&lookup.pods, change, |pod: &Pod| pod.labels().iter().collect());
            }
        });
        caches.slices.listen(move |change| {
            if let Some(lookup) = this.upgrade() {
                keep(&lookup.slices, change, |slice: &EndpointSlice| {
                    let service = slice.labels().get_key_value(SERVICE_NAME).filter(|_| is_ours(slice));
                    service.into_iter().collect()
                });
            }
        });
        lookup
    }

    /// The Services that choose the pod.
    pub(super) fn services_of(&self, pod: &Pod) -> Vec<Arc<Service>> {
        let namespace = pod.namespace().unwrap_or_default();
        let names = self.services.any(&namespace, pod.labels());
        let services = names.into_iter().filter_map(|name| self.caches.services.find(&Key::new(&*namespace, name)));
        services.filter(|service| collect::selects(service, pod)).collect()
    }

    /// The pods that the Service may choose; all that it does choose are among them.
    pub(super) fn pods_of(&self, service: &Service) -> Vec<Arc<Pod>> {
        let namespace = service.namespace().unwrap_or_default();
        let selector = service.spec.iter().flat_map(|spec| spec.selector.iter().flatten());
        let names = self.pods.fewest(&namespace, selector);
        names.into_iter().filter_map(|name| self.caches.pods.find(&Key::new(&*namespace, name))).collect()
    }

    /// The slices that this controller wrote for the Service.
    pub(super) fn slices_of(&self, key: &Key) -> Vec<Arc<EndpointSlice>> {
        let label: BTreeMap<String, String> = [(SERVICE_NAME.to_owned(), key.name.clone())].into();
        let names = self.slices.fewest(&key.namespace, &label);
        let slices = names.into_iter().filter_map(|name| self.caches.slices.find(&Key::new(&*key.namespace, name)));
        slices.filter(|slice| is_ours(slice) && slice.metadata.deletion_timestamp.is_none()).collect()
    }

    /// The zone of a node.
    pub(super) fn zone_of(&self, node: &str) -> Option<String> {
        zone(&*self.caches.nodes.find(&Key::cluster(node))?)
    }
}

/// The zone that a node's label names.
pub(super) fn zone(node: &Node) -> Option<String> {
    node.labels().get(ZONE).filter(|zone| !zone.is_empty()).cloned()
}

fn first_of(service: &Service) -> Option<(&String, &String)> {
    service.spec.as_ref()?.selector.as_ref()?.first_key_value()
}

fn keep<K: kube::Resource>(index: &LabelIndex, change: &Change<'_, K>, labels: impl Fn(&K) -> Vec<(&String, &String)>) {
    let (old, new) = match change {
        Change::Set { old, new } => (*old, Some(*new)),
        Change::Removed(old) => (Some(*old), None),
        Change::Listed { .. } => (None, None),
    };
    if let (Some(old), Some(new)) = (old, new)
        && labels(old) == labels(new)
    {
        return;
    }
    let place = |object: &K| {
        (object.meta().namespace.clone().unwrap_or_default(), object.meta().name.clone().unwrap_or_default())
    };
    if let Some(old) = old {
        let (namespace, name) = place(old);
        index.remove(&namespace, &name, labels(old));
    }
    if let Some(new) = new {
        let (namespace, name) = place(new);
        index.insert(&namespace, &name, labels(new));
    }
}
