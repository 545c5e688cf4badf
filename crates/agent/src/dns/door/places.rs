//! The places of a port with connections: how many there are, whose, and which of them give way to others.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::{
    sync::Notify,
    time::{self, timeout},
};
use tokio_util::sync::CancellationToken;

/// How long somebody waits for a place: connections that give way are gone in much less.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often those who wait look for another one who could give way.
const LOOK: Duration = Duration::from_millis(100);

/// The places of one port.
#[derive(Debug)]
pub(in crate::dns) struct Places {
    held: Mutex<Held>,
    freed: Notify,
    start: Instant,
}

#[derive(Debug, Default)]
struct Held {
    most: usize,
    of_one: usize,
    /// Nobody comes any more, and everybody leaves once there is nothing to do.
    closed: bool,
    next: u64,
    connections: HashMap<u64, (IpAddr, Arc<Rest>)>,
    clients: HashMap<IpAddr, usize>,
}

/// A connection's place; it is free again when this is dropped.
#[derive(Debug)]
pub(in crate::dns) struct Place {
    places: Arc<Places>,
    number: u64,
    client: IpAddr,
    rest: Arc<Rest>,
}

/// Whether a connection has anything to do, and whether it is to give way once it has nothing (RFC 7766 §6.2.3).
#[derive(Debug)]
pub(in crate::dns) struct Rest {
    /// Since when there is nothing to do, in milliseconds from `start`, and one more; 0: there is something.
    since: AtomicU64,
    start: Instant,
    leave: CancellationToken,
}

/// Why there is no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refusal {
    /// The client has its share.
    Share,
    /// There is none.
    Full,
}

impl Rest {
    fn new(start: Instant) -> Self {
        Self { since: AtomicU64::new(0), start, leave: CancellationToken::new() }
    }

    /// Tells since when the connection has nothing to do; none: it has something.
    pub(in crate::dns) fn tell(&self, since: Option<Instant>) {
        let since = since.map_or(0, |since| since.saturating_duration_since(self.start).as_millis() as u64 + 1);
        self.since.store(since, Ordering::Relaxed);
    }

    /// Waits until the place is needed by somebody else.
    pub(in crate::dns) async fn is_over(&self) {
        self.leave.cancelled().await;
    }
}

impl Places {
    /// So many places, of which nobody gets more than a share.
    pub(in crate::dns) fn new(most: usize, of_one: usize) -> Arc<Self> {
        let held = Mutex::new(Held { most, of_one, ..Held::default() });
        Arc::new(Self { held, freed: Notify::new(), start: Instant::now() })
    }

    /// From now on there are so many places, of which nobody gets more than a share. Who is there stays.
    pub(super) fn resize(&self, most: usize, of_one: usize) {
        let mut held = self.held();
        (held.most, held.of_one) = (most, of_one);
        drop(held);
        self.freed.notify_waiters();
    }

    /// Whether less than a quarter of the places is free.
    pub(super) fn are_scarce(&self) -> bool {
        let held = self.held();
        held.most.saturating_sub(held.connections.len()) < held.most / 4
    }

    /// A place for one more connection of a client: of one who has more connections than it, and nothing to do on one of them, where
    /// none is free. None when the client has its share, or nobody gives way in time.
    pub(in crate::dns) async fn take(self: &Arc<Self>, client: IpAddr) -> Option<Place> {
        let since = time::Instant::now();
        loop {
            let freed = self.freed.notified();
            match self.now(client) {
                Ok(place) => return Some(place),
                Err(Refusal::Share) => return None,
                Err(Refusal::Full) if since.elapsed() >= PATIENCE => return None,
                Err(Refusal::Full) => self.make_way(client),
            }
            let _ = timeout(LOOK, freed).await;
        }
    }

    fn now(self: &Arc<Self>, client: IpAddr) -> Result<Place, Refusal> {
        let mut held = self.held();
        if held.clients.get(&client).is_some_and(|count| *count >= held.of_one) {
            return Err(Refusal::Share);
        }
        if held.connections.len() >= held.most {
            return Err(Refusal::Full);
        }
        let rest = Arc::new(Rest::new(self.start));
        if held.closed {
            rest.leave.cancel();
        }
        let number = held.next;
        held.next += 1;
        held.connections.insert(number, (client, Arc::clone(&rest)));
        *held.clients.entry(client).or_default() += 1;
        Ok(Place { places: Arc::clone(self), number, client, rest })
    }

    /// Has a connection end that has nothing to do: of those who have most, the one that has been so for longest. Nobody gives way to who
    /// has as many.
    fn make_way(&self, client: IpAddr) {
        let held = self.held();
        let count = |client: &IpAddr| held.clients.get(client).copied().unwrap_or_default();
        let own = count(&client);
        let resting = held.connections.values().filter_map(|(client, rest)| {
            let since = rest.since.load(Ordering::Relaxed);
            (since > 0 && count(client) > own && !rest.leave.is_cancelled()).then_some((count(client), since, rest))
        });
        if let Some((.., rest)) = resting.min_by_key(|(count, since, _)| (usize::MAX - count, *since)) {
            rest.leave.cancel();
        }
    }

    /// Has every connection end once it has nothing to do.
    pub(super) fn close(&self) {
        let mut held = self.held();
        held.closed = true;
        held.connections.values().for_each(|(_, rest)| rest.leave.cancel());
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// What the connection tells of itself.
    pub(in crate::dns) fn rest(&self) -> Arc<Rest> {
        Arc::clone(&self.rest)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut held = self.places.held();
        held.connections.remove(&self.number);
        if let Some(count) = held.clients.get_mut(&self.client) {
            *count -= 1;
            if *count == 0 {
                held.clients.remove(&self.client);
            }
        }
        drop(held);
        self.places.freed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn client(last: u8) -> IpAddr {
        Ipv4Addr::new(10, 0, 0, last).into()
    }

    /// A connection that ends when it is told to.
    fn connection(place: Place) -> tokio::task::JoinHandle<()> {
        tokio::spawn(async move { place.rest().is_over().await })
    }

    #[tokio::test]
    async fn who_has_most_and_rests_longest_gives_way_to_who_has_fewer() {
        let places = Places::new(4, 3);
        let mut taken = Vec::new();
        for last in [1, 1, 1, 2] {
            taken.push(places.take(client(last)).await.unwrap());
        }
        assert!(places.take(client(1)).await.is_none(), "it has its share");
        assert!(places.take(client(2)).await.is_none(), "nobody rests");
        let [busy, later, longest, other] = taken.try_into().unwrap();
        let start = places.start;
        later.rest.tell(Some(start + Duration::from_secs(5)));
        longest.rest.tell(Some(start + Duration::from_secs(1)));
        other.rest.tell(Some(start));
        let (later, longest, other) = (connection(later), connection(longest), connection(other));
        let third = places.take(client(3)).await.expect("somebody gave way");
        assert!(longest.is_finished() && !later.is_finished() && !other.is_finished());
        let fourth = places.take(client(4)).await.expect("another one gave way");
        assert!(later.is_finished() && !other.is_finished());
        assert!(places.take(client(3)).await.is_none(), "who rests has as few as it has");
        let fifth = places.take(client(5)).await.expect("who rests has more");
        assert!(other.is_finished());
        drop((busy, third, fourth, fifth));
        let held = places.held();
        assert!(held.connections.is_empty() && held.clients.is_empty());
    }

    #[tokio::test]
    async fn there_can_be_more_places_or_fewer_from_now_on() {
        let places = Places::new(1, 1);
        let first = places.take(client(1)).await.unwrap();
        assert!(places.take(client(1)).await.is_none(), "it has its share");
        places.resize(8, 2);
        assert!(!places.are_scarce());
        let second = places.take(client(1)).await.unwrap();
        assert!(places.take(client(1)).await.is_none(), "it has its share again");
        places.resize(2, 2);
        assert_eq!(places.now(client(2)).unwrap_err(), Refusal::Full);
        drop(first);
        assert!(places.take(client(2)).await.is_some());
        drop(second);
    }
}
