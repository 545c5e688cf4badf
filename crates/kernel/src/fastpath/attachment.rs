//! Programs at a device's hooks (`tcx`, Linux 6.6), without a link that would have to be kept.

use std::{
    ffi::CString,
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
};

use podnet_ebpf::fastpath::{ENTER, TO_NODE, TO_POD};
use podnet_model::LinkName;

/// Commands of `bpf(2)`.
#[derive(Clone, Copy)]
enum Command {
    Attach = 8,
    Detach = 9,
    DescriptorOf = 13,
    Info = 15,
    Query = 16,
}

/// Where a packet meets a program (`BPF_TCX_INGRESS`, `BPF_TCX_EGRESS`).
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Hook {
    Ingress = 46,
    Egress = 47,
}

/// `BPF_F_REPLACE`
const REPLACE: u32 = 1 << 2;
/// Programs at one hook (`BPF_MPROG_MAX`).
const MOST: usize = 64;

/// A device, by its index in the calling thread's namespace.
#[derive(Clone, Copy)]
pub(super) struct Place(u32);

/// A program at a hook.
struct Found {
    id: u32,
    descriptor: OwnedFd,
}

impl Place {
    /// None where there is no such device.
    pub(super) fn find(device: &LinkName) -> Option<Self> {
        let name = CString::new(device.as_str()).ok()?;
        // SAFETY: the name is a text that ends with a zero, and is only read.
        let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
        (index != 0).then_some(Self(index))
    }

    /// Puts a program of ours at the hook, after all others, or in place of an earlier one of ours. Whether it was not there yet.
    pub(super) fn put(self, hook: Hook, program: BorrowedFd<'_>) -> io::Result<bool> {
        let own = info(program)?.id;
        match self.ours(hook)?.as_slice() {
            [] => self.attach(hook, program, None).map(|()| true),
            found if found.iter().any(|one| one.id == own) => Ok(false),
            [first, ..] => self.attach(hook, program, Some(first.descriptor.as_fd())).map(|()| true),
        }
    }

    /// Takes away what is ours. Whether there was something.
    pub(super) fn clear(self, hook: Hook) -> io::Result<bool> {
        let found = self.ours(hook)?;
        for one in &found {
            let mut request = Attachment::new(self, hook, one.descriptor.as_fd());
            // SAFETY: the request is of the form that the command has; it refers to no memory.
            unsafe { bpf(Command::Detach, &mut request) }?;
        }
        Ok(!found.is_empty())
    }

    /// Whether this very program is at the hook.
    pub(super) fn has(self, hook: Hook, program: BorrowedFd<'_>) -> io::Result<bool> {
        let own = info(program)?.id;
        Ok(self.programs(hook)?.contains(&own))
    }

    /// Whether there is something of ours, or of another process of podnet's.
    pub(super) fn has_any(self, hook: Hook) -> io::Result<bool> {
        Ok(!self.ours(hook)?.is_empty())
    }

    /// How many programs are at the hook, of whomever.
    #[cfg(test)]
    pub(super) fn count(self, hook: Hook) -> usize {
        self.programs(hook).unwrap().len()
    }

    fn attach(self, hook: Hook, program: BorrowedFd<'_>, instead_of: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let mut request = Attachment::new(self, hook, program);
        if let Some(other) = instead_of {
            request.flags = REPLACE;
            request.replaced = descriptor(other);
        }
        // SAFETY: the request is of the form that the command has; it refers to no memory.
        unsafe { bpf(Command::Attach, &mut request) }.map(drop)
    }

    fn ours(self, hook: Hook) -> io::Result<Vec<Found>> {
        let ids = self.programs(hook)?;
        let mut found = Vec::new();
        for id in ids {
            let Some(descriptor) = descriptor_of(id)? else { continue };
            let info = info(descriptor.as_fd())?;
            if [ENTER, TO_POD, TO_NODE].iter().any(|name| info.is_called(name)) {
                found.push(Found { id, descriptor });
            }
        }
        Ok(found)
    }

    fn programs(self, hook: Hook) -> io::Result<Vec<u32>> {
        let mut ids = vec![0_u32; MOST];
        let mut request = Query { ifindex: self.0, hook: hook as u32, count: MOST as u32, ..Query::default() };
        request.ids = ids.as_mut_ptr() as u64;
        // SAFETY: the request is of the form that the command has; `ids` has room for as many as `count` says, and outlives the call.
        match unsafe { bpf(Command::Query, &mut request) } {
            Ok(_) => {}
            // No program was ever there.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(Vec::new()),
            Err(error) => return Err(error),
        }
        ids.truncate(request.count as usize);
        Ok(ids)
    }
}

/// None where the program is gone.
fn descriptor_of(id: u32) -> io::Result<Option<OwnedFd>> {
    let mut request = ById { id, ..ById::default() };
    // SAFETY: the request is of the form that the command has; it refers to no memory.
    match unsafe { bpf(Command::DescriptorOf, &mut request) } {
        // SAFETY: the kernel just gave this descriptor to us alone.
        Ok(number) => Ok(Some(unsafe { OwnedFd::from_raw_fd(number) })),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

fn info(program: BorrowedFd<'_>) -> io::Result<Info> {
    let mut info = Info::default();
    let mut request =
        AskInfo { descriptor: descriptor(program), length: size_of::<Info>() as u32, info: (&raw mut info) as u64 };
    // SAFETY: the request is of the form that the command has; `info` has as many bytes as `length` says, all of them zero so that the
    // kernel fills no further memory, and outlives the call.
    unsafe { bpf(Command::Info, &mut request) }?;
    Ok(info)
}

fn descriptor(of: BorrowedFd<'_>) -> u32 {
    // What is open has a number that is not negative.
    of.as_raw_fd().unsigned_abs()
}

/// # Safety
/// `request` has to be what the command takes, and the addresses in it have to be of memory that the kernel may use so.
unsafe fn bpf<T>(command: Command, request: &mut T) -> io::Result<i32> {
    // SAFETY: by this function's own condition.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command as libc::c_long, request as *mut T, size_of::<T>()) };
    match i32::try_from(result) {
        Ok(result) if result >= 0 => Ok(result),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The part of `union bpf_attr` for `BPF_PROG_ATTACH` and `BPF_PROG_DETACH`.
#[repr(C)]
#[derive(Default)]
struct Attachment {
    ifindex: u32,
    program: u32,
    hook: u32,
    flags: u32,
    replaced: u32,
    relative: u32,
    revision: u64,
}

impl Attachment {
    fn new(place: Place, hook: Hook, program: BorrowedFd<'_>) -> Self {
        Self { ifindex: place.0, program: descriptor(program), hook: hook as u32, ..Self::default() }
    }
}

/// The part for `BPF_PROG_QUERY`.
#[repr(C)]
#[derive(Default)]
struct Query {
    ifindex: u32,
    hook: u32,
    query_flags: u32,
    attach_flags: u32,
    ids: u64,
    count: u32,
    unused: u32,
    program_flags: u64,
    links: u64,
    link_flags: u64,
    revision: u64,
}

/// The part for `BPF_PROG_GET_FD_BY_ID`.
#[repr(C)]
#[derive(Default)]
struct ById {
    id: u32,
    next: u32,
    flags: u32,
}

/// The part for `BPF_OBJ_GET_INFO_BY_FD`.
#[repr(C)]
struct AskInfo {
    descriptor: u32,
    length: u32,
    info: u64,
}

/// The first part of `struct bpf_prog_info`.
#[repr(C)]
#[derive(Default)]
struct Info {
    kind: u32,
    id: u32,
    tag: [u8; 8],
    lengths: [u32; 2],
    instructions: [u64; 2],
    loaded: u64,
    user: u32,
    maps: u32,
    map_ids: u64,
    name: [u8; 16],
}

impl Info {
    fn is_called(&self, name: &str) -> bool {
        self.name.split(|byte| *byte == 0).next() == Some(name.as_bytes())
    }
}
