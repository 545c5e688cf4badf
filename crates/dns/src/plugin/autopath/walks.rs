//! Who was seen to walk along a search path: a client that asked for a short name's first place, and soon after that for its second.
//!
//! What is kept is one number for a client and a name, in a table that is bounded: where it is lost, the client walks once more.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    net::IpAddr,
    sync::Mutex,
    time::{Duration, Instant},
};

use crate::server::lock;

/// How soon a client comes to the next name: resolvers wait 5 s for an answer, and then ask once more (`resolv.conf(5)`).
const STRIDE: Duration = Duration::from_secs(10);
/// How long a client that asks for the name no more is remembered. Its address may be another pod's by then.
const REMEMBERED: Duration = Duration::from_secs(600);
/// How many names of clients are known at most.
const MOST: usize = 4096;

/// Clients and the short names that they asked for.
#[derive(Debug, Default)]
pub(super) struct Walks {
    hasher: RandomState,
    seen: Mutex<HashMap<u64, Seen>>,
}

/// What was seen of a client and a name, and when last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    /// It asked for the first place.
    Begin(Instant),
    /// It asked for the second one as well: it searches.
    Walk(Instant),
}

impl Walks {
    /// A client asks for the first place of a short name (the wire form of its labels). Whether it is known to search for that name.
    pub(super) fn begins(&self, client: IpAddr, short: &[u8], now: Instant) -> bool {
        let key = self.hasher.hash_one((client, short));
        let mut seen = lock(&self.seen);
        if let Some(seen) = seen.get_mut(&key) {
            let walks = matches!(seen, Seen::Walk(_)) && seen.counts(now);
            *seen = if walks { Seen::Walk(now) } else { Seen::Begin(now) };
            return walks;
        }
        if seen.len() >= MOST {
            seen.retain(|_, seen| seen.counts(now));
            // So that this is not done for each name anew.
            if seen.len() > MOST / 2 {
                seen.clear();
            }
        }
        seen.insert(key, Seen::Begin(now));
        false
    }

    /// A client asks for the second place of a short name.
    pub(super) fn goes_on(&self, client: IpAddr, short: &[u8], now: Instant) {
        let key = self.hasher.hash_one((client, short));
        if let Some(seen) = lock(&self.seen).get_mut(&key).filter(|seen| seen.counts(now)) {
            *seen = Seen::Walk(now);
        }
    }
}

impl Seen {
    /// Whether it is not too long ago.
    fn counts(self, now: Instant) -> bool {
        match self {
            Self::Begin(at) => now.saturating_duration_since(at) < STRIDE,
            Self::Walk(at) => now.saturating_duration_since(at) < REMEMBERED,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POD: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 244, 1, 2));
    const OTHER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 244, 1, 3));

    #[test]
    fn who_asks_for_the_second_name_soon_after_the_first_one_walks() {
        let (walks, start) = (Walks::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        // The second place alone is somebody's name in full.
        walks.goes_on(POD, b"\x02db", at(0));
        assert!(!walks.begins(POD, b"\x02db", at(1)));
        walks.goes_on(POD, b"\x02db", at(20));
        assert!(!walks.begins(POD, b"\x02db", at(21)), "that was too late to belong together");
        walks.goes_on(POD, b"\x02db", at(22));
        assert!(walks.begins(POD, b"\x02db", at(23)));
        assert!(!walks.begins(OTHER, b"\x02db", at(23)) && !walks.begins(POD, b"\x03api", at(23)));
        // For as long as it goes on, and some time beyond.
        assert!(walks.begins(POD, b"\x02db", at(23 + 599)));
        assert!(walks.begins(POD, b"\x02db", at(23 + 2 * 599)));
        assert!(!walks.begins(POD, b"\x02db", at(23 + 2 * 599 + 600)));
    }

    #[test]
    fn the_table_is_bounded_and_keeps_those_who_walk() {
        let (walks, start) = (Walks::default(), Instant::now());
        walks.begins(POD, b"\x02db", start);
        walks.goes_on(POD, b"\x02db", start);
        for name in 0..3 * MOST {
            // One in 10 ms: half a table of them counts at no time.
            let now = start + Duration::from_millis(10) * name as u32;
            walks.begins(OTHER, &name.to_be_bytes(), now);
            assert!(lock(&walks.seen).len() <= MOST);
        }
        assert!(walks.begins(POD, b"\x02db", start + Duration::from_secs(200)));
        for name in 0..3 * MOST {
            walks.begins(OTHER, &name.to_be_bytes(), start + Duration::from_secs(200));
            assert!(lock(&walks.seen).len() <= MOST);
        }
    }
}
