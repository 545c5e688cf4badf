//! API objects as a network needs them: those of which a cluster has tens of thousands, without what nobody here reads.
//!
//! Most of the text of a pod or a slice is nothing to a network: managed fields, containers, volumes, statuses, uids. It is passed over where
//! it stands and made no values of, which is most of the time and the memory that a list costs. Names that many objects share are there
//! once ([`names::interned`](crate::names::interned)). Conversions ([`convert`](crate::convert)) cannot tell an excerpt from the whole object;
//! who reads a further field there has to take it up here.

mod endpoint_slice;
mod metadata;
mod pod;
mod service;

use k8s_openapi::{
    api::{core::v1 as core, discovery::v1 as discovery},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

pub use endpoint_slice::EndpointSlice;
pub(crate) use endpoint_slice::{Address, Endpoint};
pub use pod::Pod;
pub(crate) use pod::PodSpec;
pub use service::Service;

/// An excerpt is listed and watched as the object that it is of.
macro_rules! stands_for {
    ($excerpt:ty, $object:ty, $($metadata:ident).+) => {
        impl k8s_openapi::Resource for $excerpt {
            const API_VERSION: &'static str = <$object as k8s_openapi::Resource>::API_VERSION;
            const GROUP: &'static str = <$object as k8s_openapi::Resource>::GROUP;
            const KIND: &'static str = <$object as k8s_openapi::Resource>::KIND;
            const VERSION: &'static str = <$object as k8s_openapi::Resource>::VERSION;
            const URL_PATH_SEGMENT: &'static str = <$object as k8s_openapi::Resource>::URL_PATH_SEGMENT;
            type Scope = <$object as k8s_openapi::Resource>::Scope;
        }

        impl k8s_openapi::Metadata for $excerpt {
            type Ty = ObjectMeta;

            fn metadata(&self) -> &ObjectMeta {
                &self.$($metadata).+
            }

            fn metadata_mut(&mut self) -> &mut ObjectMeta {
                &mut self.$($metadata).+
            }
        }
    };
}

stands_for!(EndpointSlice, discovery::EndpointSlice, metadata);
stands_for!(Pod, core::Pod, metadata);
stands_for!(Service, core::Service, object.metadata);

#[cfg(test)]
mod tests;
