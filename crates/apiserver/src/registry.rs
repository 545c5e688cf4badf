//! Which kinds exist. A kind is a row: a built-in one in [`builtin`], or one that a CustomResourceDefinition brings.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use serde_json::Value;

pub(crate) mod builtin;
mod events;
pub(crate) mod resource;

pub use resource::{CustomKind, Resource, ScalePaths, Subresource, View};

/// What a stored object looks like through a resource of another version; nothing where it looks as it is stored. Versions of
/// a custom kind differ in their name alone (conversion strategy `None`).
pub fn to_view(resource: &Resource, stored: &Value) -> Option<Value> {
    if resource.view == View::EventsV1 {
        return Some(events::from_core(stored));
    }
    if resource.custom.is_none() || stored["apiVersion"] == resource.api_version() {
        return None;
    }
    let mut object = stored.clone();
    object["apiVersion"] = Value::from(resource.api_version());
    Some(object)
}

/// The reverse of [`to_view`].
pub fn from_view(resource: &Resource, object: Value) -> Value {
    if resource.view == View::EventsV1 { events::to_core(object) } else { object }
}

/// All kinds at one moment.
#[derive(Debug, Default)]
pub struct Catalog {
    resources: Vec<Arc<Resource>>,
    by_path: HashMap<(String, String, String), Arc<Resource>>,
}

impl Catalog {
    fn of(resources: impl Iterator<Item = Arc<Resource>>) -> Self {
        let mut catalog = Self::default();
        for resource in resources {
            let path = (resource.group.clone(), resource.version.clone(), resource.plural.clone());
            catalog.by_path.insert(path, Arc::clone(&resource));
            catalog.resources.push(resource);
        }
        catalog
    }

    /// The resource at `/apis/group/version/plural` (or `/api/v1/plural` for the empty group).
    pub fn resource(&self, group: &str, version: &str, plural: &str) -> Option<Arc<Resource>> {
        self.by_path.get(&(group.to_owned(), version.to_owned(), plural.to_owned())).cloned()
    }

    /// All resources, built-in ones first.
    pub fn resources(&self) -> &[Arc<Resource>] {
        &self.resources
    }

    /// The groups with their versions, in order of first appearance.
    pub fn groups(&self) -> Vec<(&str, Vec<&str>)> {
        let mut groups: Vec<(&str, Vec<&str>)> = Vec::new();
        for resource in &self.resources {
            match groups.iter_mut().find(|(group, _)| *group == resource.group) {
                Some((_, versions)) if versions.contains(&resource.version.as_str()) => {}
                Some((_, versions)) => versions.push(&resource.version),
                None => groups.push((&resource.group, vec![&resource.version])),
            }
        }
        groups
    }
}

/// The catalog that is served now.
#[derive(Debug)]
pub struct Registry {
    builtin: Vec<Arc<Resource>>,
    current: RwLock<Arc<Catalog>>,
}

impl Default for Registry {
    fn default() -> Self {
        let builtin: Vec<_> = builtin::resources().map(Arc::new).collect();
        let current = RwLock::new(Arc::new(Catalog::of(builtin.iter().cloned())));
        Self { builtin, current }
    }
}

impl Registry {
    /// The catalog at this moment.
    pub fn catalog(&self) -> Arc<Catalog> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Serves these custom kinds beside the built-in ones from now on.
    pub fn serve_custom(&self, custom: Vec<Resource>) {
        let all = self.builtin.iter().cloned().chain(custom.into_iter().map(Arc::new));
        let catalog = Arc::new(Catalog::of(all));
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = catalog;
    }

    /// A resource that is built in. Its absence is a mistake in this program, not of its input.
    pub fn builtin(&self, group: &str, plural: &str) -> Arc<Resource> {
        let found = self.builtin.iter().find(|row| row.group == group && row.plural == plural);
        Arc::clone(found.expect("callers name rows of the built-in table"))
    }

    /// Whether the group belongs to Kubernetes itself, so that no CustomResourceDefinition may add kinds to it.
    pub fn is_builtin_group(&self, group: &str) -> bool {
        self.builtin.iter().any(|row| row.group == group)
    }
}
