//! What of `bpf(2)` makes objects of the kernel (`linux/bpf.h`).

use std::{
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

use rustix::{
    io::Errno,
    process::{Resource, Rlimit, getrlimit, setrlimit},
};

use crate::release;

// enum bpf_cmd
pub(super) const MAP_CREATE: i32 = 0;
pub(super) const PROG_LOAD: i32 = 5;
pub(super) const OBJ_GET_INFO_BY_FD: i32 = 15;
pub(super) const BTF_LOAD: i32 = 18;
/// How often something is asked for that a signal cuts off.
const ATTEMPTS: u32 = 16;

/// The beginning of what `BPF_MAP_CREATE` takes (`linux/bpf.h`); what is left out is zero.
#[repr(C)]
#[derive(Default)]
pub(super) struct MapCreate {
    pub(super) kind: u32,
    pub(super) key_size: u32,
    pub(super) value_size: u32,
    pub(super) capacity: u32,
    pub(super) flags: u32,
    pub(super) inner: u32,
    pub(super) numa_node: u32,
    pub(super) name: [u8; 16],
    pub(super) device: u32,
    pub(super) types: u32,
    pub(super) key_type: u32,
    pub(super) value_type: u32,
}

/// The same of `BPF_PROG_LOAD`.
#[repr(C)]
#[derive(Default)]
pub(super) struct ProgLoad {
    pub(super) kind: u32,
    pub(super) count: u32,
    pub(super) instructions: u64,
    pub(super) license: u64,
    pub(super) log_level: u32,
    pub(super) log_size: u32,
    pub(super) log: u64,
    pub(super) kernel_version: u32,
    pub(super) flags: u32,
    pub(super) name: [u8; 16],
    pub(super) device: u32,
    pub(super) attach: u32,
    pub(super) types: u32,
    pub(super) function_size: u32,
    pub(super) functions: u64,
    pub(super) function_count: u32,
    pub(super) line_size: u32,
    pub(super) lines: u64,
    pub(super) line_count: u32,
    pub(super) padding: u32,
}

/// The same of `BPF_BTF_LOAD`.
#[repr(C)]
#[derive(Default)]
pub(super) struct BtfLoad {
    pub(super) types: u64,
    pub(super) log: u64,
    pub(super) size: u32,
    pub(super) log_size: u32,
    pub(super) log_level: u32,
    pub(super) padding: u32,
}

/// The same of `BPF_OBJ_GET_INFO_BY_FD`.
#[repr(C)]
#[derive(Default)]
pub(super) struct GetInfo {
    pub(super) descriptor: u32,
    pub(super) length: u32,
    pub(super) info: u64,
}

/// The head of `struct bpf_prog_info`.
#[repr(C)]
#[derive(Default)]
pub(super) struct ProgInfo {
    pub(super) kind: u32,
    pub(super) id: u32,
}

pub(super) fn load_types(types: &[u8]) -> io::Result<OwnedFd> {
    let mut request = BtfLoad { types: address(types.as_ptr()), size: length(types.len()), ..BtfLoad::default() };
    open(BTF_LOAD, &mut request)
}

/// Since this version of Linux objects are not charged to the memory that a process may lock.
const CHARGED_OTHERWISE: (u32, u32) = (5, 11);

/// Asks for a new object of the kernel. Where it is charged to the memory that a process may lock, the process may lock any from then on.
pub(super) fn open<T>(command: i32, attributes: &mut T) -> io::Result<OwnedFd> {
    let opened = match call(command, attributes) {
        Err(error) if error.raw_os_error() == Some(Errno::PERM.raw_os_error()) && lock_as_much_as_it_likes() => {
            call(command, attributes)
        }
        opened => opened,
    };
    // SAFETY: the kernel has just opened it for us.
    opened.map(|descriptor| unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// Whether that was changed, for good.
fn lock_as_much_as_it_likes() -> bool {
    if release::linux() >= CHARGED_OTHERWISE {
        return false;
    }
    let most = Rlimit { current: None, maximum: None };
    getrlimit(Resource::Memlock).current.is_some() && setrlimit(Resource::Memlock, most).is_ok()
}

/// The kernel takes a shorter structure than its own for one whose rest is zero.
pub(super) fn call<T>(command: i32, attributes: &mut T) -> io::Result<i32> {
    let mut attempt = 0;
    loop {
        // SAFETY: the structure is the command's, of the length that is told, and what it points to lives as long as the callers' frames.
        let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attributes), size_of::<T>()) };
        if let Ok(result @ 0..) = i32::try_from(result) {
            return Ok(result);
        }
        let error = io::Error::last_os_error();
        attempt += 1;
        // The verifier gives up at a signal.
        let is_cut_off = matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock);
        if !is_cut_off || attempt == ATTEMPTS {
            return Err(error);
        }
    }
}

/// The kernel keeps 15 characters of a name.
pub(super) fn short(name: &str) -> [u8; 16] {
    let mut short = [0; 16];
    short.iter_mut().zip(name.bytes().take(15)).for_each(|(to, from)| *to = from);
    short
}

pub(super) fn length(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

pub(super) fn number(of: &OwnedFd) -> u32 {
    // What is open has a number that is not negative.
    of.as_raw_fd().unsigned_abs()
}

pub(super) fn address<T>(of: *const T) -> u64 {
    of.expose_provenance() as u64
}
