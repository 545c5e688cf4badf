//! Loading: new programs over the maps of those that are there.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    path::PathBuf,
};

use aya::{EbpfLoader, programs::Program as Loaded};
use podnet_ebpf::sockets::{BACKENDS, CONNECTED, CONNECTED_UDP, FRONTENDS, OBJECT, PROGRAMS, SETTINGS, SPOKEN, STAYS};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};

use super::{
    Maps, Program, Sizes, SocketsError,
    call::{self, MapInfo},
};

// enum bpf_map_type
const HASH: u32 = 1;
const ARRAY: u32 = 2;
const LRU_HASH: u32 = 9;
const SK_STORAGE: u32 = 24;

/// What a map that is there has to be like to be gone on with: name, kind, length of keys and values. Another version's is not.
const SHAPES: [(&str, u32, u32, u32); 7] = [
    (FRONTENDS, HASH, 20, 20),
    (BACKENDS, HASH, 8, 20),
    (STAYS, LRU_HASH, 16, 32),
    (CONNECTED, SK_STORAGE, 4, 44),
    (SPOKEN, SK_STORAGE, 4, 44 * 16 + 4),
    (CONNECTED_UDP, HASH, 8, 44),
    (SETTINGS, ARRAY, 4, 8),
];

/// Loads the programs. What sockets speak with, and which clients stay where, is gone on with as it stands in the maps of the programs that are
/// at the cgroup; so are the tables, where they have room enough.
pub(super) fn load(cgroup: BorrowedFd<'_>, sizes: Sizes) -> Result<(Vec<Program>, Maps), SocketsError> {
    let place = Place::new()?;
    let mut loader = EbpfLoader::new();
    loader.map_max_entries(FRONTENDS, sizes.frontends).map_max_entries(BACKENDS, sizes.backends);
    for (info, map) in to_keep(cgroup, sizes)? {
        let path = place.path(&info.name);
        call::pin(map.as_fd(), &path)?;
        let name = SHAPES.iter().find(|(name, ..)| *name == info.name).map_or("", |(name, ..)| name);
        loader.map_pin_path(name, path);
    }
    let mut ebpf = loader.load(OBJECT)?;
    let mut programs = Vec::new();
    for program in PROGRAMS {
        let missing = || SocketsError::Missing { name: program.name };
        let loaded = ebpf.program_mut(program.name).ok_or_else(missing)?;
        match loaded {
            Loaded::CgroupSockAddr(loaded) => loaded.load()?,
            Loaded::CgroupSock(loaded) => loaded.load()?,
            _ => return Err(missing()),
        }
        let descriptor = loaded.fd()?.as_fd().try_clone_to_owned()?;
        programs.push(Program { which: program, id: loaded.info()?.id(), descriptor });
    }
    // Which maps these are, the kernel says itself.
    let mut maps = Vec::new();
    for id in programs.last().map(|connect| call::maps_of(connect.descriptor.as_fd())).transpose()?.unwrap_or_default()
    {
        let map = call::map(id)?;
        maps.push((call::map_info(map.as_fd())?, map));
    }
    let mut take = |name: &'static str| {
        let place = maps.iter().position(|(info, _)| info.name == name).ok_or(SocketsError::Missing { name })?;
        Ok::<_, SocketsError>(maps.swap_remove(place))
    };
    let ((frontends_info, frontends), (backends_info, backends)) = (take(FRONTENDS)?, take(BACKENDS)?);
    let sizes = Sizes { frontends: frontends_info.capacity, backends: backends_info.capacity };
    let ((connected_info, connected), (_, settings)) = (take(CONNECTED)?, take(SETTINGS)?);
    let (connected_id, connected_udp) = (connected_info.id, take(CONNECTED_UDP)?.1);
    Ok((programs, Maps { sizes, frontends, backends, connected, connected_id, connected_udp, settings }))
}

/// The maps of our programs that are at the cgroup.
fn to_keep(cgroup: BorrowedFd<'_>, sizes: Sizes) -> Result<Vec<(MapInfo, OwnedFd)>, SocketsError> {
    let mut found: Vec<(MapInfo, OwnedFd)> = Vec::new();
    for program in PROGRAMS.iter().rev() {
        for attached in call::attached(cgroup, program.hook).map_err(SocketsError::Look)? {
            if attached.name != program.name {
                continue;
            }
            for id in attached.maps {
                if found.iter().any(|(info, _)| info.id == id) {
                    continue;
                }
                let map = call::map(id)?;
                let info = call::map_info(map.as_fd())?;
                // Programs of different agents may be there, one of which was ended half-way: the first counts.
                if fits(&info) && !found.iter().any(|(other, _)| other.name == info.name) {
                    found.push((info, map));
                }
            }
        }
    }
    // The one is of no use without the other.
    let has_room = |name: &str, size: u32| found.iter().any(|(info, _)| info.name == name && info.capacity >= size);
    if !has_room(FRONTENDS, sizes.frontends) || !has_room(BACKENDS, sizes.backends) {
        found.retain(|(info, _)| info.name != FRONTENDS && info.name != BACKENDS);
    }
    Ok(found)
}

/// A map and its number.
type Known = (OwnedFd, u32);

/// Where the programs at the cgroup keep what sockets of TCP and of UDP are connected to. None where there are none.
pub(super) fn connected(cgroup: BorrowedFd<'_>) -> Result<Option<(Known, OwnedFd)>, SocketsError> {
    let (mut tcp, mut udp) = (None, None);
    for (info, map) in to_keep(cgroup, Sizes { frontends: 0, backends: 0 })? {
        match info.name.as_str() {
            CONNECTED => tcp = Some((map, info.id)),
            CONNECTED_UDP => udp = Some(map),
            _ => {}
        }
    }
    Ok(tcp.zip(udp))
}

fn fits(info: &MapInfo) -> bool {
    SHAPES.contains(&(info.name.as_str(), info.kind, info.key_size, info.value_size))
}

/// The cookie of the calling thread's network namespace (Linux 5.14).
pub(super) fn netns_cookie() -> io::Result<u64> {
    /// `SO_NETNS_COOKIE`
    const NETNS_COOKIE: i32 = 71;
    let socket = rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::DGRAM, None)?;
    let (mut cookie, mut length) = (0_u64, 8 as libc::socklen_t);
    // SAFETY: the value and its length are ours, and the length is the value's.
    let result = unsafe {
        libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, NETNS_COOKIE, (&raw mut cookie).cast(), &raw mut length)
    };
    if result == 0 { Ok(cookie) } else { Err(io::Error::last_os_error()) }
}

/// A file system for names of maps that nobody else sees, and that goes with the value: the loader takes maps by name only.
struct Place(OwnedFd);

impl Place {
    fn new() -> Result<Self, SocketsError> {
        let made = || {
            let context = fsopen("bpf", FsOpenFlags::FSOPEN_CLOEXEC)?;
            fsconfig_create(context.as_fd())?;
            fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
        };
        made().map(Self).map_err(|errno| SocketsError::Place(errno.into()))
    }

    fn path(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}/{name}", self.0.as_raw_fd()))
    }
}
