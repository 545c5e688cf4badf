//! What is read of an object's metadata.

use std::{collections::BTreeMap, fmt, marker::PhantomData};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, Visitor},
};

/// Which labels, or which annotations, are read.
pub(super) trait Choice {
    fn is_read(key: &str) -> bool;
}

/// Every one.
pub(super) struct All;

impl Choice for All {
    fn is_read(_key: &str) -> bool {
        true
    }
}

/// Metadata with the labels `L`, the annotations `A` and the owners `O`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", bound(deserialize = "L: Choice, A: Choice, O: Deserialize<'de>"))]
pub(super) struct Metadata<L, A, O = IgnoredAny> {
    name: Option<String>,
    namespace: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
    creation_timestamp: Option<Time>,
    labels: Option<Texts<L>>,
    annotations: Option<Texts<A>>,
    owner_references: Option<O>,
}

impl<L, A, O> Metadata<L, A, O> {
    /// As the API's type, and the owners.
    pub(super) fn into_parts(self) -> (ObjectMeta, Option<O>) {
        let meta = ObjectMeta {
            name: self.name,
            namespace: self.namespace,
            uid: self.uid,
            resource_version: self.resource_version,
            creation_timestamp: self.creation_timestamp,
            labels: self.labels.map(|labels| labels.texts),
            annotations: self.annotations.map(|annotations| annotations.texts),
            ..ObjectMeta::default()
        };
        (meta, self.owner_references)
    }
}

/// Texts by their keys: those that are chosen.
struct Texts<C> {
    texts: BTreeMap<String, String>,
    choice: PhantomData<C>,
}

impl<'de, C: Choice> Deserialize<'de> for Texts<C> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(TextsVisitor(PhantomData))
    }
}

struct TextsVisitor<C>(PhantomData<C>);

impl<'de, C: Choice> Visitor<'de> for TextsVisitor<C> {
    type Value = Texts<C>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("texts by their keys")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Texts<C>, M::Error> {
        let mut texts = BTreeMap::new();
        while let Some(key) = map.next_key::<String>()? {
            if C::is_read(&key) {
                texts.insert(key, map.next_value()?);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(Texts { texts, choice: self.0 })
    }
}
