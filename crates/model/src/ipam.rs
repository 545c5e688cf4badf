//! What IPAM must leave alone, and its settings.

use ipnet::IpNet;

/// An IPReservation: ranges that only pods that ask for an address of them by name get.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reservation {
    /// `spec.reservedCIDRs`; an address by itself is a range of one.
    pub ranges: Vec<IpNet>,
}

/// The IPAMConfig named `default`. Without one, all is allowed and nothing limited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IpamSettings {
    /// `spec.strictAffinity`: nodes give addresses of their own blocks only.
    pub strict_affinity: bool,
    /// `spec.maxBlocksPerHost`: how many blocks one node may own; none where it is 0 or not given.
    pub max_blocks_per_host: Option<usize>,
}
