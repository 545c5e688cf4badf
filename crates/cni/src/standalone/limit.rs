//! The capability `bandwidth`: how fast a container's traffic may be.

use podnet_kernel::{
    cni_wire::{Failure, Request},
    netlink::RtSocket,
    tc,
};
use podnet_model::{
    LinkName,
    errors::chain,
    limits::{PodLimits, capability},
};
use podnet_planner::limits::{Found, served_by, shaping, steps};

use super::interface::DEVICE_PREFIX;

/// What the runtime asks for.
pub(super) fn wished(request: &Request) -> Result<PodLimits, Failure> {
    capability::limits(&request.config["runtimeConfig"]["bandwidth"])
        .map_err(|error| Failure::new(Failure::INVALID_CONFIG, error.to_string()))
}

/// Puts the limits of a new link in force, which is given by the node's end.
pub(super) fn set(socket: &mut RtSocket, link: &LinkName, limits: &PodLimits, mtu: u32) -> Result<(), Failure> {
    tc::apply(socket, link, &steps(&shaping(limits, mtu), &Found::default())).map_err(|error| {
        Failure::new(Failure::INTERFACE, format!("cannot limit the traffic of {link}: {}", chain(&error)))
    })
}

/// Whether a link is limited as it should be.
pub(super) fn is_set(socket: &mut RtSocket, link: &LinkName, limits: &PodLimits, mtu: u32) -> Result<bool, Failure> {
    let found = tc::find(socket, link).map_err(|error| {
        Failure::new(Failure::INTERFACE, format!("cannot look at the limits of {link}: {}", chain(&error)))
    })?;
    Ok(found.is_some_and(|found| steps(&shaping(limits, mtu), &found).is_empty()))
}

/// Of these devices, those that served a link which went with its container.
pub(super) fn strays<'a>(
    devices: impl IntoIterator<Item = &'a LinkName>,
    is_there: impl Fn(&LinkName) -> bool,
) -> Vec<&'a LinkName> {
    let lost = |device: &&LinkName| {
        served_by(device).is_some_and(|link| link.as_str().starts_with(DEVICE_PREFIX) && !is_there(&link))
    };
    devices.into_iter().filter(lost).collect()
}
