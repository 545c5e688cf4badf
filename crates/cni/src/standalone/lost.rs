//! Containers that went without a DEL, and what they hold.
//!
//! The directory of a network's addresses is shared: with other plugins that write it alike, with other network namespaces. So an
//! address is taken from its holder only where that is *known* to be gone: podnet attached it here and its device went with its
//! namespace, or the address was written down before the machine started. All else is for DEL and GC.

use std::{
    collections::BTreeSet,
    fs, io,
    net::IpAddr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use podnet_kernel::{cni_wire::Failure, netlink::RtSocket, tc};
use podnet_model::LinkName;
use podnet_planner::ipam::Handle;

use super::{
    Network,
    interface::{device, devices},
    journal, limit,
    records::Record,
};

impl Network {
    /// Forgets what was made for containers whose namespace went, and their interface with it, and that nobody called DEL for: their
    /// ports are free.
    pub(super) fn forget_lost(&mut self) -> Result<(), Failure> {
        let present = devices().map_err(|error| journal("list the devices", &error))?;
        self.forget_without(&present).map_err(|error| journal("remove the record of a lost container", &error))
    }

    fn forget_without(&mut self, present: &BTreeSet<LinkName>) -> io::Result<()> {
        let strays = limit::strays(present, |link| present.contains(link));
        if !strays.is_empty() {
            let removed = RtSocket::open()
                .and_then(|mut socket| strays.iter().try_for_each(|stray| tc::remove_stray(&mut socket, stray)));
            removed.map_err(io::Error::other)?;
        }
        let is_there = |handle: &Handle, record: &Record| {
            if let Some(is_there) = record.segment.as_ref().and_then(|segment| segment.link.is_there()) {
                return is_there;
            }
            handle.as_str().split_once('/').is_some_and(|(id, ifname)| present.contains(&device(id, ifname)))
        };
        self.records.keep(is_there)
    }

    /// Frees what containers hold that are known to be gone; what is in use then.
    pub(super) fn reclaim(&mut self) -> io::Result<BTreeSet<IpAddr>> {
        let present = devices()?;
        self.forget_without(&present)?;
        let start = machine_start();
        let lost = self.records.lost().into_iter().filter(|(_, record)| record.network == self.name);
        let lost: BTreeSet<Handle> = lost.map(|(handle, _)| handle).collect();
        for (addr, container_id, ifname) in self.leases.all()? {
            let known = self.records.of(&Handle::new(&container_id, &ifname)).is_some();
            if known || present.contains(&device(&container_id, &ifname)) {
                continue;
            }
            let is_older = match start {
                Some(start) => self.leases.written(addr)? < start,
                None => false,
            };
            if is_older || lost.contains(&Handle::new(&container_id, &ifname)) {
                self.leases.release(addr)?;
            }
        }
        lost.iter().try_for_each(|handle| self.records.remove(handle))?;
        self.leases.taken()
    }

    /// Says how many addresses have holders that podnet did not attach here, as only their DEL or GC frees them.
    pub(super) fn not_known(&self) -> io::Result<String> {
        let holders = self.leases.all()?;
        let strangers =
            holders.iter().filter(|(_, id, ifname)| self.records.of(&Handle::new(id, ifname)).is_none()).count();
        Ok(match strangers {
            0 => String::new(),
            count => format!(
                "; {count} of them are held by containers that were not attached by podnet-cni here (DEL or GC frees them)"
            ),
        })
    }
}

/// When the machine started, by the clock as it was then: what was written before is of an earlier life. A machine without a clock
/// of its own starts in the past and learns the time later, which shifts the start that the kernel tells; the birth of `/run`, which
/// comes with each start, is not shifted. None where it is not known.
fn machine_start() -> Option<SystemTime> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    let seconds = stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
    let run = fs::metadata("/run").and_then(|run| run.created()).ok()?;
    Some(run.min(UNIX_EPOCH + Duration::from_secs(seconds)))
}
