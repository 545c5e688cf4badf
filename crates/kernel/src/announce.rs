//! Answering for addresses that this node does not have itself: ARP (RFC 826; RFC 5227 on announcing and asking) and neighbour discovery
//! (RFC 4861).
//!
//! The kernel answers for its own addresses only. An address of a load balancer must not be one of them: it is translated before the node
//! asks whether a packet is for itself, other nodes stand ready for it too, and who stops answering has given it up at once, be it
//! because its agent is gone.

mod arp;
mod frames;
mod groups;
mod ndp;

use std::{
    collections::BTreeSet,
    io,
    net::IpAddr,
    os::fd::{AsFd, BorrowedFd},
};

use podnet_model::{Family, Mac};
use rustix::io::Errno;

use self::{
    frames::{FrameSocket, Message},
    groups::Groups,
};
use crate::{
    link,
    netlink::{NetlinkError, Operation, RtSocket},
};

/// What somebody on the network said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// It asks who has the address.
    Asks {
        /// The address.
        addr: IpAddr,
        /// Who asks: the answer goes there. The unspecified address where it tells of no own one.
        asker: (Mac, IpAddr),
    },
    /// It says that it has the address.
    Claims {
        /// The address.
        addr: IpAddr,
        /// Who says so.
        by: Mac,
    },
}

impl Heard {
    const fn speaker(&self) -> Mac {
        match self {
            Self::Asks { asker: (mac, _), .. } | Self::Claims { by: mac, .. } => *mac,
        }
    }
}

/// Hears and speaks about addresses of one family on one device.
#[derive(Debug)]
pub struct AnnounceSocket {
    family: Family,
    frames: FrameSocket,
    /// Whoever asks for an address of IPv6 asks a group.
    groups: Groups,
    mac: Mac,
    index: u32,
}

impl AnnounceSocket {
    /// Opens a socket on a device of the calling thread's namespace.
    ///
    /// # Errors
    /// Where there is no such device, or it is none of Ethernet, or the process may not.
    pub fn open(device: &str, family: Family) -> Result<Self, NetlinkError> {
        let spoken = match family {
            Family::V4 => "listen to ARP on",
            Family::V6 => "listen to neighbour discovery on",
        };
        let operation = || Operation::new(spoken, device);
        let refused = |errno| NetlinkError::Refused { operation: operation(), hint: None, errno };
        let (index, mac) = identity(device)?.ok_or_else(|| refused(Errno::NODEV))?;
        let opened = match family {
            Family::V4 => FrameSocket::open(index, arp::ETHERTYPE, &mut []),
            Family::V6 => FrameSocket::open(index, ndp::ETHERTYPE, &mut ndp::filter()),
        };
        let frames =
            opened.map_err(|error| refused(error.raw_os_error().map_or(Errno::IO, Errno::from_raw_os_error)))?;
        Ok(Self { family, frames, groups: Groups::new(index), mac, index })
    }

    /// Whether the device of that name is still the one that the socket was opened on, with the same Ethernet address.
    ///
    /// # Errors
    /// Where the kernel cannot be asked.
    pub fn is_current(&self, device: &str) -> Result<bool, NetlinkError> {
        Ok(identity(device)? == Some((self.index, self.mac)))
    }

    /// The device's Ethernet address when the socket was opened.
    #[must_use]
    pub const fn mac(&self) -> Mac {
        self.mac
    }

    /// From now on questions for these addresses are heard, and no others for certain. Those of IPv6 go to groups, which the node's
    /// switches have to know to be here (MLD). For threads in the device's namespace.
    ///
    /// # Errors
    /// The first one; all others are heard as far as they can be. To be called again then.
    pub fn listen_for(&mut self, addresses: impl Iterator<Item = IpAddr>) -> io::Result<()> {
        let groups: BTreeSet<_> = match self.family {
            Family::V4 => BTreeSet::new(),
            Family::V6 => addresses.filter_map(v6).map(ndp::group_of).collect(),
        };
        self.groups.set(groups)
    }

    /// The next thing that was said; none where there is nothing more for now. What this node says itself is left out.
    ///
    /// # Errors
    /// Where the device is gone or down.
    pub fn hear(&self) -> io::Result<Option<Heard>> {
        let mut frame = [0; frames::LONGEST];
        while let Some(length) = self.frames.receive(&mut frame)? {
            let frame = frame.get(..length).unwrap_or_default();
            let heard = match self.family {
                Family::V4 => arp::parse(frame),
                Family::V6 => ndp::parse(frame),
            };
            if let Some(heard) = heard.filter(|heard| heard.speaker() != self.mac) {
                return Ok(Some(heard));
            }
        }
        Ok(None)
    }

    /// Answers whoever asked: this node has the address.
    ///
    /// # Errors
    /// Where the device is gone or down, or the addresses are not of the socket's family.
    pub fn answer(&self, addr: IpAddr, asker: (Mac, IpAddr)) -> io::Result<()> {
        match (self.family, addr, asker.1) {
            (Family::V4, IpAddr::V4(addr), IpAddr::V4(by)) => self.say(&arp::answer(self.mac, addr, (asker.0, by))),
            (Family::V6, IpAddr::V6(addr), IpAddr::V6(by)) => self.say(&ndp::answer(self.mac, addr, (asker.0, by))),
            _ => Err(io::ErrorKind::InvalidInput.into()),
        }
    }

    /// Tells everybody that this node has the address, whoever had it before.
    ///
    /// # Errors
    /// Where the device is gone or down, or the address is not of the socket's family.
    pub fn claim(&self, addr: IpAddr) -> io::Result<()> {
        match (self.family, addr) {
            (Family::V4, IpAddr::V4(addr)) => {
                arp::claims(self.mac, addr).iter().try_for_each(|message| self.say(message))
            }
            (Family::V6, IpAddr::V6(addr)) => self.say(&ndp::claim(self.mac, addr)),
            _ => Err(io::ErrorKind::InvalidInput.into()),
        }
    }

    /// Asks everybody who has the address, without telling of an own one.
    ///
    /// # Errors
    /// Where the device is gone or down, or the address is not of the socket's family.
    pub fn ask(&self, addr: IpAddr) -> io::Result<()> {
        match (self.family, addr) {
            (Family::V4, IpAddr::V4(addr)) => self.say(&arp::question(self.mac, addr)),
            (Family::V6, IpAddr::V6(addr)) => self.say(&ndp::question(addr)),
            _ => Err(io::ErrorKind::InvalidInput.into()),
        }
    }

    fn say(&self, message: &Message) -> io::Result<()> {
        self.frames.send(self.mac, message)
    }
}

impl AsFd for AnnounceSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.frames.as_fd()
    }
}

/// A device's index and Ethernet address; none where there is no such device, or it has none.
fn identity(device: &str) -> Result<Option<(u32, Mac)>, NetlinkError> {
    let found = link::find(&mut RtSocket::open()?, device)?;
    Ok(found.and_then(|link| Some((link.index, link.mac?))))
}

const fn v6(addr: IpAddr) -> Option<std::net::Ipv6Addr> {
    match addr {
        IpAddr::V4(_) => None,
        IpAddr::V6(addr) => Some(addr),
    }
}

#[cfg(test)]
mod tests;
