//! Installing objects: created where missing, left alone where present.

use std::fmt::Debug;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api, Client, Resource,
    api::PostParams,
    core::{DynamicObject, GroupVersionKind, NamespaceResourceScope},
    discovery,
};
use serde::{Serialize, de::DeserializeOwned};

/// Why an object was not installed.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The object says no `apiVersion` and `kind`, or no name.
    #[error("the object has no apiVersion, kind or name")]
    Anonymous,
    /// The API server refused or could not be reached.
    #[error("the API server refused")]
    Api(#[from] kube::Error),
}

/// Creates a cluster-scoped object; one of that name that is there already stays as it is.
///
/// # Errors
///
/// When the API server cannot be reached or refuses.
pub async fn create_if_missing_cluster<K>(client: &Client, object: &K) -> Result<(), ApplyError>
where
    K: Resource<DynamicType = ()> + Clone + Debug + Serialize + DeserializeOwned,
{
    existing_is_fine(Api::<K>::all(client.clone()).create(&PostParams::default(), object).await.map(|_| ()))
}

/// Creates a namespaced object; one of that name that is there already stays as it is.
///
/// # Errors
///
/// When the API server cannot be reached or refuses; where its kind is not defined, with "not found".
pub async fn create_if_missing<K>(client: &Client, namespace: &str, object: &K) -> Result<(), ApplyError>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + Serialize + DeserializeOwned,
{
    let api = Api::<K>::namespaced(client.clone(), namespace);
    existing_is_fine(api.create(&PostParams::default(), object).await.map(|_| ()))
}

/// Creates an object of any kind; one of that name that is there already stays as it is.
///
/// # Errors
///
/// When the object does not say what it is, its kind is unknown, or the API server cannot be reached or refuses.
pub async fn create_dynamic(client: &Client, object: DynamicObject) -> Result<(), ApplyError> {
    let types = object.types.as_ref().ok_or(ApplyError::Anonymous)?;
    let kind = GroupVersionKind::try_from(types).map_err(|_| ApplyError::Anonymous)?;
    let (resource, capabilities) = discovery::pinned_kind(client, &kind).await?;
    let api: Api<DynamicObject> = match (&capabilities.scope, &object.metadata.namespace) {
        (discovery::Scope::Namespaced, Some(namespace)) => Api::namespaced_with(client.clone(), namespace, &resource),
        (discovery::Scope::Namespaced, None) => Api::default_namespaced_with(client.clone(), &resource),
        (discovery::Scope::Cluster, _) => Api::all_with(client.clone(), &resource),
    };
    existing_is_fine(api.create(&PostParams::default(), &object).await.map(|_| ()))
}

/// Installs a CRD, replacing an older podnet's definition: its schema belongs to the program and not to the user.
///
/// # Errors
///
/// When the API server cannot be reached or refuses.
pub async fn create_or_replace_definition(
    client: &Client,
    mut definition: CustomResourceDefinition,
) -> Result<(), ApplyError> {
    let api = Api::<CustomResourceDefinition>::all(client.clone());
    let name = definition.metadata.name.clone().ok_or(ApplyError::Anonymous)?;
    match api.get_opt(&name).await? {
        Some(existing) if existing.spec == definition.spec => {}
        Some(existing) => {
            definition.metadata.resource_version = existing.metadata.resource_version;
            api.replace(&name, &PostParams::default(), &definition).await?;
        }
        None => existing_is_fine(api.create(&PostParams::default(), &definition).await.map(|_| ()))?,
    }
    Ok(())
}

fn existing_is_fine(result: Result<(), kube::Error>) -> Result<(), ApplyError> {
    match result {
        Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(()),
        other => other.map_err(Into::into),
    }
}
