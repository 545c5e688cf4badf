//! Services at the socket: the programs (`podnet_ebpf::sockets`) that open a connection to a frontend to one of its backends.
//!
//! They are at a cgroup and held by nothing else: they go on without the process that put them there, go with the cgroup, and those of
//! another process, or of another version, are replaced, each in one step. The newer ones go on with what stands in the maps of the older
//! ones: the frontends, which clients stay with which backend, what each socket speaks with.
//!
//! What the kernel needs: Linux 5.18, cgroups of version 2.

pub(crate) mod call;
mod connections;
mod load;
mod seen;

use std::{
    fs::File,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::PathBuf,
};

use podnet_ebpf::sockets::{self as abi, PROGRAMS, Place};
use podnet_model::Protocol;
use podnet_planner::{
    ruleset::{BackendAddress, FrontendKey},
    services::ebpf::{self, Affinity, Edits, Entry, Serves, Slot, Tables, Target},
};
use rustix::io::Errno;

pub use connections::{Connections, Opened};
pub use seen::{Seen, look};

use crate::{
    cgroup::{Cgroup, CgroupError},
    netlink::NetlinkError,
    netns::{NetNs, NetNsError},
    object::LoadError,
};
pub(crate) use load::{refused_at, spoken_with};

/// For how many frontends and backends there is room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Frontends.
    pub frontends: u32,
    /// Backends of all frontends together.
    pub backends: u32,
}

impl Sizes {
    /// What a small cluster needs: about 1 MiB.
    pub const LEAST: Self = Self { frontends: 16_384, backends: 65_536 };

    /// Room for so many, and as many again.
    #[must_use]
    pub fn for_twice(frontends: usize, backends: usize) -> Self {
        let twice = |count: usize, least: u32| {
            u32::try_from(count).unwrap_or(u32::MAX / 4).saturating_mul(2).next_power_of_two().max(least)
        };
        Self { frontends: twice(frontends, Self::LEAST.frontends), backends: twice(backends, Self::LEAST.backends) }
    }

    /// Whether so many have room. While a frontend gets other backends, both have to.
    #[must_use]
    pub fn hold(self, frontends: usize, backends: usize) -> bool {
        frontends <= self.frontends as usize && backends <= self.backends as usize
    }
}

/// A program, loaded.
#[derive(Debug)]
struct Program {
    which: abi::Program,
    id: u32,
    descriptor: OwnedFd,
}

#[derive(Debug)]
struct Maps {
    sizes: Sizes,
    frontends: OwnedFd,
    backends: OwnedFd,
    connected: OwnedFd,
    connected_id: u32,
    connected_udp: OwnedFd,
    unfollowed: OwnedFd,
    settings: OwnedFd,
}

/// The programs of one node, loaded.
#[derive(Debug)]
pub struct Sockets {
    cgroup: File,
    path: Cgroup,
    programs: Vec<Program>,
    maps: Maps,
}

impl Sockets {
    /// Loads the programs for the processes of a cgroup, which is made where it is not there, and of the groups in it. The calling thread's
    /// namespace is the node's: only there the loopback's addresses are frontends. Where other such programs are at the cgroup, the new ones
    /// share what those know, if it has room for that much; they take their place with [`Sockets::attach`].
    ///
    /// # Errors
    /// Where the kernel has no eBPF for cgroups or refuses the programs, for lack of a permission or of a feature.
    pub fn open(cgroup: &Cgroup, sizes: Sizes) -> Result<Self, SocketsError> {
        Self::open_with(cgroup, sizes, &[])
    }

    /// The same, with other capacities of maps that are not the tables.
    fn open_with(cgroup: &Cgroup, sizes: Sizes, others: &[(&str, u32)]) -> Result<Self, SocketsError> {
        let failed = |source| SocketsError::Cgroup { path: cgroup.path().to_path_buf(), source };
        std::fs::create_dir_all(cgroup.path()).map_err(failed)?;
        let directory = File::open(cgroup.path()).map_err(failed)?;
        let (programs, maps) = load::load(directory.as_fd(), sizes, others)?;
        let cookie = load::netns_cookie().map_err(SocketsError::Cookie)?;
        call::update(maps.settings.as_fd(), &[([0; 4], cookie.to_ne_bytes())]).map_err(SocketsError::Settings)?;
        Ok(Self { cgroup: directory, path: cgroup.clone(), programs, maps })
    }

    /// For how much there is room.
    #[must_use]
    pub fn sizes(&self) -> Sizes {
        self.maps.sizes
    }

    /// Puts the programs at the cgroup, in place of those that another process left there. How many were not there yet.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn attach(&self) -> Result<usize, SocketsError> {
        let failed = |source| SocketsError::Attach { path: self.path.path().to_path_buf(), source };
        let mut put = 0;
        for program in &self.programs {
            let hook = program.which.hook;
            let mut found = call::attached(self.cgroup.as_fd(), hook).map_err(failed)?;
            found.retain(|one| one.name == program.which.name);
            let is_there = found.iter().any(|one| one.id == program.id);
            found.retain(|one| one.id != program.id);
            let mut others = found.iter();
            if !is_there {
                let replaced = others.next().map(|one| one.descriptor.as_fd());
                call::attach(self.cgroup.as_fd(), hook, program.descriptor.as_fd(), replaced).map_err(failed)?;
                put += 1;
            }
            for other in others {
                call::detach(self.cgroup.as_fd(), hook, other.descriptor.as_fd()).map_err(failed)?;
            }
        }
        Ok(put)
    }

    /// Makes changes, in their order.
    ///
    /// # Errors
    /// What the kernel refused; some of it may be done.
    pub fn apply(&self, edits: &Edits) -> Result<(), SocketsError> {
        let (frontends, backends) = (self.maps.frontends.as_fd(), self.maps.backends.as_fd());
        let filled: Vec<_> =
            edits.fill.iter().map(|(slot, target)| (slot_bytes(*slot), target_bytes(*target))).collect();
        call::update(backends, &filled).map_err(refused("fill slots of backends"))?;
        let pointed: Vec<_> = edits.point.iter().map(|(key, entry)| (key_bytes(*key), entry_bytes(*entry))).collect();
        call::update(frontends, &pointed).map_err(refused("set frontends"))?;
        let forgotten: Vec<_> = edits.forget.iter().map(|key| key_bytes(*key)).collect();
        call::delete(frontends, &forgotten).map_err(refused("remove frontends"))?;
        let emptied: Vec<_> = edits.empty.iter().map(|slot| slot_bytes(*slot)).collect();
        call::delete(backends, &emptied).map_err(refused("empty slots of backends"))
    }

    /// The connections that are opened through frontends.
    ///
    /// # Errors
    /// Where the process can have no descriptor more.
    pub fn connections(&self) -> Result<Connections, SocketsError> {
        let (tcp, udp) = (self.maps.connected.try_clone()?, self.maps.connected_udp.try_clone()?);
        Ok(Connections::new(self.path.clone(), (tcp, self.maps.connected_id), udp))
    }

    /// How many sockets were connected through frontends that [`Connections::list`] does not tell, as there was no room for them: they are
    /// not ended when their backend goes. It is counted from when the programs came to the cgroup.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn unfollowed(&self) -> Result<u64, SocketsError> {
        let count = call::lookup(self.maps.unfollowed.as_fd(), &[0; 4]).map_err(refused("read the count"))?;
        Ok(count.map_or(0, u64::from_ne_bytes))
    }

    /// How many frontends and backends the programs know, whoever told them: that is much less work than to read which.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn count(&self) -> Result<(usize, usize), SocketsError> {
        let (mut frontends, mut backends) = (0, 0);
        let frontend = |_: &[u8; Place::SIZE], _: &[u8; abi::Frontend::SIZE]| frontends += 1;
        call::each(self.maps.frontends.as_fd(), frontend).map_err(refused("list frontends"))?;
        let backend = |_: &[u8; abi::Slot::SIZE], _: &[u8; Place::SIZE]| backends += 1;
        call::each(self.maps.backends.as_fd(), backend).map_err(refused("list backends"))?;
        Ok((frontends, backends))
    }

    /// What the programs know, whoever told them.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn tables(&self) -> Result<Tables, SocketsError> {
        tables(self.maps.frontends.as_fd(), self.maps.backends.as_fd())
    }
}

/// What stands in the maps of frontends and backends.
fn tables(frontends: BorrowedFd<'_>, backends: BorrowedFd<'_>) -> Result<Tables, SocketsError> {
    let frontends = call::elements(frontends).map_err(refused("list frontends"))?;
    let backends = call::elements(backends).map_err(refused("list backends"))?;
    let entry = |(key, value): ([u8; Place::SIZE], [u8; abi::Frontend::SIZE])| {
        let Place { addr, port, protocol } = Place::from_bytes(key);
        Some((FrontendKey { addr, protocol: protocol_of(protocol)?, port }, entry_of(value)))
    };
    let slot = |(key, value)| {
        let abi::Slot { list, number } = abi::Slot::from_bytes(key);
        let Place { addr, port, protocol } = Place::from_bytes(value);
        let protocol = protocol_of(protocol).unwrap_or(Protocol::Sctp);
        Some((Slot { list, number }, Target { at: BackendAddress { addr, port }, protocol }))
    };
    Ok(Tables {
        frontends: frontends.into_iter().filter_map(entry).collect(),
        backends: backends.into_iter().filter_map(slot).collect(),
    })
}

/// Takes the programs away that choose backends, whoever put them there; whether there were any. Those that tell a socket what it speaks
/// with stay where `all` does not say otherwise: connections that were opened through a frontend go on to see that frontend.
///
/// # Errors
/// What the kernel refused. A cgroup that is not there has no programs.
pub fn detach(cgroup: &Cgroup, all: bool) -> Result<bool, SocketsError> {
    let failed = |source| SocketsError::Detach { path: cgroup.path().to_path_buf(), source };
    let directory = match File::open(cgroup.path()) {
        Ok(directory) => directory,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(failed(error)),
    };
    let mut any = false;
    for program in PROGRAMS.iter().rev().filter(|program| all || program.chooses) {
        let found = call::attached(directory.as_fd(), program.hook).map_err(failed)?;
        for attached in found.iter().filter(|one| one.name == program.name) {
            call::detach(directory.as_fd(), program.hook, attached.descriptor.as_fd()).map_err(failed)?;
            any = true;
        }
    }
    Ok(any)
}

/// The number by which the programs know a network namespace; no other one ever has it until the machine starts again.
///
/// # Errors
/// Where the namespace cannot be entered, or the kernel is older than Linux 5.14.
pub fn cookie_of(netns: &NetNs) -> Result<u64, SocketsError> {
    netns.run(load::netns_cookie).map_err(SocketsError::Namespace)?.map_err(SocketsError::Cookie)
}

fn key_bytes(key: FrontendKey) -> [u8; Place::SIZE] {
    Place { addr: key.addr, port: key.port, protocol: key.protocol.number() }.to_bytes()
}

fn target_bytes(target: Target) -> [u8; Place::SIZE] {
    Place { addr: target.at.addr, port: target.at.port, protocol: target.protocol.number() }.to_bytes()
}

fn slot_bytes(slot: Slot) -> [u8; abi::Slot::SIZE] {
    abi::Slot { list: slot.list, number: slot.number }.to_bytes()
}

// The plan and the programs mean the same slots.
const _: () = assert!(ebpf::ENDING == abi::ENDING);

const NOBODY: u32 = Errno::CONNREFUSED.raw_os_error().unsigned_abs();
pub(crate) const NOBODY_HERE: u32 = Errno::HOSTUNREACH.raw_os_error().unsigned_abs();

fn entry_bytes(entry: Entry) -> [u8; abi::Frontend::SIZE] {
    let (count, refusal) = match entry.serves {
        Serves::Backends(count) => (count, 0),
        Serves::Nobody => (0, NOBODY),
        Serves::NobodyHere => (0, NOBODY_HERE),
    };
    let (affinity, group) = entry.affinity.map_or((0, 0), |affinity| (affinity.seconds, affinity.group));
    abi::Frontend { list: entry.list, count, refusal, affinity, group }.to_bytes()
}

fn entry_of(bytes: [u8; abi::Frontend::SIZE]) -> Entry {
    let abi::Frontend { list, count, refusal, affinity, group } = abi::Frontend::from_bytes(bytes);
    let serves = match (count, refusal) {
        (0, NOBODY) => Serves::Nobody,
        (0, NOBODY_HERE) => Serves::NobodyHere,
        (count, _) => Serves::Backends(count),
    };
    let affinity = (affinity != 0).then_some(Affinity { seconds: affinity, group });
    Entry { list, serves, affinity }
}

fn protocol_of(number: u8) -> Option<Protocol> {
    [Protocol::Tcp, Protocol::Udp].into_iter().find(|protocol| protocol.number() == number)
}

fn refused(action: &'static str) -> impl FnOnce(io::Error) -> SocketsError {
    move |source| SocketsError::Map { action, source }
}

/// Why Services are not at the sockets.
#[derive(Debug, thiserror::Error)]
pub enum SocketsError {
    /// There is no such cgroup.
    #[error("cannot open the cgroup {}", path.display())]
    Cgroup {
        /// Where it should be.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The kernel cannot tell a namespace's cookie.
    #[error("cannot ask for the cookie of a network namespace, which needs Linux 5.14")]
    Cookie(#[source] io::Error),
    /// The kernel did not take the programs or their maps.
    #[error("cannot load the programs for sockets, which need Linux 5.18 with eBPF for cgroups (CONFIG_CGROUP_BPF)")]
    Load(#[from] LoadError),
    /// A map or program cannot be held.
    #[error("cannot hold a map or program for sockets")]
    Keep(#[from] io::Error),
    /// It cannot be told which programs are at the cgroup.
    #[error("cannot tell which programs for sockets are there")]
    Look(#[source] io::Error),
    /// The processes of the cgroup cannot be listed.
    #[error("cannot list the processes whose connections are opened through Services")]
    Processes(#[source] CgroupError),
    /// A namespace cannot be entered.
    #[error("cannot look into a network namespace")]
    Namespace(#[source] NetNsError),
    /// Connections cannot be listed or ended.
    #[error("cannot list or end connections that were opened through Services")]
    Connections(#[source] NetlinkError),
    /// The settings cannot be written.
    #[error("cannot tell the programs for sockets which namespace is the node's")]
    Settings(#[source] io::Error),
    /// A map cannot be read or written.
    #[error("cannot {action} of the programs for sockets")]
    Map {
        /// What was tried.
        action: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// The programs cannot be put at the cgroup.
    #[error("cannot put the programs for sockets at the cgroup {}", path.display())]
    Attach {
        /// The cgroup.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The programs cannot be taken away from the cgroup.
    #[error("cannot take the programs for sockets away from the cgroup {}", path.display())]
    Detach {
        /// The cgroup.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

#[cfg(test)]
mod tests;
