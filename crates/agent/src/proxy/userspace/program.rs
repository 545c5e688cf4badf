//! The program of one family: its threads, what it listens at, and the namespace that addresses are led to.

mod life;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    error::Error,
    io,
    net::IpAddr,
    os::fd::OwnedFd,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use podnet_kernel::{
    apart::{Apart, ApartError},
    netns::NetNs,
};
use podnet_model::Family;
use podnet_planner::{
    ruleset::FrontendKey,
    services::userspace::{self, Guard, Led, Memories, Place, Work},
};
use tokio::{runtime::Runtime, time::sleep};
use tracing::{info, warn};

use life::Living;
pub(super) use life::{Held, Life, Stay, is_any};
pub use life::{Remaining, Remains};

use super::{
    door::{self, Door},
    front::{Front, Insiders},
    refused::{self, Refused},
    room::{Listening, Room},
    threads,
};
use crate::proxy::mode::Unserved;

/// As long as a client may take to answer, and to ask once more.
const LEAVING: Duration = Duration::from_secs(4);

/// What listens for Services and passes on, in a node's namespace and one beside it.
#[derive(Debug)]
pub struct Program {
    shared: Arc<Shared>,
}

/// What connections need: it goes with the last of them, and with it what leads to the namespace.
#[derive(Debug)]
struct Shared {
    node: NetNs,
    runtime: Option<Runtime>,
    inner: Mutex<Inner>,
    insiders: Insiders,
    memories: Memories,
    room: Arc<Room>,
    /// How many connections there are at each address, with those that wait for room.
    held: Mutex<BTreeMap<IpAddr, usize>>,
    /// The last field: the others take away what they made before it goes.
    _living: Living,
}

#[derive(Debug)]
struct Inner {
    apart: Apart,
    doors: HashMap<FrontendKey, Door>,
    /// What cannot be listened at, and why.
    refused: BTreeMap<FrontendKey, Refused>,
    /// How often it was begun.
    begun: u64,
}

/// Programs of this process that may have connections, by namespace and family.
static PROGRAMS: Mutex<Vec<(u64, Family, Weak<Shared>)>> = Mutex::new(Vec::new());

/// Whether connections of a program that was left are not over yet: what leads to it stays with them.
pub(super) fn is_left(netns: &NetNs, family: Family) -> bool {
    netns.inode().is_ok_and(|inode| running(inode, family).is_some())
}

fn running(inode: u64, family: Family) -> Option<Arc<Shared>> {
    let mut programs = PROGRAMS.lock().unwrap_or_else(PoisonError::into_inner);
    programs.retain(|(.., shared)| shared.strong_count() > 0);
    let found = programs.iter().filter(|(other, of, _)| (*other, *of) == (inode, family));
    // One whose link somebody removed may live on with its connections beside the one that took its place.
    let mut living = found.filter_map(|(.., shared)| shared.upgrade());
    living.find(|shared| shared.lock().apart.is_there())
}

impl Program {
    /// Begins in a node's namespace; goes on where one was left whose connections are not over. Nothing is listened at yet.
    ///
    /// # Errors
    /// Where there can be no namespace, or no threads.
    pub fn start(netns: &NetNs, family: Family) -> Result<Self, ApartError> {
        let inode = netns.inode()?;
        if let Some(shared) = running(inode, family) {
            shared.lock().begun += 1;
            return Ok(Self { shared });
        }
        let inner =
            Inner { apart: Apart::new(netns, family)?, doors: HashMap::new(), refused: BTreeMap::new(), begun: 1 };
        let shared = Arc::new(Shared {
            node: netns.clone(),
            runtime: Some(threads::begin(netns)?),
            inner: Mutex::new(inner),
            insiders: Insiders::default(),
            memories: Memories::default(),
            room: Room::of_process(),
            held: Mutex::default(),
            _living: Living::new(),
        });
        PROGRAMS.lock().unwrap_or_else(PoisonError::into_inner).push((inode, family, Arc::downgrade(&shared)));
        info!(?family, "Services are passed on by this process");
        Ok(Self { shared })
    }

    /// Serves exactly this, whatever was served before. `source` is what the node's own connections to Services come from.
    ///
    /// # Errors
    /// Where something cannot be led to the namespace. What cannot be listened at is told by [`Program::refused`].
    pub fn be(&mut self, mut work: Work, source: Option<IpAddr>) -> Result<(), ApartError> {
        let mut inner = self.shared.lock();
        inner.apart.set_source(source)?;
        inner.apart.refuse(true)?;
        // What somebody removed is led there again, too.
        let wanted: BTreeSet<Led> = work.more.iter().copied().collect();
        work.fewer = inner.apart.led().difference(&wanted).copied().collect();
        let known: BTreeSet<FrontendKey> = work.fronts.iter().map(|(key, _)| *key).collect();
        let gone = inner.doors.keys().chain(inner.refused.keys()).filter(|key| !known.contains(key));
        let gone: Vec<_> = gone.map(|key| (*key, None)).collect();
        work.fronts.extend(gone);
        drop(inner);
        self.follow(work)?;
        // Until now clients of what another process had open heard that nobody serves.
        self.shared.lock().apart.sweep()
    }

    /// Does what is to be done.
    ///
    /// # Errors
    /// As [`Program::be`].
    pub fn follow(&mut self, work: Work) -> Result<(), ApartError> {
        let mut inner = self.shared.lock();
        let led = inner.apart.lead(&work.more);
        if let Some(insiders) = work.insiders {
            *self.shared.insiders.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(insiders);
            let insiders = self.shared.insiders();
            inner
                .doors
                .values()
                .filter(|door| door.front.guard().knows_insiders())
                .for_each(|door| door.guard(&insiders));
        }
        let mut new = Vec::new();
        for (key, front) in work.fronts {
            inner.refused.remove(&key);
            new.extend(inner.change(key, front, &self.shared.insiders()));
        }
        self.shared.open(&mut inner, new)?;
        let left = inner.apart.leave(&work.fewer);
        led.and(left)
    }

    /// Tries what could not be listened at.
    pub fn try_again(&mut self) {
        let mut inner = self.shared.lock();
        let again: Vec<_> =
            std::mem::take(&mut inner.refused).into_iter().map(|(key, refused)| (key, refused.front)).collect();
        if let Err(error) = self.shared.open(&mut inner, again) {
            warn!(error = &error as &dyn Error, "ports of Services cannot be listened at");
        }
    }

    /// What its connections need.
    #[cfg(test)]
    pub(super) fn life(&self) -> (Life, tokio::runtime::Handle) {
        let runtime = self.shared.runtime.as_ref().expect("it is there while it lives").handle().clone();
        (Life { shared: Arc::downgrade(&self.shared), room: self.shared.room.clone() }, runtime)
    }

    /// Whether there is anything that cannot be listened at.
    pub fn is_refused(&self) -> bool {
        !self.shared.lock().refused.is_empty()
    }

    /// What cannot be listened at, and why.
    pub fn refused(&self) -> BTreeSet<Unserved> {
        refused::told(&self.shared.lock().refused)
    }

    /// Whether the namespace is there as it was made.
    pub fn is_whole(&self) -> bool {
        self.shared.lock().apart.is_there()
    }

    /// What of the way to the namespace others damaged, in words.
    ///
    /// # Errors
    /// Where the kernel cannot be asked.
    pub fn damage(&mut self) -> Result<Option<String>, ApartError> {
        let mut inner = self.shared.lock();
        if !inner.apart.is_there() {
            return Ok(Some("the link to where Services are served".to_owned()));
        }
        let missing = inner.apart.missing()?.len();
        Ok((missing > 0).then(|| format!("{missing} ways to where Services are served")))
    }

    /// Closes what listens at once: nothing leads there any more, and another one takes its place. Connections go on.
    pub fn close(self) -> Remaining {
        let mut inner = self.shared.lock();
        inner.refused.clear();
        inner.close();
        drop(inner);
        Remaining(Arc::downgrade(&self.shared))
    }

    /// Ends as [`Program::end`] does, for another mode that serves: where this process ends before the last connection is over, nobody
    /// is told that nobody serves.
    pub fn leave(self) -> Remaining {
        let remaining = Remaining(Arc::downgrade(&self.shared));
        if let Err(error) = self.shared.lock().apart.refuse(false) {
            warn!(error = &error as &dyn Error, "clients of Services may be refused though another mode serves");
        }
        self.end();
        remaining
    }

    /// Closes what listens, after a while: connections may be about to be made that another mode knows nothing of. The rest goes when the
    /// last connection is over.
    pub fn end(self) {
        let mut inner = self.shared.lock();
        inner.refused.clear();
        let begun = inner.begun;
        drop(inner);
        let shared = self.shared.clone();
        let close = async move {
            sleep(LEAVING).await;
            let mut inner = shared.lock();
            if inner.begun == begun {
                inner.close();
            }
        };
        if let Some(runtime) = &self.shared.runtime {
            runtime.spawn(close);
        }
    }
}

impl Inner {
    fn close(&mut self) {
        self.doors.drain().for_each(|(_, door)| door.hand_over());
    }

    /// Follows what is done for a frontend; what is to be opened for it, if anything.
    fn change(
        &mut self,
        key: FrontendKey,
        front: Option<userspace::Front>,
        insiders: &BTreeSet<IpAddr>,
    ) -> Option<(FrontendKey, userspace::Front)> {
        let Some((front, guard)) = front.and_then(|front| front.guard.clone().map(|guard| (front, guard))) else {
            self.doors.remove(&key);
            return None;
        };
        match self.doors.get(&key) {
            Some(door) if door.place == front.place => {
                let before = door.front.guard();
                door.front.serve(guard.clone(), &front.serving);
                if before != guard {
                    door.guard(insiders);
                }
                None
            }
            _ => {
                self.doors.remove(&key);
                Some((key, front))
            }
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn held(&self) -> MutexGuard<'_, BTreeMap<IpAddr, usize>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn insiders(&self) -> Arc<BTreeSet<IpAddr>> {
        self.insiders.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Listens for these; what cannot be is kept.
    fn open(self: &Arc<Self>, inner: &mut Inner, new: Vec<(FrontendKey, userspace::Front)>) -> Result<(), ApartError> {
        let Some(runtime) = self.runtime.as_ref().filter(|_| !new.is_empty()) else { return Ok(()) };
        let insiders = self.insiders();
        let _entered = runtime.enter();
        let (at_node, apart): (Vec<_>, Vec<_>) = new.into_iter().partition(|(_, front)| front.place == Place::Node);
        for (netns, new) in [(self.node.clone(), at_node), (inner.apart.netns().clone(), apart)] {
            if new.is_empty() {
                continue;
            }
            let of = |(key, front): &(FrontendKey, userspace::Front)| {
                door::open(key, front.guard.as_ref().unwrap_or(&Guard::Nobody), &insiders)
            };
            let rooms: Vec<_> =
                new.iter().map(|(key, _)| self.room.door(door::files(key)).ok_or_else(refused::full)).collect();
            let opened = || new.iter().zip(&rooms).map(|(new, room)| room.is_ok().then(|| of(new))).collect();
            let sockets: Vec<Option<io::Result<OwnedFd>>> = netns.run(opened)?;
            for (((key, front), room), socket) in new.into_iter().zip(rooms).zip(sockets) {
                let opened = room.and_then(|room| Ok((room, socket.unwrap_or_else(|| Err(refused::full()))?)));
                match opened.and_then(|(room, socket)| self.door(key, &front, socket, room)) {
                    Ok(door) => drop(inner.doors.insert(key, door)),
                    Err(why) => drop(inner.refused.insert(key, Refused { front, why })),
                }
            }
        }
        Ok(())
    }

    fn door(
        self: &Arc<Self>,
        key: FrontendKey,
        front: &userspace::Front,
        socket: OwnedFd,
        room: Listening,
    ) -> io::Result<Door> {
        let guard = front.guard.clone().unwrap_or(Guard::Nobody);
        let served = Front::new(key, guard, front.serving.clone(), self.insiders.clone()).remembering(&self.memories);
        let life = Life { shared: Arc::downgrade(self), room: self.room.clone() };
        Door::new(front.place, Arc::new(served), socket, &life, room)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // The last connection may be what drops it, on a thread of its runtime.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
