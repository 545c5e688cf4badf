//! API object to model, once, at the edge.
//!
//! Each conversion is a `TryFrom` of a reference. An object that cannot be converted is refused as a whole with an [`Invalid`]
//! that names it; the caller reports that and goes on with the rest. There are two exceptions. A pod whose *annotations* are wrong
//! exists for Services and policies all the same, and what is wrong waits in [`Pod::request`](crate::Pod::request) until
//! somebody asks for its address. And of a Service or an EndpointSlice only the wrong part is left out ([`Partly`]): one odd
//! address that a load balancer wrote must not take the ClusterIP down.

mod balancer;
mod block;
mod endpoints;
mod felix;
mod import;
mod ipam;
mod namespace;
mod netconf;
mod node;
mod pod;
mod pool;
mod proxy;
mod service;

use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::{Protocol, labels::SelectorError};

pub(crate) use endpoints::SLICE_KEYS;
pub use endpoints::{IMPORTED_SLICES, is_only_imported};
pub use node::{IPV4_ADDRESS, IPV6_ADDRESS, RECORDED_TO, WIREGUARD_PUBLIC_KEY, flannel_annotation};
pub use pod::{IP_ADDRS, IP_ADDRS_NO_IPAM, IPV4_POOLS, IPV6_POOLS};
pub(crate) use service::RANGES_ANNOTATION;

/// Why an API object cannot be taken over.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// A field that is needed is not there.
    #[error("{object}: {field} is missing; it must be {allowed}")]
    Missing {
        /// Kind and name.
        object: String,
        /// Path of the field.
        field: String,
        /// What it must be.
        allowed: &'static str,
    },
    /// A field has a value that is not allowed.
    #[error("{object}: {field} is {value:?}; it must be {allowed}")]
    Value {
        /// Kind and name.
        object: String,
        /// Path of the field.
        field: String,
        /// Its value.
        value: String,
        /// What it must be.
        allowed: String,
    },
    /// A selector cannot be read.
    #[error("{object}: {field} is {value:?}, which is no selector")]
    Selector {
        /// Kind and name.
        object: String,
        /// Path of the field.
        field: &'static str,
        /// Its value.
        value: String,
        /// Where and why.
        #[source]
        source: SelectorError,
    },
}

/// What of an object is right, and what was left out of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partly<T> {
    /// The object without its wrong parts.
    pub right: T,
    /// What is wrong with each part that was left out.
    pub faults: Vec<Invalid>,
}

/// Collects what is wrong with the parts of an object.
#[derive(Default)]
struct Faults(Vec<Invalid>);

impl Faults {
    /// The part, where it is right.
    fn right<T>(&mut self, part: Result<T, Invalid>) -> Option<T> {
        part.map_err(|fault| self.0.push(fault)).ok()
    }

    /// The parts that are right.
    fn all_right<T>(&mut self, parts: impl Iterator<Item = Result<T, Invalid>>) -> Vec<T> {
        parts.filter_map(|part| self.right(part)).collect()
    }
}

/// The object that a conversion speaks of in its errors.
struct Object<'a> {
    kind: &'static str,
    meta: &'a ObjectMeta,
}

impl<'a> Object<'a> {
    const fn new(kind: &'static str, meta: &'a ObjectMeta) -> Self {
        Self { kind, meta }
    }

    fn describe(&self) -> String {
        let name = self.meta.name.as_deref().unwrap_or("without a name");
        match self.meta.namespace.as_deref() {
            Some(namespace) => format!("{} {namespace}/{name}", self.kind),
            None => format!("{} {name}", self.kind),
        }
    }

    fn missing(&self, field: impl Into<String>, allowed: &'static str) -> Invalid {
        Invalid::Missing { object: self.describe(), field: field.into(), allowed }
    }

    fn value(
        &self,
        field: impl Into<String>,
        value: &(impl fmt::Display + ?Sized),
        allowed: impl Into<String>,
    ) -> Invalid {
        Invalid::Value {
            object: self.describe(),
            field: field.into(),
            value: value.to_string(),
            allowed: allowed.into(),
        }
    }

    fn name(&self) -> Result<&'a str, Invalid> {
        self.meta.name.as_deref().ok_or_else(|| self.missing("metadata.name", "the object's name"))
    }

    fn namespace(&self) -> Result<&'a str, Invalid> {
        self.meta.namespace.as_deref().ok_or_else(|| self.missing("metadata.namespace", "the object's namespace"))
    }

    fn label(&self, key: &str) -> Option<&'a str> {
        self.meta.labels.as_ref()?.get(key).map(String::as_str)
    }

    fn annotation(&self, key: &str) -> Option<&'a str> {
        self.meta.annotations.as_ref()?.get(key).map(String::as_str)
    }

    /// A port number, 1–65535.
    fn port(&self, field: impl Fn() -> String, number: i32) -> Result<u16, Invalid> {
        u16::try_from(number)
            .ok()
            .filter(|port| *port != 0)
            .ok_or_else(|| self.value(field(), &number, "a port, 1 to 65535"))
    }

    /// A transport protocol; TCP where it is not given.
    fn protocol(&self, field: impl Fn() -> String, name: Option<&str>) -> Result<Protocol, Invalid> {
        match name {
            None | Some("TCP" | "") => Ok(Protocol::Tcp),
            Some("UDP") => Ok(Protocol::Udp),
            Some("SCTP") => Ok(Protocol::Sctp),
            Some(other) => Err(self.value(field(), other, "TCP, UDP or SCTP")),
        }
    }
}

#[cfg(test)]
mod tests;
