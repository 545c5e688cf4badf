//! Why a Service has no address.

use std::{net::IpAddr, sync::Arc};

use podnet_model::{Family, Protocol, ServiceKey};

use super::Request;

/// Why there is no address for a load balancer; people read it in an event.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is no pool that such a Service gets addresses of without asking.
    #[error("no IPAddressPool gives addresses to this Service (autoAssign, serviceAllocation)")]
    NoPool,
    /// There is no pool of that name.
    #[error("there is no IPAddressPool {0}")]
    UnknownPool(Arc<str>),
    /// The pool is for other Services.
    #[error("IPAddressPool {0} is for other Services (serviceAllocation)")]
    NotForIt(Arc<str>),
    /// All addresses are taken.
    #[error("no available IPs{}", .pool.as_ref().map_or_else(String::new, |pool| format!(" in IPAddressPool {pool}")))]
    Exhausted {
        /// The pool that was asked for.
        pool: Option<Arc<str>>,
    },
    /// The address is in no pool.
    #[error("{0} is in no IPAddressPool")]
    InNoPool(IpAddr),
    /// The address is in a pool that the Service may not have it from.
    #[error("{0} is in IPAddressPool {1}, which is not for this Service")]
    InAnotherPool(IpAddr, Arc<str>),
    /// Another Service has the address and does not share it with this one.
    #[error(
        "{addr} is Service {by}'s; to share it both need the same annotation metallb.io/allow-shared-ip, and externalTrafficPolicy \
         Cluster or the same selector"
    )]
    Taken {
        /// The address.
        addr: IpAddr,
        /// Who has it.
        by: ServiceKey,
    },
    /// Another Service that shares the address has the port.
    #[error("port {port}/{protocol} of {addr} is Service {by}'s")]
    PortTaken {
        /// The address.
        addr: IpAddr,
        /// The port.
        port: u16,
        /// The port's protocol.
        protocol: Protocol,
        /// Who has it.
        by: ServiceKey,
    },
    /// The address is of a family that the Service has not, or the second one of its family.
    #[error("{0} does not fit the Service's ipFamilies: one address of each")]
    WrongFamily(IpAddr),
    /// The Service needs both families.
    #[error("no {0} address was asked for, and the Service requires both families")]
    FamilyMissing(Family),
}

impl Refusal {
    /// What people can do about it.
    #[must_use]
    pub const fn remedy(&self) -> &'static str {
        match self {
            Self::NoPool => {
                "apply an IPAddressPool, or set autoAssign or serviceAllocation of one so that it serves this Service"
            }
            Self::UnknownPool(_) => "apply it, or change the annotation metallb.io/address-pool",
            Self::NotForIt(_) => "change its serviceAllocation, or the annotation metallb.io/address-pool",
            Self::Exhausted { .. } => {
                "add a range to spec.addresses of an IPAddressPool, or delete a Service of type LoadBalancer"
            }
            Self::InNoPool(_) => "add it to spec.addresses of an IPAddressPool, or ask for another one",
            Self::InAnotherPool(..) => "ask for another address, or change that pool's serviceAllocation",
            Self::Taken { .. } | Self::PortTaken { .. } => "ask for another address, or for none",
            Self::WrongFamily(_) | Self::FamilyMissing(_) => {
                "change the addresses that are asked for, or spec.ipFamilies"
            }
        }
    }

    pub(super) fn exhausted(request: &Request) -> Self {
        Self::Exhausted { pool: request.pool.clone() }
    }
}
