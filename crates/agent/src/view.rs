//! What the agent knows of this node's pods, so that an ADD asks nobody.

use std::{
    collections::HashMap,
    sync::{Condvar, Mutex, PoisonError},
    time::Duration,
};

use podnet_model::{Change, Pod, PodKey};

/// The pods of this node, as last told by the watch.
#[derive(Debug, Default)]
pub struct View {
    pods: Mutex<HashMap<PodKey, Pod>>,
    changed: Condvar,
}

impl View {
    /// Takes a change in.
    pub fn learn(&self, change: &Change) {
        if let Change::Pod(key, pod) = change {
            let mut pods = self.pods.lock().unwrap_or_else(PoisonError::into_inner);
            match pod {
                Some(pod) => pods.insert(key.clone(), pod.clone()),
                None => pods.remove(key),
            };
            self.changed.notify_all();
        }
    }

    /// The pod, awaited for at most `patience` where it is not known yet: the runtime may have heard of it a moment earlier. With a
    /// `uid`, an earlier pod of the same name does not count.
    #[must_use]
    pub fn pod(&self, key: &PodKey, uid: Option<&str>, patience: Duration) -> Option<Pod> {
        let is_it = |pod: &&Pod| uid.is_none_or(|uid| *pod.uid == *uid);
        let pods = self.pods.lock().unwrap_or_else(PoisonError::into_inner);
        let (pods, _) = self
            .changed
            .wait_timeout_while(pods, patience, |pods| pods.get(key).as_ref().filter(|pod| is_it(pod)).is_none())
            .unwrap_or_else(PoisonError::into_inner);
        pods.get(key).filter(is_it).cloned()
    }
}
