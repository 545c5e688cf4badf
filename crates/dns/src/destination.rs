//! Where a server is that is asked.

use std::{fmt, net::SocketAddr, sync::Arc};

/// The longest path of a unix socket, in bytes (unix(7): `sun_path` has 108, the last of which is zero).
pub const MAX_PATH: usize = 107;

/// Where a server is that is asked.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Destination {
    /// At an address and port.
    Internet(SocketAddr),
    /// At a unix socket of this machine, by its path, which is absolute and printable. gRPC alone goes there.
    Unix(Arc<str>),
}

impl Destination {
    /// The unix socket with a path; none where that is not absolute, is too long, or cannot be told as it is in metrics.
    #[must_use]
    pub fn unix(path: &str) -> Option<Self> {
        let printable = path.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\'));
        let named = path.starts_with('/') && path.len() > 1 && path.len() <= MAX_PATH;
        (printable && named).then(|| Self::Unix(path.into()))
    }

    /// The address and port, where it has one.
    #[must_use]
    pub const fn socket_addr(&self) -> Option<SocketAddr> {
        match self {
            Self::Internet(addr) => Some(*addr),
            Self::Unix(_) => None,
        }
    }

    /// Whether what goes there does not leave this machine, so that nobody else can answer.
    #[must_use]
    pub fn is_local(&self) -> bool {
        match self {
            Self::Internet(addr) => addr.ip().is_loopback(),
            Self::Unix(_) => true,
        }
    }
}

impl From<SocketAddr> for Destination {
    fn from(addr: SocketAddr) -> Self {
        Self::Internet(addr)
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Internet(addr) => addr.fmt(f),
            Self::Unix(path) => write!(f, "unix://{path}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unix_sockets_have_absolute_paths_that_fit_and_can_be_told() {
        assert_eq!(Destination::unix("/run/dns.sock").unwrap().to_string(), "unix:///run/dns.sock");
        let long = |bytes: usize| format!("/{}", "a".repeat(bytes - 1));
        assert!(Destination::unix(&long(MAX_PATH)).is_some_and(|socket| socket.is_local()));
        for path in ["", "/", "run/dns.sock", "/a b", "/a\"b", "/a\\b", "/ä", "/a\n", &long(MAX_PATH + 1)] {
            assert_eq!(Destination::unix(path), None, "{path:?}");
        }
    }

    #[test]
    fn only_loopback_addresses_are_local() {
        for (addr, local) in [("127.0.0.53:53", true), ("[::1]:53", true), ("192.0.2.1:53", false)] {
            let addr: SocketAddr = addr.parse().unwrap();
            let destination = Destination::from(addr);
            assert_eq!((destination.is_local(), destination.socket_addr()), (local, Some(addr)));
        }
    }
}
