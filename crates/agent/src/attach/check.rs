//! CHECK: is the attachment as it was made?

use std::os::fd::OwnedFd;

use podnet_kernel::{
    cni_wire::{Failure, Request},
    netns::NetNs,
};

use super::{Attachment, Attachments, chain, missing_namespace};

impl Attachments {
    pub(super) fn check(&self, request: &Request, netns: Option<OwnedFd>) -> Result<(), Failure> {
        let netns = NetNs::from_fd(netns.ok_or_else(|| missing_namespace(request))?);
        let attachment = Attachment::of(request);
        let addr = self.addresses.of(&attachment.handle).ok_or_else(|| {
            Failure::new(Failure::NO_ADDRESS, format!("container {} holds no address here", request.container_id))
        })?;
        let interface = self.interface(netns, &attachment, addr);
        let differences =
            self.with_socket(&attachment.host_ifname, |socket| interface.check(socket)).map_err(|error| {
                Failure::new(
                    Failure::INTERFACE,
                    format!("cannot look at {}: {}", attachment.host_ifname, chain(&error)),
                )
            })?;
        if differences.is_empty() {
            return Ok(());
        }
        let what: Vec<String> = differences.iter().map(ToString::to_string).collect();
        Err(Failure::new(
            Failure::INTERFACE,
            format!("{} is not as it was made: {}", attachment.host_ifname, what.join("; ")),
        ))
    }
}
