//! What is left of what earlier watches told, while those that took their place list what there is.

use std::{collections::HashSet, sync::Arc};

use podnet_model::{Change, PodKey, ServiceKey, SliceKey};
use smallvec::SmallVec;

use super::{Known, base};
use crate::zone::packed::PackedLabels;

/// What was known when watches were replaced, less what the new ones have named since. It is never more than what is known.
#[derive(Debug)]
pub(in crate::zone) struct Left {
    /// The Services that there are, by the wire form of `<name>.<namespace>`.
    services: HashSet<Arc<[u8]>>,
    slices: HashSet<SliceKey>,
    /// The pods that have an address.
    pods: HashSet<PodKey>,
}

impl Left {
    /// All that is known.
    pub(in crate::zone) fn of(known: &Known) -> Self {
        let there = known.records().filter(|record| record.front.is_some());
        Self {
            services: there.map(|record| Arc::clone(&record.base)).collect(),
            slices: known.slices.keys().cloned().collect(),
            pods: known.pods.keys().cloned().collect(),
        }
    }

    /// The new watches told of an object: from here on it is theirs, whether it is there or gone.
    pub(in crate::zone) fn named(&mut self, change: &Change) {
        match change {
            Change::Service(key, _) => {
                if let Some(base) = base(key) {
                    self.services.remove(base.as_slice());
                }
            }
            Change::Slice(key, _) => {
                self.slices.remove(key);
            }
            Change::Pod(key, _) => {
                self.pods.remove(key);
            }
            _ => {}
        }
    }

    /// Takes out what nobody named.
    pub(in crate::zone) fn take_out(&self, known: &mut Known) {
        for key in self.services.iter().filter_map(|base| key(base)) {
            known.put_service(&key, None);
        }
        for key in &self.slices {
            known.put_slice(key, None);
        }
        for key in &self.pods {
            known.pods.put(key, SmallVec::new(), PackedLabels::default());
        }
    }
}

/// The Service whose name and namespace have this wire form.
fn key(base: &[u8]) -> Option<ServiceKey> {
    let (size, rest) = base.split_first()?;
    let (name, rest) = rest.split_at_checked(usize::from(*size))?;
    let (_, namespace) = rest.split_first()?;
    Some(ServiceKey::new(std::str::from_utf8(namespace).ok()?, std::str::from_utf8(name).ok()?))
}
