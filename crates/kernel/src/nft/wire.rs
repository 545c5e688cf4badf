//! The connection to a kernel that may have no nf_tables.

use std::time::{Duration, Instant};

use netlink_sys::protocols::NETLINK_NETFILTER;
use rustix::io::Errno;

use super::{NftError, generation};
use crate::{
    netlink::{Connection, NetlinkError},
    netns::NetNs,
};

/// A kernel that had none is not asked again before: each question makes it look for the module.
const PAUSE: Duration = Duration::from_secs(30);

/// A connection, opened once there is somebody to speak to.
#[derive(Debug)]
pub(super) struct Wire {
    netns: NetNs,
    connection: Option<Connection>,
    /// The kernel answered.
    answered: bool,
    /// When it had no nf_tables the last time.
    absent: Option<Instant>,
}

impl Wire {
    /// In the calling thread's namespace.
    pub(super) fn open() -> Result<Self, NetlinkError> {
        let mut wire = Self { netns: NetNs::current()?, connection: None, answered: false, absent: None };
        wire.connect()?;
        Ok(wire)
    }

    /// The connection to nf_tables. What was there once is not asked for again: the kernel gives up none that is in use.
    ///
    /// # Errors
    /// [`NftError::Absent`] where the kernel has none, and what else the socket says.
    pub(super) fn get(&mut self) -> Result<&mut Connection, NftError> {
        if !self.answered {
            self.knock()?;
        }
        self.connection.as_mut().ok_or(NftError::Absent)
    }

    /// The number of the socket, where there is one.
    pub(super) fn port(&self) -> Result<Option<u32>, NetlinkError> {
        self.connection.as_ref().map(Connection::port).transpose()
    }

    fn knock(&mut self) -> Result<(), NftError> {
        if self.absent.is_some_and(|since| since.elapsed() < PAUSE) {
            return Err(NftError::Absent);
        }
        self.absent = None;
        self.connect()?;
        let asked = self.connection.as_mut().map(generation::of);
        match asked {
            Some(Ok(_)) => {
                self.answered = true;
                return Ok(());
            }
            // `nfnetlink_rcv_msg` answers so where nobody has registered for a subsystem.
            Some(Err(error)) if error.errno() != Some(Errno::INVAL) => return Err(error.into()),
            Some(Err(_)) | None => {}
        }
        self.absent = Some(Instant::now());
        Err(NftError::Absent)
    }

    /// Opens the socket where there is none yet and the kernel has the family of netfilter.
    fn connect(&mut self) -> Result<(), NetlinkError> {
        if self.connection.is_none() {
            self.connection = open_netfilter_in(&self.netns)?;
        }
        Ok(())
    }
}

/// A socket of the netfilter family in a namespace; none where the kernel has no such family.
///
/// # Errors
/// What else keeps it from being opened.
pub(crate) fn open_netfilter_in(netns: &NetNs) -> Result<Option<Connection>, NetlinkError> {
    match netns.run(|| Connection::open(NETLINK_NETFILTER))? {
        Ok(connection) => Ok(Some(connection)),
        Err(error) if error.is_unknown_family() => Ok(None),
        Err(error) => Err(error),
    }
}
