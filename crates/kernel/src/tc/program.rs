//! Programs (eBPF) that see what a device receives and sends: filters of a `clsact` that decide themselves (`direct-action`).
//!
//! Putting them there makes the kernel wait for nobody, which the newer hooks ([`tcx`](super::tcx)) do for tens of milliseconds a device; and
//! it does so since Linux 4.5.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::{
    RouteNetlinkMessage,
    tc::{TcAttribute, TcFilterBpfOption, TcHandle, TcMessage, TcOption},
};
use podnet_model::LinkName;
use rustix::io::Errno;

use super::{listing, request};
use crate::netlink::{NetlinkError, Operation, Request, RtSocket};

/// The priority (`pref`) of the filters of the fast path's programs; not that of the shaping's, which are of another kind.
pub(crate) const FAST_PATH: u16 = 89;
/// That of those that count flows: before whatever leads packets elsewhere.
pub(crate) const FLOWS: u16 = 87;
/// The one filter of a priority.
const HANDLE: TcHandle = TcHandle { major: 0, minor: 1 };
const KIND: &str = "bpf";
// TCA_BPF_* of linux/pkt_cls.h
const FD: u16 = 6;
const NAME: u16 = 7;
const FLAGS: u16 = 8;
/// `TCA_BPF_FLAG_ACT_DIRECT`
const ACT_DIRECT: u32 = 1;

/// Where a packet meets a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hook {
    /// What the device receives.
    Ingress,
    /// What it is about to send.
    Egress,
}

impl Hook {
    pub(crate) const ALL: [Self; 2] = [Self::Egress, Self::Ingress];

    const fn parent(self) -> TcHandle {
        match self {
            Self::Ingress => request::INGRESS,
            Self::Egress => request::EGRESS,
        }
    }
}

/// A program, loaded.
#[derive(Debug)]
pub(crate) struct Program {
    pub(crate) name: &'static str,
    pub(crate) id: u32,
    pub(crate) priority: u16,
    pub(crate) descriptor: OwnedFd,
}

/// A filter of a priority of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    /// As who put it there called it; none where it is no program.
    pub(crate) name: Option<String>,
    pub(crate) id: u32,
}

/// Puts programs at a device, in place of earlier ones of these names, each in one step. Whether one was not there yet.
///
/// # Errors
/// Why the kernel refused; also where filters of somebody else have our priority, or the device has an `ingress` of the old kind, which
/// knows no egress.
pub(crate) fn put(
    socket: &mut RtSocket,
    (index, device): (u32, &LinkName),
    programs: &[(Hook, &Program)],
) -> Result<bool, NetlinkError> {
    match socket.perform(make_hook(index, device, NLM_F_EXCL)) {
        Ok(()) => {}
        Err(error) if error.is_exists() => {
            // Of another kind it is refused: its one hook would take the filters of both.
            socket.perform(make_hook(index, device, 0))?;
            let mut all = true;
            for (hook, program) in programs {
                let found = at(socket, (index, device), *hook, program.priority)?;
                if found.iter().any(|one| !is_one_of(one, programs)) {
                    return Err(taken(device, program.priority));
                }
                all &= found.iter().any(|one| one.id == program.id);
            }
            if all {
                return Ok(false);
            }
        }
        Err(error) => return Err(error),
    }
    let requests: Vec<Request> = programs.iter().map(|(hook, program)| set(index, device, *hook, program)).collect();
    socket.perform_all(&requests)?;
    Ok(true)
}

/// The names that stand at the two hooks differ by what is behind the device; all begin alike.
fn is_one_of(found: &Found, programs: &[(Hook, &Program)]) -> bool {
    let prefix = |name: &str| name.split('_').next().map(str::to_owned);
    let found = found.name.as_deref().and_then(prefix);
    programs.iter().any(|(_, program)| prefix(program.name) == found)
}

/// The filters of a priority, of whomever.
///
/// # Errors
/// Where the kernel cannot be asked.
pub(crate) fn at(
    socket: &mut RtSocket,
    (index, device): (u32, &LinkName),
    hook: Hook,
    priority: u16,
) -> Result<Vec<Found>, NetlinkError> {
    let messages = socket.dump(&request::list_filters(index, hook.parent(), device))?;
    let ours = messages.iter().filter_map(listing::filter).filter(|one| one.header.info >> 16 == u32::from(priority));
    // The kernel tells of the priority itself too, which has no handle.
    Ok(ours.filter(|one| u32::from(one.header.handle) != 0).map(found).collect())
}

fn found(message: &TcMessage) -> Found {
    let mut found = Found { name: None, id: 0 };
    for option in listing::options(message).unwrap_or_default() {
        match option {
            TcOption::Bpf(TcFilterBpfOption::ProgName(name)) => found.name = Some(name.clone()),
            TcOption::Bpf(TcFilterBpfOption::ProgId(id)) => found.id = *id,
            _ => {}
        }
    }
    found
}

/// Takes away our filter; the `clsact` stays, which may be somebody else's.
///
/// # Errors
/// Why the kernel refused.
pub(crate) fn clear(
    socket: &mut RtSocket,
    (index, device): (u32, &LinkName),
    hook: Hook,
    priority: u16,
) -> Result<(), NetlinkError> {
    let message = RouteNetlinkMessage::DelTrafficFilter(filter(index, hook, priority));
    socket
        .perform(Request::new(Operation::new("take a program away from", device), message, 0).done_at(&[Errno::NOENT]))
}

fn make_hook(index: u32, device: &LinkName, flags: u16) -> Request {
    let message = RouteNetlinkMessage::NewQueueDiscipline(request::hook(index));
    Request::new(Operation::new("make the program hook of", device), message, NLM_F_CREATE | flags)
}

fn set(index: u32, device: &LinkName, hook: Hook, program: &Program) -> Request {
    let mut message = filter(index, hook, program.priority);
    message.attributes.push(TcAttribute::Kind(KIND.into()));
    message.attributes.push(request::options(|writer| {
        writer.bytes(FD, &descriptor(program.descriptor.as_fd()).to_ne_bytes());
        writer.text(NAME, program.name);
        writer.bytes(FLAGS, &ACT_DIRECT.to_ne_bytes());
    }));
    let message = RouteNetlinkMessage::NewTrafficFilter(message);
    Request::new(Operation::new("put a program at", device), message, NLM_F_CREATE)
}

fn filter(index: u32, hook: Hook, priority: u16) -> TcMessage {
    let mut message = request::filters(index, hook.parent());
    message.header.info = request::filters_of(priority);
    message.header.handle = HANDLE;
    message
}

fn descriptor(of: BorrowedFd<'_>) -> u32 {
    // What is open has a number that is not negative.
    of.as_raw_fd().unsigned_abs()
}

fn taken(device: &LinkName, priority: u16) -> NetlinkError {
    NetlinkError::Refused {
        operation: Operation::new("put a program at", device),
        hint: Some(format!("another program has filters of priority {priority} there")),
        errno: Errno::EXIST,
    }
}
