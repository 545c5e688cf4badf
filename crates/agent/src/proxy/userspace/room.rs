//! How much is passed on at once: a process may have so many files, and whoever takes many of them keeps nobody else out.
//!
//! There is one room for the whole process, both families: first what listens, then connections and flows, each with a part of their own.
//! A client has no more connections than are free besides (so two of many have a third each, and who comes next finds room); a flow
//! always begins, in place of one of who has most.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    sync::{
        Arc, LazyLock, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::sync::{Notify, oneshot};

/// What all else that an agent has open needs: watches, netlink, processes, the CNI plugin's calls.
const RESERVED: usize = 1_024;
/// So many connections and as many flows, where the process may have as many files: about 100 MB of buffers that are in use.
const MOST: usize = 10_000;
/// A connection has two sockets and, where it carries much, two pipes.
const FILES: usize = 6;
/// Flows that were shown out and are not over yet.
const LINGERING: usize = 512;
/// Of so many of a client's oldest flows the longest unused one goes.
const CONSIDERED: usize = 16;

static ROOM: LazyLock<Arc<Room>> = LazyLock::new(|| Arc::new(Room::new(files())));

/// Who may have what.
#[derive(Debug)]
pub(super) struct Room {
    files: usize,
    taken: Mutex<Taken>,
    /// Told where a connection ended.
    ended: Notify,
}

#[derive(Debug, Default)]
struct Taken {
    /// Files of what listens.
    doors: usize,
    connections: usize,
    connected: HashMap<IpAddr, usize>,
    /// Flows that are not over, with those that were shown out.
    flows: usize,
    next: u64,
    /// By client, in the order in which they began.
    flowing: HashMap<IpAddr, BTreeMap<u64, Shown>>,
    by_count: BTreeSet<(usize, IpAddr)>,
    counted: usize,
}

#[derive(Debug)]
struct Shown {
    used: Arc<AtomicU64>,
    /// Dropped where the flow has to go.
    _stays: oneshot::Sender<()>,
}

/// Why a connection cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Full {
    /// The client has as many as are free.
    OfItsOwn,
    /// Nothing is free.
    OfAll,
}

impl Room {
    /// The process's.
    pub(super) fn of_process() -> Arc<Self> {
        ROOM.clone()
    }

    /// Of so many files.
    pub(super) fn new(files: usize) -> Self {
        Self { files, taken: Mutex::default(), ended: Notify::new() }
    }

    /// For what listens; none where there are too few files.
    pub(super) fn door(self: &Arc<Self>, files: usize) -> Option<Listening> {
        let mut taken = self.taken();
        let doors = taken.doors + files;
        let all = doors + taken.connections * FILES + taken.flows;
        if doors > self.files / 8 * 7 || all > self.files {
            return None;
        }
        taken.doors = doors;
        drop(taken);
        Some(Listening { room: self.clone(), files })
    }

    /// For a client's connection, as soon as there is room; none where the client has its part.
    pub(super) async fn connection(self: &Arc<Self>, client: IpAddr) -> Option<Connected> {
        loop {
            match self.connect(client) {
                Ok(connected) => return Some(connected),
                Err(Full::OfItsOwn) => return None,
                Err(Full::OfAll) => self.ended.notified().await,
            }
        }
    }

    fn connect(self: &Arc<Self>, client: IpAddr) -> Result<Connected, Full> {
        let mut taken = self.taken();
        let most = ((self.files - taken.doors.min(self.files)) / 4 * 3 / FILES).min(MOST);
        let free = most.saturating_sub(taken.connections);
        let own = taken.connected.get(&client).copied().unwrap_or(0);
        match free {
            0 if own == 0 => return Err(Full::OfAll),
            free if own >= free => return Err(Full::OfItsOwn),
            _ => {}
        }
        taken.connections += 1;
        taken.connected.insert(client, own + 1);
        drop(taken);
        Ok(Connected { room: self.clone(), client })
    }

    /// For a client's flow, which was used last when `used` says (seconds since anything). Where there are too many, another one has to
    /// go; none while too many are about to.
    pub(super) fn flow(self: &Arc<Self>, client: IpAddr, used: Arc<AtomicU64>) -> Option<Flowing> {
        let mut taken = self.taken();
        let most = ((self.files - taken.doors.min(self.files)) / 4).min(MOST);
        if taken.flows >= most + LINGERING.min(most / 4) {
            return None;
        }
        while taken.counted >= most.max(1) {
            taken.show_out();
        }
        let (stays, shown_out) = oneshot::channel();
        let number = taken.next;
        taken.next += 1;
        taken.flows += 1;
        taken.change(client, |flows| drop(flows.insert(number, Shown { used, _stays: stays })));
        drop(taken);
        Some(Flowing { room: self.clone(), client, number, shown_out })
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Taken {
    /// Ends a flow of the client that has most.
    fn show_out(&mut self) {
        let Some((_, client)) = self.by_count.last().copied() else { return };
        self.change(client, |flows| {
            let oldest = flows.iter().take(CONSIDERED);
            let number = oldest.min_by_key(|(number, flow)| (flow.used.load(Ordering::Relaxed), **number));
            if let Some(number) = number.map(|(number, _)| *number) {
                flows.remove(&number);
            }
        });
    }

    fn change(&mut self, client: IpAddr, change: impl FnOnce(&mut BTreeMap<u64, Shown>)) {
        let flows = self.flowing.entry(client).or_default();
        let before = flows.len();
        change(flows);
        let after = flows.len();
        if after == 0 {
            self.flowing.remove(&client);
        }
        self.by_count.remove(&(before, client));
        if after > 0 {
            self.by_count.insert((after, client));
        }
        self.counted = self.counted + after - before;
    }
}

/// Room for what listens, until it is dropped.
#[derive(Debug)]
pub(super) struct Listening {
    room: Arc<Room>,
    files: usize,
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.room.taken().doors -= self.files;
        self.room.ended.notify_one();
    }
}

/// Room for a connection, until it is dropped.
#[derive(Debug)]
pub(super) struct Connected {
    room: Arc<Room>,
    client: IpAddr,
}

impl Drop for Connected {
    fn drop(&mut self) {
        let mut taken = self.room.taken();
        taken.connections -= 1;
        if let Some(own) = taken.connected.get_mut(&self.client) {
            *own -= 1;
            if *own == 0 {
                taken.connected.remove(&self.client);
            }
        }
        drop(taken);
        self.room.ended.notify_one();
    }
}

/// Room for a flow, until it is dropped.
#[derive(Debug)]
pub(super) struct Flowing {
    room: Arc<Room>,
    client: IpAddr,
    number: u64,
    shown_out: oneshot::Receiver<()>,
}

impl Flowing {
    /// Until it has to go.
    pub(super) async fn shown_out(&mut self) {
        let _ = (&mut self.shown_out).await;
    }
}

impl Drop for Flowing {
    fn drop(&mut self) {
        let mut taken = self.room.taken();
        taken.flows -= 1;
        taken.change(self.client, |flows| drop(flows.remove(&self.number)));
        drop(taken);
        self.room.ended.notify_one();
    }
}

/// How many files the process may have for Services, after it was allowed all that it may allow itself.
fn files() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    let files = getrlimit(Resource::Nofile).current.and_then(|files| usize::try_from(files).ok());
    let files = files.unwrap_or(usize::MAX / 2);
    files.saturating_sub(RESERVED).max(files / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(number: u8) -> IpAddr {
        [10, 244, 0, number].into()
    }

    fn connections(room: &Arc<Room>, of: IpAddr) -> Vec<Connected> {
        std::iter::from_fn(|| room.connect(of).ok()).collect()
    }

    #[test]
    fn who_holds_many_connections_leaves_as_many_to_others() {
        let room = Arc::new(Room::new(4_000));
        let [first, second] = [1, 2].map(|number| connections(&room, client(number)));
        assert_eq!((first.len(), second.len()), (250, 125));
        assert_eq!(room.connect(client(1)).unwrap_err(), Full::OfItsOwn);
        drop(room.connect(client(3)).unwrap());
        drop(first);
        let third = connections(&room, client(3));
        assert!(third.len() > 180, "{}", third.len());
        drop((second, third));
        assert_eq!(room.taken().connected.len(), 0);
        // Who has none waits, where so many came that nothing is free.
        let many = (0..500_u32).map(|number| IpAddr::from(std::net::Ipv4Addr::from_bits(0x0a00_0000 + number)));
        let all: Vec<_> = many.map(|client| room.connect(client)).collect();
        assert!(all.iter().all(Result::is_ok));
        assert_eq!(room.connect(client(9)).unwrap_err(), Full::OfAll);
        drop(all);
        assert!(room.connect(client(9)).is_ok());
    }

    #[test]
    fn a_flow_begins_in_the_place_of_the_longest_unused_one_of_who_has_most() {
        let room = Arc::new(Room::new(400));
        let used = |at: u64| Arc::new(AtomicU64::new(at));
        let stays = |flow: &mut Flowing| flow.shown_out.try_recv() == Err(oneshot::error::TryRecvError::Empty);
        let mut honest = room.flow(client(1), used(0)).unwrap();
        let mut busy = room.flow(client(2), used(9)).unwrap();
        let mut many: Vec<_> = (0..98).map(|_| room.flow(client(2), used(1)).unwrap()).collect();
        assert!(many.iter_mut().all(stays));
        let mut next = room.flow(client(3), used(2)).unwrap();
        assert!(!stays(&mut many[0]), "the oldest of those that were used least lately");
        assert!(stays(&mut honest) && stays(&mut busy) && stays(&mut next));
        // Of those that have to go there are not more than a few, and their files are counted until they went.
        let flood: Vec<_> = std::iter::from_fn(|| room.flow(client(2), used(3))).collect();
        assert_eq!(flood.len(), 24);
        assert!(stays(&mut honest) && stays(&mut next));
        drop((many, flood, honest, busy, next));
        let taken = room.taken();
        assert_eq!((taken.flows, taken.counted, taken.flowing.len(), taken.by_count.len()), (0, 0, 0, 0));
    }

    #[test]
    fn what_listens_comes_first_and_leaves_room_for_connections() {
        let room = Arc::new(Room::new(800));
        let connection = room.connect(client(1)).unwrap();
        let doors: Vec<_> = std::iter::from_fn(|| room.door(2)).collect();
        assert_eq!(doors.len(), 350);
        // Of what is left there is a part for connections and one for flows.
        assert_eq!(connections(&room, client(2)).len(), 6);
        assert!(room.flow(client(2), Arc::default()).is_some());
        drop((doors, connection));
        assert!(room.door(700).is_some());
    }

    #[tokio::test]
    async fn a_connection_waits_until_there_is_room() {
        let room = Arc::new(Room::new(8));
        let held = room.connect(client(1)).unwrap();
        let waiting = tokio::spawn({
            let room = room.clone();
            async move { room.connection(client(2)).await.is_some() }
        });
        tokio::task::yield_now().await;
        drop(held);
        assert!(waiting.await.unwrap());
    }
}
