//! From endpoints to slices, with as little change as possible: an endpoint stays in the slice that it is in, and only slices whose
//! content changes are written.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use k8s_openapi::{
    api::{
        core::v1::{Endpoints, Service},
        discovery::v1::{Endpoint, EndpointSlice},
    },
    apimachinery::pkg::apis::meta::v1::OwnerReference,
    jiff::Timestamp,
};
use kube::{ResourceExt, api::ObjectMeta};

use super::{
    MANAGED_BY, SERVICE_NAME,
    collect::{self, Group, port_key},
    family::Family,
};
use crate::controllers::{naming, ownership};

/// Who writes the slices of Services that choose pods.
pub(super) const FOR_PODS: &str = "endpointslice-controller.k8s.io";
/// Who writes the slices that copy Endpoints.
pub(super) const FOR_MIRRORS: &str = "endpointslicemirroring-controller.k8s.io";
/// When the change came that a slice shows.
const TRIGGER: &str = "endpoints.kubernetes.io/last-change-trigger-time";
/// The most endpoints in one slice: Kubernetes' default.
const CAPACITY: usize = 100;

/// The slices of one Service: what they have in common.
#[derive(Clone, Debug)]
pub(super) struct Kin {
    namespace: Option<String>,
    service: String,
    labels: BTreeMap<String, String>,
    owner: OwnerReference,
}

/// A change of a slice.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Edit {
    /// A new slice.
    Create(Box<EndpointSlice>),
    /// Another content.
    Update(Box<EndpointSlice>),
    /// A slice that is not needed.
    Delete(Arc<EndpointSlice>),
}

impl Kin {
    /// The slices that lead to a Service's pods.
    pub(super) fn of_service(service: &Service) -> Self {
        let mut labels = service.labels().clone();
        if collect::is_headless(service) {
            labels.insert("service.kubernetes.io/headless".to_owned(), String::new());
        }
        Self::new(&service.metadata, labels, FOR_PODS, ownership::reference_to(service))
    }

    /// The slices that copy Endpoints.
    pub(super) fn of_endpoints(endpoints: &Endpoints) -> Self {
        let labels = endpoints.labels().clone();
        Self::new(&endpoints.metadata, labels, FOR_MIRRORS, ownership::reference_to(endpoints))
    }

    fn new(metadata: &ObjectMeta, mut labels: BTreeMap<String, String>, by: &str, owner: OwnerReference) -> Self {
        let service = metadata.name.clone().unwrap_or_default();
        labels.insert(SERVICE_NAME.to_owned(), service.clone());
        labels.insert(MANAGED_BY.to_owned(), by.to_owned());
        Self { namespace: metadata.namespace.clone(), service, labels, owner }
    }

    fn is_for_pods(&self) -> bool {
        self.labels.get(MANAGED_BY).is_some_and(|by| by == FOR_PODS)
    }

    /// The slice with that number. Its name follows from what it is for, so that a slice that the cache does not show yet is a
    /// conflict when it is made again, and not a second one.
    fn slice(&self, family: Family, group: &str, number: usize) -> EndpointSlice {
        let content = [self.owner.uid.as_bytes(), family.name().as_bytes(), group.as_bytes(), &number.to_be_bytes()];
        EndpointSlice {
            metadata: ObjectMeta {
                name: Some(naming::derived(&format!("{}-", self.service), &content)),
                namespace: self.namespace.clone(),
                labels: Some(self.labels.clone()),
                owner_references: Some(vec![self.owner.clone()]),
                ..ObjectMeta::default()
            },
            address_type: family.name().to_owned(),
            ..EndpointSlice::default()
        }
    }
}

/// What makes the slices say what the groups of each family say. Slices of other families go.
pub(super) fn edits(kin: &Kin, families: &[(Family, Vec<Group>)], existing: &[Arc<EndpointSlice>]) -> Vec<Edit> {
    let is_of = |slice: &EndpointSlice, family: Family| slice.address_type == family.name();
    let (wanted, unwanted): (Vec<_>, Vec<_>) =
        existing.iter().cloned().partition(|slice| families.iter().any(|(family, _)| is_of(slice, *family)));
    let mut edits = Vec::new();
    for (family, groups) in families {
        let existing: Vec<_> = wanted.iter().filter(|slice| is_of(slice, *family)).cloned().collect();
        edits.extend(edits_of_family(kin, *family, groups, existing));
    }
    edits.extend(removal(&unwanted));
    edits
}

fn edits_of_family(kin: &Kin, family: Family, groups: &[Group], usable: Vec<Arc<EndpointSlice>>) -> Vec<Edit> {
    let nothing = [Group { ports: Vec::new(), endpoints: Vec::new() }];
    // A Service without any endpoint has one slice that says so; a copy of Endpoints has none.
    let groups = if groups.is_empty() && kin.is_for_pods() { &nothing[..] } else { groups };
    let mut by_ports: BTreeMap<String, Vec<Arc<EndpointSlice>>> = BTreeMap::new();
    for slice in usable {
        by_ports.entry(port_key(slice.ports.as_deref().unwrap_or_default())).or_default().push(slice);
    }
    let mut edits = Vec::new();
    for group in groups {
        let own = by_ports.remove(&port_key(&group.ports)).unwrap_or_default();
        edits.extend(place(kin, family, group, &own));
    }
    let unused: Vec<_> = by_ports.into_values().flatten().collect();
    edits.extend(removal(&unused));
    edits
}

/// The end of all these slices.
pub(super) fn removal(existing: &[Arc<EndpointSlice>]) -> Vec<Edit> {
    existing.iter().map(|slice| Edit::Delete(Arc::clone(slice))).collect()
}

struct Draft {
    before: Option<Arc<EndpointSlice>>,
    slice: EndpointSlice,
    endpoints: Vec<Endpoint>,
}

impl Draft {
    fn is_changed(&self) -> bool {
        let before = self.before.as_ref().and_then(|before| before.endpoints.as_ref());
        before.is_none_or(|before| *before != self.endpoints)
    }

    fn room(&self) -> usize {
        CAPACITY.saturating_sub(self.endpoints.len())
    }
}

fn place(kin: &Kin, family: Family, group: &Group, own: &[Arc<EndpointSlice>]) -> Vec<Edit> {
    let mut wanted: HashMap<String, Endpoint> =
        group.endpoints.iter().map(|endpoint| (identity(endpoint), endpoint.clone())).collect();
    let mut drafts: Vec<_> = own
        .iter()
        .map(|slice| {
            let stay = slice.endpoints.iter().flatten().filter_map(|endpoint| wanted.remove(&identity(endpoint)));
            let endpoints = stay.collect();
            Draft { before: Some(Arc::clone(slice)), slice: (**slice).clone(), endpoints }
        })
        .collect();
    let new = group.endpoints.iter().filter(|endpoint| wanted.contains_key(&identity(endpoint))).cloned();
    fill(&mut drafts, new.collect(), group, |key, number| kin.slice(family, key, number));
    finish(drafts, kin, group)
}

/// Puts new endpoints where a write is due anyway, then where there is room, then into new slices.
fn fill(
    drafts: &mut Vec<Draft>,
    mut new: Vec<Endpoint>,
    group: &Group,
    another: impl Fn(&str, usize) -> EndpointSlice,
) {
    for changed in [true, false] {
        let mut open: Vec<_> = drafts.iter_mut().filter(|draft| draft.is_changed() == changed).collect();
        open.sort_by_key(|draft| draft.room());
        for draft in open.into_iter().rev() {
            let taken = new.len().min(draft.room());
            draft.endpoints.extend(new.drain(..taken));
        }
    }
    let key = port_key(&group.ports);
    let mut number = 0;
    while !new.is_empty() || drafts.is_empty() {
        let slice = another(&key, number);
        number += 1;
        if drafts.iter().any(|draft| draft.slice.metadata.name == slice.metadata.name) {
            continue;
        }
        let taken = new.len().min(CAPACITY);
        drafts.push(Draft { before: None, slice, endpoints: new.drain(..taken).collect() });
    }
}

fn finish(mut drafts: Vec<Draft>, kin: &Kin, group: &Group) -> Vec<Edit> {
    // Emptied slices go, all but one when there is nothing else.
    let keep = usize::from(drafts.iter().all(|draft| draft.endpoints.is_empty()));
    let mut edits = Vec::new();
    let mut kept = 0;
    drafts.sort_by_key(|draft| draft.endpoints.is_empty());
    for draft in drafts {
        if draft.endpoints.is_empty() && kept >= keep {
            edits.extend(draft.before.map(Edit::Delete));
            continue;
        }
        kept += usize::from(draft.endpoints.is_empty());
        let mut slice = draft.slice;
        slice.endpoints = Some(draft.endpoints);
        slice.ports = Some(group.ports.clone());
        slice.metadata.labels = Some(kin.labels.clone());
        slice.metadata.owner_references = Some(vec![kin.owner.clone()]);
        match draft.before {
            None => edits.push(Edit::Create(Box::new(slice))),
            Some(before) if !says_the_same(&before, &slice) => edits.push(Edit::Update(Box::new(slice))),
            Some(_) => {}
        }
    }
    edits
}

/// Says since when a slice should have this content (`endpoints.kubernetes.io/last-change-trigger-time`, Kubernetes' well-known
/// annotations); unknown where it is not known.
pub(super) fn set_trigger(slice: &mut EndpointSlice, trigger: Option<Timestamp>) {
    let annotations = slice.metadata.annotations.get_or_insert_default();
    match trigger {
        Some(trigger) => annotations.insert(TRIGGER.to_owned(), format!("{trigger:.3}")),
        None => annotations.remove(TRIGGER),
    };
}

fn says_the_same(before: &EndpointSlice, after: &EndpointSlice) -> bool {
    before.endpoints.as_deref().unwrap_or_default() == after.endpoints.as_deref().unwrap_or_default()
        && port_key(before.ports.as_deref().unwrap_or_default()) == port_key(after.ports.as_deref().unwrap_or_default())
        && before.metadata.labels == after.metadata.labels
        && before.metadata.owner_references == after.metadata.owner_references
}

/// What makes an endpoint the same one: its pod, or its address where there is no pod.
fn identity(endpoint: &Endpoint) -> String {
    let uid = endpoint.target_ref.as_ref().and_then(|target| target.uid.clone());
    uid.unwrap_or_else(|| endpoint.addresses.join(","))
}

#[cfg(test)]
mod tests;
