//! One direction of a connection. What is little is copied; much goes through a pipe and never comes into the program's memory (`splice(2)`).

use std::{
    cell::RefCell,
    future::poll_fn,
    io,
    os::fd::{AsFd, OwnedFd},
    pin::Pin,
    task::{Context, Poll, ready},
};

use rustix::{
    io::Errno,
    net::Shutdown,
    pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice},
};
use tokio::{
    io::{AsyncRead, Interest, ReadBuf},
    net::{TcpStream, tcp::ReadHalf},
};

/// As much as is copied at once.
const LITTLE: usize = 16 * 1024;
/// As much as a pipe shall hold; the kernel may give less.
const PIPE: usize = 256 * 1024;

thread_local! {
    /// Nothing is in it from one call to the next.
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; LITTLE]);
}

/// What became of what was there to read.
enum Copied {
    /// All was said.
    End,
    /// It was written, so many bytes.
    Whole(usize),
    /// Not all could be written yet.
    Rest(Vec<u8>),
}

/// Carries what one says to the other until all was said, and tells so.
///
/// # Errors
/// When either end broke.
pub(super) async fn carry(mut from: ReadHalf<'_>, to: &TcpStream) -> io::Result<()> {
    loop {
        let copied = poll_fn(|context| SCRATCH.with_borrow_mut(|scratch| copy(context, &mut from, to, scratch)));
        match copied.await? {
            Copied::End => return end(to),
            Copied::Whole(LITTLE) => return through_pipe(from.as_ref(), to).await,
            Copied::Whole(_) => {}
            Copied::Rest(rest) => write(to, &rest).await?,
        }
    }
}

/// Reads once, and writes what was read. Where less was there than would fit, it is not read again in vain: the reading half waits.
fn copy(
    context: &mut Context<'_>,
    from: &mut ReadHalf<'_>,
    to: &TcpStream,
    scratch: &mut [u8],
) -> Poll<io::Result<Copied>> {
    let mut buffer = ReadBuf::new(scratch);
    ready!(Pin::new(from).poll_read(context, &mut buffer))?;
    let said = buffer.filled();
    if said.is_empty() {
        return Poll::Ready(Ok(Copied::End));
    }
    let written = match to.try_write(said) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
        written => written?,
    };
    let is_whole = written == said.len();
    Poll::Ready(Ok(if is_whole { Copied::Whole(written) } else { Copied::Rest(said[written..].to_vec()) }))
}

async fn write(to: &TcpStream, mut rest: &[u8]) -> io::Result<()> {
    while !rest.is_empty() {
        to.writable().await?;
        match to.try_write(rest) {
            Ok(written) => rest = rest.get(written..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

async fn through_pipe(from: &TcpStream, to: &TcpStream) -> io::Result<()> {
    let (reader, writer): (OwnedFd, OwnedFd) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
    // Who has many pipes already may have small ones only.
    let _ = fcntl_setpipe_size(&writer, PIPE);
    loop {
        let mut held = from.async_io(Interest::READABLE, || piece(from, &writer, PIPE)).await?;
        if held == 0 {
            return end(to);
        }
        while held > 0 {
            held -= to.async_io(Interest::WRITABLE, || piece(&reader, to, held)).await?;
        }
    }
}

fn piece(from: impl AsFd, to: impl AsFd, most: usize) -> io::Result<usize> {
    Ok(splice(from, None, to, None, most, SpliceFlags::NONBLOCK | SpliceFlags::MOVE)?)
}

/// Nothing more is said to it; it may go on saying something itself.
fn end(to: &TcpStream) -> io::Result<()> {
    match rustix::net::shutdown(to, Shutdown::Write) {
        // It is over on that side, too.
        Err(Errno::NOTCONN) => Ok(()),
        ended => Ok(ended?),
    }
}
