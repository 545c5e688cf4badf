//! Kinds that are defined by CustomResourceDefinition objects.
//!
//! A definition is completed and checked when it is written ([`complete`], [`check`]), answered with its conditions in place
//! ([`establish`]), and from then on each of its served versions is a [`Resource`] like any other ([`resources`]).

use std::sync::Arc;

use serde_json::Value;
use tracing::warn;

use crate::registry::builtin::custom_subresources;
use crate::registry::resource::group_resource;
use crate::registry::{CustomKind, Resource, ScalePaths, View};
use crate::shape::MAX_DEPTH;
use crate::table::CustomColumn;

mod definition;
mod schema;
#[cfg(test)]
mod tests;
mod validate;

pub use definition::{CLEANUP_FINALIZER, check, complete, establish, is_established};
pub use schema::Schema;

/// The resources that an established definition brings: one for each served version.
pub fn resources(definition: &Value) -> Vec<Resource> {
    if !is_established(definition) {
        return Vec::new();
    }
    let versions = definition["spec"]["versions"].as_array().map(Vec::as_slice).unwrap_or_default();
    versions.iter().filter(|version| version["served"] == true).map(|version| resource(definition, version)).collect()
}

fn resource(definition: &Value, version: &Value) -> Resource {
    let spec = &definition["spec"];
    let names = &definition["status"]["acceptedNames"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (group, plural) = (text(&spec["group"]), text(&names["plural"]));
    let columns = columns(&version["additionalPrinterColumns"]);
    let terminating = definition["metadata"]["deletionTimestamp"].is_string();
    let subresources = &version["subresources"];
    let scale = scale_paths(&subresources["scale"]);
    let schema = Schema::parse(&version["schema"]["openAPIV3Schema"]).unwrap_or_else(|errors| {
        // Checked when it was written, so this is a store from another version of this program.
        warn!(%plural, %group, ?errors, "definition has a schema that is not understood; its objects are not checked");
        Schema::anything()
    });
    Resource {
        kind: text(&names["kind"]),
        list_kind: text(&names["listKind"]),
        singular: text(&names["singular"]),
        version: text(&version["name"]),
        namespaced: spec["scope"] == "Namespaced",
        short_names: texts(&names["shortNames"]),
        categories: texts(&names["categories"]),
        subresources: custom_subresources(subresources["status"].is_object(), scale.is_some()),
        scale,
        storage: Arc::from(group_resource(&group, &plural)),
        view: View::Stored,
        custom: Some(Arc::new(CustomKind { schema, columns, terminating })),
        group,
        plural,
    }
}

fn texts(list: &Value) -> Vec<String> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn columns(list: &Value) -> Vec<CustomColumn> {
    let columns: Vec<CustomColumn> = serde_json::from_value(list.clone()).unwrap_or_default();
    let age = CustomColumn {
        name: "Age".to_owned(),
        r#type: "date".to_owned(),
        json_path: ".metadata.creationTimestamp".to_owned(),
        ..CustomColumn::default()
    };
    if columns.is_empty() { vec![age] } else { columns }
}

fn scale_paths(scale: &Value) -> Option<ScalePaths> {
    let path = |field: &str| {
        let text = scale[field].as_str()?.trim_start_matches('.');
        // An object of that depth could not be stored anyway.
        let path: Vec<String> = text.split('.').map(str::to_owned).collect();
        (path.len() < MAX_DEPTH).then_some(path)
    };
    Some(ScalePaths {
        spec: path("specReplicasPath")?,
        status: path("statusReplicasPath")?,
        selector: path("labelSelectorPath"),
    })
}
