//! CHECK: is the attachment as it was made?

use std::{net::IpAddr, os::fd::OwnedFd};

use ipnet::IpNet;
use podnet_kernel::{
    cni_wire::{Failure, Request},
    netns::NetNs,
};
use podnet_model::Mac;
use serde_json::Value;

use super::{Attachment, Attachments, chain, missing_namespace, pod_mac};

impl Attachments {
    pub(super) fn check(&self, request: &Request, netns: Option<OwnedFd>) -> Result<(), Failure> {
        let netns = NetNs::from_fd(netns.ok_or_else(|| missing_namespace(request))?);
        let attachment = Attachment::of(request);
        let addrs = self.addresses.of(&attachment.handle);
        if addrs.is_empty() {
            let what = format!("container {} is not attached as {} here", request.container_id, request.ifname);
            return Err(Failure::new(Failure::UNKNOWN_CONTAINER, what));
        }
        let record = self.records.of(&attachment.handle);
        let mac = record.as_ref().map_or_else(|| pod_mac(&addrs), |record| record.mac);
        let mac = expected(request, &addrs)?.unwrap_or(mac);
        let bridge = record.and_then(|record| record.bridge);
        let interface = self.interface(netns, &attachment, (addrs, mac), bridge);
        let differences =
            self.with_socket(&attachment.host_ifname, |socket| interface.check(socket)).map_err(|error| {
                Failure::new(
                    Failure::INTERFACE,
                    format!("cannot look at {}: {}", attachment.host_ifname, chain(&error)),
                )
            })?;
        let limits = self.check_limits(&attachment).map_err(|error| {
            Failure::new(Failure::INTERFACE, format!("cannot look at its limits: {}", chain(&error)))
        })?;
        let what: Vec<String> = differences.iter().map(ToString::to_string).chain(limits).collect();
        if what.is_empty() {
            return Ok(());
        }
        Err(Failure::new(
            Failure::INTERFACE,
            format!("{} is not as it was made: {}", attachment.host_ifname, what.join("; ")),
        ))
    }
}

/// What the chain made of the interface in the end: plugins after podnet may have given it another Ethernet address, but not another
/// address. "The runtime MUST supply prevResult" (specification, "CHECK").
fn expected(request: &Request, addrs: &[IpAddr]) -> Result<Option<Mac>, Failure> {
    let Some(previous) = request.config.get("prevResult").filter(|previous| previous.is_object()) else {
        return Err(Failure::new(
            Failure::INVALID_CONFIG,
            "CHECK needs the result of the ADD as the key \"prevResult\"",
        ));
    };
    let list = |key: &str| previous[key].as_array().map(Vec::as_slice).unwrap_or_default();
    let parsed = |ip: &Value| ip["address"].as_str()?.parse::<IpNet>().ok();
    let listed: Vec<IpAddr> = list("ips").iter().filter_map(parsed).map(|net| net.addr()).collect();
    if let Some(addr) = addrs.iter().find(|addr| !listed.contains(addr)) {
        let what = format!("container {} holds {addr}, which prevResult does not list", request.container_id);
        return Err(Failure::new(Failure::INTERFACE, what));
    }
    let in_sandbox = |interface: &&Value| {
        interface["name"] == request.ifname.as_str()
            && interface["sandbox"].as_str().is_some_and(|path| !path.is_empty())
    };
    let Some(interface) = list("interfaces").iter().find(in_sandbox) else {
        return Err(Failure::new(Failure::INTERFACE, format!("prevResult lists no interface {}", request.ifname)));
    };
    Ok(interface["mac"].as_str().and_then(|mac| mac.parse().ok()))
}
