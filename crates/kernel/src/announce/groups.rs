//! Which groups of IPv6 the node is in on a device.

use std::{collections::BTreeSet, io, net::Ipv6Addr, os::fd::OwnedFd};

use rustix::{
    io::Errno,
    net::{AddressFamily, SocketFlags, SocketType, socket_with, sockopt},
};

/// How many groups one socket is in: what the kernel keeps of them counts against `net.core.optmem_max`, 20 KB on older kernels.
const OF_A_SOCKET: usize = 128;

/// They are left when this goes.
#[derive(Debug)]
pub(super) struct Groups {
    device: u32,
    /// Each socket's.
    sockets: Vec<(OwnedFd, BTreeSet<Ipv6Addr>)>,
}

impl Groups {
    /// On the device of that index; in none yet.
    pub(super) const fn new(device: u32) -> Self {
        Self { device, sockets: Vec::new() }
    }

    /// In these and no others. Answers the first error; all others are done.
    pub(super) fn set(&mut self, wanted: BTreeSet<Ipv6Addr>) -> io::Result<()> {
        let device = self.device;
        for (socket, joined) in &mut self.sockets {
            for group in joined.difference(&wanted) {
                // One that cannot be left is gone with its device.
                let _ = sockopt::set_ipv6_drop_membership(&*socket, group, device);
            }
            joined.retain(|group| wanted.contains(group));
        }
        self.sockets.retain(|(_, joined)| !joined.is_empty());
        let mut first = Ok(());
        for group in wanted {
            if !self.sockets.iter().any(|(_, joined)| joined.contains(&group)) {
                let done = self.join(group);
                first = first.and(done);
            }
        }
        first
    }

    fn join(&mut self, group: Ipv6Addr) -> io::Result<()> {
        let roomy = self.sockets.iter_mut().find(|(_, joined)| joined.len() < OF_A_SOCKET);
        let (socket, joined) = match roomy {
            Some(roomy) => roomy,
            None => {
                let kind = SocketType::DGRAM;
                let socket = socket_with(AddressFamily::INET6, kind, SocketFlags::CLOEXEC, None)?;
                self.sockets.push((socket, BTreeSet::new()));
                self.sockets.last_mut().ok_or(Errno::INVAL)?
            }
        };
        sockopt::set_ipv6_add_membership(&*socket, &group, self.device)?;
        joined.insert(group);
        Ok(())
    }
}
