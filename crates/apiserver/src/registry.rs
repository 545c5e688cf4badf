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
    /// The built-in kinds alone.
    pub fn builtin() -> Self {
        Self::of(builtin::resources().map(Arc::new))
    }

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

/// The kinds that are served, kept in step with the definitions in the store.
#[derive(Debug)]
pub struct Registry {
    builtin: Vec<Arc<Resource>>,
    current: RwLock<Current>,
}

/// A catalog, and the store's revision whose definitions it shows.
#[derive(Debug)]
struct Current {
    revision: u64,
    catalog: Arc<Catalog>,
}

impl Default for Registry {
    fn default() -> Self {
        let builtin: Vec<_> = builtin::resources().map(Arc::new).collect();
        let catalog = Arc::new(Catalog::of(builtin.iter().cloned()));
        Self { builtin, current: RwLock::new(Current { revision: 0, catalog }) }
    }
}

impl Registry {
    /// The catalog of a revision or of a later one. Where the one at hand is older, `custom` tells which custom kinds there are by
    /// now, and at which revision. Of two that ask at once one waits for the other, so that an older answer never replaces a newer.
    pub fn catalog_since(&self, revision: u64, custom: impl FnOnce() -> (u64, Vec<Resource>)) -> Arc<Catalog> {
        {
            let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
            if current.revision >= revision {
                return Arc::clone(&current.catalog);
            }
        }
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        if current.revision < revision {
            let (revision, custom) = custom();
            let all = self.builtin.iter().cloned().chain(custom.into_iter().map(Arc::new));
            *current = Current { revision, catalog: Arc::new(Catalog::of(all)) };
        }
        Arc::clone(&current.catalog)
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
