//! What of `bpf(2)` the loader has no words for: whole batches of a map's elements, and programs that are at a cgroup, or at a device, without
//! anybody who holds them (`linux/bpf.h`).

mod elements;

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
};

use rustix::io::Errno;

pub(crate) use self::elements::{delete, each, elements, lookup, take, take_read, update};

// enum bpf_cmd
const PROG_ATTACH: i32 = 8;
const PROG_DETACH: i32 = 9;
const PROG_GET_FD_BY_ID: i32 = 13;
const MAP_GET_FD_BY_ID: i32 = 14;
const OBJ_GET_INFO_BY_FD: i32 = 15;
const PROG_QUERY: i32 = 16;
/// `BPF_F_ALLOW_MULTI`: beside the programs of others.
const ALLOW_MULTI: u32 = 2;
/// `BPF_F_REPLACE`: in one step, at the same place among others.
const REPLACE: u32 = 4;
/// `BPF_F_BEFORE`: before all others, where none of them is named.
const BEFORE: u32 = 8;
/// How many programs may be at one place of one cgroup (`BPF_CGROUP_MAX_PROGS`), or of one device (`BPF_MPROG_MAX`).
const MOST_PROGRAMS: usize = 64;

#[repr(C)]
#[derive(Default)]
struct Attach {
    target: u32,
    program: u32,
    hook: u32,
    flags: u32,
    replaced: u32,
}

#[repr(C)]
#[derive(Default)]
struct Query {
    target: u32,
    hook: u32,
    query_flags: u32,
    attach_flags: u32,
    ids: u64,
    count: u32,
    padding: u32,
    program_flags: u64,
    links: u64,
    link_flags: u64,
    // The kernel writes it whatever length it is told.
    revision: u64,
}

#[repr(C)]
#[derive(Default)]
struct ById {
    id: u32,
    next: u32,
    flags: u32,
}

#[repr(C)]
#[derive(Default)]
struct Info {
    descriptor: u32,
    length: u32,
    info: u64,
}

/// The head of `struct bpf_prog_info`.
#[repr(C)]
#[derive(Default)]
struct ProgramInfo {
    kind: u32,
    id: u32,
    tag: [u8; 8],
    jited: u32,
    translated: u32,
    jited_at: u64,
    translated_at: u64,
    loaded: u64,
    user: u32,
    map_count: u32,
    maps: u64,
    name: [u8; 16],
}

/// The head of `struct bpf_map_info`.
#[repr(C)]
#[derive(Default)]
struct RawMapInfo {
    kind: u32,
    id: u32,
    key_size: u32,
    value_size: u32,
    capacity: u32,
    flags: u32,
    name: [u8; 16],
}

/// What a map is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MapInfo {
    pub(crate) name: String,
    pub(crate) id: u32,
    pub(crate) kind: u32,
    pub(crate) key_size: u32,
    pub(crate) value_size: u32,
    pub(crate) capacity: u32,
}

/// A program that is at a cgroup, or at a device.
#[derive(Debug)]
pub(crate) struct Attached {
    pub(crate) id: u32,
    pub(crate) name: String,
    pub(crate) maps: Vec<u32>,
    pub(crate) descriptor: OwnedFd,
}

/// The programs that are at a cgroup itself, and not at those that it is in. One that goes meanwhile is left out.
pub(super) fn attached(cgroup: BorrowedFd<'_>, hook: u32) -> io::Result<Vec<Attached>> {
    programs(number(cgroup), hook)
}

/// The programs that are at a device of the calling thread's namespace, by its index, in the order in which packets meet them.
pub(crate) fn attached_to(device: u32, hook: u32) -> io::Result<Vec<Attached>> {
    programs(device, hook)
}

fn programs(target: u32, hook: u32) -> io::Result<Vec<Attached>> {
    let mut ids = [0_u32; MOST_PROGRAMS];
    let mut query =
        Query { target, hook, ids: address(ids.as_mut_ptr()), count: MOST_PROGRAMS as u32, ..Query::default() };
    call(PROG_QUERY, &mut query)?;
    let mut found = Vec::new();
    for id in ids.iter().take(query.count as usize) {
        let mut by_id = ById { id: *id, ..ById::default() };
        let descriptor = match call(PROG_GET_FD_BY_ID, &mut by_id) {
            Ok(descriptor) => descriptor_of(descriptor),
            Err(error) if error.raw_os_error() == Some(Errno::NOENT.raw_os_error()) => continue,
            Err(error) => return Err(error),
        };
        let (name, maps) = program_info(descriptor.as_fd())?;
        found.push(Attached { id: *id, name, maps, descriptor });
    }
    Ok(found)
}

/// The maps of a program, by its number; none where it is gone.
pub(crate) fn maps_of(program: u32) -> io::Result<Vec<u32>> {
    match call(PROG_GET_FD_BY_ID, &mut ById { id: program, ..ById::default() }) {
        Ok(descriptor) => Ok(program_info(descriptor_of(descriptor).as_fd())?.1),
        Err(error) if error.raw_os_error() == Some(Errno::NOENT.raw_os_error()) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

fn program_info(program: BorrowedFd<'_>) -> io::Result<(String, Vec<u32>)> {
    let mut maps = [0_u32; 64];
    let mut found =
        ProgramInfo { map_count: maps.len() as u32, maps: address(maps.as_mut_ptr()), ..Default::default() };
    info(program, &mut found)?;
    Ok((text(&found.name), maps.iter().take(found.map_count as usize).copied().collect()))
}

/// A map by its number.
pub(crate) fn map(id: u32) -> io::Result<OwnedFd> {
    call(MAP_GET_FD_BY_ID, &mut ById { id, ..ById::default() }).map(descriptor_of)
}

pub(crate) fn map_info(map: BorrowedFd<'_>) -> io::Result<MapInfo> {
    let mut found = RawMapInfo::default();
    info(map, &mut found)?;
    Ok(MapInfo {
        name: text(&found.name),
        id: found.id,
        kind: found.kind,
        key_size: found.key_size,
        value_size: found.value_size,
        capacity: found.capacity,
    })
}

/// Puts a program at a cgroup, in place of another one that is there.
pub(super) fn attach(
    cgroup: BorrowedFd<'_>,
    hook: u32,
    program: BorrowedFd<'_>,
    replaced: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    let mut request =
        Attach { target: number(cgroup), program: number(program), hook, flags: ALLOW_MULTI, ..Attach::default() };
    if let Some(replaced) = replaced {
        request.flags |= REPLACE;
        request.replaced = number(replaced);
    }
    call(PROG_ATTACH, &mut request).map(drop)
}

pub(super) fn detach(cgroup: BorrowedFd<'_>, hook: u32, program: BorrowedFd<'_>) -> io::Result<()> {
    take_away(number(cgroup), hook, program)
}

/// Puts a program at a device of the calling thread's namespace, in place of another one that is there, or before all.
pub(crate) fn attach_to(
    device: u32,
    hook: u32,
    program: BorrowedFd<'_>,
    replaced: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    let mut request = Attach {
        target: device,
        program: number(program),
        hook,
        flags: if replaced.is_some() { REPLACE } else { BEFORE },
        replaced: replaced.map_or(0, number),
    };
    call(PROG_ATTACH, &mut request).map(drop)
}

/// Takes a program away from a device of the calling thread's namespace.
pub(crate) fn detach_from(device: u32, hook: u32, program: BorrowedFd<'_>) -> io::Result<()> {
    take_away(device, hook, program)
}

fn take_away(target: u32, hook: u32, program: BorrowedFd<'_>) -> io::Result<()> {
    let mut request = Attach { target, program: number(program), hook, ..Attach::default() };
    match call(PROG_DETACH, &mut request) {
        // Somebody else was faster.
        Err(error) if error.raw_os_error() == Some(Errno::NOENT.raw_os_error()) => Ok(()),
        done => done.map(drop),
    }
}

fn info<T>(of: BorrowedFd<'_>, into: &mut T) -> io::Result<()> {
    let mut request =
        Info { descriptor: number(of), length: size_of::<T>() as u32, info: address(std::ptr::from_mut(into)) };
    call(OBJ_GET_INFO_BY_FD, &mut request).map(drop)
}

/// The kernel takes a longer structure than ours for one whose rest is zero.
fn call<T>(command: i32, attributes: &mut T) -> io::Result<i32> {
    loop {
        // SAFETY: the structure is the command's, of the length that is told, and what it points to lives as long as the callers' frames.
        let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attributes), size_of::<T>()) };
        if let Ok(result @ 0..) = i32::try_from(result) {
            return Ok(result);
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

fn descriptor_of(number: i32) -> OwnedFd {
    // SAFETY: the kernel has just opened it for us.
    unsafe { OwnedFd::from_raw_fd(number) }
}

fn number(of: BorrowedFd<'_>) -> u32 {
    // What is open has a number that is not negative.
    of.as_raw_fd().unsigned_abs()
}

fn address<T>(of: *const T) -> u64 {
    of.expose_provenance() as u64
}

fn text(name: &[u8; 16]) -> String {
    name.iter().take_while(|byte| **byte != 0).map(|byte| char::from(*byte)).collect()
}
