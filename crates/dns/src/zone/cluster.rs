//! What the watches said, as far as names need it.

use std::{
    net::IpAddr,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard},
};

use podnet_model::{Change, Namespace, Service, ServiceKey, SliceKey, endpoints::ImportedSlice, labels::Labels};

use super::{
    known::{self, Known, left::Left},
    packed::{Front, Kind, Slice},
};
use crate::chain::PodLabels;

/// The Services, EndpointSlices, pods and namespaces of a cluster. All zones of a process read the same ones.
#[derive(Debug, Default)]
pub struct Cluster {
    own: Reader,
    /// What it imports of the Services of its cluster set. Who needs both takes this one last.
    set: Reader,
    /// What watches told that were replaced, and those of now did not name yet; none where these listed all.
    left: Option<Box<Left>>,
    /// The labels of pods that are kept.
    pod_labels: PodLabels,
}

/// Who reads what a [`Cluster`] takes in.
#[derive(Clone, Debug, Default)]
pub(super) struct Reader(Arc<RwLock<Known>>);

impl Cluster {
    /// Takes a change in: from here on it is answered. It costs what it changes, and who asks meanwhile waits for no more than that.
    /// Says whether names or their records are others than before; pods' do not count.
    pub fn apply(&mut self, change: &Change) -> bool {
        if let Some(left) = &mut self.left {
            left.named(change);
        }
        match change {
            Change::Service(key, service) => {
                let front = service.as_ref().map(Front::from);
                self.own.write(|known| known.put_service(key, front))
            }
            Change::Slice(key, slice) => {
                let slice = slice.as_ref().map(|slice| (&slice.service, Slice::from(slice)));
                self.own.write(|known| known.put_slice(key, slice))
            }
            Change::Pod(key, pod) => {
                let pod = pod.as_ref().filter(|pod| !pod.finished);
                let addrs = pod.into_iter().flat_map(|pod| &pod.addrs).map(|addr| addr.0).collect();
                let labels = pod.into_iter().flat_map(|pod| pod.labels.iter());
                let labels = labels.filter(|(key, _)| self.pod_labels.has(key)).collect();
                self.own.write(|known| known.pods.put(key, addrs, labels))
            }
            _ => false,
        }
    }

    /// Of pods that are told of from here on these labels are kept, and no others. What is kept of those before goes where none are.
    pub fn keep_pod_labels(&mut self, labels: PodLabels) {
        self.pod_labels = labels;
        if self.pod_labels.is_none() {
            let mut gone = None;
            self.own.write(|known| gone = Some(known.pods.take_labels()));
            // They may be many: who asks meanwhile does not wait for this.
            drop(gone);
        }
    }

    /// Where this server is: the Services that have it as an endpoint are the name servers of the cluster's zones.
    pub fn stands_at(&mut self, here: &[IpAddr]) {
        self.own.write(|known| {
            if *known.here != *here {
                known.here = here.into();
                known.changes = known.changes.wrapping_add(1);
            }
        });
    }

    /// Other watches tell of Services, EndpointSlices and pods from here on. What is known stays until these listed all that there is
    /// ([`Self::listed`]). Where they are the first ones that tell of pods (`first_pods`), whether a pod has a name is not known until then.
    pub fn succeed(&mut self, first_pods: bool) {
        self.left = Some(Box::new(Left::of(&self.own.read())));
        self.own.write(|known| known.awaits_pods = first_pods);
    }

    /// The watches listed all that there is: what those before told and these did not name is gone, all at once. Says whether names or
    /// their records are others than before.
    pub fn listed(&mut self) -> bool {
        let Some(left) = self.left.take() else { return false };
        self.own.write(|known| {
            known.awaits_pods = false;
            left.take_out(known);
        })
    }

    /// A namespace appeared, got other labels, or vanished (then without labels).
    pub fn namespace(&mut self, namespace: &Namespace, labels: Option<&Labels>) {
        self.own.write(|known| known.put_namespace(namespace, labels));
    }

    /// A Service of the cluster set was imported, changed, or vanished. Says whether names or their records are others than before.
    pub fn import(&mut self, key: &ServiceKey, service: Option<&Service>) -> bool {
        let front = service.map(Front::from);
        self.set.write(|known| known.put_service(key, front))
    }

    /// Endpoints of an imported Service appeared, changed or vanished. Says whether names or their records are others than before.
    pub fn imported_slice(&mut self, key: &SliceKey, slice: Option<&ImportedSlice>) -> bool {
        let slice = slice.map(|imported| (&imported.slice.service, Slice::from(imported)));
        self.set.write(|known| known.put_slice(key, slice))
    }

    /// All that is imported was taken in: what is not there does not exist.
    pub fn imports_listed(&mut self) {
        self.set.write(|known| known.complete = true);
    }

    /// What is imported is not followed any more: all of it is forgotten, and until all is listed again what is not there may be.
    pub fn forget_imports(&mut self) {
        let mut gone = None;
        self.set.write(|known| gone = Some(known.forget()));
        // It may be large: who asks meanwhile does not wait for this.
        drop(gone);
    }

    /// Whether a Service is there and has no addresses but its endpoints'.
    #[must_use]
    pub fn is_headless(&self, service: &ServiceKey) -> bool {
        let Some(base) = known::base(service) else { return false };
        let known = self.own.read();
        let front = known.service(&base).and_then(|record| record.front.as_ref());
        front.is_some_and(|front| front.kind == Kind::Headless)
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.own.read().is_empty() && self.set.read().is_empty()
    }

    pub(super) fn reader(&self) -> Reader {
        self.own.clone()
    }

    /// Who reads what is imported.
    pub(super) fn set_reader(&self) -> Reader {
        self.set.clone()
    }
}

impl Reader {
    pub(super) fn read(&self) -> RwLockReadGuard<'_, Known> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, change: impl FnOnce(&mut Known)) -> bool {
        let known = &mut *self.0.write().unwrap_or_else(PoisonError::into_inner);
        let before = known.changes;
        change(known);
        known.changes != before
    }
}
