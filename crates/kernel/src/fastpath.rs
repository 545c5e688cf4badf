//! The way past the node's stack for packets of flows that the stack has let through (`podnet_ebpf::fastpath`).
//!
//! The programs are filters of devices and held by nothing else: they go on without the process that put them there, go with the
//! device, and those of another process, or of another version, are replaced, each in one step. What they have learnt goes with them; every
//! flow then proves itself again with its next packet, which passes the stack.

use std::{
    fmt, io,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use aya::maps::{Array, Map, MapData, MapError, PerCpuArray};
use podnet_ebpf::fastpath::{COUNTERS, Counter, ENTER, OBJECT, PERMITS, TO_NODE, TO_POD};
use podnet_model::LinkName;
use rustix::io::Errno;

use crate::{
    link,
    netlink::{NetlinkError, RtSocket},
    object::{Kind, LoadError, Object},
    sysctl::{self, SysctlError},
    tc::program::{self, Found, Hook, Program},
};

/// The setting of a namespace that the fast path needs at 1: connection tracking does not see most packets of a connection, and yet has
/// to take its end for one, and not for a packet out of place.
pub const CONNTRACK_LIBERAL: &str = "net.netfilter.nf_conntrack_tcp_be_liberal";
/// `BPF_PROG_TYPE_SCHED_CLS`: filters of devices.
pub(crate) const CLASSIFIER: Kind = Kind { kind: 3, attach: 0 };
/// How long connection tracking keeps an idle connection, in seconds.
const ESTABLISHED: &str = "net.netfilter.nf_conntrack_tcp_timeout_established";
/// The same where it did not see that data was acknowledged, or that it was but after some attempts: it sees few acknowledgements.
const UNSEEN: [&str; 2] =
    ["net.netfilter.nf_conntrack_tcp_timeout_unacknowledged", "net.netfilter.nf_conntrack_tcp_timeout_max_retrans"];

/// A setting of the calling thread's namespace that the fast path needs otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Its name.
    pub key: &'static str,
    /// What it is.
    pub found: String,
    /// What it has to be.
    pub wanted: String,
}

/// The settings that have to be changed for the fast path: connection tracking, which sees few of a connection's packets, has to take
/// its end for one, and to keep it as long as others.
///
/// # Errors
/// Where a setting cannot be read: without connection tracking there is none.
pub fn settings_to_change() -> Result<Vec<Setting>, SysctlError> {
    let liberal = Setting { key: CONNTRACK_LIBERAL, found: sysctl::read_here(CONNTRACK_LIBERAL)?, wanted: "1".into() };
    let mut settings = vec![liberal];
    let wanted = sysctl::read_here(ESTABLISHED)?;
    for key in UNSEEN {
        settings.push(Setting { key, found: sysctl::read_here(key)?, wanted: wanted.clone() });
    }
    let seconds = |text: &str| text.parse::<u64>().unwrap_or_default();
    // Longer than that is never used.
    settings.retain(|setting| seconds(&setting.found) < seconds(&setting.wanted));
    Ok(settings)
}

/// What is behind a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behind {
    /// One pod: the device is the node's end of its link.
    Pod,
    /// Other nodes.
    Nodes,
}

/// Packets, since the programs were loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Passed {
    /// They were led past the stack.
    pub forwarded: u64,
    /// They were sent through the stack to prove a flow.
    pub probed: u64,
    /// Of those, the ones that came out.
    pub proven: u64,
}

/// The programs, loaded.
pub struct FastPath {
    enter: Program,
    to_pod: Program,
    to_node: Program,
    permits: Mutex<Array<MapData, [u64; 2]>>,
    counters: PerCpuArray<MapData, u64>,
}

impl fmt::Debug for FastPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FastPath").field("passed", &self.passed()).finish_non_exhaustive()
    }
}

impl FastPath {
    /// Loads the programs; nothing passes by them yet.
    ///
    /// # Errors
    /// Where the kernel has no eBPF or refuses them, for lack of a permission or of a feature.
    pub fn load() -> Result<Self, FastPathError> {
        Self::of(&Object::new(OBJECT, &[], Vec::new())?)
    }

    /// The programs of an object, which may count flows besides.
    pub(crate) fn of(object: &Object) -> Result<Self, FastPathError> {
        let load = |name| {
            let (descriptor, id) = object.program(name, CLASSIFIER)?;
            Ok::<_, LoadError>(Program { name, id, priority: program::FAST_PATH, descriptor })
        };
        let [enter, to_pod, to_node] = [load(ENTER)?, load(TO_POD)?, load(TO_NODE)?];
        let permits = Array::try_from(Map::Array(map(object, PERMITS)?))?;
        let counters = PerCpuArray::try_from(Map::PerCpuArray(map(object, COUNTERS)?))?;
        Ok(Self { enter, to_pod, to_node, permits: Mutex::new(permits), counters })
    }

    /// Puts the programs at a device of the socket's namespace, in place of those that another process left there. Whether they were
    /// not there yet; where there is no such device, nothing is done.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn attach(&self, socket: &mut RtSocket, device: &LinkName, behind: Behind) -> Result<bool, FastPathError> {
        let work = |socket: &mut RtSocket, place| program::put(socket, place, &self.parts(behind));
        at(socket, device, work).map_err(|source| FastPathError::Attach { device: device.clone(), source })
    }

    /// Whether these very programs are at a device of the socket's namespace, and not those of another process.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn is_at(&self, socket: &mut RtSocket, device: &LinkName, behind: Behind) -> Result<bool, FastPathError> {
        let work = |socket: &mut RtSocket, place: (u32, &LinkName)| {
            self.parts(behind).into_iter().try_fold(true, |all, (hook, program)| {
                Ok(program::at(socket, place, hook, program::FAST_PATH)?.iter().any(|found| found.id == program.id)
                    && all)
            })
        };
        at(socket, device, work).map_err(|source| FastPathError::Look { device: device.clone(), source })
    }

    /// What proves flows comes first and what uses the proofs last.
    const fn parts(&self, behind: Behind) -> [(Hook, &Program); 2] {
        let leave = match behind {
            Behind::Pod => &self.to_pod,
            Behind::Nodes => &self.to_node,
        };
        [(Hook::Egress, leave), (Hook::Ingress, &self.enter)]
    }

    /// Ends all proofs: the next packet of every flow passes the stack. To be called whenever the stack would treat a connection in
    /// another way from now on: a route, a pod that leaves, a limit, a rule.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn relearn(&self) -> Result<(), FastPathError> {
        let mut permits = self.permits.lock().unwrap_or_else(PoisonError::into_inner);
        let [number, alive] = permits.get(&0, 0)?;
        Ok(permits.set(0, [number.wrapping_add(1), alive], 0)?)
    }

    /// Lets packets pass by the stack for this long from now on; they do not before the first time. Programs that nobody cares for any
    /// more must not lead packets past what others put there since.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn live_for(&self, time: Duration) -> Result<(), FastPathError> {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let now = Duration::try_from(now).unwrap_or_default();
        let until = u64::try_from((now + time).as_nanos()).unwrap_or(u64::MAX);
        let mut permits = self.permits.lock().unwrap_or_else(PoisonError::into_inner);
        let [number, _] = permits.get(&0, 0)?;
        Ok(permits.set(0, [number, until], 0)?)
    }

    /// What passed so far.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn passed(&self) -> Result<Passed, FastPathError> {
        let of = |counter: Counter| Ok::<_, MapError>(self.counters.get(&(counter as u32), 0)?.iter().sum());
        Ok(Passed { forwarded: of(Counter::Forwarded)?, probed: of(Counter::Probed)?, proven: of(Counter::Proven)? })
    }
}

/// Takes the programs away from a device of the socket's namespace, whoever put them there. Whether there were any.
///
/// # Errors
/// What the kernel refused.
pub fn detach(socket: &mut RtSocket, device: &LinkName) -> Result<bool, FastPathError> {
    let work = |socket: &mut RtSocket, place| {
        let mut any = false;
        for hook in Hook::ALL {
            if program::at(socket, place, hook, program::FAST_PATH)?.iter().any(is_ours) {
                program::clear(socket, place, hook, program::FAST_PATH)?;
                any = true;
            }
        }
        Ok(any)
    };
    at(socket, device, work).map_err(|source| FastPathError::Detach { device: device.clone(), source })
}

/// Whether there are such programs at a device of the socket's namespace, whoever put them there.
///
/// # Errors
/// What the kernel refused.
pub fn is_attached(socket: &mut RtSocket, device: &LinkName) -> Result<bool, FastPathError> {
    let work = |socket: &mut RtSocket, place| {
        Hook::ALL.into_iter().try_fold(false, |any, hook| {
            Ok(program::at(socket, place, hook, program::FAST_PATH)?.iter().any(is_ours) || any)
        })
    };
    at(socket, device, work).map_err(|source| FastPathError::Look { device: device.clone(), source })
}

fn is_ours(found: &Found) -> bool {
    [ENTER, TO_POD, TO_NODE].iter().any(|name| found.name.as_deref() == Some(name))
}

/// Works at a device; at one that is not there, or goes meanwhile, there is nothing.
pub(crate) fn at<'a>(
    socket: &mut RtSocket,
    device: &'a LinkName,
    work: impl FnOnce(&mut RtSocket, (u32, &'a LinkName)) -> Result<bool, NetlinkError>,
) -> Result<bool, NetlinkError> {
    let Some(found) = link::find(socket, device)? else { return Ok(false) };
    match work(socket, (found.index, device)) {
        Err(error) if error.errno() == Some(Errno::NODEV) => Ok(false),
        done => done,
    }
}

fn map(object: &Object, name: &'static str) -> Result<MapData, FastPathError> {
    let descriptor = object.map(name)?.try_clone().map_err(FastPathError::Descriptor)?;
    Ok(MapData::from_fd(descriptor)?)
}

impl FastPathError {
    /// The kernel has no `clsact` or no filters that are programs: it will refuse at every device.
    #[must_use]
    pub fn is_lacking(&self) -> bool {
        // Of a device that is gone it is ENODEV.
        matches!(self, Self::Attach { source, .. } if matches!(source.errno(), Some(Errno::NOENT | Errno::OPNOTSUPP)))
    }
}

/// Why packets pass the stack only.
#[derive(Debug, thiserror::Error)]
pub enum FastPathError {
    /// The kernel did not take the programs or their maps.
    #[error("cannot load the programs of the fast path")]
    Load(#[from] LoadError),
    /// The process can have no descriptor more.
    #[error("cannot keep a program of the fast path")]
    Descriptor(#[source] io::Error),
    /// A map cannot be read or written.
    #[error("cannot use a map of the fast path")]
    Map(#[from] MapError),
    /// The kernel cannot be asked for devices.
    #[error("cannot ask for the devices of the fast path")]
    Links(#[source] NetlinkError),
    /// The programs cannot be put at a device.
    #[error("cannot put the fast path at {device}")]
    Attach {
        /// The device.
        device: LinkName,
        /// Why.
        source: NetlinkError,
    },
    /// The programs cannot be taken away from a device.
    #[error("cannot take the fast path away from {device}")]
    Detach {
        /// The device.
        device: LinkName,
        /// Why.
        source: NetlinkError,
    },
    /// It cannot be told which programs are at a device.
    #[error("cannot tell whether the fast path is at {device}")]
    Look {
        /// The device.
        device: LinkName,
        /// Why.
        source: NetlinkError,
    },
}

#[cfg(test)]
mod tests;
