//! The ReplicaSets of a Deployment while it is being decided what becomes of them.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::{
    api::{apps::v1::ReplicaSet, core::v1::PodTemplateSpec},
    apimachinery::pkg::apis::meta::v1::Time,
};

/// The label that tells the pods of one template from those of another.
pub(super) const HASH_LABEL: &str = "pod-template-hash";

/// A ReplicaSet as it is and as it should be.
#[derive(Clone, Debug)]
pub(super) struct Member {
    /// As it is; none when it has to be created.
    pub(super) before: Option<Arc<ReplicaSet>>,
    /// As it should be.
    pub(super) set: ReplicaSet,
}

impl Member {
    /// One that exists.
    pub(super) fn existing(set: &Arc<ReplicaSet>) -> Self {
        Self { before: Some(Arc::clone(set)), set: (**set).clone() }
    }

    /// One that has to be created.
    pub(super) fn new(set: ReplicaSet) -> Self {
        Self { before: None, set }
    }

    /// How many pods it should have.
    pub(super) fn replicas(&self) -> i32 {
        replicas(&self.set)
    }

    /// Changes how many pods it should have.
    pub(super) fn scale(&mut self, replicas: i32) {
        self.set.spec.get_or_insert_default().replicas = Some(replicas.max(0));
    }

    /// How many of the pods that it should have are available. The status may still count pods that are to go.
    pub(super) fn available(&self) -> i32 {
        self.observed(|status| status.available_replicas).min(self.replicas())
    }

    /// A number of its status, as last reported.
    pub(super) fn observed(&self, number: fn(&k8s_openapi::api::apps::v1::ReplicaSetStatus) -> Option<i32>) -> i32 {
        self.set.status.as_ref().and_then(number).unwrap_or_default()
    }

    /// Its name.
    pub(super) fn name(&self) -> &str {
        self.set.metadata.name.as_deref().unwrap_or_default()
    }

    /// When it was created; one that has to be is the youngest.
    pub(super) fn age_order(&self) -> (bool, Option<&Time>, &str) {
        (self.before.is_none(), self.set.metadata.creation_timestamp.as_ref(), self.name())
    }

    /// An annotation.
    pub(super) fn annotation(&self, key: &str) -> Option<&str> {
        self.set.metadata.annotations.as_ref()?.get(key).map(String::as_str)
    }

    /// An annotation that is a number.
    pub(super) fn number(&self, key: &str) -> Option<i64> {
        self.annotation(key)?.parse().ok()
    }

    /// Sets an annotation.
    pub(super) fn annotate(&mut self, key: &str, value: &impl ToString) {
        self.annotations().insert(key.to_owned(), value.to_string());
    }

    /// The annotations, to be changed.
    pub(super) fn annotations(&mut self) -> &mut BTreeMap<String, String> {
        self.set.metadata.annotations.get_or_insert_default()
    }

    /// Whether its pods are of that template with that hash.
    pub(super) fn is_of(&self, template: &PodTemplateSpec, hash: &str) -> bool {
        let labels = self.set.metadata.labels.as_ref();
        if labels.and_then(|labels| labels.get(HASH_LABEL)).is_some_and(|own| own == hash) {
            return true;
        }
        // Sets that another controller made have hashes of another kind.
        let own = self.set.spec.as_ref().and_then(|spec| spec.template.as_ref());
        own.is_some_and(|own| without_hash(own) == without_hash(template))
    }
}

/// How many pods a set should have.
pub(super) fn replicas(set: &ReplicaSet) -> i32 {
    set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
}

fn without_hash(template: &PodTemplateSpec) -> PodTemplateSpec {
    let mut template = template.clone();
    if let Some(metadata) = &mut template.metadata {
        if let Some(labels) = &mut metadata.labels {
            labels.remove(HASH_LABEL);
        }
        metadata.creation_timestamp = None;
        metadata.labels = metadata.labels.take().filter(|labels| !labels.is_empty());
    }
    template.metadata = Some(template.metadata.unwrap_or_default());
    template
}
