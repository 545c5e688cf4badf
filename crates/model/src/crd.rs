//! The `crd.projectcalico.org/v1` types, as the API spells them.
//!
//! Field names and meanings are those of Calico 3.30, so that existing manifests and tools work as they are. Values are kept as
//! the API delivers them (a mode is a string here), so that one wrong object cannot break the decoding of a whole list;
//! [`convert`](crate::convert) judges them. The schemas say what is allowed, so that an API server refuses the wrong ones first.
//! `multicluster.x-k8s.io/v1alpha1` is only read.

#![allow(clippy::duplicated_attributes, reason = "printer columns repeat their types")]

mod balancer;
mod block;
mod felix;
mod import;
mod lending;
mod pool;
mod reservation;
mod sticky;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube_core::CustomResourceExt;

pub use balancer::{
    IPAddressPool, IPAddressPoolSpec, IPAddressPoolStatus, L2Advertisement, L2AdvertisementSpec, ServiceAllocation,
};
pub use block::{
    AllocationAttribute, BlockAffinity, BlockAffinitySpec, IPAMBlock, IPAMBlockSpec, IPAMHandle, IPAMHandleSpec,
    block_name,
};
pub use felix::{FelixConfiguration, FelixConfigurationSpec};
pub use import::{ImportedPort, ServiceImport, ServiceImportSpec};
pub use lending::{Ask, LendingRequest, REQUESTS, requests, set_requests};
pub use pool::{ALLOWED_USES, ASSIGNMENT_MODES, ENCAP_MODES, IPPool, IPPoolSpec, SPLIT_OF};
pub use reservation::{IPAMConfig, IPAMConfigSpec, IPReservation, IPReservationSpec};
pub use sticky::{STICKY, StickyAddress, StickyAddressSpec};

/// The definitions of all these types, ready to be applied to an API server.
#[must_use]
pub fn definitions() -> Vec<CustomResourceDefinition> {
    vec![
        IPPool::crd(),
        IPAMBlock::crd(),
        BlockAffinity::crd(),
        IPAMHandle::crd(),
        IPAMConfig::crd(),
        IPReservation::crd(),
        FelixConfiguration::crd(),
        StickyAddress::crd(),
    ]
}

/// The definitions of what load balancers' addresses come from (`metallb.io/v1beta1`).
#[must_use]
pub fn balancer_definitions() -> Vec<CustomResourceDefinition> {
    vec![IPAddressPool::crd(), L2Advertisement::crd()]
}

#[cfg(test)]
mod tests;
