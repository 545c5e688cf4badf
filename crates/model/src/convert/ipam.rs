//! IPReservation and IPAMConfig.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{Invalid, Object};
use crate::{IpamSettings, Reservation, crd};

impl TryFrom<&crd::IPReservation> for Reservation {
    type Error = Invalid;

    fn try_from(reservation: &crd::IPReservation) -> Result<Self, Invalid> {
        let object = Object::new("IPReservation", &reservation.metadata);
        let range = |(index, text): (usize, &String)| {
            let range = text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
            range.map(|range| range.trunc()).ok_or_else(|| {
                let allowed = "an address or a range, for example 10.233.64.0/28";
                object.value(format!("spec.reservedCIDRs[{index}]"), text, allowed)
            })
        };
        let ranges = reservation.spec.reserved_cidrs.iter().enumerate().map(range);
        Ok(Self { ranges: ranges.collect::<Result<_, _>>()? })
    }
}

impl TryFrom<&crd::IPAMConfig> for IpamSettings {
    type Error = Invalid;

    fn try_from(config: &crd::IPAMConfig) -> Result<Self, Invalid> {
        let object = Object::new("IPAMConfig", &config.metadata);
        if object.name()? != "default" {
            return Err(object.value(
                "metadata.name",
                object.name()?,
                "default: of any other name it would not be looked at",
            ));
        }
        let most = config.spec.max_blocks_per_host;
        let most = usize::try_from(most)
            .map_err(|_| object.value("spec.maxBlocksPerHost", &most, "0 (no limit) or a number of blocks"))?;
        Ok(Self { strict_affinity: config.spec.strict_affinity, max_blocks_per_host: (most != 0).then_some(most) })
    }
}
