//! What happens to the shaping of links, heard of as it happens.

use std::io;

use netlink_sys::protocols::NETLINK_ROUTE;
use podnet_planner::limits::served_by;
use rustix::event::{PollFd, PollFlags, poll};

use super::program;
use crate::{
    monitor::{Notice, route_family},
    netlink::{Connection, Frame, NetlinkError, News},
    netns::NetNs,
};

/// Groups of the route family (`enum rtnetlink_groups`).
const LINK: u32 = 1;
const TRAFFIC_CONTROL: u32 = 4;
/// `RTM_NEWQDISC` to `RTM_DELTFILTER`, with the classes between.
const NEW_QDISC: u16 = 36;
const NEW_FILTER: u16 = 44;
const MESSAGES: std::ops::RangeInclusive<u16> = 36..=45;

/// Listens in one namespace. What is heard is a suspicion and no more: one's own work is heard of too.
#[derive(Debug)]
pub struct Watch {
    connection: Connection,
}

impl Watch {
    /// Begins to listen in the calling thread's namespace.
    ///
    /// # Errors
    /// Where a socket cannot be opened.
    pub fn open() -> Result<Self, NetlinkError> {
        let connection = Connection::open(NETLINK_ROUTE)?;
        connection.join(LINK)?;
        connection.join(TRAFFIC_CONTROL)?;
        Ok(Self { connection })
    }

    /// As [`Watch::open`], in a namespace.
    ///
    /// # Errors
    /// Where the namespace cannot be entered, and as there.
    pub fn open_in(netns: &NetNs) -> Result<Self, NetlinkError> {
        netns.run(Self::open)?
    }

    /// Waits until a qdisc, a filter or a device that pods' traffic is led through changes; that new pods get theirs is none.
    ///
    /// # Errors
    /// Where the socket fails.
    pub fn wait(&mut self) -> Result<(), NetlinkError> {
        loop {
            let descriptor = self.connection.descriptor();
            match poll(&mut [PollFd::new(&descriptor, PollFlags::IN)], None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(errno) => {
                    return Err(NetlinkError::Socket { action: "wait for", source: io::Error::from(errno) });
                }
            }
            if self.heard()? {
                return Ok(());
            }
        }
    }

    /// Takes in all that is there.
    fn heard(&mut self) -> Result<bool, NetlinkError> {
        let mut heard = false;
        loop {
            match self.connection.news()? {
                News::Frames(frames) => heard |= frames.iter().any(concerns),
                News::Lost => heard = true,
                News::None => return Ok(heard),
            }
        }
    }
}

fn concerns(frame: &Frame) -> bool {
    if is_of_new_pods(frame) {
        return false;
    }
    if MESSAGES.contains(&frame.kind) {
        return true;
    }
    match route_family(frame) {
        Some(Notice::LinkGone(link)) => served_by(&link.name).is_some(),
        Some(Notice::Link(link)) => !link.is_up && served_by(&link.name).is_some(),
        _ => false,
    }
}

/// A hook, or a program of ours, is put at a device: with each new pod. What matters is that it goes.
fn is_of_new_pods(frame: &Frame) -> bool {
    // struct tcmsg: family, padding, device, handle, parent, info.
    let number = |at: usize| Some(u32::from_ne_bytes(frame.payload.get(at..at + 4)?.try_into().ok()?));
    match frame.kind {
        NEW_QDISC => number(8).is_some_and(|handle| handle >> 16 == u32::from(u16::MAX)),
        NEW_FILTER => {
            number(16).is_some_and(|info| [program::FAST_PATH, program::FLOWS].map(u32::from).contains(&(info >> 16)))
        }
        _ => false,
    }
}
