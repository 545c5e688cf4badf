//! Which connections are passed on to whom: of what flows tell, both sides of such a connection are one.
//!
//! There is one list for the whole process, as whoever tells flows reads another thread's. It has what `room` has room for.

use std::{
    collections::{HashMap, VecDeque},
    net::SocketAddr,
    sync::{LazyLock, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use podnet_flow::{Key, Transport};
use podnet_planner::ruleset::FrontendKey;

/// So long a connection is known that is over: what was counted of it is read every second.
const KNOWN: Duration = Duration::from_secs(10);
/// So many that are over are known at most.
const MOST: usize = 32_768;

static PASSED: LazyLock<Mutex<Passed>> = LazyLock::new(Mutex::default);

/// What a backend sees of a connection that a client began so.
pub(crate) fn onward(key: &Key) -> Option<Key> {
    passed().onward.get(key).map(|(_, to)| *to)
}

/// How a client began a connection of which a backend sees this.
pub(crate) fn origin(key: &Key) -> Option<Key> {
    passed().origin.get(key).map(|(_, from)| *from)
}

fn passed() -> MutexGuard<'static, Passed> {
    PASSED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// By what one side sees what the other side does, with the connection's number: ports are used again.
#[derive(Debug, Default)]
struct Passed {
    next: u64,
    onward: HashMap<Key, (u64, Key)>,
    origin: HashMap<Key, (u64, Key)>,
    over: VecDeque<(Instant, Passing)>,
}

/// A connection that is passed on, as its client and as its backend see it.
#[derive(Clone, Copy, Debug)]
struct Passing {
    number: u64,
    from: Key,
    to: Key,
}

impl Passed {
    fn begin(&mut self, from: Key, to: Key) -> Passing {
        let number = self.next;
        self.next += 1;
        self.onward.insert(from, (number, to));
        self.origin.insert(to, (number, from));
        Passing { number, from, to }
    }

    fn end(&mut self, passing: Passing, now: Instant) {
        self.over.push_back((now, passing));
        let is_old = |(at, _): &(Instant, Passing)| now.duration_since(*at) >= KNOWN;
        while self.over.len() > MOST || self.over.front().is_some_and(is_old) {
            let Some((_, old)) = self.over.pop_front() else { return };
            for (side, key) in [(&mut self.onward, old.from), (&mut self.origin, old.to)] {
                if side.get(&key).is_some_and(|(number, _)| *number == old.number) {
                    side.remove(&key);
                }
            }
        }
    }
}

/// Has a connection be known as long as the value is there, and for some time after that.
#[derive(Debug)]
pub(super) struct Known(Passing);

impl Known {
    /// One of a client to a frontend, which goes on from an address and port of the node's to a backend.
    pub(super) fn new(client: SocketAddr, frontend: &FrontendKey, node: SocketAddr, backend: SocketAddr) -> Self {
        let transport = Transport(frontend.protocol.number());
        let at = SocketAddr::new(frontend.addr, frontend.port);
        let from = Key { source: plain(client), destination: at, transport };
        let to = Key { source: plain(node), destination: plain(backend), transport };
        Self(passed().begin(from, to))
    }
}

impl Drop for Known {
    fn drop(&mut self) {
        passed().end(self.0, Instant::now());
    }
}

/// Without what sockets of IPv6 know besides (scope, flow label).
fn plain(at: SocketAddr) -> SocketAddr {
    SocketAddr::new(at.ip(), at.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(source: &str, destination: &str) -> Key {
        Key { source: source.parse().unwrap(), destination: destination.parse().unwrap(), transport: Transport::TCP }
    }

    #[test]
    fn a_connection_is_known_by_both_sides_until_a_moment_after_its_end() {
        let (from, to) = (key("10.0.0.1:1000", "10.96.0.7:80"), key("172.16.0.1:4000", "10.0.0.2:8080"));
        let mut passed = Passed::default();
        let sides = |passed: &Passed| {
            let side = |side: &HashMap<Key, (u64, Key)>, key: &Key| side.get(key).map(|(_, other)| *other);
            (side(&passed.onward, &from), side(&passed.origin, &to))
        };
        let now = Instant::now();
        let first = passed.begin(from, to);
        assert_eq!(sides(&passed), (Some(to), Some(from)));
        passed.end(first, now);
        assert_eq!(sides(&passed), (Some(to), Some(from)), "it may not have been read yet");
        // From the same port to another backend: what is forgotten is the first one.
        let again = key("172.16.0.1:4001", "10.0.0.3:8080");
        let second = passed.begin(from, again);
        let later = now + KNOWN;
        let other = passed.begin(key("10.0.0.9:1", "10.96.0.7:80"), key("172.16.0.1:1", "10.0.0.2:8080"));
        passed.end(other, later);
        assert_eq!(sides(&passed), (Some(again), None));
        passed.end(second, later + KNOWN);
        passed.end(other, later + KNOWN * 2);
        assert_eq!(sides(&passed), (None, None));
    }

    #[test]
    fn no_more_than_so_many_that_are_over_are_known() {
        let mut passed = Passed::default();
        let now = Instant::now();
        for number in 0..MOST + 10 {
            let port = u16::try_from(number % 60_000).unwrap();
            let source = SocketAddr::new([10, 0, 0, 1].into(), port);
            let from = Key { source, ..key("10.0.0.1:1", "10.96.0.7:80") };
            let passing = passed.begin(from, Key { source, ..key("172.16.0.1:1", "10.0.0.2:8080") });
            passed.end(passing, now);
        }
        assert_eq!((passed.over.len(), passed.onward.len(), passed.origin.len()), (MOST, MOST, MOST));
    }
}
