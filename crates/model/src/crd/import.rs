//! `multicluster.x-k8s.io/v1alpha1`: Services that other clusters of a cluster set have (KEP-1645, the Multi-Cluster Services API).
//!
//! Who runs such a set brings the definition of this kind along; podnet only reads its objects. That definition asks for little, not
//! even for a specification, so everything may be absent here.

use std::borrow::Cow;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube_core::{NamespaceResourceScope, Resource};
use serde::Deserialize;

/// A Service of the cluster set, as this cluster imports it.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct ServiceImport {
    /// Its name, that of the Service, and its labels.
    pub metadata: ObjectMeta,
    /// What the cluster imports.
    #[serde(default)]
    pub spec: ServiceImportSpec,
}

/// What a cluster imports of a Service of the cluster set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct ServiceImportSpec {
    /// `ClusterSetIP` or `Headless`.
    #[serde(default, rename = "type")]
    pub type_: Option<String>,
    /// The addresses of a `ClusterSetIP`, at most one of each family; none while it was given none.
    #[serde(default)]
    pub ips: Option<Vec<String>>,
    /// Its ports.
    #[serde(default)]
    pub ports: Option<Vec<ImportedPort>>,
}

/// A port of an imported Service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct ImportedPort {
    /// Its name; none where it is the only one.
    #[serde(default)]
    pub name: Option<String>,
    /// The transport protocol; TCP where it is not given.
    #[serde(default)]
    pub protocol: Option<String>,
    /// Its number, 1 to 65535.
    #[serde(default)]
    pub port: i32,
}

impl Resource for ServiceImport {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        "ServiceImport".into()
    }

    fn group((): &()) -> Cow<'_, str> {
        "multicluster.x-k8s.io".into()
    }

    fn version((): &()) -> Cow<'_, str> {
        "v1alpha1".into()
    }

    fn plural((): &()) -> Cow<'_, str> {
        "serviceimports".into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}
