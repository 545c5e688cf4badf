//! Creating objects.

use serde_json::Value;

use super::admit::{is_pool, is_service};
use super::claims::Claim;
use super::metadata::{begin, check_type};
use super::{Api, Place, Saved, WriteOptions, now, stored_spelling};
use crate::admission::allocate::Taken;
use crate::errors::ApiError;
use crate::registry::Resource;
use crate::store::{Write, WriteError};

/// Generated names that are tried before giving up: each collides with a probability of n in 14 million.
const NAME_ATTEMPTS: usize = 8;

impl Api {
    /// Creates an object in a namespace (empty for cluster-wide kinds).
    pub async fn create(
        &self,
        resource: &Resource,
        namespace: &str,
        body: Value,
        options: WriteOptions,
    ) -> Result<Saved, ApiError> {
        check_type(resource, &body)?;
        if resource.custom.as_ref().is_some_and(|custom| custom.terminating) {
            return Err(ApiError::method_not_allowed());
        }
        let generated = body["metadata"]["name"].as_str().is_none_or(str::is_empty);
        let attempts = if generated { NAME_ATTEMPTS } else { 1 };
        let mut body = Some(stored_spelling(resource, body));
        for attempt in 1.. {
            let draft = if attempt < attempts { body.clone() } else { body.take() };
            let draft = draft.unwrap_or_default();
            match self.create_once(resource, namespace, draft, options).await {
                Err(error) if error.reason == "AlreadyExists" && attempt < attempts => {}
                result => return result,
            }
        }
        Err(ApiError::internal("no name could be generated"))
    }

    async fn create_once(
        &self,
        resource: &Resource,
        namespace: &str,
        mut object: Value,
        options: WriteOptions,
    ) -> Result<Saved, ApiError> {
        begin(resource, &mut object, namespace, &now())?;
        let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let at = Place { resource, namespace, name: &name };
        self.check_place(&at)?;
        // Of two pools that overlap the second is refused, also when both come at once.
        let _turn = if is_pool(resource) { Some(self.core.pools.lock().await) } else { None };
        let warnings = self.admit_create(resource, &mut object, options.validation)?;
        if self.store().object(&resource.storage, namespace, &name).is_some() {
            return Err(at.refused(WriteError::Exists));
        }
        let taken = self.allocate(&at, &mut object)?;
        if options.dry_run {
            taken.iter().for_each(|taken| self.services().give_back(taken));
            return Ok(Saved::draft(object, warnings));
        }
        let write = Write::Create { key: at.key(), value: object };
        let written = self.write(write, taken.map_or(Claim::Nothing, Claim::Created)).await;
        Ok(Saved::stored(written.map_err(|error| at.refused(error))?, warnings))
    }

    /// A new object needs a namespace that exists and is not on its way out.
    fn check_place(&self, at: &Place<'_>) -> Result<(), ApiError> {
        if !at.resource.namespaced {
            return Ok(());
        }
        if at.namespace.is_empty() {
            return Err(ApiError::bad_request("an empty namespace may not be set during creation"));
        }
        let namespaces = self.registry().builtin("", "namespaces");
        let place = Place { resource: &namespaces, namespace: "", name: at.namespace };
        let namespace = self.existing(&place)?;
        if namespace.value["status"]["phase"] != "Terminating" {
            return Ok(());
        }
        let why = format!("unable to create new content in namespace {} because it is being terminated", at.namespace);
        let mut error = ApiError::forbidden(at.resource, at.name, &why);
        let cause = serde_json::json!([{
            "reason": "NamespaceTerminating",
            "message": format!("namespace {} is being terminated", at.namespace),
            "field": "metadata.namespace",
        }]);
        error.details.insert("causes".to_owned(), cause);
        Err(error)
    }

    fn allocate(&self, at: &Place<'_>, object: &mut Value) -> Result<Option<Taken>, ApiError> {
        if !is_service(at.resource) {
            return Ok(None);
        }
        let assigned = self.services().assign(object, None);
        let refused = |errors: Vec<_>| ApiError::invalid(&at.resource.group, &at.resource.kind, at.name, &errors);
        assigned.map(Some).map_err(refused)
    }
}
