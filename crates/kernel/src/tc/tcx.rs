//! The hooks that packets pass before filters (`tcx`, Linux 6.6): what somebody else's program there does not pass on, no filter sees.
//!
//! So what has to see every packet goes there, before all others, where there are any. It needs nobody who holds it: without a link a program goes
//! with the device, and the next one takes its place in one step. But the first one makes the kernel wait until no processor runs those that were
//! there (24 ms, in which nobody else changes a device), so that none is put where filters do.
//!
//! Before those who came before it later it is put again, at most once a minute at a device, so that somebody else who always has to be first costs no
//! more than that. What passes between the two steps of it is not seen.

use std::{
    collections::BTreeMap,
    io,
    os::fd::AsFd,
    time::{Duration, Instant},
};

use podnet_model::LinkName;
use rustix::io::Errno;

use super::program::{self, Hook, Program};
use crate::{
    netlink::{NetlinkError, Operation, RtSocket},
    netns::NetNs,
    sockets::call::{self, Attached},
};

// enum bpf_attach_type
const INGRESS: u32 = 46;
const EGRESS: u32 = 47;

const fn number(hook: Hook) -> u32 {
    match hook {
        Hook::Ingress => INGRESS,
        Hook::Egress => EGRESS,
    }
}

/// When programs were put before those who had come before them, by the index of the device.
pub(crate) type Moved = BTreeMap<u32, Instant>;

/// Until that is done once more at the same device.
const PAUSE: Duration = Duration::from_mins(1);

/// Puts programs at a device, each in place of an earlier one of its name: before those of others where such are at its hook, else among the filters.
/// Whether one was not there yet, or not before others.
///
/// # Errors
/// Why the kernel refused, and as [`program::put`].
pub(crate) fn put(
    socket: &mut RtSocket,
    place: (u32, &LinkName),
    programs: &[(Hook, &Program)],
    moved: &mut Moved,
    now: Instant,
) -> Result<bool, NetlinkError> {
    moved.retain(|_, at| now.duration_since(*at) < PAUSE);
    let may_move = !moved.contains_key(&place.0);
    let (mut filters, mut is_new) = (Vec::new(), false);
    for (hook, program) in programs {
        let there = at(socket, place, *hook)?;
        if there.is_empty() {
            filters.push((*hook, *program));
        } else {
            let is_behind = there.iter().position(|one| one.name == program.name).is_some_and(|at| at > 0);
            if is_behind && may_move {
                moved.insert(place.0, now);
            }
            is_new |= put_before(socket, place, (*hook, *program), &there, is_behind && may_move)?;
        }
    }
    if !filters.is_empty() {
        is_new |= program::put(socket, place, &filters)?;
    }
    Ok(is_new)
}

fn put_before(
    socket: &mut RtSocket,
    place: (u32, &LinkName),
    (hook, program): (Hook, &Program),
    there: &[Attached],
    moves: bool,
) -> Result<bool, NetlinkError> {
    let before = there.iter().find(|one| one.name == program.name);
    if !moves && before.is_some_and(|before| before.id == program.id) {
        return Ok(false);
    }
    // What others pass on would meet it twice.
    let is_filter = |found: &program::Found| found.name.as_deref() == Some(program.name);
    let was_filter = before.is_none() && program::at(socket, place, hook, program.priority)?.iter().any(is_filter);
    if was_filter {
        program::clear(socket, place, hook, program.priority)?;
    }
    let (index, device) = place;
    let replaced = match before {
        // In one step a program takes another's place, and no other one.
        Some(before) if moves => {
            detach(socket, place, hook, before)?;
            None
        }
        before => before.map(|one| one.descriptor.as_fd()),
    };
    let put = within(socket, || call::attach_to(index, number(hook), program.descriptor.as_fd(), replaced))
        .and_then(|done| done.map_err(|error| refused("put a program before those of others at", device, &error)));
    if put.is_err() && was_filter {
        program::put(socket, place, &[(hook, program)])?;
    }
    put.map(|()| true)
}

/// The programs at a hook of a device of the socket's namespace, in the order in which packets meet them; none where the kernel has no such hooks.
///
/// # Errors
/// Where the kernel cannot be asked.
pub(crate) fn at(
    socket: &RtSocket,
    (index, device): (u32, &LinkName),
    hook: Hook,
) -> Result<Vec<Attached>, NetlinkError> {
    match within(socket, || call::attached_to(index, number(hook)))? {
        Err(error) if error.raw_os_error() == Some(Errno::INVAL.raw_os_error()) => Ok(Vec::new()),
        found => found.map_err(|error| refused("look for programs at", device, &error)),
    }
}

/// Takes away the programs of these names. Whether there were any.
///
/// # Errors
/// Why the kernel refused.
pub(crate) fn clear(
    socket: &RtSocket,
    place: (u32, &LinkName),
    hook: Hook,
    names: &[&str],
) -> Result<bool, NetlinkError> {
    let mut any = false;
    for found in at(socket, place, hook)?.iter().filter(|one| names.contains(&one.name.as_str())) {
        detach(socket, place, hook, found)?;
        any = true;
    }
    Ok(any)
}

fn detach(
    socket: &RtSocket,
    (index, device): (u32, &LinkName),
    hook: Hook,
    found: &Attached,
) -> Result<(), NetlinkError> {
    within(socket, || call::detach_from(index, number(hook), found.descriptor.as_fd()))?
        .map_err(|error| refused("take a program away from", device, &error))
}

/// Does what the kernel does in the calling thread's namespace in the socket's.
fn within<T: Send>(socket: &RtSocket, work: impl FnOnce() -> T + Send) -> Result<T, NetlinkError> {
    let netns = socket.netns();
    if netns.inode()? == NetNs::current()?.inode()? {
        return Ok(work());
    }
    Ok(netns.run(work)?)
}

fn refused(action: &'static str, device: &LinkName, error: &io::Error) -> NetlinkError {
    let errno = error.raw_os_error().map_or(Errno::IO, Errno::from_raw_os_error);
    NetlinkError::Refused { operation: Operation::new(action, device), hint: None, errno }
}
