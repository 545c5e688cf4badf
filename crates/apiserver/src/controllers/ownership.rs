//! Who controls what: owner references, and how a controller comes to own what its selector finds.

use std::{collections::BTreeMap, fmt::Debug, sync::Arc};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, OwnerReference};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{Patch, PatchParams},
    core::{NamespaceResourceScope, Selector, SelectorExt},
};
use serde::de::DeserializeOwned;
use serde_json::json;
use tracing::info;

use super::worker::{During, Failure, absent_is_fine};

/// The reference to the object's controller.
pub(crate) fn controller<K: Resource>(object: &K) -> Option<&OwnerReference> {
    let owners = object.meta().owner_references.as_deref().unwrap_or_default();
    owners.iter().find(|owner| owner.controller == Some(true))
}

/// The name of the object's controller where that is of this kind.
pub(crate) fn controller_of_kind<O: Resource<DynamicType = ()>>(object: &impl Resource) -> Option<&str> {
    let group = |api_version: &str| api_version.split_once('/').map(|(group, _)| group.to_owned()).unwrap_or_default();
    controller(object)
        .filter(|owner| owner.kind == O::kind(&()) && group(&owner.api_version) == O::group(&()))
        .map(|owner| owner.name.as_str())
}

/// Whether the object with that uid controls this one.
pub(crate) fn is_controlled_by(object: &impl Resource, uid: &str) -> bool {
    controller(object).is_some_and(|owner| owner.uid == uid)
}

/// A reference that makes `owner` the controller of whatever carries it.
pub(crate) fn reference_to<O: Resource<DynamicType = ()>>(owner: &O) -> OwnerReference {
    OwnerReference {
        api_version: O::api_version(&()).into_owned(),
        kind: O::kind(&()).into_owned(),
        name: owner.name_any(),
        uid: owner.uid().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// A selector that can be matched; one that makes no sense selects nothing.
pub(crate) fn selector(of: Option<&LabelSelector>) -> Option<Selector> {
    Selector::try_from(of?.clone()).ok()
}

/// Whether the selector finds an object with these labels.
pub(crate) fn selects(selector: Option<&Selector>, labels: Option<&BTreeMap<String, String>>) -> bool {
    const NONE: &BTreeMap<String, String> = &BTreeMap::new();
    selector.is_some_and(|selector| selector.matches(labels.unwrap_or(NONE)))
}

/// What belongs to an owner, and what should begin or cease to.
#[derive(Debug)]
pub(crate) struct Claims<K> {
    /// Owned and selected.
    pub(crate) owned: Vec<Arc<K>>,
    /// Selected and owned by nobody.
    pub(crate) adopt: Vec<Arc<K>>,
    /// Owned but not selected any more.
    pub(crate) release: Vec<Arc<K>>,
}

/// Sorts the objects of the owner's namespace.
pub(crate) fn claims<K: Resource>(
    owner_uid: &str,
    owner_is_terminating: bool,
    selector: Option<&Selector>,
    objects: impl IntoIterator<Item = Arc<K>>,
) -> Claims<K> {
    let mut claims = Claims { owned: Vec::new(), adopt: Vec::new(), release: Vec::new() };
    for object in objects {
        let selected = selects(selector, object.meta().labels.as_ref());
        match controller(&*object) {
            Some(owner) if owner.uid == owner_uid && (selected || owner_is_terminating) => claims.owned.push(object),
            Some(owner) if owner.uid == owner_uid => claims.release.push(object),
            None if selected && !owner_is_terminating && object.meta().deletion_timestamp.is_none() => {
                claims.adopt.push(object);
            }
            _ => {}
        }
    }
    claims
}

/// Writes the owner references that adopt and release. An object that changed meanwhile is a conflict; one that is gone is fine.
pub(crate) async fn settle<K, O>(client: &Client, owner: &O, claims: &Claims<K>) -> Result<(), Failure>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
    O: Resource<DynamicType = ()>,
{
    let owner_uid = owner.uid().unwrap_or_default();
    for object in &claims.adopt {
        let mut owners = object.owner_references().to_vec();
        owners.retain(|reference| reference.uid != owner_uid);
        owners.push(reference_to(owner));
        rewrite(client, &**object, owners).await?;
        info!(object = %object.name_any(), owner = %owner.name_any(), "object adopted");
    }
    for object in &claims.release {
        let owners = object.owner_references().iter().filter(|reference| reference.uid != owner_uid).cloned().collect();
        rewrite(client, &**object, owners).await?;
        info!(object = %object.name_any(), owner = %owner.name_any(), "object released");
    }
    Ok(())
}

async fn rewrite<K>(client: &Client, object: &K, owners: Vec<OwnerReference>) -> Result<(), Failure>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
{
    let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
    let patch = Patch::Merge(json!({ "metadata": {
        "uid": object.uid(),
        "resourceVersion": object.resource_version(),
        "ownerReferences": owners,
    }}));
    let api = Api::<K>::namespaced(client.clone(), &namespace);
    let written = api.patch(&name, &PatchParams::default(), &patch).await;
    absent_is_fine(written.during(|| format!("changing the owners of {} {namespace}/{name}", K::kind(&())))).map(|_| ())
}
