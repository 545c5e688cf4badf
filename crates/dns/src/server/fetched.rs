//! `secondary`: zones that are fetched from primary servers, and kept as new as these have them.

mod task;

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use futures::channel::oneshot;

use super::{
    Event, Exchange, Outside, Server, Transport,
    allowance::{Allowance, Part},
    lock, signed,
};
use crate::authority::{
    Held, Zone,
    held::Taken,
    transfer::{self, Incoming, Progress, Secondary, TransferError},
    tsig::{Key, Session, TsigError},
};

/// The largest zone that is taken in, in bytes of records.
const LARGEST: usize = 1 << 30;
/// How long a primary may be silent.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The same where it can be asked once more by another way.
const SHORT_TIMEOUT: Duration = Duration::from_secs(3);

/// How many zones that catalogs list are looked after at once: there can be thousands, all of which are due when their catalog comes.
pub(super) const MEMBERS_AT_ONCE: usize = 64;

/// A zone of another server.
#[derive(Debug)]
pub(super) struct Fetched {
    pub(super) held: Arc<Held>,
    /// When one does not answer, the next is asked.
    pub(super) primaries: Vec<SocketAddr>,
    /// Signs what they are asked.
    key: Option<Arc<Key>>,
    /// What it has of its catalog's allowance, where one lists it. Zones that the Corefile names, catalogs among them, have none, and
    /// wait for none that do.
    part: Option<Arc<Mutex<Part>>>,
    /// When to look; none before the beginning.
    timers: Mutex<Option<Secondary>>,
    /// Ends the sleep of the task.
    wake: Mutex<Option<oneshot::Sender<()>>>,
}

impl Fetched {
    pub(super) fn new(held: Arc<Held>, primaries: Vec<SocketAddr>, key: Option<Arc<Key>>) -> Self {
        Self { held, primaries, key, part: None, timers: Mutex::default(), wake: Mutex::default() }
    }

    /// A zone that a catalog lists. It keeps what `held` has where there is room for that.
    pub(super) fn member(
        held: Arc<Held>,
        primaries: Vec<SocketAddr>,
        key: Option<Arc<Key>>,
        allowance: &Arc<Allowance>,
    ) -> Self {
        let part = Some(Arc::new(Mutex::new(Part::new(allowance))));
        let zone = Self { part, ..Self::new(held, primaries, key) };
        if !zone.count() {
            zone.held.clear();
        }
        zone
    }

    /// Counts what is held; false: there is no room for it. Changes for which there is none are forgotten.
    fn count(&self) -> bool {
        let Some(part) = &self.part else { return true };
        let version = self.held.version();
        let (whole, zone) = version.map_or((0, 0), |version| (version.bytes(), version.zone.bytes()));
        let mut part = lock(part);
        if part.resize(whole) {
            return true;
        }
        self.held.forget_changes();
        part.resize(zone)
    }

    /// What it holds is another one's to count from now on.
    pub(super) fn give_up(&self) {
        if let Some(part) = &self.part {
            lock(part).resize(0);
        }
    }

    /// How many bytes of its catalog's allowance it has.
    pub(super) fn counted(&self) -> usize {
        self.part.as_ref().map_or(0, |part| lock(part).bytes())
    }

    /// Begins to fetch, where those before left off.
    pub(super) fn begin<'a>(self: &Arc<Self>, server: &Arc<Server>, mut before: impl Iterator<Item = &'a Arc<Self>>) {
        let old = before.find(|old| old.held.origin() == self.held.origin() && old.primaries == self.primaries);
        self.run(old.and_then(|old| lock(&old.timers).clone()), server);
    }

    /// Goes on with what came from other primaries for as long as these allowed; the new ones are asked at once.
    pub(super) fn succeed(self: &Arc<Self>, before: &Self, server: &Arc<Server>) {
        let mut timers = lock(&before.timers).clone();
        if let Some(timers) = &mut timers {
            timers.notified(None, server.parts.outside.now());
        }
        self.run(timers, server);
    }

    fn run(self: &Arc<Self>, timers: Option<Secondary>, server: &Arc<Server>) {
        let timers = timers.filter(|_| self.held.zone().is_some());
        *lock(&self.timers) = Some(timers.unwrap_or_else(|| Secondary::new(server.parts.outside.now())));
        let task = task::keep(Arc::downgrade(self), Arc::downgrade(server));
        server.parts.outside.spawn(Box::pin(task));
    }

    /// A primary says that there is a new version.
    pub(super) fn notified(&self, serial: Option<u32>, now: Instant) {
        let due = lock(&self.timers).as_mut().is_some_and(|timers| timers.notified(serial, now));
        if due && let Some(wake) = lock(&self.wake).take() {
            let _ = wake.send(());
        }
    }

    /// The time to the next look, or to the zone's end, and what ends it earlier.
    fn rest(&self, now: Instant) -> (Duration, oneshot::Receiver<()>) {
        let (wake, woken) = oneshot::channel();
        *lock(&self.wake) = Some(wake);
        let due = lock(&self.timers)
            .as_ref()
            .map_or(now, |timers| timers.expires().map_or(timers.next_due(), |expires| expires.min(timers.next_due())));
        (due.saturating_duration_since(now), woken)
    }

    /// Looks for a new version, at one primary after the other.
    async fn refresh(&self, server: &Arc<Server>) {
        let origin = self.held.origin();
        if let Some(timers) = lock(&self.timers).as_mut() {
            timers.begins();
        }
        for &primary in &self.primaries {
            let taken = self.refresh_from(primary, server).await;
            // What came and was not taken needs no room any more.
            self.count();
            let (told, failed) = match taken {
                Ok(taken) => {
                    self.refreshed(server);
                    if taken == Taken::Same {
                        return;
                    }
                    server.tell_of(origin);
                    server.listed(&self.held);
                    (format!("a new version came from {primary}"), false)
                }
                Err(reason) => (format!("cannot be fetched from {primary}: {reason}"), true),
            };
            (server.observer)(&Event::Zone { zone: origin, told: &told, failed });
            if !failed {
                return;
            }
        }
        let now = server.parts.outside.now();
        let spread = server.parts.outside.random() as u16;
        let mut timers = lock(&self.timers);
        if let Some(timers) = timers.as_mut() {
            timers.failed(now, spread);
        }
    }

    /// Serves the zone no more when no primary was reached for too long.
    fn expire(&self, now: Instant, server: &Server) {
        let mut timers = lock(&self.timers);
        if let Some(timers) = timers.as_mut().filter(|timers| timers.is_expired(now) && self.held.zone().is_some()) {
            timers.gone();
            self.held.clear();
            self.count();
            let told = "no primary was reached for longer than its SOA record allows: it is not served any more";
            (server.observer)(&Event::Zone { zone: self.held.origin(), told, failed: true });
        }
    }

    /// The time for which it may be served without a primary's word; none: it is not served.
    fn lasts(&self, now: Instant) -> Option<Duration> {
        self.held.zone()?;
        let expires = lock(&self.timers).as_ref()?.expires()?;
        Some(expires.saturating_duration_since(now))
    }

    fn is_due(&self, now: Instant) -> bool {
        lock(&self.timers).as_ref().is_some_and(|timers| timers.next_due() <= now)
    }

    fn refreshed(&self, server: &Server) {
        let (now, spread) = (server.parts.outside.now(), server.parts.outside.random() as u16);
        if let (Some(zone), Some(timers)) = (self.held.zone(), lock(&self.timers).as_mut()) {
            timers.refreshed(zone.soa(), now, spread);
        }
    }

    async fn refresh_from(&self, primary: SocketAddr, server: &Arc<Server>) -> Result<Taken, String> {
        let outside = &server.parts.outside;
        let own = self.held.zone();
        if let Some(own) = &own {
            let serial = self.serial_of(primary, outside).await?;
            if !transfer::newer(serial, own.soa().serial) {
                return Ok(Taken::Same);
            }
        }
        let zone = match self.fetch(primary, server, own.as_deref()).await? {
            // What is here and what the primary's changes start from have come apart: the whole zone is taken.
            Err(TransferError::NothingToDelete(_) | TransferError::Gap { .. }) => {
                self.fetch(primary, server, None).await?
            }
            other => other,
        };
        match zone.map_err(|error| error.to_string())? {
            Some(zone) => Ok(self.held.replace(Arc::new(zone))),
            None => Ok(Taken::Same),
        }
    }

    /// The serial number that a primary has. Where datagrams do not get through, it is asked over a connection.
    async fn serial_of(&self, primary: SocketAddr, outside: &Arc<dyn Outside>) -> Result<u32, String> {
        let (origin, id) = (self.held.origin(), outside.random() as u16);
        let message = transfer::soa_query(origin, id);
        let mut serial = Err(String::new());
        for (transport, timeout) in [(Transport::Udp, SHORT_TIMEOUT), (Transport::Tcp, TIMEOUT)] {
            let ask = Exchange::plain(primary, transport, message.clone(), timeout);
            serial = match signed::ask(outside, self.key.as_ref(), ask).await {
                Ok(answer) => transfer::soa_answer(origin, id, &answer).map_err(|error| error.to_string()),
                Err(error) => Err(error.to_string()),
            };
            if serial.is_ok() {
                break;
            }
        }
        serial
    }

    /// Has the zone, or its changes, sent; none: there is nothing new.
    async fn fetch(
        &self,
        primary: SocketAddr,
        server: &Server,
        own: Option<&Zone>,
    ) -> Result<Result<Option<Zone>, TransferError>, String> {
        let id = server.parts.outside.random() as u16;
        let incoming = match own {
            Some(own) => Incoming::since(own, id, LARGEST),
            None => Incoming::whole(self.held.origin(), id, LARGEST),
        };
        let mut message = incoming.request(own.map(Zone::soa_record).as_ref());
        let outside = Arc::clone(&server.parts.outside);
        let mut session = self.key.as_ref().map(|key| Session::request(Arc::clone(key), &mut message, outside.unix()));
        let ask = Exchange::plain(primary, Transport::Tcp, message, TIMEOUT);
        let state = Arc::new(Mutex::new((incoming, None)));
        let (taking, room) = (Arc::clone(&state), self.room());
        let take = move |message: &[u8]| {
            let (incoming, done) = &mut *lock(&taking);
            let taken = match &mut session {
                None => incoming.message(message).map_err(Stopped::Transfer),
                Some(session) => vouched(session, message, incoming, outside.unix()),
            };
            let needed = match &taken {
                Ok(Progress::Done(zone, _)) => zone.bytes(),
                _ => incoming.bytes(),
            };
            *done = match taken {
                Ok(_) if !room(needed) => Some(Err(Stopped::NoRoom)),
                Ok(Progress::More) => return true,
                Ok(Progress::UpToDate) => Some(Ok(None)),
                Ok(Progress::Done(zone, _)) => Some(Ok(Some(*zone))),
                Err(error) => Some(Err(error)),
            };
            false
        };
        let talked = server.parts.outside.converse(ask, Box::new(take)).await;
        let done = lock(&state).1.take();
        match (done, talked) {
            (Some(Err(Stopped::Signature(error))), _) => Err(error.to_string()),
            (Some(Err(Stopped::Transfer(error))), _) => Ok(Err(error)),
            (Some(Err(Stopped::NoRoom)), _) => Err(self.no_room(server)),
            (Some(Ok(zone)), _) => Ok(Ok(zone)),
            (None, Err(error)) => Err(error.to_string()),
            (None, Ok(())) => Err("the transfer ended early".to_owned()),
        }
    }

    /// Keeps room for so many bytes that have come; false: there is none. What is held is counted already: what comes takes its place.
    fn room(&self) -> impl Fn(usize) -> bool + Send + use<> {
        let (part, held) = (self.part.clone(), self.counted());
        move |bytes| part.as_ref().is_none_or(|part| lock(part).resize(bytes.max(held)))
    }

    /// Counts that there was no room, and says it.
    fn no_room(&self, server: &Server) -> String {
        server.parts.metrics.left_out();
        let limit = self.part.as_ref().map_or(0, |part| lock(part).limit());
        format!(
            "with it the zones of its catalog would have more than {limit} bytes of records together; have the catalog list less, or \
             raise catalog_bytes of \"secondary\""
        )
    }
}

/// Why a transfer is not gone on with.
enum Stopped {
    Signature(TsigError),
    Transfer(TransferError),
    /// The zones of the catalog have what they may have.
    NoRoom,
}

/// Takes a message in once its signature, or that of those before it, is right.
fn vouched(session: &mut Session, message: &[u8], incoming: &mut Incoming, now: u64) -> Result<Progress, Stopped> {
    let mut message = message.to_vec();
    session.verify(&mut message, now).map_err(Stopped::Signature)?;
    let progress = incoming.message(&message).map_err(Stopped::Transfer)?;
    if !matches!(progress, Progress::More) {
        // Messages between may be unsigned, the last may not.
        session.finish().map_err(Stopped::Signature)?;
    }
    Ok(progress)
}
