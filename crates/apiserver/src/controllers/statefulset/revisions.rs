//! Templates as they were, as ControllerRevisions keep them: `kubectl rollout history` and `undo` read them.

use k8s_openapi::{
    api::{
        apps::v1::{ControllerRevision, StatefulSet},
        core::v1::PodTemplateSpec,
    },
    apimachinery::pkg::runtime::RawExtension,
};
use kube::{ResourceExt, api::ObjectMeta};
use serde_json::{Value, json};

use crate::controllers::{naming, ownership};

/// The name of the revision that the set's template is: the same for the same template.
pub(super) fn name(set: &StatefulSet) -> String {
    let template = serde_json::to_vec(&template_value(set)).unwrap_or_default();
    format!("{}-{}", set.name_any(), naming::hash(&[&template], 10))
}

fn template_value(set: &StatefulSet) -> Value {
    set.spec.as_ref().and_then(|spec| serde_json::to_value(&spec.template).ok()).unwrap_or_default()
}

/// The set's template under this name, later than the others.
pub(super) fn make(set: &StatefulSet, name: &str, others: &[ControllerRevision]) -> ControllerRevision {
    let mut template = template_value(set);
    template["$patch"] = json!("replace");
    let labels = set.spec.as_ref().and_then(|spec| spec.selector.match_labels.clone());
    ControllerRevision {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            namespace: set.namespace(),
            labels,
            owner_references: Some(vec![ownership::reference_to(set)]),
            ..ObjectMeta::default()
        },
        data: Some(RawExtension(json!({"spec": {"template": template}}))),
        revision: others.iter().map(|other| other.revision).max().unwrap_or_default() + 1,
    }
}

/// The template that a revision keeps.
pub(super) fn template(revision: &ControllerRevision) -> PodTemplateSpec {
    let data = revision.data.as_ref().map(|data| data.0["spec"]["template"].clone()).unwrap_or_default();
    serde_json::from_value(data).unwrap_or_default()
}

/// The names of the oldest ones, beyond what the set's history holds beside the present one and the one that pods still have.
pub(super) fn superfluous(set: &StatefulSet, own: &[ControllerRevision], update: &str) -> Vec<String> {
    let limit = set.spec.as_ref().and_then(|spec| spec.revision_history_limit).unwrap_or(10);
    let current = set.status.as_ref().and_then(|status| status.current_revision.as_deref());
    let in_use = |name: &str| name == update || Some(name) == current;
    let mut old: Vec<_> = own.iter().filter(|revision| !in_use(&revision.name_any())).collect();
    old.sort_by_key(|revision| revision.revision);
    let surplus = old.len().saturating_sub(usize::try_from(limit).unwrap_or_default());
    old.into_iter().take(surplus).map(ResourceExt::name_any).collect()
}
