//! The cluster DNS server core, without sockets
