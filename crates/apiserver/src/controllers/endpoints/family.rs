//! Address families: a Service has slices of their own for each of its.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::Service;

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both, in the order in which they are written.
    pub(super) const BOTH: [Self; 2] = [Self::V4, Self::V6];

    /// A Service's families, its first one first. One that names none is of before there was more than one.
    pub(super) fn of_service(service: &Service) -> Vec<Self> {
        let named = service.spec.iter().flat_map(|spec| spec.ip_families.iter().flatten());
        let families: Vec<Self> =
            named.filter_map(|name| Self::BOTH.into_iter().find(|family| family.name() == name)).collect();
        if families.is_empty() { vec![Self::V4] } else { families }
    }

    /// As Services and slices name it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }

    /// Whether an address is of the family.
    pub(super) const fn has(self, address: IpAddr) -> bool {
        matches!((self, address), (Self::V4, IpAddr::V4(_)) | (Self::V6, IpAddr::V6(_)))
    }
}
