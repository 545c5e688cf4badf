//! Loading: new programs over the maps of those that are there.

use std::{
    fs::File,
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
};

use podnet_ebpf::sockets::{
    BACKENDS, CONNECTED, CONNECTED_UDP, FRONTENDS, OBJECT, PROGRAMS, RECORDING, REFUSED, SETTINGS, SPOKEN, STAYS,
    UNFOLLOWED,
};

use super::{
    Maps, Program, Sizes, SocketsError,
    call::{self, MapInfo},
};
use crate::{
    cgroup::Cgroup,
    object::{Kind, Object},
};

// enum bpf_prog_type
const SOCK: u32 = 9;
const SOCK_ADDR: u32 = 18;
/// `BPF_CGROUP_INET_SOCK_RELEASE`: the one hook whose programs see a socket and no address.
const RELEASE: u32 = 34;
// enum bpf_map_type
const HASH: u32 = 1;
const ARRAY: u32 = 2;
const LRU_HASH: u32 = 9;
const SK_STORAGE: u32 = 24;

/// What a map that is there has to be like to be gone on with: name, kind, length of keys and values. Another version's is not: where the same
/// bytes come to mean something else, the map has to get another name.
const SHAPES: [(&str, u32, u32, u32); 10] = [
    (FRONTENDS, HASH, 20, 20),
    (BACKENDS, HASH, 8, 20),
    (STAYS, LRU_HASH, 16, 32),
    (CONNECTED, SK_STORAGE, 4, 44),
    (SPOKEN, SK_STORAGE, 4, 44 * 16 + 4),
    (CONNECTED_UDP, HASH, 8, 44),
    (UNFOLLOWED, ARRAY, 4, 8),
    (SETTINGS, ARRAY, 4, 8),
    (REFUSED, HASH, 32, 32),
    (RECORDING, ARRAY, 4, 8),
];

/// Loads the programs. What sockets speak with, and which clients stay where, is gone on with as it stands in the maps of the programs that are
/// at the cgroup; so are the tables, where they have room enough. `others` are capacities of maps that are not the tables.
pub(super) fn load(
    cgroup: BorrowedFd<'_>,
    sizes: Sizes,
    others: &[(&str, u32)],
) -> Result<(Vec<Program>, Maps), SocketsError> {
    let kept = to_keep(cgroup, sizes)?.into_iter().map(|(info, map)| (info.name, map)).collect();
    let tables = [(FRONTENDS, sizes.frontends), (BACKENDS, sizes.backends)];
    let object = Object::new(OBJECT, &[tables.as_slice(), others].concat(), kept)?;
    let mut programs = Vec::new();
    for which in PROGRAMS {
        let kind = if which.hook == RELEASE { SOCK } else { SOCK_ADDR };
        let (descriptor, id) = object.program(which.name, Kind { kind, attach: which.hook })?;
        programs.push(Program { which, id, descriptor });
    }
    let take = |name| {
        let map = object.map(name)?.try_clone()?;
        Ok::<_, SocketsError>((call::map_info(map.as_fd())?, map))
    };
    let ((frontends_info, frontends), (backends_info, backends)) = (take(FRONTENDS)?, take(BACKENDS)?);
    let sizes = Sizes { frontends: frontends_info.capacity, backends: backends_info.capacity };
    let ((connected_info, connected), (_, settings)) = (take(CONNECTED)?, take(SETTINGS)?);
    let (connected_id, connected_udp, unfollowed) = (connected_info.id, take(CONNECTED_UDP)?.1, take(UNFOLLOWED)?.1);
    Ok((programs, Maps { sizes, frontends, backends, connected, connected_id, connected_udp, unfollowed, settings }))
}

/// The maps of our programs that are at the cgroup.
pub(super) fn to_keep(cgroup: BorrowedFd<'_>, sizes: Sizes) -> Result<Vec<(MapInfo, OwnedFd)>, SocketsError> {
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
pub(crate) type Known = (OwnedFd, u32);

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

/// Where programs keep at sockets what these speak with: the number of one of the maps, and all of them by their names.
type Spoken = (u32, Vec<(String, OwnedFd)>);

/// Where the programs at a cgroup do; none where there are no such programs.
pub(crate) fn spoken_with(cgroup: &Cgroup) -> Result<Option<Spoken>, SocketsError> {
    let mut kept = found_at(cgroup)?;
    kept.retain(|(info, _)| [CONNECTED, SPOKEN].contains(&info.name.as_str()));
    let first = kept.iter().find(|(info, _)| info.name == CONNECTED).map(|(info, _)| info.id);
    let maps: Vec<_> = kept.into_iter().map(|(info, map)| (info.name, map)).collect();
    Ok(first.filter(|_| maps.len() == 2).zip(Some(maps)))
}

/// Where the programs at a cgroup count what they refuse, with that map's number, and where they are told whether to; none where there are no such
/// programs, or those of a version that does not count.
pub(crate) fn refused_at(cgroup: &Cgroup) -> Result<Option<(Known, OwnedFd)>, SocketsError> {
    let (mut refused, mut recording) = (None, None);
    for (info, map) in found_at(cgroup)? {
        match info.name.as_str() {
            REFUSED => refused = Some((map, info.id)),
            RECORDING => recording = Some(map),
            _ => {}
        }
    }
    Ok(refused.zip(recording))
}

/// The maps of the programs at a cgroup; none where there is no such cgroup.
fn found_at(cgroup: &Cgroup) -> Result<Vec<(MapInfo, OwnedFd)>, SocketsError> {
    let failed = |source| SocketsError::Cgroup { path: cgroup.path().to_path_buf(), source };
    match File::open(cgroup.path()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        opened => to_keep(opened.map_err(failed)?.as_fd(), Sizes { frontends: 0, backends: 0 }),
    }
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
