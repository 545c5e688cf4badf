//! DEL while the agent is down.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::Path,
};

use podnet_kernel::{
    cni_wire::{Failure, host_ifname},
    netlink::RtSocket,
    pod_interface,
};

/// Removes the attachment's interface and leaves a tombstone by which the agent frees the address.
pub(crate) fn delete(container_id: &str, ifname: &str, tombstones: &Path) -> Result<(), Failure> {
    let name = host_ifname(container_id, ifname);
    let failed = |error: &dyn std::error::Error| {
        Failure::new(Failure::INTERFACE, format!("cannot remove interface {name}: {error}"))
    };
    let mut socket = RtSocket::open().map_err(|error| failed(&error))?;
    // The route and the neighbour entry go with the link.
    pod_interface::remove(&mut socket, &name).map_err(|error| failed(&error))?;
    leave_tombstone(container_id, ifname, tombstones).map_err(|error| {
        let place = tombstones.display();
        Failure::new(Failure::JOURNAL, format!("cannot leave a tombstone for {container_id} in {place}: {error}"))
    })
}

/// The tombstone's name is the attachment's identity: neither part can hold a `/`, and the container's id no `@` (`environment`).
fn leave_tombstone(container_id: &str, ifname: &str, tombstones: &Path) -> io::Result<()> {
    fs::create_dir_all(tombstones)?;
    let mut file = File::create(tombstones.join(format!("{container_id}@{ifname}")))?;
    file.write_all(b"")?;
    file.sync_all()?;
    File::open(tombstones)?.sync_all()
}
