//! The loop of pause: containers and connections, one wait for all of them.

use std::{
    collections::BTreeMap,
    io,
    os::{fd::AsFd, unix::net::UnixListener},
    path::Path,
};

use podnet_kernel::process::Child;

use super::{
    connection::Connection,
    containers::Container,
    first::Streams,
    protocol::{Reply, Request},
    wait_readable,
};

struct Pause<'a> {
    dir: &'a Path,
    containers: BTreeMap<String, Container>,
    connections: Vec<Connection>,
    /// Killed because nobody listens to them any more; reaped when they are gone.
    orphans: Vec<Child>,
}

/// Serves until it is killed.
pub(super) fn serve(dir: &Path, listener: &UnixListener) -> io::Result<()> {
    let mut pause = Pause { dir, containers: BTreeMap::new(), connections: Vec::new(), orphans: Vec::new() };
    loop {
        pause.turn(listener)?;
    }
}

impl Pause<'_> {
    /// Waits for something and handles it.
    fn turn(&mut self, listener: &UnixListener) -> io::Result<()> {
        let mut waited = vec![listener.as_fd()];
        let containers: Vec<usize> =
            self.containers.values().map(|container| extend(&mut waited, container.descriptors())).collect();
        let connections: Vec<usize> =
            self.connections.iter().map(|connection| extend(&mut waited, connection.descriptors())).collect();
        extend(&mut waited, self.orphans.iter().map(Child::descriptor));
        let ready = wait_readable(&waited)?;
        drop(waited);
        self.orphans.retain(|orphan| matches!(orphan.try_wait(), Ok(None)));

        let mut from = 1;
        let mut changed = false;
        for (container, count) in self.containers.values_mut().zip(&containers) {
            changed |= container.take(&within(&ready, from, *count));
            from += count;
        }
        let mut kept = Vec::new();
        let connected = std::mem::take(&mut self.connections);
        for (mut connection, count) in connected.into_iter().zip(&connections) {
            let ready = within(&ready, from, *count);
            from += count;
            if self.attend(&mut connection, &ready, &mut changed) {
                kept.push(connection);
            } else if let Some(child) = connection.exec.take() {
                let _ = child.signal(9);
                self.orphans.push(child);
            }
        }
        self.connections = kept;
        if ready.contains(&0) {
            self.accept(listener)?;
        }
        if changed {
            let reply = self.state();
            self.connections.retain(|connection| !connection.watching || connection.tell(&reply));
        }
        Ok(())
    }

    fn accept(&mut self, listener: &UnixListener) -> io::Result<()> {
        match listener.accept() {
            Ok((stream, _)) => self.connections.push(Connection::new(stream)?),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::ConnectionAborted) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Handles one connection; false where it is over.
    fn attend(&mut self, connection: &mut Connection, ready: &[usize], changed: &mut bool) -> bool {
        if ready.contains(&1)
            && let Some(Ok(Some(ended))) = connection.exec.as_ref().map(Child::try_wait)
        {
            connection.exec = None;
            connection.tell(&Reply::Exited { code: ended.code() });
            return false;
        }
        if !ready.contains(&0) {
            return true;
        }
        let Some(requests) = connection.read() else { return false };
        for request in requests {
            let reply = self.answer(connection, request, changed);
            if !connection.tell(&reply) {
                return false;
            }
        }
        true
    }

    fn answer(&mut self, connection: &mut Connection, request: Request, changed: &mut bool) -> Reply {
        match request {
            Request::Watch => {
                connection.watching = true;
                self.state()
            }
            Request::Start { container, attempt } => {
                let known = self.containers.get(&container);
                // Asked again after a restart of the runtime: done is done.
                if known.is_some_and(|known| known.state().attempt == attempt) {
                    return Reply::Done;
                }
                if known.is_some_and(Container::running) {
                    return Reply::Failed { reason: format!("container {container} still runs") };
                }
                match Container::start(self.dir, &container, attempt) {
                    Ok(started) => {
                        self.containers.insert(container, started);
                        *changed = true;
                        Reply::Done
                    }
                    Err(error) => Reply::Failed { reason: format!("cannot start container {container}: {error}") },
                }
            }
            Request::Signal { container, signal } => {
                match self.containers.get(&container).map(|found| found.signal(signal)) {
                    Some(Err(error)) => {
                        Reply::Failed { reason: format!("cannot send signal {signal} to {container}: {error}") }
                    }
                    _ => Reply::Done,
                }
            }
            Request::Exec { container, command, tty } => self.exec(connection, &container, &command, tty),
        }
    }

    fn exec(&self, connection: &mut Connection, container: &str, command: &[String], tty: bool) -> Reply {
        let refused = |reason: &str| Reply::Failed { reason: reason.to_owned() };
        let Ok([stdin, stdout, stderr]) = <[_; 3]>::try_from(std::mem::take(&mut connection.descriptors)) else {
            return refused("three standard streams have to come with the request");
        };
        let Some(found) = self.containers.get(container).filter(|found| found.running()) else {
            return refused("the container is not running");
        };
        match found.exec(command, tty, Streams { stdin, stdout, stderr }) {
            Ok(child) => {
                connection.exec = Some(child);
                Reply::Done
            }
            Err(error) => Reply::Failed { reason: error.to_string() },
        }
    }

    fn state(&self) -> Reply {
        Reply::State { containers: self.containers.values().map(|container| container.state().clone()).collect() }
    }
}

fn extend<'a>(
    all: &mut Vec<std::os::fd::BorrowedFd<'a>>,
    some: impl Iterator<Item = std::os::fd::BorrowedFd<'a>>,
) -> usize {
    let before = all.len();
    all.extend(some);
    all.len() - before
}

fn within(ready: &[usize], from: usize, count: usize) -> Vec<usize> {
    ready.iter().filter(|index| (from..from + count).contains(*index)).map(|index| index - from).collect()
}
