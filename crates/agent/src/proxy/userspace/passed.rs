//! Which connections are passed on to whom: of what flows tell, both sides of such a connection are one.
//!
//! There is one list for the whole process, as whoever tells flows reads another thread's. It has what `room` has room for. Where a program of
//! its own passes them on, its agent has a list as well and asks for the [`News`] of the program's (`mirror`).

use std::{
    collections::{HashMap, VecDeque},
    net::SocketAddr,
    sync::{LazyLock, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use podnet_flow::{Key, Transport};
use podnet_planner::ruleset::FrontendKey;
use serde::{Deserialize, Serialize};

/// So long a connection is known that is over: what was counted of it is read every second.
const KNOWN: Duration = Duration::from_secs(10);
/// So many that are over are known at most.
const MOST: usize = 32_768;

static PASSED: LazyLock<Mutex<Passed>> = LazyLock::new(Mutex::default);

/// What a backend sees of a connection that a client began so.
pub(crate) fn onward(key: &Key) -> Option<Key> {
    passed().onward(key)
}

/// How a client began a connection of which a backend sees this.
pub(crate) fn origin(key: &Key) -> Option<Key> {
    passed().origin(key)
}

/// What another list has to be told that knew this much.
pub(super) fn news(since: Since) -> News {
    passed().news(since)
}

fn passed() -> MutexGuard<'static, Passed> {
    PASSED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// By what one side sees what the other side does, with the connection's number: ports are used again.
#[derive(Debug, Default)]
pub(super) struct Passed {
    next: u64,
    onward: HashMap<Key, (u64, Key)>,
    origin: HashMap<Key, (u64, Key)>,
    over: VecDeque<(Instant, Passing)>,
    /// How many were over so far.
    ended: u64,
}

/// How much of a list is known: connections that began and that were over, since its beginning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Since {
    begun: u64,
    ended: u64,
}

/// What of a list was not known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct News {
    /// It is the whole list: too much was not known.
    is_whole: bool,
    begun: Vec<(u64, Sides)>,
    ended: Vec<(u64, Sides)>,
    /// From now on this is known.
    since: Since,
}

/// A connection's addresses and ports, first as its client and then as its backend sees it, and the number of its protocol.
type Sides = ([SocketAddr; 2], [SocketAddr; 2], u8);

/// A connection that is passed on, as its client and as its backend see it.
#[derive(Clone, Copy, Debug)]
struct Passing {
    number: u64,
    from: Key,
    to: Key,
}

impl Passed {
    /// What a backend sees of a connection that a client began so.
    pub(super) fn onward(&self, key: &Key) -> Option<Key> {
        self.onward.get(key).map(|(_, to)| *to)
    }

    /// How a client began a connection of which a backend sees this.
    pub(super) fn origin(&self, key: &Key) -> Option<Key> {
        self.origin.get(key).map(|(_, from)| *from)
    }

    fn news(&self, since: Since) -> News {
        let forgotten = self.ended - self.over.len() as u64;
        let is_whole = since.ended < forgotten || since.ended > self.ended || since.begun > self.next;
        let known = if is_whole { Since { begun: 0, ended: forgotten } } else { since };
        let begun = self.onward.iter().filter(|(_, (number, _))| *number >= known.begun);
        let ended = usize::try_from(known.ended - forgotten).unwrap_or(usize::MAX);
        News {
            is_whole,
            begun: begun.map(|(from, (number, to))| (*number, sides(from, to))).collect(),
            ended: self.over.iter().skip(ended).map(|(_, over)| (over.number, sides(&over.from, &over.to))).collect(),
            since: Since { begun: self.next, ended: self.ended },
        }
    }

    /// Takes in what it did not know of another list; answers how much it knows from now on.
    pub(super) fn take(&mut self, news: News, now: Instant) -> Since {
        if news.is_whole {
            *self = Self::default();
        }
        for passing in news.begun.into_iter().map(Passing::from) {
            self.insert(passing);
        }
        for passing in news.ended.into_iter().map(Passing::from) {
            self.end(passing, now);
        }
        news.since
    }

    fn insert(&mut self, passing: Passing) {
        self.onward.insert(passing.from, (passing.number, passing.to));
        self.origin.insert(passing.to, (passing.number, passing.from));
    }

    fn begin(&mut self, from: Key, to: Key) -> Passing {
        let number = self.next;
        self.next += 1;
        let passing = Passing { number, from, to };
        self.insert(passing);
        passing
    }

    fn end(&mut self, passing: Passing, now: Instant) {
        self.over.push_back((now, passing));
        self.ended += 1;
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

fn sides(from: &Key, to: &Key) -> Sides {
    ([from.source, from.destination], [to.source, to.destination], from.transport.0)
}

impl From<(u64, Sides)> for Passing {
    fn from((number, (from, to, transport)): (u64, Sides)) -> Self {
        let key = |[source, destination]: [SocketAddr; 2]| Key { source, destination, transport: Transport(transport) };
        Self { number, from: key(from), to: key(to) }
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
    fn another_list_knows_what_this_one_knows_once_it_is_told_what_is_new() {
        let (mut passed, mut other, mut since) = (Passed::default(), Passed::default(), Since::default());
        let now = Instant::now();
        let key_at = |port: u16, destination: &str| key(&format!("10.0.0.1:{port}"), destination);
        let begin =
            |passed: &mut Passed, port: u16| passed.begin(key_at(port, "10.96.0.7:80"), key_at(port, "10.0.0.2:8080"));
        let first = begin(&mut passed, 1);
        since = other.take(passed.news(since), now);
        assert_eq!((&other.onward, &other.origin), (&passed.onward, &passed.origin));
        passed.end(first, now);
        begin(&mut passed, 2);
        let news = passed.news(since);
        assert_eq!((news.is_whole, news.begun.len(), news.ended.len()), (false, 1, 1));
        since = other.take(news, now);
        assert_eq!((&other.onward, other.over.len()), (&passed.onward, 1));
        assert!(passed.news(since).begun.is_empty() && passed.news(since).ended.is_empty());
        // One that is forgotten here before the other list was told that it is over is none there either.
        let (third, fourth) = (begin(&mut passed, 3), begin(&mut passed, 4));
        since = other.take(passed.news(since), now);
        passed.end(third, now);
        passed.end(fourth, now + KNOWN);
        assert!(passed.news(since).is_whole);
        since = other.take(passed.news(since), now + KNOWN);
        assert_eq!((&other.onward, &other.origin), (&passed.onward, &passed.origin));
        assert_eq!(other.onward.len(), 2);
        // Nor is anything known of a list that began anew.
        assert!(Passed::default().news(since).is_whole);
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
