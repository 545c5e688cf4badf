//! What the other side of a TCP connection has, as far as this side knows.

use std::{
    io,
    os::fd::{AsFd, AsRawFd},
};

/// How many bytes that were written to a TCP socket its peer's kernel has not acknowledged (tcp(7), `SIOCOUTQ`).
///
/// # Errors
/// Where it is no such socket.
pub fn unacknowledged(socket: impl AsFd) -> io::Result<usize> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the descriptor is open as long as it is borrowed, and the request writes one int, for which there is room.
    let done = unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(usize::try_from(bytes).unwrap_or(0)) }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        net::{TcpListener, TcpStream},
        time::{Duration, Instant},
    };

    use super::*;

    #[test]
    fn what_the_peers_kernel_has_no_room_for_is_not_acknowledged_until_it_has() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut peer, _) = listener.accept().unwrap();
        stream.set_nonblocking(true).unwrap();
        let mut written = 0;
        while let Ok(bytes) = stream.write(&[7; 65536]) {
            written += bytes;
        }
        assert!(unacknowledged(&stream).unwrap() > 0);
        peer.read_exact(&mut vec![0; written]).unwrap();
        let begun = Instant::now();
        while unacknowledged(&stream).unwrap() > 0 {
            assert!(begun.elapsed() < Duration::from_secs(10));
            std::thread::yield_now();
        }
        assert!(unacknowledged(std::fs::File::open("/dev/null").unwrap()).is_err());
    }
}
