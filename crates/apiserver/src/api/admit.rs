//! Between request and store: types, unknown fields, defaults, validation; by admission for built-in kinds, by schema for custom ones.

use std::sync::Arc;

use serde_json::Value;

use super::metadata::{counts_generations, finalizers, is_deleting};
use super::{Api, FieldValidation, Part, Place, WriteOptions, now};
use crate::admission::{self, FieldError, pools};
use crate::crd;
use crate::errors::ApiError;
use crate::registry::{CustomKind, Resource, View};
use crate::store::Object;

/// The group by which admission knows a stored object: Events are stored as core ones.
fn stored_group(resource: &Resource) -> &str {
    if resource.view == View::EventsV1 { "" } else { &resource.group }
}

pub(super) fn is_definition(resource: &Resource) -> bool {
    resource.is("apiextensions.k8s.io", "customresourcedefinitions")
}

pub(super) fn is_service(resource: &Resource) -> bool {
    resource.is("", "services")
}

pub(super) fn is_pool(resource: &Resource) -> bool {
    resource.is(pools::GROUP, "ippools")
}

impl Api {
    /// Makes a body an object that may be created. Answers warnings.
    pub(super) fn admit_create(
        &self,
        resource: &Resource,
        object: &mut Value,
        validation: FieldValidation,
    ) -> Result<Vec<String>, ApiError> {
        let group = stored_group(resource);
        let warnings = check_fields(resource, object, validation)?;
        admission::prepare_create(group, &resource.kind, object);
        match &resource.custom {
            Some(custom) if resource.has_status() => {
                remove(object, "status");
                custom.schema.fill_defaults(object);
            }
            Some(custom) => custom.schema.fill_defaults(object),
            None => admission::default_object(group, &resource.kind, object),
        }
        if is_pool(resource) {
            pools::complete(object);
        }
        if resource.is("", "namespaces") {
            begin_namespace(object);
        }
        if is_definition(resource) {
            crd::complete(object);
            add_finalizer(object, crd::CLEANUP_FINALIZER);
        }
        if counts_generations(resource) {
            object["metadata"]["generation"] = Value::from(1);
        }
        let mut errors = self.faults(resource, object);
        errors.extend(admission::validate_create(group, &resource.kind, object));
        if errors.is_empty() {
            errors.extend(self.ipam_faults(resource, object, None));
        }
        refuse(resource, object, &errors)?;
        if is_definition(resource) {
            self.establish(object);
        }
        Ok(warnings)
    }

    /// Makes a proposed object one that may replace the old one. Answers warnings.
    pub(super) fn admit_update(
        &self,
        at: &Place<'_>,
        part: Part,
        old: &Value,
        object: &mut Value,
        options: WriteOptions,
    ) -> Result<Vec<String>, ApiError> {
        let resource = at.resource;
        let (group, kind) = (stored_group(resource), resource.kind.as_str());
        let warnings = check_fields(resource, object, options.validation)?;
        match part {
            Part::Main => {
                admission::prepare_update(group, kind, old, object);
                if resource.custom.is_some() && resource.has_status() {
                    keep(object, old, "status");
                }
            }
            Part::Status => {
                admission::prepare_status_update(group, kind, old, object);
                if options.keep_pod_labels && resource.is("", "pods") {
                    keep(&mut object["metadata"], &old["metadata"], "labels");
                }
            }
            Part::Finalize => {
                let finalizers = object["spec"]["finalizers"].take();
                *object = old.clone();
                object["spec"]["finalizers"] = finalizers;
            }
        }
        match &resource.custom {
            Some(custom) => custom.schema.fill_defaults(object),
            None => admission::default_object(group, kind, object),
        }
        if is_pool(resource) {
            pools::complete(object);
        }
        if is_definition(resource) {
            crd::complete(object);
        }
        let mut errors = self.faults(resource, object);
        if part != Part::Finalize {
            errors.extend(admission::validate_update(group, kind, old, object));
        }
        if part == Part::Main && errors.is_empty() && object["spec"] != old["spec"] {
            errors.extend(self.ipam_faults(resource, object, Some(old)));
        }
        errors.extend(new_finalizers(old, object));
        refuse(resource, object, &errors)?;
        if is_definition(resource) && part == Part::Main {
            self.establish(object);
        }
        count_generation(resource, part, old, object);
        // What the client said about the revision has been looked at by now; the store sets the next one.
        object["metadata"]["resourceVersion"] = old["metadata"]["resourceVersion"].clone();
        Ok(warnings)
    }

    fn faults(&self, resource: &Resource, object: &Value) -> Vec<FieldError> {
        match &resource.custom {
            Some(custom) => custom.schema.faults(object),
            None if is_definition(resource) => crd::check(object, |group| self.registry().is_builtin_group(group)),
            None => Vec::new(),
        }
    }

    /// What is wrong with a pool or another object of IPAM, in itself or beside the others.
    fn ipam_faults(&self, resource: &Resource, object: &Value, old: Option<&Value>) -> Vec<FieldError> {
        if resource.group != pools::GROUP {
            return Vec::new();
        }
        let all = |plural: &str| self.all_of_ipam(plural);
        let others = if is_pool(resource) { [all("ippools"), all("ipamblocks")] } else { [Vec::new(), Vec::new()] };
        let [pools, blocks] = others.each_ref().map(|objects| objects.iter().map(|object| &object.value).collect());
        pools::faults(&resource.kind, object, old, &pools::Others { pools, blocks })
    }

    fn all_of_ipam(&self, plural: &str) -> Vec<Arc<Object>> {
        self.store().list(&format!("{plural}.{}", pools::GROUP), None).objects
    }

    /// Refuses what would take its range away from pods: an address that no pool has is routed to nobody and given to anybody.
    pub(super) fn admit_delete(&self, at: &Place<'_>, object: &Value) -> Result<(), ApiError> {
        if !is_pool(at.resource) {
            return Ok(());
        }
        let all =
            [self.all_of_ipam("ippools"), self.all_of_ipam("ipamblocks"), self.store().list("pods", None).objects];
        let [pools, blocks, pods] = all.each_ref().map(|all| all.iter().map(|object| &object.value).collect());
        let use_of_it = pools::in_use(object, &pools::Others { pools, blocks }, &pods);
        use_of_it.map_or(Ok(()), |why| Err(ApiError::conflict(at.resource, at.name, &why)))
    }

    fn establish(&self, definition: &mut Value) {
        let all = self.store().list("customresourcedefinitions.apiextensions.k8s.io", None).objects;
        let others: Vec<&Value> = all.iter().map(|other| &other.value).collect();
        crd::establish(definition, &others, &now());
    }
}

/// Types and unknown fields, which are not stored: a client that compares what it sent with what is there would take them for real.
fn check_fields(resource: &Resource, object: &mut Value, validation: FieldValidation) -> Result<Vec<String>, ApiError> {
    let group = stored_group(resource);
    admission::decode_check(group, &resource.kind, object).map_err(ApiError::bad_request)?;
    let mut unknown = admission::unknown_fields(group, &resource.kind, object);
    for path in &unknown {
        remove_at(object, path);
    }
    if let Some(CustomKind { schema, .. }) = resource.custom.as_deref() {
        unknown.extend(schema.prune(object));
    }
    let warnings: Vec<String> = unknown.iter().map(|path| format!("unknown field \"{path}\"")).collect();
    match validation {
        FieldValidation::Ignore => Ok(Vec::new()),
        FieldValidation::Strict if !warnings.is_empty() => {
            let (kind, version) = (&resource.kind, &resource.version);
            let sentence = warnings.join(", ");
            Err(ApiError::bad_request(format!(
                "{kind} in version \"{version}\" cannot be handled as a {kind}: strict decoding error: {sentence}"
            )))
        }
        FieldValidation::Warn | FieldValidation::Strict => Ok(warnings),
    }
}

fn refuse(resource: &Resource, object: &Value, errors: &[FieldError]) -> Result<(), ApiError> {
    if errors.is_empty() {
        return Ok(());
    }
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    Err(ApiError::invalid(&resource.group, &resource.kind, name, errors))
}

/// A namespace is kept until its content is gone, and carries its name as a label for selectors.
fn begin_namespace(object: &mut Value) {
    let name = object["metadata"]["name"].clone();
    if !object["spec"].is_object() {
        object["spec"] = serde_json::json!({});
    }
    object["spec"]["finalizers"] = serde_json::json!(["kubernetes"]);
    if !object["metadata"]["labels"].is_object() {
        object["metadata"]["labels"] = serde_json::json!({});
    }
    object["metadata"]["labels"]["kubernetes.io/metadata.name"] = name;
}

fn add_finalizer(object: &mut Value, finalizer: &str) {
    let mut all = finalizers(object);
    if !all.iter().any(|name| name == finalizer) {
        all.push(finalizer.to_owned());
        object["metadata"]["finalizers"] = Value::from(all);
    }
}

/// What is being deleted can only get closer to it.
fn new_finalizers(old: &Value, new: &Value) -> Option<FieldError> {
    let before = finalizers(old);
    let added: Vec<_> = finalizers(new).into_iter().filter(|name| !before.contains(name)).collect();
    (is_deleting(old) && !added.is_empty()).then(|| {
        let why =
            format!("no new finalizers can be added if the object is being deleted, found new finalizers {added:?}");
        FieldError::forbidden("metadata.finalizers", why)
    })
}

fn count_generation(resource: &Resource, part: Part, old: &Value, object: &mut Value) {
    if !counts_generations(resource) {
        return;
    }
    let changed =
        part == Part::Main && admission::generation_bumped(stored_group(resource), &resource.kind, old, object);
    let generation = old["metadata"]["generation"].as_u64().unwrap_or(1) + u64::from(changed);
    object["metadata"]["generation"] = Value::from(generation);
}

fn remove(object: &mut Value, field: &str) {
    if let Some(fields) = object.as_object_mut() {
        fields.shift_remove(field);
    }
}

/// Removes the field at a path such as `spec.containers[0].imagee`.
fn remove_at(object: &mut Value, path: &str) {
    let Some((parents, field)) = path.rsplit_once('.') else { return remove(object, path) };
    let mut names = parents.split(['.', '[', ']']).filter(|name| !name.is_empty());
    let parent = names.try_fold(object, |place, name| match place {
        Value::Array(elements) => elements.get_mut(name.parse::<usize>().ok()?),
        place => place.get_mut(name),
    });
    if let Some(parent) = parent {
        remove(parent, field);
    }
}

/// Makes a field what it was.
fn keep(object: &mut Value, old: &Value, field: &str) {
    match old.get(field) {
        Some(value) => object[field] = value.clone(),
        None => remove(object, field),
    }
}
