//! One kind as it is served.

use std::sync::Arc;

use crate::crd::Schema;
use crate::table::CustomColumn;

/// A row of the catalog.
#[derive(Debug, Clone)]
pub struct Resource {
    /// API group; empty for the core group.
    pub group: String,
    /// Version within the group.
    pub version: String,
    /// Kind of one object.
    pub kind: String,
    /// Kind of a list of them.
    pub list_kind: String,
    /// Name in paths.
    pub plural: String,
    /// Name that people may type.
    pub singular: String,
    /// Whether objects live in namespaces.
    pub namespaced: bool,
    /// Abbreviations that people may type.
    pub short_names: Vec<String>,
    /// Groups of kinds, such as `all`.
    pub categories: Vec<String>,
    /// Paths below an object.
    pub subresources: Vec<Subresource>,
    /// Where `scale` finds its numbers, when there is a `scale`.
    pub scale: Option<ScalePaths>,
    /// Name of the table in the store.
    pub storage: Arc<str>,
    /// How stored objects and served ones differ.
    pub view: View,
    /// What a CustomResourceDefinition says about the kind.
    pub custom: Option<Arc<CustomKind>>,
}

impl Resource {
    /// `v1`, `apps/v1`.
    pub fn api_version(&self) -> String {
        api_version(&self.group, &self.version)
    }

    /// `pods`, `deployments.apps`: the name in messages and in the store.
    pub fn group_resource(&self) -> String {
        group_resource(&self.group, &self.plural)
    }

    /// The subresource of that name.
    pub fn subresource(&self, name: &str) -> Option<&Subresource> {
        self.subresources.iter().find(|subresource| subresource.name == name)
    }

    /// Whether `status` is written through a path of its own.
    pub fn has_status(&self) -> bool {
        self.subresource("status").is_some()
    }

    /// Whether objects are kept at all: reviews are answered and forgotten.
    pub fn is_stored(&self) -> bool {
        self.view != View::Review
    }

    /// Whether this is the built-in resource of that group and plural.
    pub fn is(&self, group: &str, plural: &str) -> bool {
        self.group == group && self.plural == plural
    }

    /// What may be done to the resource itself.
    pub fn verbs(&self) -> &'static [&'static str] {
        if self.is_stored() {
            &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]
        } else {
            &["create"]
        }
    }

    /// Columns that the kind's definition asks for.
    pub fn columns(&self) -> &[CustomColumn] {
        self.custom.as_ref().map_or(&[], |custom| &custom.columns)
    }
}

/// `v1`, `apps/v1`.
pub(crate) fn api_version(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
}

/// `pods`, `deployments.apps`.
pub(crate) fn group_resource(group: &str, plural: &str) -> String {
    if group.is_empty() { plural.to_owned() } else { format!("{plural}.{group}") }
}

/// A path below an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subresource {
    /// The path's last segment.
    pub name: &'static str,
    /// Group, version and kind that it speaks, where they are not its parent's.
    pub kind: Option<(&'static str, &'static str, &'static str)>,
    /// What may be done to it.
    pub verbs: &'static [&'static str],
}

/// Where the numbers of a `Scale` are in an object: paths of field names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScalePaths {
    /// Desired number.
    pub spec: Vec<String>,
    /// Number that exists.
    pub status: Vec<String>,
    /// The selector of the pods that are counted.
    pub selector: Option<Vec<String>>,
}

/// How stored objects and served ones differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum View {
    /// They do not.
    Stored,
    /// `events.k8s.io/v1` on top of stored core Events.
    EventsV1,
    /// Nothing is stored: a question that is answered in its own object.
    Review,
}

/// What a CustomResourceDefinition says about one version of its kind.
#[derive(Debug)]
pub struct CustomKind {
    /// What objects have to look like.
    pub schema: Schema,
    /// Columns of tables.
    pub columns: Vec<CustomColumn>,
    /// Whether the definition is being deleted: then no new objects are accepted.
    pub terminating: bool,
}
