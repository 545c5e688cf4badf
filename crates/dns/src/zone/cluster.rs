//! What the watches said, as far as names need it.

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use podnet_model::{Change, Namespace, ServiceKey, labels::Labels};

use super::{
    known::{self, Known},
    packed::{Front, Kind, Slice},
};

/// The Services, EndpointSlices, pods and namespaces of a cluster. All zones of a process read the same ones.
#[derive(Debug, Default)]
pub struct Cluster(Arc<RwLock<Known>>);

/// Who reads what a [`Cluster`] takes in.
#[derive(Clone, Debug)]
pub(super) struct Reader(Arc<RwLock<Known>>);

impl Cluster {
    /// Takes a change in: from here on it is answered. It costs what it changes, and who asks meanwhile waits for no more than that.
    /// Says whether names or their records are others than before; pods' do not count.
    pub fn apply(&mut self, change: &Change) -> bool {
        match change {
            Change::Service(key, service) => {
                let front = service.as_ref().map(Front::from);
                self.write(|known| known.put_service(key, front))
            }
            Change::Slice(key, slice) => {
                let slice = slice.as_ref().map(|slice| (&slice.service, Slice::from(slice)));
                self.write(|known| known.put_slice(key, slice))
            }
            Change::Pod(key, pod) => {
                let pod = pod.as_ref().filter(|pod| !pod.finished);
                let addrs = pod.into_iter().flat_map(|pod| &pod.addrs).map(|addr| addr.0).collect();
                self.write(|known| known.put_pod(key, addrs))
            }
            _ => false,
        }
    }

    /// A namespace appeared, got other labels, or vanished (then without labels).
    pub fn namespace(&mut self, namespace: &Namespace, labels: Option<&Labels>) {
        self.write(|known| known.put_namespace(namespace, labels));
    }

    /// Whether a Service is there and has no addresses but its endpoints'.
    #[must_use]
    pub fn is_headless(&self, service: &ServiceKey) -> bool {
        let Some(base) = known::base(service) else { return false };
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let front = known.service(&base).and_then(|record| record.front.as_ref());
        front.is_some_and(|front| front.kind == Kind::Headless)
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.0.read().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    pub(super) fn reader(&self) -> Reader {
        Reader(Arc::clone(&self.0))
    }

    fn write(&self, change: impl FnOnce(&mut Known)) -> bool {
        let known = &mut *self.0.write().unwrap_or_else(PoisonError::into_inner);
        let before = known.changes;
        change(known);
        known.changes != before
    }
}

impl Reader {
    pub(super) fn read(&self) -> RwLockReadGuard<'_, Known> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }
}
