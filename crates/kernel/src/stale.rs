//! Connections whose own address is gone.

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    os::fd::BorrowedFd,
};

use rustix::net::{Shutdown, getpeername, getsockname, shutdown};

/// Ends this process's connections that have this address as their own, and tells how many there were. Once a node has lost an address
/// nothing comes through them any more, and TCP would find out after a quarter of an hour.
#[must_use]
pub fn end_connections_from(addr: IpAddr) -> usize {
    let entries = fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    let descriptors: Vec<i32> = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    let is_stale = |descriptor: &i32| {
        // SAFETY: the descriptor is only asked for its addresses and shut down, at once. Should another thread have closed it and
        // opened something else meanwhile, that is no socket, or one with another address, or one that this is about as well.
        let socket = unsafe { BorrowedFd::borrow_raw(*descriptor) };
        let own = getsockname(socket).ok().and_then(|own| SocketAddr::try_from(own).ok());
        // A connection has another end; a listener has none.
        own.is_some_and(|own| own.ip() == addr)
            && getpeername(socket).is_ok_and(|peer| peer.is_some())
            && shutdown(socket, Shutdown::Both).is_ok()
    };
    descriptors.iter().filter(|descriptor| is_stale(descriptor)).count()
}

#[cfg(test)]
mod tests {
    use std::{
        io::Read,
        net::{TcpListener, TcpStream},
    };

    use super::*;

    #[test]
    fn connections_from_an_address_end_and_others_go_on() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let to = listener.local_addr().unwrap();
        let connect = |from: &str| {
            let socket =
                rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::STREAM, None).unwrap();
            rustix::net::bind(&socket, &SocketAddr::new(from.parse().unwrap(), 0)).unwrap();
            rustix::net::connect(&socket, &to).unwrap();
            TcpStream::from(socket)
        };
        let (mut stale, fresh) = (connect("127.0.7.1"), connect("127.0.7.2"));
        assert_eq!(end_connections_from("127.0.7.1".parse().unwrap()), 1);
        assert_eq!(stale.read(&mut [0; 1]).unwrap(), 0);
        fresh.set_nonblocking(true).unwrap();
        assert_eq!((&fresh).read(&mut [0; 1]).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    }
}
