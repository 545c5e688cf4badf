//! CustomResourceDefinitions at work: their kinds are served, and cleaned up when a definition is deleted.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tracing::{info, warn};

use super::metadata::{finalizers, is_deleting};
use super::{Api, DeleteOptions, Part, Place, WriteOptions};
use crate::crd::{self, CLEANUP_FINALIZER};
use crate::errors::ApiError;
use crate::registry::{Catalog, Resource};

/// Store name of the definitions.
pub(super) const DEFINITIONS: &str = "customresourcedefinitions.apiextensions.k8s.io";

/// How often a cleanup looks again when nothing tells it to.
const RECHECK: Duration = Duration::from_secs(5);

impl Api {
    /// The kinds that are served now: exactly those whose definitions a reader of the store sees. Whoever saw a definition come or
    /// go, sees its kind come or go.
    pub fn catalog(&self) -> Arc<Catalog> {
        let defined = *self.core.defined.borrow();
        self.registry().catalog_since(defined, || {
            let definitions = self.store().list(DEFINITIONS, None);
            let custom = definitions.objects.iter().flat_map(|definition| crd::resources(&definition.value)).collect();
            (definitions.revision, custom)
        })
    }

    /// Goes on with the cleanups that a stop of the server interrupted.
    pub(super) fn resume_cleanups(&self) {
        for definition in self.store().list(DEFINITIONS, None).objects {
            if is_deleting(&definition.value) {
                self.clean_up_definition(&definition.key.name);
            }
        }
    }

    /// Deletes the objects of a definition that is being deleted, then lets the definition go.
    pub(super) fn clean_up_definition(&self, name: &str) {
        let (api, name) = (self.clone(), name.to_owned());
        tokio::spawn(async move {
            let stopping = api.stopping().clone();
            tokio::select! {
                () = stopping.cancelled() => {}
                result = api.clean_up(&name) => match result {
                    Ok(()) => info!(definition = %name, "definition and its objects are gone"),
                    Err(error) => warn!(definition = %name, %error, "definition cannot be cleaned up; deleting it again tries again"),
                },
            }
        });
    }

    async fn clean_up(&self, name: &str) -> Result<(), ApiError> {
        let Some(definition) = self.store().object(DEFINITIONS, "", name) else { return Ok(()) };
        if let Some(kind) = crd::resources(&definition.value).first() {
            let mut tip = self.store().subscribe(&kind.storage);
            while self.delete_objects(kind).await? {
                // Woken by a change of these objects; the time only guards against a wake-up that was missed.
                let _ = tokio::time::timeout(RECHECK, tip.changed()).await;
            }
        }
        let definitions = self.registry().builtin("apiextensions.k8s.io", "customresourcedefinitions");
        let at = Place { resource: &definitions, namespace: "", name };
        let released =
            self.modify(&at, Part::Main, WriteOptions::default(), false, |definition| Ok(release(definition))).await;
        match released {
            Err(error) if error.reason != "NotFound" => Err(error),
            _ => Ok(()),
        }
    }

    /// Asks every object to go; answers whether there still are some.
    async fn delete_objects(&self, kind: &Resource) -> Result<bool, ApiError> {
        let objects = self.store().list(&kind.storage, None).objects;
        for object in &objects {
            let at = Place { resource: kind, namespace: &object.key.namespace, name: &object.key.name };
            if is_deleting(&object.value) {
                continue;
            }
            match self.delete(&at, &DeleteOptions::default()).await {
                Err(error) if error.reason != "NotFound" => return Err(error),
                _ => {}
            }
        }
        Ok(!self.store().page(&kind.storage, None, None, 1).objects.is_empty())
    }
}

/// The definition without our finalizer.
fn release(definition: &Value) -> Value {
    let mut released = definition.clone();
    let left: Vec<String> = finalizers(definition).into_iter().filter(|name| name != CLEANUP_FINALIZER).collect();
    released["metadata"]["finalizers"] = json!(left);
    released
}
