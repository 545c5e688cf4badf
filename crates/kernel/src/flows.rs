//! Counting flows at pods' interfaces (`podnet_ebpf::flows`).
//!
//! The programs are filters of devices, as those of the fast path, and before them and the limits: they see what pods send and what comes to
//! them, and change nothing. They and their maps live as long as the devices have them, or who opened them; who opens them anew goes on
//! with the maps of those that are there. Where somebody else's program may keep packets from filters (`tcx`), they are before that one.
//!
//! What the fast path leads to a pod passes no filter there: [`Flows::fast_path`] counts it.

mod clock;
mod error;
mod missed;
mod ranges;
mod refusals;
mod taking;

use std::{
    collections::BTreeSet,
    fmt, io,
    os::fd::{AsFd, OwnedFd},
    sync::{Mutex, PoisonError},
    time::Instant,
};

use aya::maps::{Map, MapData, RingBuf};
use ipnet::IpNet;
use podnet_ebpf::flows::{
    BELLS, BLANK, Bell, Counted, ENTRIES, FASTPATH_OBJECT, FRAGMENTS, FRESH, IN, Key, MARKS, MISSED, OBJECT, OUT,
    RANGES, Rung, SETTINGS, range,
};
use podnet_flow::Entry;
use podnet_model::LinkName;
use rustix::io::Errno;

use clock::Clock;
pub use error::FlowsError;
pub use missed::Missing;
use ranges::{RangeKey, insert, remove};
pub use refusals::Refusals;

use crate::{
    cgroup::Cgroup,
    fastpath::{CLASSIFIER, FastPath, at},
    link,
    netlink::{NetlinkError, RtSocket},
    object::{LoadError, Object},
    sockets::{call, spoken_with},
    tc::{
        program::{self, Hook, Program},
        tcx,
    },
};

/// What a map that is there has to be like to be gone on with: name, length of keys and values.
const SHAPES: [(&str, u32, u32); 9] = [
    (ENTRIES, 44, 120),
    (BELLS, 0, 0),
    (MISSED, 4, 24),
    (MARKS, 4, 8192),
    (BLANK, 4, 8192),
    (RANGES, 20, 4),
    (SETTINGS, 4, 8),
    (FRESH, 4, 120),
    (FRAGMENTS, 44, 16),
];
/// How many bells are read at a time, so that the map is read as well where they ring without end.
const BELLS_AT_ONCE: usize = 65_536;

/// For how much there is room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Entries: a flow between two pods of the node has two. Each takes about 220 bytes while it is there.
    pub entries: u32,
    /// Bytes of the ring: a power of 2.
    pub ring: u32,
}

impl Default for Sizes {
    fn default() -> Self {
        Self { entries: 262_144, ring: 4 << 20 }
    }
}

/// What a bell told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// The protocol said that it is over. It is in the map until it is taken out.
    Ended(Entry),
    /// It is out of the map: these are its last counters.
    Replaced(Entry),
}

/// The programs, loaded.
pub struct Flows {
    out: Program,
    into: Program,
    object: Object,
    bells: Mutex<RingBuf<MapData>>,
    /// What is in the map of ranges, as it stands there.
    ranges: Mutex<BTreeSet<RangeKey>>,
    missed: Mutex<missed::Told>,
    /// Where they were put before somebody's programs that had come before them.
    moved: Mutex<tcx::Moved>,
    /// The map of what sockets speak with, by its number; none where no programs at sockets were there.
    sockets: Option<u32>,
    goes_on: bool,
    abandons: bool,
    clock: Mutex<Clock>,
}

impl fmt::Debug for Flows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flows").field("out", &self.out).field("into", &self.into).finish_non_exhaustive()
    }
}

impl Flows {
    /// Loads the programs; nothing is counted yet. Where such programs are at one of these devices of the socket's namespace, the new ones go on
    /// with the maps of those, and `sizes` do not matter. Where the processes of `cgroup` choose backends of Services at their sockets,
    /// entries say which Service was asked.
    ///
    /// # Errors
    /// Where the kernel has no eBPF, or refuses the programs (they need Linux 5.14).
    pub fn open(
        socket: &mut RtSocket,
        devices: &[LinkName],
        cgroup: Option<&Cgroup>,
        sizes: Sizes,
    ) -> Result<Self, FlowsError> {
        let Kept { maps, abandons } = kept(socket, devices)?;
        let mut flows = Self::over(maps, cgroup, sizes)?;
        flows.abandons = abandons;
        Ok(flows)
    }

    /// Loads the programs anew, over the same maps, whether they are at devices or not: what these count is read here as well as there. The
    /// ring is to be read by one of both alone.
    ///
    /// # Errors
    /// As [`Flows::open`].
    pub fn renewed(&self, cgroup: Option<&Cgroup>) -> Result<Self, FlowsError> {
        Self::over(self.shared()?, cgroup, Sizes::default())
    }

    /// Over these maps, and such of its own as are not among them.
    fn over(mut maps: Vec<(String, OwnedFd)>, cgroup: Option<&Cgroup>, sizes: Sizes) -> Result<Self, FlowsError> {
        let spoken = cgroup.map(spoken_with).transpose()?.flatten();
        let sockets = spoken.as_ref().map(|(number, _)| *number);
        let goes_on = !maps.is_empty();
        maps.extend(spoken.into_iter().flat_map(|(_, maps)| maps));
        let object = Object::new(OBJECT, &[(ENTRIES, sizes.entries), (BELLS, sizes.ring)], maps)?;
        let load = |name| {
            let (descriptor, id) = object.program(name, CLASSIFIER)?;
            Ok::<_, LoadError>(Program { name, id, priority: program::FLOWS, descriptor })
        };
        let [out, into] = [load(OUT)?, load(IN)?];
        let ring = MapData::from_fd(object.map(BELLS)?.try_clone()?)?;
        let bells = Mutex::new(RingBuf::try_from(Map::RingBuf(ring))?);
        let ranges: Vec<(RangeKey, [u8; 4])> =
            call::elements(object.map(RANGES)?.as_fd()).map_err(refused("read the ranges that are counted"))?;
        let ranges = Mutex::new(ranges.into_iter().map(|(key, _)| key).collect());
        let (missed, moved, clock) = (Mutex::default(), Mutex::default(), Mutex::new(Clock::now()));
        Ok(Self { out, into, object, bells, ranges, missed, moved, sockets, goes_on, abandons: false, clock })
    }

    /// Whether there are flows that others who opened the maps before may have told of.
    #[must_use]
    pub const fn goes_on(&self) -> bool {
        self.goes_on
    }

    /// Whether others counted in maps that these programs cannot go on with: another version's. What stood there untold is told by nobody.
    #[must_use]
    pub const fn abandons(&self) -> bool {
        self.abandons
    }

    /// By what entries get their times: as the last reading began, so that those of one reading can be compared.
    fn clock(&self) -> Clock {
        *self.clock.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The same, as a reading begins.
    fn clock_now(&self) -> Clock {
        let mut clock = self.clock.lock().unwrap_or_else(PoisonError::into_inner);
        clock.follow(Clock::now());
        *clock
    }

    fn shared(&self) -> Result<Vec<(String, OwnedFd)>, FlowsError> {
        let share = |(name, ..): (&'static str, u32, u32)| {
            Ok::<_, FlowsError>((name.to_owned(), self.object.map(name)?.try_clone()?))
        };
        SHAPES.into_iter().map(share).collect()
    }

    /// Whether other programs choose backends at the sockets of `cgroup` than those that were there when this was opened, or some do by now.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn misses_sockets(&self, cgroup: &Cgroup) -> Result<bool, FlowsError> {
        let now = spoken_with(cgroup)?.map(|(number, _)| number);
        Ok(now.is_some() && now != self.sockets)
    }

    /// A fast path that counts what it leads to pods, in the same maps. It takes the place of the one that is there by being put at the
    /// same devices.
    ///
    /// # Errors
    /// Where the kernel refuses the programs.
    pub fn fast_path(&self) -> Result<FastPath, FlowsError> {
        Ok(FastPath::of(&Object::new(FASTPATH_OBJECT, &[], self.shared()?)?)?)
    }

    /// Counts at a device of the socket's namespace, the node's end of a pod's link. Whether it did not until now, or not before others'
    /// programs; where there is no such device, nothing is done.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn attach(&self, socket: &mut RtSocket, device: &LinkName) -> Result<bool, FlowsError> {
        let parts = [(Hook::Egress, &self.into), (Hook::Ingress, &self.out)];
        let mut moved = self.moved.lock().unwrap_or_else(PoisonError::into_inner);
        at(socket, device, |socket, place| tcx::put(socket, place, &parts, &mut moved, Instant::now()))
            .map_err(|source| FlowsError::Attach { device: device.clone(), source })
    }

    /// Counts only flows whose other end is in one of these ranges; without them, all.
    ///
    /// # Errors
    /// What the kernel refused, as more than 65,536 ranges: then less than these may be counted, until something else is set.
    pub fn set_ranges(&self, ranges: Option<&BTreeSet<IpNet>>) -> Result<(), FlowsError> {
        let map = self.object.map(RANGES)?.as_fd();
        let settings = self.object.map(SETTINGS)?.as_fd();
        let write = |number: u64| call::update(settings, &[([0; 4], number.to_le_bytes())]);
        let Some(ranges) = ranges else { return write(0).map_err(refused("set what is counted")) };
        let wanted = ranges.iter().map(IpNet::trunc).map(|net| range(net.addr(), net.prefix_len())).collect();
        let change = |written: &mut BTreeSet<RangeKey>| -> io::Result<()> {
            // What is counted too much meanwhile does no harm.
            match insert(map, written, &wanted) {
                Err(error) if error.raw_os_error() == Some(Errno::NOSPC.raw_os_error()) => {
                    write(0)?;
                    remove(map, written, &wanted)?;
                    insert(map, written, &wanted)?;
                }
                done => done?,
            }
            write(1)?;
            remove(map, written, &wanted)
        };
        let mut written = self.ranges.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut written).map_err(refused("set the ranges that are counted"))
    }

    /// Reads the whole map.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn entries(&self) -> Result<Vec<Entry>, FlowsError> {
        let mut entries = Vec::new();
        self.each(|entry| entries.push(entry))?;
        Ok(entries)
    }

    /// Reads the whole map: `visit` gets each entry, soon after it was read.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn each(&self, mut visit: impl FnMut(Entry)) -> Result<(), FlowsError> {
        let (entries, clock) = (self.object.map(ENTRIES)?.as_fd(), self.clock_now());
        let visit = |key: &[u8; Key::SIZE], value: &[u8; Counted::SIZE]| {
            visit(clock.entry(&Key::from_bytes(key), &Counted::from_bytes(value)));
        };
        call::each(entries, visit).map_err(refused("read the counters"))
    }

    /// What rang since the last time, in its order. Reading the map makes good what rang in vain.
    #[must_use]
    pub fn bells(&self) -> Vec<Told> {
        let clock = self.clock_now();
        let mut ring = self.bells.lock().unwrap_or_else(PoisonError::into_inner);
        let mut told = Vec::new();
        while told.len() < BELLS_AT_ONCE
            && let Some(bytes) = ring.next()
        {
            let Some(bell) = Bell::from_bytes(&bytes) else { continue };
            let entry = clock.entry(&bell.key, &bell.counted);
            told.push(if bell.rung == Rung::Replaced { Told::Replaced(entry) } else { Told::Ended(entry) });
        }
        told
    }

    /// What found no room in the map since the last time, by the index of the pod's device.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn missed(&self) -> Result<Vec<(u32, Missing)>, FlowsError> {
        let maps = (self.object.map(MISSED)?.as_fd(), self.object.map(MARKS)?.as_fd());
        let mut told = self.missed.lock().unwrap_or_else(PoisonError::into_inner);
        missed::read(maps, &mut told, Instant::now()).map_err(refused("read what was missed"))
    }
}

/// Counts at a device of the socket's namespace no more, whoever began it. Whether it did.
///
/// # Errors
/// What the kernel refused.
pub fn detach(socket: &mut RtSocket, device: &LinkName) -> Result<bool, FlowsError> {
    let work = |socket: &mut RtSocket, place| {
        let mut any = false;
        for hook in Hook::ALL {
            any |= tcx::clear(socket, place, hook, &[OUT, IN])?;
            if program::at(socket, place, hook, program::FLOWS)?.iter().any(is_ours) {
                program::clear(socket, place, hook, program::FLOWS)?;
                any = true;
            }
        }
        Ok(any)
    };
    at(socket, device, work).map_err(|source| FlowsError::Detach { device: device.clone(), source })
}

/// Whether flows are counted at a device of the socket's namespace, whoever began it.
///
/// # Errors
/// What the kernel refused.
pub fn is_at(socket: &mut RtSocket, device: &LinkName) -> Result<bool, FlowsError> {
    at(socket, device, |socket, place| Ok(!counting(socket, place)?.is_empty()))
        .map_err(|source| FlowsError::Look { device: device.clone(), source })
}

/// The numbers of the programs that count what a device receives, at whichever hook they are.
fn counting(socket: &mut RtSocket, place: (u32, &LinkName)) -> Result<Vec<u32>, NetlinkError> {
    let filters = program::at(socket, place, Hook::Ingress, program::FLOWS)?;
    let before = tcx::at(socket, place, Hook::Ingress)?;
    let filters = filters.iter().filter(|one| is_ours(one)).map(|one| one.id);
    Ok(filters.chain(before.iter().filter(|one| one.name == OUT).map(|one| one.id)).collect())
}

fn is_ours(found: &program::Found) -> bool {
    [OUT, IN].iter().any(|name| found.name.as_deref() == Some(name))
}

/// What programs that are there count in.
struct Kept {
    /// None where there is nothing to go on with.
    maps: Vec<(String, OwnedFd)>,
    /// There are programs, and the maps of none of them will do.
    abandons: bool,
}

/// The maps of the programs at the first of these devices that has any. Another version's, whose maps differ, are left.
fn kept(socket: &mut RtSocket, devices: &[LinkName]) -> Result<Kept, FlowsError> {
    let mut abandons = false;
    for device in devices {
        let look = |source| FlowsError::Look { device: device.clone(), source };
        let Some(found) = link::find(socket, device).map_err(look)? else { continue };
        for program in counting(socket, (found.index, device)).map_err(look)? {
            let mut maps = Vec::new();
            let ids = call::maps_of(program).map_err(refused("look at the programs that are there"))?;
            // One that has just gone has none.
            abandons |= !ids.is_empty();
            for id in ids {
                let map = call::map(id).map_err(refused("hold a map that is there"))?;
                let info = call::map_info(map.as_fd()).map_err(refused("look at a map that is there"))?;
                if SHAPES.contains(&(info.name.as_str(), info.key_size, info.value_size)) {
                    maps.push((info.name, map));
                }
            }
            if suffice(&maps) {
                return Ok(Kept { maps, abandons: false });
            }
        }
    }
    Ok(Kept { maps: Vec::new(), abandons })
}

/// Whether these are enough to go on with. Programs of an older version have no map of fragments: it is made anew, and what was counted is kept.
fn suffice(maps: &[(String, OwnedFd)]) -> bool {
    SHAPES.iter().all(|(name, ..)| *name == FRAGMENTS || maps.iter().any(|(found, _)| found == name))
}

fn refused(action: &'static str) -> impl FnOnce(io::Error) -> FlowsError {
    move |source| FlowsError::Map { action, source }
}

#[cfg(test)]
mod tests;
