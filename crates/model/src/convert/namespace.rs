//! Namespace.

use std::sync::Arc;

use k8s_openapi::api::core::v1 as api;

use super::{Invalid, Object, pod};
use crate::{Dual, NamespaceScope};

impl TryFrom<&api::Namespace> for NamespaceScope {
    type Error = Invalid;

    fn try_from(namespace: &api::Namespace) -> Result<Self, Invalid> {
        let object = Object::new("Namespace", &namespace.metadata);
        Ok(Self {
            name: object.name()?.into(),
            labels: Arc::new(namespace.metadata.labels.clone().unwrap_or_default()),
            pools: Dual::from_fn(|family| pod::pools(&object, family)),
        })
    }
}
