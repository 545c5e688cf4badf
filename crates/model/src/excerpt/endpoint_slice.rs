//! EndpointSlice: ten times as many endpoints as there is anything else. Its addresses are read where they stand.

use std::{fmt, net::IpAddr, sync::Arc};

use k8s_openapi::{api::discovery::v1 as api, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use serde::{
    Deserialize, Deserializer,
    de::{Error, IgnoredAny, SeqAccess, Visitor},
};

use super::metadata::{Choice, Metadata};
use crate::{convert::SLICE_KEYS, names::interned};

/// An EndpointSlice.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EndpointSlice {
    pub(crate) metadata: ObjectMeta,
    pub(crate) address_type: String,
    pub(crate) ports: Vec<api::EndpointPort>,
    pub(crate) endpoints: Vec<Endpoint>,
}

/// An endpoint of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Endpoint {
    addresses: Option<First>,
    conditions: Option<Conditions>,
    hostname: Option<Own>,
    node_name: Option<Shared>,
    zone: Option<Shared>,
    target_ref: Option<Target>,
    hints: Option<Hints>,
}

/// An address as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Address {
    /// It is one.
    Right(IpAddr),
    /// It is none.
    Wrong(Box<str>),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub(crate) struct Conditions {
    pub(crate) ready: Option<bool>,
    pub(crate) serving: Option<bool>,
    pub(crate) terminating: Option<bool>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
struct Target {
    kind: Option<IsPod>,
    namespace: Option<Shared>,
    name: Option<Own>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Hints {
    for_zones: Option<Vec<For>>,
    for_nodes: Option<Vec<For>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
struct For {
    name: Option<Shared>,
}

impl Endpoint {
    /// The address that counts, as it is written.
    pub(crate) fn address(&self) -> Option<&Address> {
        self.addresses.as_ref()?.0.as_ref()
    }

    pub(crate) fn conditions(&self) -> Conditions {
        self.conditions.unwrap_or_default()
    }

    pub(crate) fn hostname(&self) -> Option<&Arc<str>> {
        self.hostname.as_ref().map(|name| &name.0)
    }

    pub(crate) fn node(&self) -> Option<&Arc<str>> {
        text(self.node_name.as_ref())
    }

    pub(crate) fn zone(&self) -> Option<&Arc<str>> {
        text(self.zone.as_ref())
    }

    /// The pod behind it, where it is one that is named: its namespace, unless it is the slice's own, and its name.
    pub(crate) fn pod(&self) -> Option<(Option<&Arc<str>>, &Arc<str>)> {
        let target = self.target_ref.as_ref()?;
        target.kind.filter(|kind| kind.0)?;
        Some((text(target.namespace.as_ref()), &target.name.as_ref()?.0))
    }

    /// The zones that it is meant for.
    pub(crate) fn for_zones(&self) -> impl Iterator<Item = &Arc<str>> {
        let zones = self.hints.iter().flat_map(|hints| hints.for_zones.iter().flatten());
        zones.filter_map(|zone| text(zone.name.as_ref()))
    }

    /// The nodes that it is meant for.
    pub(crate) fn for_nodes(&self) -> impl Iterator<Item = &Arc<str>> {
        let nodes = self.hints.iter().flat_map(|hints| hints.for_nodes.iter().flatten());
        nodes.filter_map(|node| text(node.name.as_ref()))
    }
}

fn text(shared: Option<&Shared>) -> Option<&Arc<str>> {
    shared.map(|shared| &shared.0)
}

struct Keys;

impl Choice for Keys {
    fn is_read(key: &str) -> bool {
        SLICE_KEYS.contains(&key)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Read {
    metadata: Option<Metadata<Keys, Keys>>,
    address_type: Option<String>,
    ports: Option<Vec<api::EndpointPort>>,
    endpoints: Option<Vec<Endpoint>>,
}

impl<'de> Deserialize<'de> for EndpointSlice {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Read { metadata, address_type, ports, endpoints } = Read::deserialize(deserializer)?;
        Ok(Self {
            metadata: metadata.map(Metadata::into_parts).unwrap_or_default().0,
            address_type: address_type.unwrap_or_default(),
            ports: ports.unwrap_or_default(),
            endpoints: endpoints.unwrap_or_default(),
        })
    }
}

/// A text that many objects have.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Shared(Arc<str>);

impl<'de> Deserialize<'de> for Shared {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(TextVisitor(|text| Self(interned(text))))
    }
}

/// A text that one object has.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Own(Arc<str>);

impl<'de> Deserialize<'de> for Own {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(TextVisitor(|text| Self(Arc::from(text))))
    }
}

/// Whether a kind of objects is that of pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct IsPod(bool);

impl IsPod {
    fn read(kind: &str) -> Self {
        Self(kind == "Pod")
    }
}

impl<'de> Deserialize<'de> for IsPod {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(TextVisitor(Self::read))
    }
}

impl Address {
    fn read(text: &str) -> Self {
        text.parse().map_or_else(|_| Self::Wrong(text.into()), Self::Right)
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(TextVisitor(Self::read))
    }
}

/// What is made of a text without keeping it.
struct TextVisitor<T>(fn(&str) -> T);

impl<T> Visitor<'_> for TextVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        Ok((self.0)(text))
    }
}

/// The first of a list of addresses: the others are for uses that nobody has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct First(Option<Address>);

impl<'de> Deserialize<'de> for First {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(FirstVisitor)
    }
}

struct FirstVisitor;

impl<'de> Visitor<'de> for FirstVisitor {
    type Value = First;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of addresses")
    }

    fn visit_seq<S: SeqAccess<'de>>(self, mut addresses: S) -> Result<First, S::Error> {
        let first = addresses.next_element()?;
        while addresses.next_element::<IgnoredAny>()?.is_some() {}
        Ok(First(first))
    }
}

impl From<&api::EndpointSlice> for EndpointSlice {
    fn from(slice: &api::EndpointSlice) -> Self {
        Self {
            metadata: slice.metadata.clone(),
            address_type: slice.address_type.clone(),
            ports: slice.ports.clone().unwrap_or_default(),
            endpoints: slice.endpoints.iter().flatten().map(Endpoint::from).collect(),
        }
    }
}

impl From<&api::Endpoint> for Endpoint {
    fn from(endpoint: &api::Endpoint) -> Self {
        let shared = |text: &Option<String>| text.as_deref().map(|text| Shared(interned(text)));
        let own = |text: &Option<String>| text.as_deref().map(|text| Own(Arc::from(text)));
        let conditions = endpoint.conditions.as_ref();
        let hints = endpoint.hints.as_ref();
        let named = |name: &str| For { name: Some(Shared(interned(name))) };
        Self {
            addresses: Some(First(endpoint.addresses.first().map(|text| Address::read(text)))),
            conditions: conditions.map(|&api::EndpointConditions { ready, serving, terminating }| Conditions {
                ready,
                serving,
                terminating,
            }),
            hostname: own(&endpoint.hostname),
            node_name: shared(&endpoint.node_name),
            zone: shared(&endpoint.zone),
            target_ref: endpoint.target_ref.as_ref().map(|target| Target {
                kind: target.kind.as_deref().map(IsPod::read),
                namespace: shared(&target.namespace),
                name: own(&target.name),
            }),
            hints: hints.map(|hints| Hints {
                for_zones: hints.for_zones.as_ref().map(|zones| zones.iter().map(|zone| named(&zone.name)).collect()),
                for_nodes: hints.for_nodes.as_ref().map(|nodes| nodes.iter().map(|node| named(&node.name)).collect()),
            }),
        }
    }
}
