//! What went wrong, with whom.

use std::{fmt, io};

use netlink_packet_core::DecodeError;
use rustix::io::Errno;

use crate::netns::NetNsError;

/// What is asked of the kernel, in words: reads as "cannot `action` `operand`".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// The verb and the kind of object.
    pub action: &'static str,
    /// The object.
    pub operand: String,
}

impl Operation {
    /// An operation on an object.
    pub fn new(action: &'static str, operand: impl fmt::Display) -> Self {
        Self { action, operand: operand.to_string() }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.action, self.operand)
    }
}

/// Why a request was not done.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// The kernel refused.
    #[error("cannot {operation}{}", explained(hint))]
    Refused {
        /// What was asked.
        operation: Operation,
        /// What the kernel says beyond the number (extended acknowledgement), where it says something.
        hint: Option<String>,
        /// The error number.
        #[source]
        errno: Errno,
    },
    /// An object that the operation needs is not there.
    #[error("cannot {operation}: there is no device {device}")]
    NoDevice {
        /// What was asked.
        operation: Operation,
        /// The device.
        device: String,
    },
    /// Another device, which is not ours to remove, has what ours needs.
    #[error(
        "cannot {operation}: device {device} has {what} already; if the program that made it is not used any more, remove it: ip link \
         delete {device}"
    )]
    InTheWay {
        /// What was asked.
        operation: Operation,
        /// The device that is in the way.
        device: String,
        /// What both want.
        what: String,
    },
    /// The socket failed.
    #[error("cannot {action} a netlink socket")]
    Socket {
        /// What was done with it.
        action: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The kernel's answer cannot be read.
    #[error("cannot read the kernel's answer to: {operation}")]
    Decode {
        /// What was asked.
        operation: Operation,
        /// Why.
        source: DecodeError,
    },
    /// The namespace cannot be entered.
    #[error(transparent)]
    Namespace(#[from] NetNsError),
}

impl NetlinkError {
    /// The error number, where the kernel gave one.
    #[must_use]
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Refused { errno, .. } => Some(*errno),
            Self::NoDevice { .. } => Some(Errno::NODEV),
            Self::InTheWay { .. } => Some(Errno::EXIST),
            _ => None,
        }
    }

    /// The kernel has no such family of sockets, nor a module for it.
    #[must_use]
    pub fn is_unknown_family(&self) -> bool {
        let unknown = Some(Errno::PROTONOSUPPORT.raw_os_error());
        matches!(self, Self::Socket { source, .. } if source.raw_os_error() == unknown)
    }

    /// The object is there already.
    #[must_use]
    pub fn is_exists(&self) -> bool {
        self.errno() == Some(Errno::EXIST)
    }

    /// The object, or the device that it belongs to, is not there.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        matches!(self.errno(), Some(Errno::NOENT | Errno::NODEV | Errno::SRCH | Errno::ADDRNOTAVAIL))
    }
}

fn explained(hint: &Option<String>) -> String {
    hint.as_ref().map(|hint| format!(" (the kernel says: {hint})")).unwrap_or_default()
}

/// The first request of a batch that was not done.
#[derive(Debug, thiserror::Error)]
#[error("request {index} of a batch failed")]
pub struct BatchError {
    /// Its place in the batch, from 0.
    pub index: usize,
    /// Why.
    pub source: NetlinkError,
}

impl From<BatchError> for NetlinkError {
    fn from(error: BatchError) -> Self {
        error.source
    }
}
